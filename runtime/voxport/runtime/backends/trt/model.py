"""A TensorRT plan run through TensorRT and cuda-python alone."""

import math
import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from voxport.runtime.backends.base import Answer, Explanation, Float32, Int64, check_batch, check_tensors
from voxport.runtime.backends.cuda import Buffer, Cuda, cuda_module, cuda_versions, gpu_name
from voxport.runtime.backends.golden import check_golden
from voxport.runtime.backends.trt.engine import Context, Engine, Profile, Shape, Tensor, tensorrt_version
from voxport.runtime.backends.trt.file import VERSION_COMPATIBLE, PlanFile, read_plan, read_sidecar
from voxport.runtime.backends.trt.profiles import bucket, choose_profile
from voxport.runtime.contract import Contract, Output
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.forks import keep_for_ever, refuse_after_fork, tell_of_forks
from voxport.runtime.length_range import LengthRange


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


@dataclass
class _Slot:
    """A context at work: for one shape where graphs are kept, for one profile where they are not."""

    context: Context
    shape: Shape | None = None
    graph: Any = None


class PlanModel:
    """A loaded plan: padded batches in, scores and embeddings out.

    Device and pinned host memory are taken once, for the largest shape of all profiles. Threads may share
    a model; their runs follow one another, since they share that memory. It cannot be used after a fork, and
    is pickled as its path and its options.
    """

    def __init__(self, contract: Contract, engine: Engine, cuda: Cuda, options: PlanOptions) -> None:
        """Use `PlanModel.load`, which checks that contract and plan belong together."""
        self._contract = contract
        self._engine = engine
        self._cuda = cuda
        self._stream = int(cuda.stream)
        self._allowed = LengthRange.of_input(contract)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._source: tuple[str, PlanOptions, bool] | None = None
        tell_of_forks(self)
        self._slots: OrderedDict[tuple[int, Shape | None], _Slot] = OrderedDict()
        self._graphs = options.graphs if engine.shares_profiles() else 0
        self._gpu = options.gpu
        self._closed = False
        self._free = weakref.finalize(self, cuda.close)
        self._free.atexit = False  # the process gives all back anyway, and CUDA may be gone by then
        inputs, outputs = engine.tensors()
        self._profiles = engine.profiles(contract.input_kind)
        self._check(inputs, outputs)
        self._activations = cuda.allocate_device(engine.activation_bytes())
        self._buffers = self._allocate((*inputs, *outputs))

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
        try:
            model = cls(file.contract, _engine(plan, where, file, chosen), cuda, chosen)
            for _ in range((2 if model._graphs else 1) if verify else 0):
                check_golden(model, where)
            model._source = os.path.abspath(where), chosen, verify
        except ContractError as problem:
            cuda.close()
            text = str(problem)
            raise ContractError(text if text.startswith(where) else f"{where}: {text}") from problem
        except BaseException:
            cuda.close()
            raise
        return model

    def after_fork(self) -> None:
        """In a forked child: CUDA is the parent's, and giving back its memory from here would fail or wait."""
        self._free.detach()
        keep_for_ever((self._engine, self._cuda, self._slots))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._source is None:
            raise BackendError("a plan that was not loaded from a file by PlanModel.load cannot be pickled")
        return _unpickled, self._source

    @property
    def contract(self) -> Contract:
        """What the file beside the plan says about it."""
        return self._contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a batch of any number of rows; see `OnnxModel.run` for shapes and errors.

        Raises:
            BackendError: TensorRT or CUDA failed, or the model is closed.
        """
        batch, counts = check_batch(self._contract, self._allowed, inputs, lengths)
        parts: list[Answer] = []
        refuse_after_fork(self._process, "CUDA")  # before the lock, which a thread of the parent may hold
        with self._lock:
            if self._closed:
                raise BackendError("the model is closed; load it again")
            self._cuda.use()
            start = 0
            while start < len(counts):
                profile, rows = choose_profile(self._profiles, len(counts) - start, int(counts[start:].max()))
                stop = start + rows
                parts.append(self._run(profile, batch[start:stop], counts[start:stop]))
                start = stop
        if len(parts) == 1:
            return parts[0]
        return Answer.joined(parts)

    def explain(self) -> Explanation:
        """What runs where."""
        spans = [f"{_times(p.smallest)} to {_times(p.largest)}" for p in self._profiles]
        graphs = f"CUDA graphs of up to {self._graphs} shapes" if self._graphs else "no CUDA graphs"
        return Explanation(
            backend="TensorRT plan",
            device="tensorrt",
            device_name=gpu_name(self._gpu),
            why="a plan runs on TensorRT and nowhere else",
            precision=self._contract.precision,
            versions=(("tensorrt", tensorrt_version()), *cuda_versions()),
            notes=(f"profiles of {self._contract.input_kind}: {', '.join(spans)}", graphs),
        )

    def close(self) -> None:
        """Free the GPU's memory. Runs that have begun end first; later ones raise BackendError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._slots.clear()  # first the contexts, then the engine with its weights, then what they used
            del self._engine
            self._free()

    def __enter__(self) -> "PlanModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, profile: Profile, batch: Float32, counts: Int64) -> Answer:
        shape = bucket(profile, len(counts), int(counts.max()), round_up=self._graphs > 0)
        slot = self._slot(profile, shape)
        self._fill(shape, batch, counts)
        if slot.graph is not None:
            self._cuda.launch(slot.graph)
            self._cuda.wait()
            return self._answer(len(counts))
        self._enqueue(slot, shape)
        self._cuda.wait()
        answer = self._answer(len(counts))
        if self._graphs:  # the first run of a shape sets TensorRT up, and must not be recorded
            self._record(slot, shape)
        return answer

    def _slot(self, profile: Profile, shape: Shape) -> _Slot:
        """The context for `shape`, which may be new."""
        key = (profile.index, shape if self._graphs else None)
        slot = self._slots.pop(key, None)
        if slot is None:
            while self._graphs and len(self._slots) >= self._graphs:
                oldest = self._slots.popitem(last=False)[1]
                if oldest.graph is not None:
                    self._cuda.drop_graph(oldest.graph)
            memory, size = self._activations, self._engine.activation_bytes()
            slot = _Slot(self._engine.context(profile, self._stream, memory, size))
            slot.context.place((name, buffer.device) for name, buffer in self._buffers.items())
        if slot.shape != shape:
            slot.shape = None  # until all of it is set
            slot.context.reshape(self._shapes(shape, inputs=True).items(), self._shapes(shape, inputs=False).items())
            slot.shape = shape
        self._slots[key] = slot  # now the most recently used
        return slot

    def _fill(self, shape: Shape, batch: Float32, counts: Int64) -> None:
        """Write the batch into pinned memory; what lies beyond a row's length becomes zero."""
        source = self._buffers[self._contract.input_kind].array(shape)
        lengths = self._buffers["lengths"].array(shape[:1])
        for row, (values, count) in enumerate(zip(batch, counts, strict=True)):
            source[row, :count] = values[:count]
            source[row, count:] = 0
        source[len(counts) :] = 0
        lengths[: len(counts)] = counts
        lengths[len(counts) :] = self._allowed.shortest  # a row that nobody reads, but a valid one

    def _enqueue(self, slot: _Slot, shape: Shape) -> None:
        for name, one in self._shapes(shape, inputs=True).items():
            self._cuda.send(self._buffers[name], math.prod(one))
        slot.context.enqueue(self._stream)
        for name, one in self._shapes(shape, inputs=False).items():
            self._cuda.fetch(self._buffers[name], math.prod(one))

    def _record(self, slot: _Slot, shape: Shape) -> None:
        self._cuda.begin_capture()
        try:
            self._enqueue(slot, shape)
        except BaseException:
            self._cuda.abandon_capture()
            raise
        slot.graph = self._cuda.end_capture()

    def _answer(self, rows: int) -> Answer:
        return Answer.of({name: self._buffers[name].array((rows, self._width(name))).copy() for name in self._outputs})

    @property
    def _outputs(self) -> tuple[Output, ...]:
        return self._contract.outputs

    def _width(self, output: Output) -> int:
        return len(self._contract.labels) if output == "scores" else self._contract.embedding_size

    def _shapes(self, shape: Shape, *, inputs: bool) -> dict[str, Shape]:
        """Shapes of all inputs, or of all outputs, for a source of `shape`."""
        if inputs:
            return {self._contract.input_kind: shape, "lengths": shape[:1]}
        return {name: (shape[0], self._width(name)) for name in self._outputs}

    def _allocate(self, tensors: tuple[Tensor, ...]) -> dict[str, Buffer]:
        counts: dict[str, int] = {}
        for profile in self._profiles:
            for inputs in (True, False):
                for name, shape in self._shapes(profile.largest, inputs=inputs).items():
                    counts[name] = max(counts.get(name, 0), math.prod(shape))
        return {tensor.name: self._cuda.allocate(counts[tensor.name], tensor.dtype) for tensor in tensors}

    def _check(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Raise ContractError unless the plan is what the contract promises, for every length of it."""
        specs = tuple(one.spec for one in inputs), tuple(one.spec for one in outputs)
        check_tensors(self._contract, *specs, "the plan")
        extra = sorted({one.name for one in outputs} - set(self._outputs))
        if extra:
            raise ContractError(f"the plan has the output {', '.join(extra)}, which nobody reads; build it again")
        longest = max((profile.largest[1] for profile in self._profiles), default=0)
        if longest < self._allowed.longest:
            raise ContractError(
                f"the contract promises up to {self._allowed.longest} {self._allowed.unit}, the plan's profiles "
                f"hold {longest}; build it again"
            )


def _unpickled(path: str, options: PlanOptions, verify: bool) -> PlanModel:
    return PlanModel.load(path, options, verify=verify)


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
        here = f"tensorrt {tensorrt_version()} and {gpu_name(options.gpu)}"
        raise BackendError(
            f"{problem}. The plan was built with {built}; here are {here}. "
            "A plan runs only on what it was built for: build it here from the ONNX model"
        ) from problem


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape[:2]))
