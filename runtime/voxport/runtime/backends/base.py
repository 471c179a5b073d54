"""What every way of running a model has in common: its answer, its protocol, its input checks, its place."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Contract, Dim, Output, Rounding, TensorSpec
from voxport.runtime.errors import BackendError, ContractError, VoxportError
from voxport.runtime.length_range import LengthRange

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MAX_THREADS = 1024
MAX_BATCH = 1 << 29  # numbers: 2 GB of float32, nine hours of samples at 16 kHz in one batch


class Answer:
    """A model's answer to a batch. Reading an output that the model does not have raises VoxportError."""

    __slots__ = ("_embedding", "_scores")

    def __init__(self, scores: Float32 | None, embedding: Float32 | None) -> None:
        """None stands for an output that the model does not have."""
        self._scores, self._embedding = scores, embedding

    @classmethod
    def of(cls, outputs: Mapping[str, Float32]) -> "Answer":
        """From a graph's outputs by their names."""
        return cls(outputs.get("scores"), outputs.get("embedding"))

    @classmethod
    def joined(cls, parts: Sequence["Answer"]) -> "Answer":
        """The rows of all `parts`, one after the other; at least one part of one model."""
        first = parts[0]
        return cls(
            None if first._scores is None else np.concatenate([part.scores for part in parts]),
            None if first._embedding is None else np.concatenate([part.embedding for part in parts]),
        )

    def take(self, rows: Any) -> "Answer":
        """Copies of some rows: a position, or positions in any order. The result has as many rows."""
        at = np.atleast_1d(rows)
        return Answer(
            None if self._scores is None else self._scores[at], None if self._embedding is None else self._embedding[at]
        )

    @property
    def scores(self) -> Float32:
        """Float32 (batch, speakers): the contract's score_scale × cosine, one column per label."""
        if self._scores is None:
            raise _no_output("scores")
        return self._scores

    @property
    def embedding(self) -> Float32:
        """Float32 (batch, embedding_size), rows of unit length."""
        if self._embedding is None:
            raise _no_output("embedding")
        return self._embedding


def need_output(contract: Contract, output: Output) -> None:
    """Raise VoxportError unless the model with this contract has `output`: before any work, where it is known early."""
    if output not in contract.outputs:
        raise _no_output(output)


def _no_output(output: Output) -> VoxportError:
    kept, cannot = ("scores", "embed, enroll and verify voices")
    if output == "scores":
        kept, cannot = "embedding", "identify its training's speakers"
    return VoxportError(
        f"this model was exported with --output {kept}, so it cannot {cannot}; "
        + ("enroll speakers in a gallery, or " if output == "scores" else "")
        + "export it again with --output both"
    )


class Backend(Protocol):
    """A loaded model. Its `run` may be called from any number of threads at once."""

    @property
    def contract(self) -> Contract:
        """What the model says about itself."""
        ...

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a padded batch; see `OnnxModel.run` for shapes and errors."""
        ...


def check_threads(threads: int | None) -> None:
    """Raise BackendError for a number of threads that no machine has: to start them all would take minutes."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise BackendError(f"threads must be between 1 and {MAX_THREADS}, found {threads}")


def default_threads() -> int:
    """One thread on one or two cores, otherwise two.

    A second thread on a two-core machine competes with the application that asked, and a model this
    small gains little from more than two; a server that has cores to spare says so with `threads`.
    """
    return 1 if available_cores() <= 2 else 2


