"""The benchmark's JSON document: everything that was asked, seen and concluded, raw samples included."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.protocol import Opened
from voxport.benchmarks.core.records import Accuracy, Build, ColdStart, Limits, Profile, Served
from voxport.benchmarks.core.settings import BackendSpec, Cell, Engine, LatencySettings, Scenario
from voxport.benchmarks.core.timing import Warmup
from voxport.benchmarks.core.writing import read_json, write_json
from voxport.benchmarks.stats.intervals import Interval
from voxport.benchmarks.system.gpu_state import GpuState
from voxport.benchmarks.system.machine import Machine
from voxport.benchmarks.system.resources import Energy, Memory
from voxport.runtime.contract import InputKind
from voxport.runtime.storage.serialization import encode

REPORT_KIND = "voxport.latency"
REPORT_VERSION = 1

Broken = Literal["answers differ", "less accurate"]
RowVerdict = Literal["faster", "slower", "equivalent", "undecided", "baseline", Broken]
UNRANKED: tuple[Broken, ...] = ("answers differ", "less accurate")  # shown, and neither ranked nor compared

Stage = Literal["build", "open", "answer", "time", "cold", "accuracy", "limits", "profile"]


@dataclass(frozen=True)
class BackendReport:
    """A backend and the file behind it. `precision` is the contract's; the baseline's is fp32."""

    spec: BackendSpec
    sha256: str
    size_bytes: int
    precision: str
    checkpoint_sha256: str  # of the checkpoint that the file comes from, or is
    opened: Opened | None  # None where it never opened
    build: Build | None = None  # of what was made of the checkpoint for this run; `size_bytes` is then its size


@dataclass(frozen=True)
class AnswerCheck:
    """A candidate's scores against the baseline's on the timed inputs, before anything is timed.

    `max_abs` is max |Δscore|, None where scores are not finite or of another shape; `same` says that it
    is at most `allowed`. `top1` is the share of utterances with the same best speaker.
    """

    backend: str
    cell: Cell
    max_abs: float | None
    top1: float
    allowed: float
    same: bool


@dataclass(frozen=True)
class Block:
    """The calls of one backend at one cell in one round. Times in nanoseconds, in order.

    `started` is in seconds since the measurement began. `peak_memory` is the process's, in bytes.
    A call answers `utterances`, where that is not `cell.batch`: offline, the whole set; as a server, one.
    As a server, `wall_ns` are the latencies, queueing included, at the highest rate that was held, and
    `cpu_ns` are the processor times of the calls. `device_ns` are times between CUDA events, of other calls.
    """

    round: int
    backend: str
    cell: Cell
    started: float
    load_seconds: float
    load_average: float | None
    peak_memory: int | None
    audio_seconds: float
    inputs_digest: str
    warmup: Warmup
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    utterances: int | None = None
    device_ns: tuple[int, ...] = ()
    served: Served | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    gpus: tuple[GpuState, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Something that a backend could not do, and why. `round` is None outside timing."""

    backend: str
    stage: Stage
    round: int | None
    cell: Cell | None
    reason: str


@dataclass(frozen=True)
class Row:
    """One backend at one cell, over all its rounds. None: too few samples, or nothing to compare.

    Times are milliseconds of a call; `real_time_factor` is median time over the sound's duration.
    `speed_up` is baseline time over this one's, `cpu_speed_up` the same in processor time.
    `spread` is interquartile range over median of what should be alike: calls; in a trace calls of one length; of a
    server's rounds the rates. `rank` is 1 for the best of those whose answers and accuracy
    pass. `share` is the floor's part of the median time. Bytes and joules: medians over rounds.
    In the Server scenario `queries_per_second` is the highest rate (geometric mean over rounds), 0 where
    some round held none, and `speed_up` is the ratio of rates.
    """

    backend: str
    cell: Cell
    rounds: int
    samples: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float
    cpu_p50_ms: float | None
    utterances_per_second: float
    real_time_factor: float
    speed_up: Interval | None
    cpu_speed_up: Interval | None
    verdict: RowVerdict
    answer: AnswerCheck | None
    spread: float
    unstable_rounds: int
    rank: int | None = None
    accuracy: float | None = None
    size_bytes: int | None = None
    resident_bytes: int | None = None
    proportional_bytes: int | None = None
    device_bytes: int | None = None
    device_p50_ms: float | None = None
    joules_per_utterance: float | None = None
    share: float | None = None
    queries_per_second: float | None = None


