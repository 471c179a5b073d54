"""What the measuring process and its workers say to each other: one JSON object a line.

A line is `{"name": value}` with one message of MESSAGES. A worker speaks only when asked.
"""

import json
from dataclasses import dataclass
from typing import Any

from voxport.benchmarks.machine import Fact
from voxport.benchmarks.plan import BackendSpec, Cell, InputSpec
from voxport.benchmarks.timing import BlockRule, Warmup
from voxport.runtime.contract import Array
from voxport.runtime.errors import VoxportError
from voxport.runtime.schema import decode, encode


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


@dataclass(frozen=True)
class Answered:
    """Scores of shape (inputs, batch, speakers), and the digest of the inputs that they belong to."""

    scores: Array
    inputs_digest: str


@dataclass(frozen=True)
class Time:
    """Ask for one block."""

    cell: Cell
    rule: BlockRule


@dataclass(frozen=True)
class Timed:
    """One block: nanoseconds of each call, in order. `audio_seconds` is the sound that one call covers."""

    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    warmup: Warmup
    audio_seconds: float
    inputs_digest: str
    peak_memory: int | None  # resident bytes of the process so far; None where the system does not tell


@dataclass(frozen=True)
class Failed:
    """The request could not be done. `mistake`: the user can mend it; otherwise `detail` has the traceback."""

    message: str
    mistake: bool
    detail: str = ""


Message = Open | Opened | Ask | Answered | Time | Timed | Failed
MESSAGES: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Open, Opened, Ask, Answered, Time, Timed, Failed)
}


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
