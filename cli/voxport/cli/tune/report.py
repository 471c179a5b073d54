"""What `voxport tune` found, as a document; and what is other than in an earlier one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.cli.tune.ranking import Place
from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode, encode

FILE = "tune.json"
_KIND, _VERSION = "voxport.tune", 1


@dataclass(frozen=True)
class Machine:
    """What decides how fast a form is: the processor, what it can do, and the libraries."""

    cpu: str
    features: tuple[str, ...]
    cores: float
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """Whether a candidate gave the network's answers: max |Δscore| and its tolerance, and accuracy where it was judged.

    `problem` says why it takes no part in the ranking.
    """

    name: str
    passed: bool
    max_abs_score: float | None
    tolerance: float | None
    eager_accuracy: float | None
    accuracy: float | None
    problem: str | None = None


@dataclass(frozen=True)
class TuneReport:
    """The whole. `places` are in the order of speed, `changed` what is other than in the report that was there."""

    created: str
    model: str
    checkpoint_sha256: str
    machine: Machine
    threads: int
    clock: str
    cells: tuple[str, ...]
    lengths: str
    proofs: tuple[Proof, ...]
    places: tuple[Place, ...]
    finding: str
    changed: tuple[str, ...] = ()
    kind: str = _KIND
    version: int = _VERSION

    @property
    def chosen(self) -> str:
        """The candidate to run."""
        return self.places[0].name


def read_tune(path: Path) -> TuneReport | None:
    """An earlier report; None where there is none, or none that this voxport reads."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        return decode(TuneReport, data, str(path))
    except (OSError, ValueError, VoxportError):
        return None


def as_json(report: TuneReport) -> str:
    """The document."""
    return json.dumps(encode(report), indent=1, ensure_ascii=False) + "\n"


def changes(before: TuneReport, after: TuneReport) -> tuple[str, ...]:
    """What another machine, or other libraries, changed: a sentence each; none where nothing did."""
    found = []
    for what, old, new in (
        ("processor", before.machine.cpu, after.machine.cpu),
        ("cores", f"{before.machine.cores:g}", f"{after.machine.cores:g}"),
        ("libraries", ", ".join(before.machine.versions), ", ".join(after.machine.versions)),
        ("threads", str(before.threads), str(after.threads)),
        ("chosen", before.chosen, after.chosen),
    ):
        if old != new:
            found.append(f"{what}: {old} → {new}")
    gone = sorted(set(before.machine.features) - set(after.machine.features))
    come = sorted(set(after.machine.features) - set(before.machine.features))
    if gone or come:
        lines = [f"without {', '.join(gone)}"] * bool(gone) + [f"with {', '.join(come)}"] * bool(come)
        found.append(f"instructions: {'; '.join(lines)}")
    old_ratio = {place.name: place.against for place in before.places}
    for place in after.places:
        ratio = old_ratio.get(place.name)
        if ratio is not None and (ratio[1] > place.against[2] or ratio[2] < place.against[1]):
            found.append(f"{place.name}: {ratio[0]:.2f}× → {place.against[0]:.2f}× eager PyTorch's speed")
    return tuple(found)
