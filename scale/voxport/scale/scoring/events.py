"""What engines tell while they work, and what they are given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxport.scale.scoring.listening import Job
from voxport.scale.scoring.parts import Figures
from voxport.scale.scoring.plan import Part


@dataclass(frozen=True)
class Work:
    """What is the same for all workers: where, what with, and `run`, the name of this start (see `PartWriter`)."""

    out: Path
    corpus: Path
    job: Job
    run: str


@dataclass(frozen=True)
class Event:
    """`rows` more are scored, of `seconds` of sound; with `figures`, a part is done."""

    rows: int
    seconds: float
    figures: Figures | None = None


Spread = Callable[[Work, Sequence[Part]], Iterator[Event]]  # an engine, with its options bound
