"""An ONNX artefact run by OpenVINO."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.backends.base import (
    Answer,
    Explanation,
    Float32,
    Int64,
    check_batch,
    check_tensors,
    cpu_name,
)
from voxport.runtime.backends.golden import check_golden, check_title
from voxport.runtime.backends.onnxrt.file import contract_of, read_onnx
from voxport.runtime.backends.origin import Origin, reduced
from voxport.runtime.backends.ov.cache import CompiledCache
from voxport.runtime.backends.ov.graph import cut_frontend
from voxport.runtime.backends.ov.session import Computed, Engine, OpenVinoOptions, first_line
from voxport.runtime.contract import METADATA_KEY, Contract
from voxport.runtime.errors import BackendError
from voxport.runtime.forks import keep_for_ever, tell_of_forks
from voxport.runtime.frontend.log_mel import min_samples, num_frames
from voxport.runtime.length_range import LengthRange
from voxport.runtime.storage.seal import SEAL_KEY, check_seal, rewritten

_KEPT_SECONDS = 12.0  # of sound in a batch, whose working memory is kept for the next run, as in ONNX Runtime's engine
_FINEST, _STEPS = 8, 16  # frames of the grid's finest step, and its steps in an octave


class OpenVinoModel:
    """A loaded ONNX model: padded batches in, scores and embeddings out.

    Any number of threads may share one; `OpenVinoOptions.streams` of them run at once. After a fork it opens its file
    again when it is first used in the child. It is pickled as its path and its options: whoever unpickles it loads the
    file, which must still be the same model.
    """

    def __init__(self, path: str, contract: Contract, options: OpenVinoOptions) -> None:
        """Use `OpenVinoModel.load`, which checks what the file says about itself."""
        self._path, self._contract, self._options = path, contract, options
        self._allowed = LengthRange.of_input(contract)
        step = contract.frontend.hop_length if contract.input_kind == "features" else 1
        self._kept = int(_KEPT_SECONDS * contract.frontend.sample_rate / step)
        self._lock = threading.Lock()
        self._parts: tuple[_Part, ...] = ()
        self._engine: Engine | None = None
        self._notes: tuple[str, ...] = ()
        self._origin: Origin | None = None
        tell_of_forks(self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], options: OpenVinoOptions | None = None, *, verify: bool = True
    ) -> "OpenVinoModel":
        """Load a model that `voxport export onnx` wrote, and check that it still is what it says.

        Checked are the contract, its version, and the graph's tensors against it. `verify` also compares the
        file's bytes with the checksum at its end, and replays the golden vector, held to the tolerance of the precision
        that is computed in.

        Raises:
            ContractError: any of these checks fails, or the file is missing or damaged.
            BackendError: openvino is not there, or this CPU or this file does not allow the precision.
        """
        where, chosen = os.fspath(path), options or OpenVinoOptions()
        file = read_onnx(path, METADATA_KEY, graph=True)
        if verify and not check_seal(path, fast=True) and read_onnx(path, SEAL_KEY).contract is not None:
            raise rewritten(where)
        contract = contract_of(file, path)
        if verify:
            check_title(contract, file.graph_name, where)
        check_tensors(contract, file.inputs, file.outputs, where)
        _check_precision(contract, chosen.computed, where)
        model = cls(os.path.abspath(where), contract, chosen)
        model._open()
        if verify:
            check_golden(model, where)
        model._origin = Origin.of(model, where, chosen, verify)
        return model

    def _open(self) -> None:
        """Start OpenVINO and compile, or read what was compiled before."""
        engine = Engine(self._options)
        computed = self._options.computed
        # Quiet bands of a spectrum are small differences of large sums: the frontend stays in float32.
        split = computed != "fp32" and self._contract.input_kind == "waveform"
        precisions: tuple[Computed, ...] = ("fp32", computed) if split else (computed,)
        graphs: list[Any] = []
        notes: list[str] = []

        def graph(part: int) -> Any:
            if not graphs:
                whole = engine.read(self._path)
                graphs.extend(cut_frontend(whole) if split else (whole,))
            return graphs[part]

        parts = []
        for number, precision in enumerate(precisions):
            name = f"part {number + 1} of {len(precisions)} in {precision}"
            facts = (engine.version, *engine.capabilities, name, str(_STEPS), str(engine.threads))
            cache = CompiledCache(self._path, self._options.cache, facts) if self._options.keep else None
            parts.append(_Part(_compiled(engine, cache, lambda n=number: graph(n), self._path, precision)))  # type: ignore[misc]
            if cache is not None and cache.problem:
                notes.append(f"the compiled model is not kept for the next start: {cache.problem}")
        self._engine, self._parts, self._notes = engine, tuple(parts), tuple(dict.fromkeys(notes))

    def after_fork(self) -> None:
        """In a forked child: what was compiled belongs to the parent, whose threads are not here; see `forks`."""
        for part in self._parts:
            keep_for_ever(part)
        keep_for_ever(self._engine)
        self._parts, self._engine = (), None
        self._lock = threading.Lock()  # the old one may be held by a thread of the parent

    def _running(self) -> "tuple[_Part, ...]":
        """What is compiled; in a forked child its own, made when it is first needed."""
        if not self._parts:
            with self._lock:
                if not self._parts:
                    assert self._origin is not None  # nothing is compiled after a fork alone
                    other = self._origin.load()
                    self._engine, self._notes, self._parts = other._engine, other._notes, other._parts
        return self._parts

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, self._origin)

    @property
    def contract(self) -> Contract:
        """What the model's file says about it."""
        return self._contract

    @property
    def golden_tolerance(self) -> float:
        """How far the replayed golden vector may be off in the precision that is computed in."""
        computed = self._options.computed
        return self._contract.golden_tolerance(None if computed == "fp32" else computed)

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a batch.

        Args:
            inputs: float32 (batch, frames, n_mels), or (batch, samples) at the frontend's sample rate
                where the contract's input kind is `waveform`. What lies beyond a row's length is not used.
            lengths: int64 (batch,), frames or samples of each row.

        OpenVINO compiles kernels for every length that it meets, and keeps them. So inputs are padded to lengths of a
        grid, of 16 steps in an octave, which changes no answer and costs 2 % of the time on average.

        Raises:
            LengthError: a length outside the contract's range.
            VoxportError: a wrong type or shape.
            BackendError: openvino failed, for want of memory for example.
        """
        batch, counts = check_batch(self._contract, self._allowed, inputs, lengths)
        return self._run(_fit(batch, self._padded(int(counts.max()))), counts)

    def explain(self) -> Explanation:
        """What runs where."""
        self._running()
        engine, options = self._engine, self._options
        assert engine is not None
        notes = list(self._notes)
        if options.streams > 1:
            notes.append(f"up to {options.streams} runs go on at once")
        if len(self._parts) > 1:
            notes.append("the frontend is computed in float32")
        own = self._contract.precision
        precision: str = options.computed if own == "fp32" else own
        if own == "int8" and options.computed != "fp32":
            precision = f"int8, the rest in {options.computed}"
        return Explanation(
            backend="OpenVINO",
            device="cpu",
            device_name=cpu_name(),
            why="runtime 'openvino' was asked for",
            precision=precision,
            threads=engine.threads,
            versions=(("openvino", engine.version),),
            notes=tuple(notes),
            computed=None if options.computed == "fp32" else options.computed,
        )

    def _padded(self, longest: int) -> int:
        """The length of the array for a batch whose longest row has `longest` frames or samples."""
        if self._contract.input_kind == "features":
            return min(grid(longest), self._allowed.longest)
        spec = self._contract.frontend
        frames = min(grid(num_frames(spec, longest)), self._contract.max_frames)
        return min_samples(spec, frames + 1) - 1  # the most samples that give so many frames

    def _run(self, batch: Float32, counts: Int64) -> Answer:
        parts = self._running()
        feeds: dict[str, npt.NDArray[Any]] = {self._contract.input_kind: batch, "lengths": counts}
        try:
            for part in parts:
                feeds = {**feeds, **part.run(feeds, self._options.streams)}
            if batch.shape[0] * batch.shape[1] > self._kept:
                for part in parts:
                    part.release()
        except Exception as problem:  # its errors have no common base of their own
            raise BackendError(
                f"openvino failed on an input of shape {batch.shape}: {first_line(problem)}"
            ) from problem
        return Answer.of({name: feeds[name] for name in self._contract.outputs})


class _Part:
    """A compiled graph and the requests that are free to run it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        # All names: where the compiler leaves out a node behind an input, that input has the node's name too, and
        # get_any_name (2026.4.1) may give this one.
        self._inputs = [tuple(each.get_names()) for each in compiled.inputs]
        self._outputs = [tuple(each.get_names()) for each in compiled.outputs]
        self._idle: list[Any] = []

    def run(self, feeds: dict[str, npt.NDArray[Any]], most: int) -> dict[str, Any]:
        """The outputs by all of their names. At most `most` requests are kept."""
        try:
            request = self._idle.pop()  # in one step, whichever thread comes first
        except IndexError:
            request = self._compiled.create_infer_request()
        given = {at: next(feeds[name] for name in names if name in feeds) for at, names in enumerate(self._inputs)}
        found = request.infer(given, share_inputs=True, share_outputs=True)
        values = [np.array(found[at]) for at in range(len(self._outputs))]  # before another run overwrites them
        answer = {name: value for names, value in zip(self._outputs, values, strict=True) for name in names}
        if len(self._idle) < most:
            self._idle.append(request)
        return answer

    def release(self) -> None:
        """Give the working memory back to the system."""
        self._compiled.release_memory()


