"""What `voxport tune` found, as a document; and what is other than in an earlier one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.cli.tune.ranking import Place
from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode, encode

FILE = "tune.json"
_KIND, _VERSION = "voxport.tune", 2


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
    """The whole. `places` are in the order of speed, `changed` what is other than in the report that was there.

    `threads` are the numbers of threads that were tried, the fewest first; eager PyTorch ran with the fewest.
    """

    created: str
    model: str
    checkpoint_sha256: str
    machine: Machine
    threads: tuple[int, ...]
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
        ("checkpoint", before.checkpoint_sha256[:12], after.checkpoint_sha256[:12]),
        ("processor", before.machine.cpu, after.machine.cpu),
        ("cores", f"{before.machine.cores:g}", f"{after.machine.cores:g}"),
        ("libraries", ", ".join(before.machine.versions), ", ".join(after.machine.versions)),
        ("threads tried", *(", ".join(map(str, each.threads)) for each in (before, after))),
        ("clock", before.clock, after.clock),
        ("lengths", "; ".join(before.cells), "; ".join(after.cells)),
        ("chosen", before.chosen, after.chosen),
    ):
        if old != new:
            found.append(f"{what}: {old} → {new}")
    gone = sorted(set(before.machine.features) - set(after.machine.features))
    come = sorted(set(after.machine.features) - set(before.machine.features))
    if gone or come:
        lines = [f"without {', '.join(gone)}"] * bool(gone) + [f"with {', '.join(come)}"] * bool(come)
        found.append(f"instructions: {'; '.join(lines)}")
    if not _comparable(before, after):
        return tuple(found)
    old_ratio = {place.name: place.against for place in before.places}
    for place in after.places:
        ratio = old_ratio.get(place.name)
        if ratio is not None and (ratio[1] > place.against[2] or ratio[2] < place.against[1]):
            found.append(f"{place.name}: {ratio[0]:.2f}× → {place.against[0]:.2f}× eager PyTorch's speed")
    return tuple(found)


def _comparable(before: TuneReport, after: TuneReport) -> bool:
    """Whether ratios are to the same: one network, the same lengths and clock, as many threads of eager PyTorch."""
    seen = [(each.checkpoint_sha256, each.clock, each.cells, each.threads[0]) for each in (before, after)]
    return seen[0] == seen[1]


def this_machine() -> Machine:
    """The processor and the libraries that run models."""
    from importlib import metadata

    from voxport.benchmarks.system.machine import describe_machine
    from voxport.cli.doctor.environment import cpu_features

    found, versions = describe_machine(), []
    for name in ("onnxruntime", "openvino", "voxport"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return Machine(found.cpu, cpu_features(), float(found.usable_cores), tuple(versions))
