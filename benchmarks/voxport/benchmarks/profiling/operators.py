"""Time by operator of ONNX models in ONNX Runtime, before and after: all in one run, taken in turns.

The times of nodes are the profiler's, which itself costs time in every node; what models cost as a whole is
measured without it, in CPU time, by blocks of calls that take turns in an order drawn anew for every round.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxport.benchmarks.core.inputs import make_inputs
from voxport.benchmarks.core.protocol import BuildAsk, Built
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec
from voxport.benchmarks.profiling.graph import GraphFacts, RunNode, executed, graph_facts
from voxport.benchmarks.stats.intervals import Estimate, median_interval
from voxport.benchmarks.worker.client import WORKER, WorkerProcess
from voxport.runtime.backends.formats import is_checkpoint, read_contract
from voxport.runtime.backends.onnxrt.session import import_onnxruntime
from voxport.runtime.contract import Contract
from voxport.runtime.errors import ContractError, LengthError, VoxportError

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what comes next
BEFORE = "torch.onnx.export"
_BUILD_SECONDS = 1200.0
_WARM_CALLS = 3
_BLOCK_CALLS = 50


@dataclass(frozen=True)
class OpProfileSettings:
    """Lengths and batches to profile at, calls under the profiler, and rounds and seconds of a block without it."""

    frames: tuple[int, ...] = (128,)
    batches: tuple[int, ...] = (1,)
    runs: int = 20
    rounds: int = 9
    block_seconds: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class OpShare:
    """All executed nodes of one operator: how many, microseconds of a call, and their share of all nodes' time."""

    op: str
    nodes: int
    us: float
    share: float


@dataclass(frozen=True)
class ModelProfile:
    """One model at one cell. `call_ms` is CPU time without the profiler; `faster` the baseline's over it, paired."""

    model: str
    cell: Cell
    graph: GraphFacts
    ops: tuple[OpShare, ...]
    nodes: tuple[RunNode, ...]
    nodes_us: float
    call_ms: Estimate
    faster: Estimate | None


@dataclass(frozen=True)
class OpProfileReport:
    """`before` is what the others are compared with: how it was made, or None where there is nothing."""

    onnxruntime: str
    before: str | None
    runs: int
    rounds: int
    profiles: tuple[ModelProfile, ...]


@dataclass(frozen=True)
class _Model:
    name: str
    path: Path


def profile_models(
    models: Sequence[Path],
    against: Path | None,
    settings: OpProfileSettings,
    progress: Progress,
    command: tuple[str, ...] = WORKER,
) -> OpProfileReport:
    """Profile `models`, and before them `against`: an ONNX file, or a checkpoint, which is exported as it comes.

    One thread, ONNX Runtime on the CPU, equal inputs for all.

    Raises:
        ContractError: a file is no ONNX model, or the first of `models` no artefact.
        LengthError: a length that a model does not take.
        VoxportError: models of different frontends, or the checkpoint cannot be exported.
    """
    contract = _shared_contract(models)
    inputs = InputSpec(contract.frontend, settings.seed, pool=1)
    cells = [Cell(batch, frames) for frames in settings.frames for batch in settings.batches]
    for cell in cells:
        if not contract.min_frames <= cell.frames <= contract.max_frames:
            raise LengthError(
                f"{models[0]} takes {contract.min_frames} to {contract.max_frames} frames, not {cell.frames}"
            )
    runtime = import_onnxruntime("cpu")
    with tempfile.TemporaryDirectory() as folder:
        subjects, made = [_Model(path.name, path) for path in models], None
        total = len(cells) + (against is not None)
        if against is not None:
            progress(0, total, f"{BEFORE} of {against.name}" if is_checkpoint(against) else str(against))
            first, made = _before(against, Path(folder), inputs, contract, command)
            subjects.insert(0, first)
        profiles: list[ModelProfile] = []
        for number, cell in enumerate(cells):
            progress(total - len(cells) + number, total, f"{cell} frames")
            profiles += _profile_cell(subjects, cell, inputs, contract, settings, made is not None)
        progress(total, total, "")
    return OpProfileReport(runtime.__version__, made, settings.runs, settings.rounds, tuple(profiles))


def _shared_contract(models: Sequence[Path]) -> Contract:
    if not models:
        raise VoxportError("name at least one model to profile, e.g. model.onnx")
    contracts = [read_contract(path) for path in models]
    for path, contract in zip(models, contracts, strict=True):
        if (contract.frontend, contract.input_kind) != (contracts[0].frontend, contracts[0].input_kind):
            raise VoxportError(f"{path}: its input is not that of {models[0]}; profile them in separate runs")
    return contracts[0]