def available_cores(quota_file: str | os.PathLike[str] = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores this process may use: its CPU affinity, and on Linux its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(quota_file) as file:
            quota, period = file.read(100).split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such limit, or "max"
        return cores


def expected_tensors(contract: Contract) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that a model with this contract must have; a named dim must vary."""
    if contract.input_kind == "features":
        source = TensorSpec("features", "float32", ("batch", "frames", contract.frontend.n_mels))
    else:
        source = TensorSpec("waveform", "float32", ("batch", "samples"))
    widths = {"scores": len(contract.labels), "embedding": contract.embedding_size}
    outputs = tuple(TensorSpec(name, "float32", ("batch", widths[name])) for name in contract.outputs)
    return (source, TensorSpec("lengths", "int64", ("batch",))), outputs


def check_tensors(
    contract: Contract, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], where: str
) -> None:
    """Raise ContractError unless the graph's tensors are those that the contract promises."""
    for kind, wanted, found in zip(("input", "output"), expected_tensors(contract), (inputs, outputs), strict=True):
        by_name = {tensor.name: tensor for tensor in found}
        for spec in wanted:
            tensor = by_name.get(spec.name)
            if tensor is None or tensor.dtype != spec.dtype or not _same_dims(spec.shape, tensor.shape):
                raise ContractError(
                    f"{where}: the contract promises the {kind} {spec}, the graph has "
                    f"{tensor or ', '.join(map(str, found)) or 'none'}; export the model again"
                )
        extra = sorted(set(by_name) - {spec.name for spec in wanted})
        if extra and kind == "input":  # nothing could be fed to it
            raise ContractError(f"{where}: the graph wants an unknown input {', '.join(extra)}; export the model again")


def _same_dims(wanted: tuple[Dim, ...], found: tuple[Dim, ...]) -> bool:
    def same(want: Dim, have: Dim) -> bool:
        return want == have if isinstance(want, int) else not isinstance(have, int)

    return len(wanted) == len(found) and all(map(same, wanted, found))


def check_batch(
    contract: Contract, allowed: LengthRange, inputs: npt.ArrayLike, lengths: npt.ArrayLike
) -> tuple[Float32, Int64]:
    """Return a batch as contiguous float32 and int64 arrays.

    All that can be told from types and shapes is told before anything is copied: a view of a few bytes may
    claim any shape.

    Raises:
        VoxportError: a wrong type or shape, more than MAX_BATCH numbers, or a length beyond the array.
        LengthError: a length outside the contract's range.
    """
    given, given_counts = _plain(inputs, np.float32, "float32 inputs"), _plain(lengths, np.int64, "int64 lengths")
    (source, _), _ = expected_tensors(contract)
    fits = given.ndim == len(source.shape) and (given.ndim == 2 or given.shape[2] == source.shape[2])
    if not fits or given.shape[0] == 0:
        raise VoxportError(f"expected {source} with at least one row, found an array of shape {given.shape}")
    if given_counts.shape != (given.shape[0],):
        raise VoxportError(f"expected one length for each of {given.shape[0]} rows, found shape {given_counts.shape}")
    if max(given.size, given_counts.size) > MAX_BATCH:
        raise VoxportError(
            f"a batch of shape {given.shape} is larger than the {MAX_BATCH:,} numbers that run at once; give fewer rows"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, as it may in the padding
        batch, counts = given.astype(np.float32, "C", copy=False), given_counts.astype(np.int64, "C", copy=False)
    allowed.check(counts)
    longest = int(counts.max())
    if longest > batch.shape[1]:
        raise VoxportError(f"a length of {longest} {allowed.unit}, but the array holds {batch.shape[1]}")
    return batch, counts


def _plain(values: npt.ArrayLike, dtype: Any, what: str) -> npt.NDArray[Any]:
    """As an array that can be brought to `dtype`, but is not yet."""
    try:
        array = np.asarray(values)
    except ValueError as problem:  # ragged nested lists
        raise VoxportError(f"expected {what}, found rows of different lengths; pad them") from problem
    if array.dtype == object or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise VoxportError(f"expected {what}, found {array.dtype}")
    return array


_WIDTH = 11  # of the longest name in the printed form


@dataclass(frozen=True)
class Explanation:
    """How a loaded model runs. `str()` gives it as lines for a person or a log.

    `device` is "cpu", "cuda", "tensorrt" or "rtx", and never "auto". `providers` are ONNX Runtime's, in order of
    preference; empty for a TensorRT plan or an RTX engine. `threads` is None where the CPU does not compute.
    `precision` is that of the computation, as far as the file and the options decide it; `computed` is that of what the
    file holds in float32, where an engine computes it in less.
    """

    backend: str
    device: str
    device_name: str
    why: str
    precision: str
    providers: tuple[str, ...] = ()
    threads: int | None = None
    versions: tuple[tuple[str, str], ...] = ()  # (package, version)
    notes: tuple[str, ...] = ()
    computed: Rounding | None = None

    def __str__(self) -> str:
        lines = [("back end", self.backend), ("device", f"{self.device}: {self.device_name}"), ("why", self.why)]
        if self.providers:
            lines.append(("providers", ", ".join(self.providers)))
        if self.threads is not None:
            lines.append(("threads", str(self.threads)))
        lines.append(("precision", self.precision))
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in self.versions)))
        lines += [("note", note) for note in self.notes]
        return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in lines)


def cpu_name() -> str:
    """The processor's name as Linux tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
