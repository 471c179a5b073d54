"""Who takes part: the models that were named, their baselines and controls, and the grid that fits them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxport.benchmarks.backends.registry import Variant, chosen
from voxport.benchmarks.core.settings import DEFAULT_FRAMES, BackendSpec, Cell, Engine, LatencySettings, Role
from voxport.runtime.backends.formats import format_of, read_contract
from voxport.runtime.contract import Contract, InputKind
from voxport.runtime.errors import LengthError, VoxportError
from voxport.runtime.storage.atomic import file_sha256


@dataclass(frozen=True)
class Subject:
    """A backend to measure, its file's SHA-256 and bytes, and its contract (None for the checkpoint)."""

    spec: BackendSpec
    sha256: str
    size_bytes: int
    contract: Contract | None = None


def gather(models: Sequence[Path], checkpoint: Path, settings: LatencySettings) -> tuple[Subject, ...]:
    """For each input kind among the models: its baseline, its control, and the models.

    Raises:
        VoxportError: no model, an unusable file, or models that do not share a frontend.
    """
    if not models:
        raise VoxportError("name at least one model to measure, e.g. model.onnx")
    if checkpoint.is_dir():
        checkpoint = checkpoint / "model.pt"
    if not checkpoint.is_file():
        raise VoxportError(f"{checkpoint}: no such checkpoint; give the RUN/model.pt that the models come from")
    contracts = [read_contract(path) for path in models]
    for path, contract in zip(models, contracts, strict=True):
        if contract.frontend != contracts[0].frontend:
            raise VoxportError(f"{path}: its frontend is not that of {models[0]}; measure them in separate runs")
    kinds = list(dict.fromkeys(contract.input_kind for contract in contracts))
    models_named = list(zip(_names(models), models, contracts, strict=True))
    subjects = []
    more = chosen(settings.also)
    for kind in kinds:
        eager = "eager" if len(kinds) == 1 else f"eager {kind}"
        baseline = _subject(eager, "eager", checkpoint, "baseline", kind, settings)
        subjects.append(baseline)
        if settings.control:
            twin = dataclasses.replace(baseline.spec, name=f"{eager} (control)", role="control")
            subjects.append(dataclasses.replace(baseline, spec=twin))
        for name, path, contract in models_named:
            if contract.input_kind == kind:
                model = _model(_subject(name, "onnx", path, "candidate", kind, settings), path)
                subjects.append(dataclasses.replace(model, contract=contract))
        own = [item for item in subjects if item.spec.input_kind == kind]
        subjects += _variants(more, own, baseline, "" if len(kinds) == 1 else f" {kind}")
    left = [one for one in subjects if one.spec.name not in settings.leave_out]
    return tuple(each for one in left for each in _with_threads(one, settings.thread_counts))


def _with_threads(subject: Subject, counts: Sequence[int]) -> Iterator[Subject]:
    """A candidate once for each number of threads that was asked for; anything else as it is."""
    if not counts or subject.spec.role != "candidate":
        yield subject
        return
    for count in counts:
        named = dataclasses.replace(subject.spec, name=threaded(subject.spec.name, count), threads=count)
        yield dataclasses.replace(subject, spec=named)


def threaded(name: str, threads: int) -> str:
    """The name of a candidate that is measured with several numbers of threads."""
    return f"{name}, {threads} thread" + ("s" if threads > 1 else "")


def _model(subject: Subject, path: Path) -> Subject:
    """Anything but an ONNX model goes through the runtime's own choice of back end, and runs where it can."""
    found = format_of(path)
    if found.name == "onnx":
        return subject
    device = found.devices[0] if len(found.devices) == 1 else subject.spec.device
    return dataclasses.replace(subject, spec=dataclasses.replace(subject.spec, kind="artefact", device=device))


def _variants(more: Mapping[str, Variant], own: Sequence[Subject], baseline: Subject, ending: str) -> Iterator[Subject]:
    """The further back ends of one input kind; none that is there already."""
    for name, variant in more.items():
        engine = variant.engine or baseline.spec.device
        if variant.of == "checkpoint":
            if (variant.kind, engine) == ("eager", baseline.spec.device):
                continue
            yield _variant(baseline, name + ending, variant, engine)
            continue
        for subject in own:
            if subject.spec.kind == "onnx" and (variant.kind, engine) != ("onnx", subject.spec.device):
                yield _variant(subject, f"{subject.spec.name} ({name.removeprefix('onnx_')})", variant, engine)


def _variant(source: Subject, name: str, variant: Variant, engine: Engine) -> Subject:
    spec = dataclasses.replace(
        source.spec,
        name=name,
        kind=variant.kind,
        role="candidate",
        device=engine,
        graphs=variant.graphs,
        precision=variant.computed or source.spec.precision,
        optional=True,
    )
    return dataclasses.replace(source, spec=spec)


def _subject(name: str, kind: str, path: Path, role: Role, input_kind: InputKind, settings: LatencySettings) -> Subject:
    spec = BackendSpec(name, kind, str(path), role, input_kind, settings.device, settings.threads)
    return Subject(spec, file_sha256(path), path.stat().st_size)


def _names(models: Sequence[Path]) -> list[str]:
    """File names, told apart by their folders where they are equal, and by a number where those are too."""
    names = [path.name for path in models]
    names = [str(path) if names.count(path.name) > 1 else path.name for path in models]
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def choose_cells(
    settings: LatencySettings, subjects: Sequence[Subject], trace: tuple[int, ...] = ()
) -> tuple[Cell, ...]:
    """The grid: every batch with every length, and with the trace where there is one.

    Raises:
        LengthError: a length that was asked for, which a model does not allow.
    """
    contracts = [(item.spec.name, item.contract) for item in subjects if item.contract is not None]
    low, high = length_range(subjects)
    for name, contract in contracts:
        for frames in settings.frames or ():
            if not contract.min_frames <= frames <= contract.max_frames:
                raise LengthError(
                    f"--frames {frames}: {name} takes {contract.min_frames} to {contract.max_frames} frames"
                )
    if not low <= high:
        raise LengthError(f"the models share no length: one needs {low} frames, another takes at most {high}")
    batches = dict.fromkeys(settings.batches)
    usual = () if trace else tuple(frames for frames in DEFAULT_FRAMES if low <= frames <= high) or (high,)
    lengths = dict.fromkeys(settings.frames or usual)
    fixed = tuple(Cell(batch, frames) for batch in batches for frames in lengths)
    return fixed + (tuple(Cell(batch, max(trace), trace=True) for batch in batches) if trace else ())


def length_range(subjects: Sequence[Subject]) -> tuple[int, int]:
    """Fewest and most frames that all models take."""
    contracts = [item.contract for item in subjects if item.contract is not None]
    return max(one.min_frames for one in contracts), min(one.max_frames for one in contracts)
