"""Runs of an engine: memory, profiles, shapes, CUDA graphs. What TensorRT plans and RTX engines have in common."""

import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt

from voxport.runtime.backends.base import Answer, Float32, Int64, check_batch, check_tensors
from voxport.runtime.backends.cuda import Buffer, Cuda
from voxport.runtime.backends.golden import check_golden
from voxport.runtime.backends.origin import Origin, reduced
from voxport.runtime.backends.trt.engine import Context, Engine, Profile, Shape, Tensor
from voxport.runtime.backends.trt.profiles import bucket, choose_profile
from voxport.runtime.contract import Contract, Output
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.forks import keep_for_ever, refuse_after_fork, tell_of_forks
from voxport.runtime.length_range import LengthRange

Model = TypeVar("Model", bound="EngineModel")


@dataclass
class _Slot:
    """A context at work: for one shape where graphs are kept, for one profile where they are not."""

    context: Context
    shape: Shape | None = None
    graph: Any = None


class EngineModel:
    """An engine that answers padded batches, with scores and embeddings. Which library runs it is the engine's affair.

    Device and pinned host memory are taken once, for the largest shape of all profiles. Threads may share
    a model; their runs follow one another, since they share that memory. It cannot be used after a fork, and
    is pickled as its path and its options.
    """

    def __init__(
        self, contract: Contract, engine: Engine, cuda: Cuda, graphs: int = 0, *, own_graphs: bool = False
    ) -> None:
        """Use `load` of a subclass, which checks that contract and engine belong together.

        `graphs` is the number of shapes whose CUDA graph is recorded here; with `own_graphs` the engine records them
        itself. Where graphs are kept, inputs are padded to one of few shapes, so that most runs find theirs.

        Raises:
            ContractError: the engine is not what the contract promises.
        """
        self._contract = contract
        self._engine = engine
        self._cuda = cuda
        self._stream = int(cuda.stream)
        self._allowed = LengthRange.of_input(contract)
        self._lock = threading.Lock()
        self._process = os.getpid()
        tell_of_forks(self)
        self._slots: OrderedDict[tuple[int, Shape | None], _Slot] = OrderedDict()
        self._graphs = graphs if engine.shares_profiles() else 0
        self._few_shapes = own_graphs or self._graphs > 0
        self._origin: Origin | None = None
        self._closed = False
        self._free = weakref.finalize(self, cuda.close)
        self._free.atexit = False  # the process gives all back anyway, and CUDA may be gone by then
        inputs, outputs = engine.tensors()
        self._profiles = engine.profiles(contract.input_kind)
        self._check(inputs, outputs)
        self._activations = cuda.allocate_device(engine.activation_bytes())
        self._buffers = self._allocate((*inputs, *outputs))

    def after_fork(self) -> None:
        """In a forked child: CUDA is the parent's, and giving back its memory from here would fail or wait."""
        self._free.detach()
        keep_for_ever((self._engine, self._cuda, self._slots))

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, self._origin)

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

    def close(self) -> None:
        """Free the GPU's memory. Runs that have begun end first; later ones raise BackendError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._before_close()
            self._slots.clear()  # first the contexts, then the engine with its weights, then what they used
            del self._engine
            self._free()

    def _before_close(self) -> None:
        """What is to be kept of the engine; it must not raise."""

    def __enter__(self: Model) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, profile: Profile, batch: Float32, counts: Int64) -> Answer:
        shape = bucket(profile, len(counts), int(counts.max()), round_up=self._few_shapes)
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

    def profile_note(self) -> str:
        """The shapes that the profiles take, for `explain`."""
        spans = (f"{_times(profile.smallest)} to {_times(profile.largest)}" for profile in self._profiles)
        return f"profiles of {self._contract.input_kind}: {', '.join(spans)}"

    def replay(self, where: str) -> None:
        """Replay the golden vector, once as it comes and, where graphs are kept, once as a graph."""
        for _ in range(2 if self._few_shapes else 1):
            check_golden(self, where)


def opened(where: str, cuda: Cuda, make: Callable[[], Model], verify: bool) -> Model:
    """The model that `make` gives; `verify` replays its golden vector. On an error `cuda` is closed.

    Raises:
        ContractError: the engine at `where` is not what its contract promises.
        BackendError: the library or the GPU refuses it.
    """
    try:
        model = make()
        if verify:
            model.replay(where)
    except ContractError as problem:
        cuda.close()
        text = str(problem)
        raise ContractError(text if text.startswith(where) else f"{where}: {text}") from problem
    except BaseException:
        cuda.close()
        raise
    return model


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape[:2]))
