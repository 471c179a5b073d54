"""The client in examples/triton, against voxport's own endpoints and against the rules by which Triton serves a folder.

No Triton server is run. What stands in for one speaks Triton's gRPC, made by NVIDIA's own generated code, takes tensors
only in the shapes that config.pbtxt states, and runs the repository's file.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.packaging_tools import ROOT
from tests.runtime.tiny_models import TinyModel, make_tiny, tone
from tests.scale.served import Served, running
from tests.scale.test_kserve_grpc import free_port
from voxport.export.targets.triton.config import TritonOptions
from voxport.export.targets.triton.export import export_triton
from voxport.runtime import BackendError, Contract, ContractError, SpeakerIdentifier
from voxport.scale.service.options import ServiceOptions

pytest.importorskip("uvicorn")
grpc = pytest.importorskip("grpc")
pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytest.importorskip("tritonclient.grpc", reason="grpcio is not installed")
text_format = pytest.importorskip("google.protobuf.text_format")

FILE = ROOT / "examples/triton/client.py"
TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}


@pytest.fixture(scope="module")
def client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("triton_client", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's folder of the model, under the name by which voxport's own endpoints know it."""
    target = tmp_path_factory.mktemp("models")
    export_triton(model.path, target, TritonOptions("voxport"))
    return target / "voxport"


@pytest.fixture(scope="module")
def endpoint(model: TinyModel) -> Iterator[Served]:
    with running(ServiceOptions(model.path, engine="local", port=0, grpc_port=free_port())) as served:
        yield served


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("sounds")
    kinds = {"short": tone(0.5, hertz=300), "long": tone(9, hertz=2500), "silent": np.zeros(16000, np.float32)}
    for name, samples in kinds.items():
        soundfile.write(made / f"{name}.wav", samples, 16000)
    return {name: made / f"{name}.wav" for name in kinds}


def address(served: Served, protocol: str) -> str:
    return f"127.0.0.1:{served.port if protocol == 'http' else served.options.grpc_port}"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_answers_as_the_runtime_does(
    client: ModuleType, endpoint: Served, folder: Path, model: TinyModel, sounds: dict[str, Path], protocol: Any
) -> None:
    here, there = (
        SpeakerIdentifier.load(model.path),
        client.connect(folder, address(endpoint, protocol), None, protocol),
    )
    for sound in sounds.values():
        expected, found = here.identify(sound), there.identify(sound)
        assert found.speaker == expected.speaker
        assert [each.speaker for each in found.ranked] == [each.speaker for each in expected.ranked]
        assert found.notes == expected.notes
        np.testing.assert_allclose(there.embed(sound), here.embed(sound), atol=1e-4)
        np.testing.assert_allclose(there.scores(sound), here.scores(sound), atol=1e-3)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_program_names_speakers_and_goes_on_after_a_bad_file(
    endpoint: Served, folder: Path, model: TinyModel, sounds: dict[str, Path], protocol: str
) -> None:
    missing = sounds["short"].with_name("missing.wav")
    command = [sys.executable, "-W", "error", FILE, folder, missing, sounds["short"], sounds["long"]]
    command += ["--url", address(endpoint, protocol), "--protocol", protocol]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)
    here = SpeakerIdentifier.load(model.path)
    best = {name: here.identify(sounds[name]).best for name in ("short", "long")}
    right = "".join(f"{sounds[name]}: {each.speaker} ({each.probability:.0%})\n" for name, each in best.items())
    assert run.stdout == right, run.stderr
    assert run.stderr.startswith(f"error: {missing}: ")
    assert run.returncode == 1


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_wrong_with_the_server_is_told(
    client: ModuleType, endpoint: Served, folder: Path, tmp_path: Path, protocol: Any
) -> None:
    with pytest.raises(BackendError, match=r"does not answer|not ready"):
        client.connect(folder, f"127.0.0.1:{free_port()}", None, protocol)
    with pytest.raises(BackendError, match="other at 127"):
        client.connect(folder, address(endpoint, protocol), "other", protocol)
    others: tuple[tuple[Any, int, str], ...] = (
        ("features", 0, "and not features"),
        ("waveform", 7, "another model"),
    )
    for kind, seed, words in others:
        another = make_tiny(tmp_path / f"{kind}.onnx", kind, seed=seed)
        export_triton(another.path, tmp_path, TritonOptions(kind))
        with pytest.raises(ContractError, match=words):
            client.connect(tmp_path / kind, address(endpoint, protocol), "voxport", protocol)


# --- the rules of Triton --------------------------------------------------------------------------------


@contextmanager
def triton_of(folder: Path) -> Iterator[str]:
    """The address of what stands in for a Triton server."""
    import onnxruntime
    from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    session = onnxruntime.InferenceSession(folder / "1" / config.default_model_filename)
    lead = [-1] if config.max_batch_size else []

    def kind(tensor: Any) -> str:
        return str(model_config_pb2.DataType.Name(tensor.data_type)).removeprefix("TYPE_")

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelReady(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelReadyResponse(ready=request.name == config.name)

        def ModelMetadata(self, request: Any, context: Any) -> Any:
            reply = service_pb2.ModelMetadataResponse(name=config.name)
            for told, given in ((reply.inputs, config.input), (reply.outputs, config.output)):
                for each in given:
                    told.add(name=each.name, datatype=kind(each), shape=[*lead, *each.dims])
            return reply

        def ModelInfer(self, request: Any, context: Any) -> Any:
            given = {}
            for each, raw in zip(request.inputs, request.raw_input_contents, strict=True):
                (told,) = (one for one in config.input if one.name == each.name)
                assert each.datatype == kind(told)
                shape, wanted = list(each.shape), [*lead, *told.dims]
                assert len(shape) == len(wanted), f"{each.name}: {shape}, where config.pbtxt says {wanted}"
                assert all(want in (-1, have) for want, have in zip(wanted, shape, strict=True))
                assert not lead or shape[0] <= config.max_batch_size
                array = np.frombuffer(raw, TYPES[each.datatype]).reshape(shape)
                if told.HasField("reshape"):
                    array = array.reshape(*shape[: len(lead)], *told.reshape.shape)
                given[each.name] = array
            reply = service_pb2.ModelInferResponse(model_name=config.name)
            names = [each.name for each in request.outputs]
            for name, values in zip(names, session.run(names, given), strict=True):
                reply.outputs.add(name=name, datatype="FP32", shape=values.shape)
                reply.raw_output_contents.append(values.tobytes())
            return reply

    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("max_batch", [None, 0, 2])
@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_requests_have_the_shapes_that_the_repository_states(
    client: ModuleType, tmp_path: Path, sounds: dict[str, Path], kind: Any, max_batch: int | None
) -> None:
    model = make_tiny(tmp_path / "model.onnx", kind)
    export_triton(model.path, tmp_path, TritonOptions("speakers", max_batch))
    here = SpeakerIdentifier.load(model.path)
    contract = Contract.from_json((tmp_path / "speakers/contract.json").read_text(encoding="utf-8"), "contract.json")
    with triton_of(tmp_path / "speakers") as url:
        backend = client.TritonBackend(contract, url, "speakers", protocol="grpc", max_batch=max_batch or 16)
        there = SpeakerIdentifier(backend)
        found, expected = (each.scores_batch(list(sounds.values())) for each in (there, here))
    np.testing.assert_allclose(found, expected, atol=1e-3)