def grid(frames: int) -> int:
    """The length of the grid that `frames` frames are padded to: 16 of them in an octave, but no finer than by 8."""
    step = max(_FINEST, 1 << max(0, (frames // _STEPS).bit_length() - 1))
    return -(-frames // step) * step


def _fit(batch: Float32, length: int) -> Float32:
    """`batch` with zeros behind its rows, or less of them behind, so that they are `length` long."""
    if batch.shape[1] == length:
        return batch
    fitted = np.zeros((batch.shape[0], length, *batch.shape[2:]), np.float32)
    kept = min(length, batch.shape[1])
    fitted[:, :kept] = batch[:, :kept]
    return fitted


def _compiled(
    engine: Engine, cache: CompiledCache | None, graph: Callable[[], Any], path: str, computed: Computed
) -> Any:
    """From the cache, or else compiled and kept there."""
    if cache is not None and (content := cache.read()) is not None:
        try:
            return engine.load(content, computed)
        except Exception as problem:  # of another build of the same version, say; the entry is made anew
            cache.problem = first_line(problem)
    compiled = engine.compile(graph(), path, computed)
    if cache is not None:
        cache.problem = ""
        cache.write(compiled.export_model().getvalue())
    return compiled


def _check_precision(contract: Contract, computed: Computed, where: str) -> None:
    """Raise BackendError where nothing says how far the answers may move in this precision."""
    if computed == "fp32":
        return
    if contract.precision == "fp16":
        raise BackendError(
            f"{where}: the model is fp16, which OpenVINO does not compute in {computed}; load it without a precision, "
            "or export it in fp32"
        )
    golden = contract.golden
    if (golden.tolerance_bf16 if computed == "bf16" else golden.tolerance_fp16) is None:
        raise BackendError(
            f"{where}: precision {computed} was asked for, and the file, of an earlier voxport, does not say how far "
            "its answers may move in it; export it again"
        )