def _before(
    against: Path, folder: Path, inputs: InputSpec, contract: Contract, command: tuple[str, ...]
) -> tuple[_Model, str]:
    """What the models are compared with, and how it came to be."""
    if not against.is_file():
        raise VoxportError(f"{against}: no such file; give the RUN/model.pt that the models come from, or an ONNX file")
    if not is_checkpoint(against):
        return _Model(f"{against.name} (before)", against), str(against)
    built = folder / "plain.onnx"
    spec = BackendSpec(BEFORE, "plain_onnx", str(against), "candidate", contract.input_kind, "cpu", 1, built=str(built))
    with WorkerProcess(1, command) as worker:
        build = worker.ask(BuildAsk(spec, inputs), Built, _BUILD_SECONDS).build
    return _Model(BEFORE, built), f"{build.detail}, of {against}"


def _profile_cell(
    subjects: Sequence[_Model],
    cell: Cell,
    inputs: InputSpec,
    contract: Contract,
    settings: OpProfileSettings,
    compared: bool,
) -> Iterator[ModelProfile]:
    made = make_inputs(inputs, cell, contract.input_kind)
    values = {"lengths": made.lengths, contract.input_kind: made.arrays[0]}
    times = _times([_Call(subject, values) for subject in subjects], settings)
    for number, subject in enumerate(subjects):
        nodes = _run_profiled(subject, values, settings.runs)
        total = sum(node.us for node in nodes)
        yield ModelProfile(
            model=subject.name,
            cell=cell,
            graph=graph_facts(subject.path, nodes),
            ops=_by_operator(nodes, total),
            nodes=nodes,
            nodes_us=total,
            call_ms=median_interval(times[number] / 1e6),
            faster=median_interval(times[0] / times[number]) if compared and number else None,
        )


def _by_operator(nodes: Sequence[RunNode], total: float) -> tuple[OpShare, ...]:
    spent: dict[str, list[float]] = {}
    for node in nodes:
        spent.setdefault(node.op, []).append(node.us)
    found = [OpShare(op, len(us), sum(us), sum(us) / total if total else 0.0) for op, us in spent.items()]
    return tuple(sorted(found, key=lambda each: -each.us))


class _Call:
    """A model with its inputs, ready to be called."""

    def __init__(self, model: _Model, values: dict[str, Any]) -> None:
        self._session = _session(model)
        self._feeds = _feeds(self._session, values, model)

    def seconds(self) -> float:
        start = time.process_time_ns()
        self._session.run(None, self._feeds)
        return (time.process_time_ns() - start) / 1e9

    def block(self, seconds: float) -> float:
        """Nanoseconds of CPU of a call: the median of a block of calls."""
        spent: list[float] = []
        while len(spent) < 2 or (sum(spent) < seconds and len(spent) < _BLOCK_CALLS):
            spent.append(self.seconds())
        return float(np.median(spent)) * 1e9


def _times(calls: Sequence[_Call], settings: OpProfileSettings) -> Any:
    """Nanoseconds (models, rounds)."""
    rng, times = np.random.default_rng(settings.seed), np.zeros((len(calls), settings.rounds))
    for call in calls:
        for _ in range(_WARM_CALLS):
            call.seconds()
    for round_ in range(settings.rounds):
        for number in rng.permutation(len(calls)):
            times[number, round_] = calls[number].block(settings.block_seconds)
    return times


def _run_profiled(model: _Model, values: dict[str, Any], runs: int) -> tuple[RunNode, ...]:
    with tempfile.TemporaryDirectory() as folder:
        session = _session(model, str(Path(folder) / "profile"))
        feeds = _feeds(session, values, model)  # with a first call, which does not count
        for _ in range(runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return executed(events, runs)


def _session(model: _Model, prefix: str | None = None) -> Any:
    """A session with the settings that the runtime gives its own on one thread."""
    runtime = import_onnxruntime("cpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level, options.enable_mem_pattern = 3, False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, prefix
    with _refused(model):
        return runtime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])


def _feeds(session: Any, values: dict[str, Any], model: _Model) -> dict[str, Any]:
    names = [item.name for item in session.get_inputs()]
    unknown = [name for name in names if name not in values]
    if unknown:
        raise ContractError(
            f"{model.path}: it has an input {unknown[0]}; it is compared with inputs {', '.join(values)}"
        )
    feeds = {name: values[name] for name in names}
    with _refused(model):
        session.run(None, feeds)
    return feeds


@contextmanager
def _refused(model: _Model) -> Iterator[None]:
    try:
        yield
    except Exception as problem:  # its errors have no common base of their own
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]
        raise ContractError(f"{model.path}: ONNX Runtime cannot run it ({first})") from problem
