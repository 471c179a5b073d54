"""KServe's protocol over gRPC, asked by tritonclient; its messages held against those that tritonclient carries."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone
from tests.scale.served import Served, running
from voxport.runtime import SpeakerIdentifier
from voxport.scale.errors import ScaleError
from voxport.scale.service.options import Limits, ServiceOptions

pytest.importorskip("uvicorn")
grpc = pytest.importorskip("grpc")
triton = pytest.importorskip("tritonclient.grpc")
KEY = "a key of the tests"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def serving(model: TinyModel) -> Iterator[Served]:
    keys = (hashlib.sha256(KEY.encode()).hexdigest(),)
    limits = Limits(max_bytes=200_000, max_seconds=60, queue=2)
    options = ServiceOptions(model.path, engine="local", port=0, grpc_port=free_port(), keys=keys, limits=limits)
    with running(options) as served:
        yield served


@pytest.fixture
def client(serving: Served) -> Iterator[Any]:
    found = triton.InferenceServerClient(f"127.0.0.1:{serving.options.grpc_port}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "low.wav"
    soundfile.write(path, tone(0.5, hertz=200), 16000)
    return path


WITH_KEY = {"headers": {"authorization": f"Bearer {KEY}"}}


def test_the_messages_are_those_of_triton() -> None:
    """Every name, number and type that is used here, against the descriptors that NVIDIA generates."""
    from tritonclient.grpc import service_pb2

    from voxport.scale.service.kserve.messages import _TABLE, METHODS, SERVICE, message

    for name in _TABLE:
        theirs = service_pb2
        for part in name.split("."):
            theirs = getattr(theirs, part)
        mine = message(name).DESCRIPTOR
        assert mine.full_name == theirs.DESCRIPTOR.full_name
        by_name = theirs.DESCRIPTOR.fields_by_name
        for field in mine.fields:
            other = by_name[field.name]
            assert (field.number, field.type) == (other.number, other.type), f"{name}.{field.name}"
            assert field.is_repeated == other.is_repeated, f"{name}.{field.name}"
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == SERVICE
    for method in METHODS:
        assert service.methods_by_name[method].input_type.name == f"{method}Request"


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata(as_json=True)["name"] == "voxport"
    assert client.is_model_ready("voxport", **WITH_KEY)
    described = client.get_model_metadata("voxport", as_json=True, **WITH_KEY)
    assert {each["name"]: each["datatype"] for each in described["inputs"]} == {
        "sound": "BYTES",
        "waveform": "FP32",
        "lengths": "INT64",
    }
    assert {each["name"] for each in described["outputs"]} == {"scores", "embedding"}


def test_sounds_and_samples_are_answered(client: Any, model: TinyModel, sound: Path) -> None:
    identifier = SpeakerIdentifier.load(model.path)
    content = np.array([sound.read_bytes()], dtype=object)
    given = triton.InferInput("sound", content.shape, "BYTES")
    given.set_data_from_numpy(content)
    found = client.infer("voxport", [given], request_id="seven", **WITH_KEY)
    np.testing.assert_allclose(found.as_numpy("scores")[0], identifier.scores(sound), atol=1e-3)
    np.testing.assert_allclose(found.as_numpy("embedding")[0], identifier.embed(sound), atol=1e-4)
    assert found.get_response().id == "seven"
    samples, _ = soundfile.read(sound, dtype="float32")
    waveform = np.zeros((2, len(samples)), np.float32)
    waveform[0], waveform[1, :6000] = samples, samples[:6000]
    inputs = [triton.InferInput("waveform", waveform.shape, "FP32"), triton.InferInput("lengths", [2], "INT64")]
    inputs[0].set_data_from_numpy(waveform)
    inputs[1].set_data_from_numpy(np.array([len(samples), 6000]))
    wanted = [triton.InferRequestedOutput("scores")]
    found = client.infer("voxport", inputs, outputs=wanted, **WITH_KEY)
    assert found.as_numpy("embedding") is None
    for row, length in enumerate((len(samples), 6000)):
        expected = identifier.scores(samples[:length], 16000)
        np.testing.assert_allclose(found.as_numpy("scores")[row], expected, atol=1e-3)


def test_tensors_may_stand_in_their_own_fields(serving: Served, model: TinyModel, sound: Path) -> None:
    """Other clients than Triton's fill `contents` and leave the raw contents empty."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="voxport", model_version="1")
    given = request.inputs.add(name="sound", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(sound.read_bytes())
    with grpc.insecure_channel(f"127.0.0.1:{serving.options.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        reply = stub.ModelInfer(request, metadata=[("x-api-key", KEY)])
    (scores,) = (at for at, each in enumerate(reply.outputs) if each.name == "scores")
    expected = SpeakerIdentifier.load(model.path).scores(sound)
    np.testing.assert_allclose(np.frombuffer(reply.raw_output_contents[scores], "<f4"), expected, atol=1e-3)


def infer(client: Any, *inputs: tuple[str, str, Any], model: str = "voxport", **more: Any) -> Any:
    given = []
    for name, kind, values in inputs:
        given.append(triton.InferInput(name, values.shape, kind))
        given[-1].set_data_from_numpy(values)
    return client.infer(model, given, **({**WITH_KEY, **more}))


WAVEFORM = np.zeros((1, 8000), np.float32)
NOISE = np.array([b"no sound"], dtype=object)
PROBLEMS: list[tuple[list[tuple[str, str, Any]], dict[str, Any], str, str]] = [
    ([("sound", "BYTES", NOISE)], {}, "INVALID_ARGUMENT", "sound 0: "),
    ([("sound", "BYTES", NOISE)], {"model": "other"}, "NOT_FOUND", "other"),
    ([("sound", "BYTES", NOISE)], {"headers": {}}, "UNAUTHENTICATED", "Bearer"),
    ([("sound", "BYTES", NOISE)], {"headers": {"x-api-key": "wrong"}}, "UNAUTHENTICATED", "none that is known"),
    ([("waveform", "FP64", WAVEFORM.astype(np.float64))], {}, "INVALID_ARGUMENT", "FP64"),
    ([("voice", "FP32", WAVEFORM)], {}, "INVALID_ARGUMENT", "voice"),
    ([("waveform", "FP32", WAVEFORM), ("lengths", "INT64", np.array([9000]))], {}, "INVALID_ARGUMENT", "lengths"),
    (
        [("waveform", "FP32", WAVEFORM)],
        {"outputs": [triton.InferRequestedOutput("speed")]},
        "INVALID_ARGUMENT",
        "speed",
    ),
    ([("waveform", "FP32", np.zeros((1, 100_000), np.float32))], {}, "RESOURCE_EXHAUSTED", "larger than max"),
]


@pytest.mark.parametrize(("inputs", "more", "status", "words"), PROBLEMS)
def test_what_is_wrong_has_its_status(client: Any, inputs: Any, more: Any, status: str, words: str) -> None:
    with pytest.raises(triton.InferenceServerException, match=words) as found:
        infer(client, *inputs, **more)
    assert found.value.status() == f"StatusCode.{status}"
    assert "/tmp" not in str(found.value)


def test_bytes_that_are_no_message_and_methods_that_there_are_not(serving: Served) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{serving.options.grpc_port}") as channel:
        for method, status in (("ModelInfer", "INVALID_ARGUMENT"), ("ModelStreamInfer", "UNIMPLEMENTED")):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError) as found:
                call(b"\xff\xff\xff", metadata=[("x-api-key", KEY)])
            assert found.value.code().name == status


def test_more_than_the_queue_holds_is_turned_away(serving: Served, client: Any, sound: Path) -> None:
    waiting = []
    head = f"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\nContent-Length: 1000\r\n\r\nRIFF"
    for _ in range(2):  # HTTP and gRPC share the places
        waiting.append(socket.create_connection(("127.0.0.1", serving.port)))
        waiting[-1].sendall(head.encode())
    while serving.service.turnstile.inside < 2:
        time.sleep(0.005)
    with pytest.raises(triton.InferenceServerException, match="at work already") as found:
        infer(client, ("sound", "BYTES", np.array([sound.read_bytes()], dtype=object)))
    assert found.value.status() == "StatusCode.UNAVAILABLE"
    assert client.is_server_ready()
    for each in waiting:
        each.close()
    while serving.service.turnstile.inside:
        time.sleep(0.01)


def test_what_is_at_work_is_answered_before_the_end(model: TinyModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", tone(40.0, hertz=300), 16000)
    content = np.array([(tmp_path / "long.wav").read_bytes()] * 8, dtype=object)
    options = ServiceOptions(model.path, engine="local", port=0, grpc_port=free_port())
    told: list[Any] = []
    with running(options) as served:
        client = triton.InferenceServerClient(f"127.0.0.1:{options.grpc_port}")
        given = triton.InferInput("sound", content.shape, "BYTES")
        given.set_data_from_numpy(content)
        asking = threading.Thread(target=lambda: told.append(client.infer("voxport", [given]).as_numpy("scores")))
        asking.start()
        while served.service.turnstile.inside < 1:
            assert asking.is_alive(), told
            time.sleep(0.001)
        served.service.loop.call_soon_threadsafe(served.server.handle_exit, 15, None)
        asking.join(30)
        client.close()
    assert [each.shape[0] for each in told] == [8]


def test_a_port_that_is_taken_and_a_host_that_ray_would_not_keep_to(model: TinyModel) -> None:
    from voxport.scale.service.deployment import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ScaleError, match=f"127.0.0.1:{port} cannot be listened on"):
            serve(ServiceOptions(model.path, engine="local", port=free_port(), grpc_port=port), lambda line: None)
    with pytest.raises(ScaleError, match=r"--host 0\.0\.0\.0"):
        ServiceOptions(model.path, grpc_port=8001)
