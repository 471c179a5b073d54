"""What the measuring process and its workers say to each other: one JSON object a line.

A line is `{"name": value}` with one message of MESSAGES. A worker speaks only when asked.
"""

import json
from dataclasses import dataclass, field
from typing import Any, get_args

from voxport.benchmarks.core.records import Accuracy, Build, ColdSample, Limits, Profile, Served, Work
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, Load
from voxport.benchmarks.core.timing import BlockRule, Warmup
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.system.resources import Energy, Memory
from voxport.runtime.contract import Array
from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode, encode


class ProtocolError(VoxportError):
    """A line that is no message: the other side is broken or of another version."""


@dataclass(frozen=True)
class Open:
    """Ask a fresh worker to load this backend."""

    backend: BackendSpec
    inputs: InputSpec


@dataclass(frozen=True)
class Opened:
    """The backend is loaded. `speakers` is the number of scores, `facts` what its library says of itself."""

    speakers: int
    frontend_digest: str
    load_seconds: float  # imports included
    versions: tuple[Fact, ...]
    facts: tuple[Fact, ...]
    harness_ns: int  # what the timing loop itself adds to each call


@dataclass(frozen=True)
class Ask:
    """Ask for the answers to all inputs of a cell, untimed."""

    cell: Cell
    load: Load = field(default_factory=Load)


@dataclass(frozen=True)
class Answered:
    """Scores (utterances, speakers) of all calls in turn, and the digest of the inputs that they belong to."""

    scores: Array
    inputs_digest: str


@dataclass(frozen=True)
class Time:
    """Ask for one block."""

    cell: Cell
    rule: BlockRule
    load: Load = field(default_factory=Load)


@dataclass(frozen=True)
class Timed:
    """One block: nanoseconds of each call, in order. `audio_seconds` is the sound that one call covers.

    `utterances` are answered by one call. `device_ns` are times between CUDA events, of other calls.
    """

    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    warmup: Warmup
    audio_seconds: float
    inputs_digest: str
    peak_memory: int | None  # resident bytes of the process so far; None where the system does not tell
    utterances: int
    device_ns: tuple[int, ...] = ()
    served: Served | None = None
    memory: Memory | None = None
    energy: Energy | None = None


@dataclass(frozen=True)
class Failed:
    """The request could not be done. `mistake`: the user can mend it; otherwise `detail` has the traceback."""

    message: str
    mistake: bool
    detail: str = ""


@dataclass(frozen=True)
class BuildAsk:
    """Ask a fresh worker to make, once, what `backend.built` names."""

    backend: BackendSpec
    inputs: InputSpec


@dataclass(frozen=True)
class Built:
    """It is there."""

    build: Build


@dataclass(frozen=True)
class Cold:
    """Ask a fresh worker to start from nothing, and to answer once at each cell."""

    backend: BackendSpec
    inputs: InputSpec
    cell: Cell
    new_cell: Cell | None


@dataclass(frozen=True)
class Colded:
    """How long it took. `ready` is the worker's monotonic clock, which is the system's, when it was asked.

    The time that loading the worker's own modules took is off it.
    """

    sample: ColdSample
    ready: int


@dataclass(frozen=True)
class Judge:
    """Ask for the accuracy on labelled utterances, each alone, the longer ones in windows of `max_frames`.

    `checkpoint` knows the labels, and which utterances its training has not seen.
    """

    backend: BackendSpec
    data: str
    checkpoint: str
    limit: int | None
    min_frames: int
    max_frames: int


@dataclass(frozen=True)
class Judged:
    """Counts and accuracy; the measuring side fills in the rest."""

    accuracy: Accuracy


@dataclass(frozen=True)
class Count:
    """Ask what one call of the ONNX model at `backend.path` has to do at each cell."""

    backend: BackendSpec
    inputs: InputSpec
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Counted:
    """The work, cell by cell."""

    works: tuple[Work, ...]


@dataclass(frozen=True)
class Limit:
    """Ask a fresh worker what this machine can do at the shapes of `works`."""

    works: tuple[Work, ...]
    device: str
    threads: int


@dataclass(frozen=True)
class Limited:
    """What it can do."""

    limits: Limits


@dataclass(frozen=True)
class ProfileAsk:
    """Ask a fresh worker where the time goes."""

    backend: BackendSpec
    inputs: InputSpec
    cell: Cell


@dataclass(frozen=True)
class Profiled:
    """Where it goes."""

    profile: Profile


@dataclass(frozen=True)
class Draw:
    """Ask for lengths in frames: `count` of those of the corpus at `data`, drawn with `seed`, within these bounds."""

    data: str
    inputs: InputSpec
    count: int
    min_frames: int
    max_frames: int


@dataclass(frozen=True)
class Drawn:
    """The lengths, in the order in which they are to come, and what they were drawn from."""

    lengths: tuple[int, ...]
    note: str


Request = Open | Ask | Time | BuildAsk | Cold | Judge | Count | Limit | ProfileAsk | Draw
Answer = Opened | Answered | Timed | Built | Colded | Judged | Counted | Limited | Profiled | Drawn
Message = Request | Answer | Failed
MESSAGES: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in get_args(Message)}


def to_line(message: Message) -> str:
    """One line, with its newline."""
    return json.dumps({type(message).__name__.lower(): encode(message)}) + "\n"


def from_line(line: str) -> Message:
    """Read a line.

    Raises:
        ProtocolError: it holds no message.
    """
    try:
        data = json.loads(line)
    except ValueError as problem:
        raise ProtocolError(f"expected a message, found {line[:80]!r}") from problem
    if not isinstance(data, dict) or len(data) != 1 or next(iter(data)) not in MESSAGES:
        raise ProtocolError(f"expected a message, found {line[:80]!r}")
    ((name, value),) = data.items()
    message: Message = decode(MESSAGES[name], value, name, ProtocolError)
    return message
