"""What can be wrong with a corpus, and how it is told."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxport.runtime.errors import VoxportError

ProblemKind = Literal[
    "missing",  # no such file
    "unreadable",  # damaged, or not what its name says
    "malformed",  # a line of a manifest or an item of metadata.json that says nothing usable
    "channels",  # they hold different sounds, and nobody said which is the speaker's
    "short",  # fewer frames than the corpus's minimum
    "not-finite",  # NaN or infinity
    "wrong-shape",  # not (frames, n_mels), or not as many frames as declared
    "duplicate",  # listed twice, or the same content as another utterance
    "wrong-frontend",  # features that the declared frontend cannot give
    "empty-speaker",  # a speaker of whom no utterance is usable
]

SHOWN = 10  # problems that a message lists before it only counts


class CorpusError(VoxportError):
    """A corpus, or one of its entries, cannot be used as it is."""


class EntryError(Exception):
    """Raised inside this package while one entry is read; becomes that entry's Problem."""

    def __init__(self, kind: ProblemKind, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind: ProblemKind = kind
        self.reason = reason


@dataclass(frozen=True)
class Problem:
    """One entry that cannot be used: its key (or its place in a manifest), what is wrong, and why."""

    key: str
    kind: ProblemKind
    reason: str


def count_kinds(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems there are of each kind, the most frequent first."""
    return dict(Counter(problem.kind for problem in problems).most_common())


def refusal(path: Path, problems: Sequence[Problem]) -> CorpusError:
    """The error for a corpus with `problems`: the counts, the first few by name, and the way out."""
    counts = ", ".join(f"{count} {kind}" for kind, count in count_kinds(problems).items())
    noun = "entry" if len(problems) == 1 else "entries"
    lines = [f"{path}: {len(problems)} unusable {noun} ({counts})"]
    lines += [f"  {problem.key}: {problem.kind}: {problem.reason}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  … and {len(problems) - SHOWN} more")
    lines.append("Repair or remove them, or pass --skip-bad to go on without them.")
    return CorpusError("\n".join(lines))
