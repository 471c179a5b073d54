"""An RTX engine run through TensorRT for RTX and cuda-python alone."""

import os
import warnings
from dataclasses import dataclass
from typing import Any, get_args

from voxport.runtime.backends.base import Explanation
from voxport.runtime.backends.cuda import Cuda, compute_capability, cuda_module, cuda_versions, gpu_name
from voxport.runtime.backends.options import Specialization
from voxport.runtime.backends.origin import Origin
from voxport.runtime.backends.rtx.engine import RtxEngine
from voxport.runtime.backends.rtx.kernels import KernelFile
from voxport.runtime.backends.rtx.library import PORTABLE, RTX, capability_names, fits, need_library, takes
from voxport.runtime.backends.trt.file import read_plan, read_sidecar
from voxport.runtime.backends.trt.runner import EngineModel, opened
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError

BUILT_FOR = "compute capability"  # the fact in `built_with` that says which GPUs the engine is for


@dataclass(frozen=True)
class RtxOptions:
    """How to run an RTX engine on GPU number `gpu`.

    `graphs` lets the library record CUDA graphs by itself; inputs are then padded to a few shapes, so that most runs
    find theirs. `kernels` says when kernels are compiled for a shape: "lazy" runs slower ones until they are ready,
    "eager" waits for them at the shape's first run, "none" keeps the slower ones. What was compiled is kept below
    `cache`, else $VOXPORT_CACHE, else ~/.cache/voxport. Raises BackendError for a negative number or another word.
    """

    gpu: int = 0
    graphs: bool = True
    kernels: Specialization = "lazy"
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.gpu < 0:
            raise BackendError(f"gpu must not be negative, found {self.gpu}")
        if self.kernels not in get_args(Specialization):
            raise BackendError(f"unknown kernels {self.kernels!r}; choose one of {', '.join(get_args(Specialization))}")


class RtxModel(EngineModel):
    """A loaded RTX engine: padded batches in, scores and embeddings out."""

    def __init__(
        self, contract: Contract, engine: RtxEngine, cuda: Cuda, options: RtxOptions, kept: KernelFile
    ) -> None:
        """Use `RtxModel.load`, which checks that contract and engine belong together."""
        super().__init__(contract, engine, cuda, own_graphs=options.graphs)
        self._options, self._kept, self._on_disk = options, kept, b""
        self._fit, self._suboptimal = engine.kernels_fit, engine.suboptimal

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], options: RtxOptions | None = None, *, verify: bool = True
    ) -> "RtxModel":
        """Load the RTX engine `path`, whose contract lies beside it in `<path>.json`.

        Checked are the contract, the engine's SHA-256, the GPU, the engine's tensors and its profiles. `verify` also
        replays the golden vector, twice where graphs are recorded, and keeps the kernels that were compiled for it.

        Raises:
            ContractError: any of these checks fails, or a file is missing or damaged.
            BackendError: TensorRT for RTX, cuda-python, the driver or a GPU that it takes is not there, or the library
                refuses the engine, or compiled kernels cannot be kept.
        """
        where, chosen = os.fspath(path), options or RtxOptions()
        file = read_sidecar(path)
        plan = read_plan(path, file)
        need_library()
        try:
            module = check_gpu(dict(file.built_with).get(BUILT_FOR, PORTABLE), chosen.gpu)
        except BackendError as problem:
            raise BackendError(f"{where}: {problem}") from problem
        facts = (RTX.version, gpu_name(chosen.gpu), *(f"{name} {version}" for name, version in cuda_versions()))
        kept = KernelFile.of(file.sha256, facts, chosen.cache)
        kernels = kept.read()
        cuda = Cuda(module, chosen.gpu)

        def make() -> RtxModel:
            engine = RtxEngine(plan, where, graphs=chosen.graphs, specialization=chosen.kernels, kernels=kernels)
            return cls(file.contract, engine, cuda, chosen, kept)

        model = opened(where, cuda, make, verify)
        model._on_disk = kernels if model._fit else b""
        model._origin = Origin.of(model, where, chosen, verify)
        if verify:
            model.keep_kernels()
        return model

    def keep_kernels(self) -> None:
        """Write what was compiled until now to disk, as `close` does.

        Raises:
            BackendError: they cannot be written, or the model is closed.
        """
        with self._lock:
            if self._closed:
                raise BackendError("the model is closed, and its kernels were kept then")
            self._keep()

    def _keep(self) -> None:
        engine = self._engine
        assert isinstance(engine, RtxEngine)
        kernels = engine.kernels()
        if kernels != self._on_disk:
            self._kept.write(kernels)
            self._on_disk = kernels

    def explain(self) -> Explanation:
        """What runs where."""
        options = self._options
        notes = [self.profile_note(), "CUDA graphs of its own" if options.graphs else "no CUDA graphs"]
        notes.append(f"kernels of a shape: {options.kernels}; kept in {self._kept.path}")
        if self._fit is False:
            notes.append("the kernels that were kept did not fit, and are compiled anew")
        if self._suboptimal:
            notes.append("TensorRT for RTX says that the engine may be slower here than one that is built here")
        return Explanation(
            backend="TensorRT for RTX engine",
            device="rtx",
            device_name=gpu_name(options.gpu),
            why="an RTX engine runs on TensorRT for RTX and nowhere else",
            precision=self._contract.precision,
            versions=(("tensorrt_rtx", RTX.version), *cuda_versions()),
            notes=tuple(notes),
        )

    def _before_close(self) -> None:
        try:
            self._keep()
        except BackendError as problem:  # closing must not fail, and the next start compiles them again
            warnings.warn(str(problem), RuntimeWarning, stacklevel=3)


def check_gpu(built_for: str, gpu: int = 0) -> Any:
    """cuda-python's runtime module, where GPU number `gpu` runs an engine that was built for `built_for`.

    Raises:
        BackendError: cuda-python, the driver or a GPU is not there, or the GPU is one that the library or the engine
            does not take.
    """
    module = cuda_module("an RTX engine", RTX.install)
    try:
        found = compute_capability(module, gpu)
    except BackendError as problem:
        raise BackendError(
            f"an RTX engine runs on an NVIDIA GPU, and this machine has none that CUDA can use ({problem}); the ONNX "
            "model runs on the CPU"
        ) from problem
    if not takes(found):
        taken = ", ".join(capability_names())
        raise BackendError(
            f"TensorRT for RTX does not take this GPU, {gpu_name(gpu)}; it takes compute capability {taken} and later. "
            "Build a plan for this GPU (voxport export tensorrt), or run the ONNX model with device 'cuda'"
        )
    if not fits(found, built_for):
        own = "{}.{}".format(*found)
        raise BackendError(
            f"the engine is for compute capability {built_for}, and this GPU is {gpu_name(gpu)}; build it again with "
            f"--compute-capability {own}"
        )
    return module
