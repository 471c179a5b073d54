"""The service on Ray Serve, over HTTP and gRPC: two replicas, one of which is killed under load, and a graceful end.

Ray is started once.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone
from tests.scale.served import ask
from voxport.runtime import SpeakerIdentifier

pytest.importorskip("ray.serve")
triton = pytest.importorskip(
    "tritonclient.grpc", reason="tritonclient is not installed; pip install tritonclient grpcio"
)
from tritonclient.utils import InferenceServerException  # noqa: E402


def check_grpc(port: int, sound: Path, identifier: SpeakerIdentifier) -> None:
    """Calls through Ray's own proxy of gRPC, which passes bytes on and takes codes back."""
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("voxport")
        assert client.get_model_metadata("voxport", as_json=True)["name"] == "voxport"
        content = np.array([sound.read_bytes()], dtype=object)
        given = triton.InferInput("sound", content.shape, "BYTES")
        given.set_data_from_numpy(content)
        found = client.infer("voxport", [given], request_id="seven")
        np.testing.assert_allclose(found.as_numpy("scores")[0], identifier.scores(sound), atol=1e-3)
        assert found.get_response().id == "seven"
        for name, code, words in (("other", "NOT_FOUND", "no model other"), ("voxport", "INVALID_ARGUMENT", "inputs")):
            wrong = triton.InferInput("noise", content.shape, "BYTES")
            wrong.set_data_from_numpy(content)
            with pytest.raises(InferenceServerException, match=words) as problem:
                client.infer(name, [wrong])
            assert problem.value.status() == f"StatusCode.{code}"
    finally:
        client.close()


def test_replicas_answer_as_one_and_one_may_die(model: TinyModel, tmp_path: Path) -> None:
    identifier = SpeakerIdentifier.load(model.path)
    sounds = []
    for number in range(4):
        sounds.append(tmp_path / f"{number}.wav")
        soundfile.write(sounds[-1], tone(0.5, hertz=200 + 500 * number), 16000)
    with socket.socket() as free, socket.socket() as other:
        free.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, grpc_port = free.getsockname()[1], other.getsockname()[1]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    serving = [
        "serve",
        str(model.path),
        "--replicas",
        "2",
        "--store",
        str(tmp_path / "voices.db"),
        "--host",
        "0.0.0.0",
        "--port",
        str(port),
        "--grpc-port",
        str(grpc_port),
        "--json",
    ]
    run = subprocess.Popen(
        [sys.executable, "-c", "from voxport.cli.root import main; main()", *serving],
        env=os.environ | {"TMPDIR": str(temporary), "HOME": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert run.stderr is not None
        for line in run.stderr:
            said.append(line)
            if line.startswith("ready: "):
                ready.set()
        ready.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        ready.wait(300)
        assert run.poll() is None, said
        replicas: set[str] = set()
        for number in range(40):  # both enroll, and each knows what the other has
            name = f"speaker%20{number % 4}"
            reply = ask(port, "PUT", f"/v1/voices/{name}", sounds[number % 4].read_bytes())
            assert reply.status == 200, reply.body
            metrics = ask(port, "GET", "/metrics").body.decode()
            replicas |= {
                line.partition('replica="')[2].partition('"')[0] for line in metrics.splitlines() if "replica=" in line
            }
            if number >= 8 and len(replicas) == 2:
                break
        assert len(replicas) == 2, "the second replica was never asked"
        listed = json.loads(ask(port, "GET", "/v1/voices").body)["voices"]
        assert listed == [{"speaker": f"speaker {number}", "utterances": 1} for number in range(4)]
        check_grpc(grpc_port, sounds[1], identifier)
        expected = [identifier.identify(sound).speaker for sound in sounds]
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(ask, port, "POST", "/v1/identify", sounds[n % 4].read_bytes()) for n in range(60)]
            while sum(each.done() for each in asked) < 8:
                time.sleep(0.001)
            os.kill(int(sorted(replicas)[0].partition("-")[0]), signal.SIGKILL)
        for number, each in enumerate(asked):
            reply = each.result()
            if reply.status == 200:
                assert reply.document["speaker"] == expected[number % 4]
            else:  # asked twice, and twice of one that died
                assert (reply.status, reply.headers["content-type"]) == (503, "application/problem+json"), reply.body
                assert reply.headers["retry-after"] == "1"
        assert sum(each.result().status == 200 for each in asked) >= 58
        run.send_signal(signal.SIGTERM)
        assert run.wait(120) == 0, said
    finally:
        run.kill()
        listener.join()
        told = run.communicate()[0]
    assert json.loads(told) == {"url": f"http://0.0.0.0:{port}", "grpc": f"0.0.0.0:{grpc_port}"}
    assert [path.name for path in temporary.iterdir()] == [], "something is left"