@dataclass(frozen=True)
class LatencyReport:
    """One run of `voxport bench latency`. `boundaries` says per input kind what the clock covers."""

    created: str
    scenario: str
    boundaries: tuple["Boundary", ...]
    settings: LatencySettings
    cells: tuple[Cell, ...]
    margin: float
    machine: Machine
    load_average_end: float | None
    backends: tuple[BackendReport, ...]
    answers: tuple[AnswerCheck, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    blocks: tuple[Block, ...]
    kind: str = REPORT_KIND
    version: int = REPORT_VERSION
    trace: tuple[int, ...] = ()  # lengths in frames that trace cells followed
    cold_starts: tuple[ColdStart, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    limits: Limits | None = None
    profiles: tuple[Profile, ...] = ()

    def compared(self, backend: str) -> bool:
        """Whether this backend got a speed-up against eager in at least one cell, with equal answers."""
        rows = [row for row in self.rows if row.backend == backend]
        return any(row.speed_up is not None and row.verdict not in UNRANKED for row in rows)

    def sound_seconds(self, cell: Cell) -> float:
        """Mean seconds of sound in an utterance of `cell`, which must have been timed."""
        block = next(block for block in self.blocks if block.cell == cell)
        return block.audio_seconds / (block.utterances or cell.batch)

    @property
    def not_compared(self) -> tuple[str, ...]:
        """The models that could not be compared. The run is a success where there is none."""
        models = [item.spec.name for item in self.backends if item.spec.role == "candidate" and not item.spec.optional]
        return tuple(name for name in models if not self.compared(name))

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """Further back ends that could not be measured at all, with the reason."""
        timed = {row.backend for row in self.rows}
        lost = [item.spec.name for item in self.backends if item.spec.optional and item.spec.name not in timed]
        reasons = {failure.backend: failure.reason for failure in reversed(self.failures)}
        return tuple((name, reasons.get(name, "it was not tried")) for name in lost)

    @property
    def harness_us(self) -> float | None:
        """Microseconds that the timing loop itself adds to each call; the largest that any worker measured."""
        return max((item.opened.harness_ns / 1e3 for item in self.backends if item.opened), default=None)


@dataclass(frozen=True)
class Boundary:
    """What lies between the two readings of the clock."""

    input_kind: InputKind
    text: str


def write_report(report: LatencyReport, path: Path) -> None:
    """Write `report` as JSON; a reader sees the whole file or none.

    Raises:
        ReportError: the file cannot be written.
    """
    write_json(encode(report), path)


def read_report(path: Path) -> LatencyReport:
    """Read what `write_report` wrote.

    Raises:
        ReportError: missing, not such a document, or of another version.
    """
    return read_json(path, LatencyReport, "voxport bench latency MODEL.onnx --against CHECKPOINT -o FILE.json")


# The contract's tolerance bounds a file's distance from eager PyTorch, each utterance alone. Here eager
# PyTorch runs batches with its own kernels, so it may itself lie that far from that reference, on the
# other side: twice the tolerance.
FACTOR = 2.0


Scores = npt.NDArray[np.float32]


def check_answers(backend: str, cell: Cell, scores: Scores, reference: Scores, tolerance: float) -> AnswerCheck:
    """Compare scores (inputs, batch, speakers) with the baseline's."""
    allowed = FACTOR * tolerance
    if scores.shape != reference.shape or not np.isfinite(scores).all():
        return AnswerCheck(backend, cell, None, 0.0, allowed, same=False)
    distance = float(np.abs(scores.astype(np.float64) - reference.astype(np.float64)).max())
    top1 = float(np.mean(scores.argmax(axis=-1) == reference.argmax(axis=-1)))
    return AnswerCheck(backend, cell, distance, top1, allowed, same=distance <= allowed)


SCENARIOS: dict[Scenario, str] = {
    "single-stream": "single stream: one caller, who sends the next call when the last is answered",
    "offline": "offline: the whole set is there at once, sorted by length and answered batch after batch; "
    "one time is one pass over the set",
    "server": "server: queries of one utterance come at random (Poisson), and what waits is answered together, "
    "as many as the batch allows; a time counts from the moment at which the query was due, waiting included",
}
_INPUTS: dict[InputKind, str] = {
    "features": "features in, scores out; float32 arrays in host memory; no file decoding, no frontend",
    "waveform": "waveform in, scores out; float32 arrays in host memory; frontend included; no file decoding",
}


def boundary_text(kind: InputKind, devices: Sequence[Engine], scenario: Scenario) -> str:
    """The boundary of one kind of input."""
    copies = "no copies to a device"
    if any(device != "cpu" for device in devices):
        copies = "copies to and from the GPU included, and its work has finished"
    waiting = "; waiting in the queue included" if scenario == "server" else ""
    return f"{_INPUTS[kind]}; {copies}{waiting}"
