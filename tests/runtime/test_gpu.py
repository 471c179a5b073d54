"""On a real GPU: a plan built here, and ONNX Runtime's GPU providers. Each test skips by itself and says why."""

from pathlib import Path

import numpy as np
import pytest

from tests.runtime.tiny_models import FRONTEND, TinyModel, features
from voxport.runtime import BackendError, BackendOptions, load_backend
from voxport.runtime.backends.cuda import Cuda, cuda_module, gpu_name
from voxport.runtime.backends.options import DeviceChoice
from voxport.runtime.backends.trt.file import write_sidecar
from voxport.runtime.backends.trt.model import PlanModel, PlanOptions

N = FRONTEND.n_mels
PROFILES = [((1, 5, N), (1, 20, N), (8, 20, N)), ((1, 5, N), (1, 40, N), (4, 60, N))]
LENGTHS = ([5], [60], [17, 20, 9], [5] * 11, [60, 7, 33, 20, 19], [5], [60], [41], [44], [48])


def build_plan(model: Path, plan: Path) -> None:
    """A plan of the ONNX file `model`, with TensorRT's own builder. TensorRT 8.6, 10 and 11 have these names."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # In 8.6 a network without this flag has no batch dim; 11 has no such flag.
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(model)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    for low, best, high in PROFILES:
        profile = builder.create_optimization_profile()
        profile.set_shape("features", low, best, high)
        profile.set_shape("lengths", low[:1], best[:1], high[:1])
        assert config.add_optimization_profile(profile) >= 0
    built = builder.build_serialized_network(network, config)
    assert built is not None
    plan.write_bytes(bytes(memoryview(built)))


@pytest.fixture(scope="module")
def gpu() -> str:
    """The GPU's name."""
    try:
        Cuda(cuda_module()).close()
    except BackendError as problem:
        pytest.skip(f"no GPU that cuda-python can use: {problem}")
    return gpu_name()


@pytest.mark.parametrize("graphs", [0, 3])
def test_a_plan_gives_numpys_answers_with_and_without_graphs(
    gpu: str, tiny: TinyModel, tmp_path: Path, graphs: int
) -> None:
    trt = pytest.importorskip("tensorrt", reason="tensorrt is not installed")
    plan = tmp_path / "model.plan"
    build_plan(tiny.path, plan)
    write_sidecar(plan, tiny.contract, {"tensorrt": trt.__version__, "gpu": gpu})
    with PlanModel.load(plan, PlanOptions(graphs=graphs)) as model:
        for lengths in LENGTHS:
            rows = features(list(lengths), seed=sum(lengths))
            batch = np.full((len(rows), max(lengths), N), 1e6, np.float32)
            for target, row in zip(batch, rows, strict=True):
                target[: len(row)] = row
            answer = model.run(batch, lengths)
            for scores, row in zip(answer.scores, rows, strict=True):
                np.testing.assert_allclose(scores, tiny.scores(row), atol=1e-3)
        assert gpu in str(model.explain())


def test_a_truncated_plan_that_its_sidecar_describes_is_refused_by_tensorrt(
    gpu: str, tiny: TinyModel, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt", reason="tensorrt is not installed")
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"no plan at all" * 100)
    write_sidecar(plan, tiny.contract, {"tensorrt": "1.0"})
    with pytest.raises(BackendError, match=r"TensorRT: loading .* failed \(.+built with tensorrt 1\.0"):
        PlanModel.load(plan)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_onnxruntime_gives_numpys_answers_on_the_gpu(tiny: TinyModel, tmp_path: Path, device: DeviceChoice) -> None:
    try:
        model = load_backend(tiny.path, BackendOptions(device, cache=tmp_path, max_batch=4))
    except BackendError as problem:
        pytest.skip(f"onnxruntime has no {device} here: {problem}")
    for lengths in LENGTHS:
        for row in features(list(lengths)):
            np.testing.assert_allclose(model.run(row[None], [len(row)]).scores[0], tiny.scores(row), atol=1e-3)
    explained = model.explain()
    assert explained.device == device
    if device == "tensorrt":
        assert any(tmp_path.rglob("*.engine"))
