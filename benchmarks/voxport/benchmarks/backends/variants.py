"""More back ends to compare, by name: other ways to run the checkpoint, other engines for the models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from voxport.benchmarks.core.settings import Engine
from voxport.runtime.errors import VoxportError


@dataclass(frozen=True)
class Variant:
    """A back end made of the checkpoint, or of each ONNX model. `engine` None: where the run's device is."""

    kind: str
    of: Literal["checkpoint", "model"]
    engine: Engine | None
    what: str
    graphs: bool = False


VARIANTS: dict[str, Variant] = {
    "plain_onnx": Variant(
        "plain_onnx", "checkpoint", None, "plain torch.onnx.export of the eager network, ONNX Runtime"
    ),
    "torchscript": Variant("torchscript", "checkpoint", None, "torch.jit.trace, frozen"),
    "compile": Variant("compile", "checkpoint", None, "torch.compile, dynamic shapes"),
    "aoti": Variant("aoti", "checkpoint", None, "torch.export and AOTInductor"),
    "eager_cpu": Variant("eager", "checkpoint", "cpu", "eager PyTorch on the CPU"),
    "eager_cuda": Variant("eager", "checkpoint", "cuda", "eager PyTorch on a GPU"),
    "eager_graphs": Variant("eager_graphs", "checkpoint", "cuda", "eager PyTorch behind CUDA graphs", graphs=True),
    "compile_graphs": Variant("compile", "checkpoint", "cuda", "torch.compile with CUDA graphs", graphs=True),
    "onnx_cpu": Variant("onnx", "model", "cpu", "each ONNX model, ONNX Runtime on the CPU"),
    "onnx_cuda": Variant("onnx", "model", "cuda", "each ONNX model, ONNX Runtime's CUDA provider"),
    "onnx_graphs": Variant("onnx_graphs", "model", "cuda", "the same with CUDA graphs", graphs=True),
    "onnx_tensorrt": Variant("onnx", "model", "tensorrt", "each ONNX model, ONNX Runtime's TensorRT provider"),
    "openvino": Variant("openvino", "model", "cpu", "each ONNX model in OpenVINO"),
}


def chosen(names: Sequence[str]) -> dict[str, Variant]:
    """The variants of these names; "all" is every one.

    Raises:
        VoxportError: a name that is none.
    """
    unknown = [name for name in names if name not in VARIANTS and name != "all"]
    if unknown:
        raise VoxportError(f"no back end is called {unknown[0]}; there are {', '.join(VARIANTS)}, and all")
    return dict(VARIANTS) if "all" in names else {name: VARIANTS[name] for name in names}
