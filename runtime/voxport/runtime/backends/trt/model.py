"""A TensorRT plan run through TensorRT and cuda-python alone."""

import os
from dataclasses import dataclass

from voxport.runtime.backends.base import Explanation
from voxport.runtime.backends.cuda import Cuda, cuda_module, cuda_versions, gpu_name
from voxport.runtime.backends.origin import Origin
from voxport.runtime.backends.trt.engine import Engine
from voxport.runtime.backends.trt.file import VERSION_COMPATIBLE, PlanFile, read_plan, read_sidecar
from voxport.runtime.backends.trt.library import TENSORRT
from voxport.runtime.backends.trt.runner import EngineModel, opened
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError


@dataclass(frozen=True)
class PlanOptions:
    """How to run a plan on GPU number `gpu`.

    `graphs` is the number of shapes whose CUDA graph is kept, the least recently used going first. Inputs
    are then padded to a few shapes, so that most runs find theirs. 0 runs every shape as it comes.
    `host_code` lets a version-compatible plan run the native code that it carries.
    Raises BackendError for negative numbers.
    """

    gpu: int = 0
    graphs: int = 16
    host_code: bool = False

    def __post_init__(self) -> None:
        if self.gpu < 0 or self.graphs < 0:
            raise BackendError(f"gpu and graphs must not be negative, found {self.gpu} and {self.graphs}")


class PlanModel(EngineModel):
    """A loaded plan: padded batches in, scores and embeddings out."""

    def __init__(self, contract: Contract, engine: Engine, cuda: Cuda, options: PlanOptions) -> None:
        """Use `PlanModel.load`, which checks that contract and plan belong together."""
        super().__init__(contract, engine, cuda, options.graphs)
        self._gpu = options.gpu

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], options: PlanOptions | None = None, *, verify: bool = True
    ) -> "PlanModel":
        """Load the plan `path`, whose contract lies beside it in `<path>.json`.

        Checked are the contract, the plan's SHA-256, its tensors and its profiles. `verify` also replays
        the golden vector, once as it comes and, where graphs are kept, once as a graph.

        Raises:
            ContractError: any of these checks fails, or a file is missing or damaged.
            BackendError: TensorRT, cuda-python or the GPU is not there, or TensorRT refuses the plan.
        """
        where, chosen = os.fspath(path), options or PlanOptions()
        file = read_sidecar(path)
        plan = read_plan(path, file)
        cuda = Cuda(cuda_module(), chosen.gpu)

        def make() -> PlanModel:
            return cls(file.contract, _engine(plan, where, file, chosen), cuda, chosen)

        model = opened(where, cuda, make, verify)
        model._origin = Origin.of(model, where, chosen, verify)
        return model

    def explain(self) -> Explanation:
        """What runs where."""
        graphs = f"CUDA graphs of up to {self._graphs} shapes" if self._graphs else "no CUDA graphs"
        return Explanation(
            backend="TensorRT plan",
            device="tensorrt",
            device_name=gpu_name(self._gpu),
            why="a plan runs on TensorRT and nowhere else",
            precision=self._contract.precision,
            versions=(("tensorrt", TENSORRT.version), *cuda_versions()),
            notes=(self.profile_note(), graphs),
        )


def _engine(plan: bytes, where: str, file: PlanFile, options: PlanOptions) -> Engine:
    """The engine. Where TensorRT refuses the plan, the message says what it was built for and what is here."""
    if (VERSION_COMPATIBLE, "yes") in file.built_with and not options.host_code:
        raise BackendError(
            f"{where}: a version-compatible plan carries native code that runs on the host; if you trust it, allow "
            "that with BackendOptions(host_code=True)"
        )
    try:
        return Engine(plan, where, options.host_code)
    except BackendError as problem:
        if not file.built_with or not str(problem).startswith("TensorRT: loading"):
            raise
        built = ", ".join(f"{name} {value}" for name, value in file.built_with)
        here = f"tensorrt {TENSORRT.version} and {gpu_name(options.gpu)}"
        raise BackendError(
            f"{problem}. The plan was built with {built}; here are {here}. "
            "A plan runs only on what it was built for: build it here from the ONNX model"
        ) from problem
