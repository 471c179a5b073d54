"""The service on Ray Serve: two replicas, one of which is killed, and a graceful end. Ray is started once."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone
from tests.scale.served import ask
from voxport.runtime import SpeakerIdentifier

pytest.importorskip("ray.serve")


def test_replicas_answer_as_one_and_one_may_die(model: TinyModel, tmp_path: Path) -> None:
    identifier = SpeakerIdentifier.load(model.path)
    sounds = []
    for number in range(4):
        sounds.append(tmp_path / f"{number}.wav")
        soundfile.write(sounds[-1], tone(0.5, hertz=200 + 500 * number), 16000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    serving = [
        "serve",
        str(model.path),
        "--replicas",
        "2",
        "--store",
        str(tmp_path / "voices.db"),
        "--port",
        str(port),
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
        os.kill(int(sorted(replicas)[0].partition("-")[0]), signal.SIGKILL)
        wrong: list[Any] = []
        answered = 0
        for number in range(20):
            reply = ask(port, "POST", "/v1/identify", sounds[number % 4].read_bytes())
            if reply.status != 200:
                wrong.append((reply.status, reply.body))
                continue
            answered += 1
            assert json.loads(reply.body)["speaker"] == identifier.identify(sounds[number % 4]).speaker
        assert answered >= 15, wrong
        assert all(status in (500, 502, 503) for status, _ in wrong), wrong
        run.send_signal(signal.SIGTERM)
        assert run.wait(120) == 0, said
    finally:
        run.kill()
        listener.join()
        told = run.communicate()[0]
    assert json.loads(told) == {"url": f"http://127.0.0.1:{port}"}
    assert [path.name for path in temporary.iterdir()] == [], "something is left"
