"""A whole run: plan, spread, summary."""

import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.atomic import write_text
from voxport.runtime.storage.lock import locked
from voxport.runtime.storage.serialization import encode
from voxport.scale.cluster import ClusterOptions, import_ray
from voxport.scale.errors import ScaleError
from voxport.scale.scoring.events import Spread, Work
from voxport.scale.scoring.listening import Job
from voxport.scale.scoring.options import ScoreOptions
from voxport.scale.scoring.parts import Figures, read_figures
from voxport.scale.scoring.plan import PARTS, SUMMARY, Plan, Planned, make_plan

Told = Callable[[int, int], None]  # rows that are done, and all


@dataclass(frozen=True)
class Summary:
    """What a run came to. `seconds` are of sound, in all; the rates are of this start's share, `scored` utterances.

    `real_time_factor` is wall time over time of sound: 0.01 means an hour of sound in 36 s.
    """

    out: str
    parts: str
    model_sha256: str
    engine: str
    workers: int | None
    utterances: int
    errors: int
    seconds: float
    resumed: int
    scored: int
    wall_s: float
    utterances_per_s: float | None
    real_time_factor: float | None
    notes: tuple[str, ...]


def score(
    corpus: Path, model: Path, out: Path, options: ScoreOptions, told: Told = lambda done, total: None
) -> Summary:
    """Score every utterance of `corpus` with `model`, one row of Parquet each, into the folder `out`.

    A run in the same folder goes on where it was ended, however it was. `told` hears how many rows are done.

    Raises:
        ScaleError: another run began or goes on in `out`, or the engine fails.
        CorpusError: there is no such corpus.
        ContractError: the model cannot be read; BackendError, GalleryError: it or the gallery cannot be used.
        OSError: the folder cannot be written.
    """
    _check_packages(options)
    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        planned = make_plan(corpus, model, out, options)
        _sweep(out / PARTS)
        done = {part.number: found for part in planned.parts if (found := read_figures(out, part)) is not None}
        left = [part for part in planned.parts if part.number not in done]
        before = sum(done.values(), Figures())
        told(before.rows, planned.plan.utterances)
        began = time.monotonic()
        fresh, rows = Figures(), before.rows
        if left:
            for event in _engine(options)(_work(planned.plan, corpus, out, options), left):
                rows += event.rows
                if event.figures is not None:
                    fresh += event.figures
                told(min(rows, planned.plan.utterances), planned.plan.utterances)
        wall = time.monotonic() - began
        summary = _summary(planned, out, options, before, fresh, wall)
        _write(out / SUMMARY, summary)
        return summary


def _engine(options: ScoreOptions) -> Spread:
    if options.engine == "local":
        from voxport.scale.scoring.processes import spread_over_processes  # either engine's libraries alone

        own = cpus() if options.device == "cpu" else 1
        return partial(spread_over_processes, workers=options.workers or own)
    from voxport.scale.scoring.actors import spread_over_ray

    on_gpu = options.device in ("cuda", "tensorrt")
    # One more slot than actors: Ray Data's own tasks need some CPU, and would wait for ever for an actor's.
    cluster = ClusterOptions(options.address, (options.workers or cpus()) + 1)
    workers = options.workers or (cpus() if options.address is None and not on_gpu else None)
    return partial(spread_over_ray, workers=workers, cluster=cluster, gpus=int(on_gpu))


def _work(plan: Plan, corpus: Path, out: Path, options: ScoreOptions) -> Work:
    job = Job(
        plan.model, plan.model_sha256, plan.gallery, options.device, options.threads, options.top, options.embeddings
    )
    return Work(out, Path(os.path.abspath(corpus.expanduser())), job, uuid.uuid4().hex)


def _summary(
    planned: Planned, out: Path, options: ScoreOptions, before: Figures, fresh: Figures, wall: float
) -> Summary:
    total = before + fresh
    return Summary(
        out=str(out),
        parts=str(out / PARTS),
        model_sha256=planned.plan.model_sha256,
        engine=options.engine,
        workers=options.workers,
        utterances=total.rows,
        errors=total.errors,
        seconds=total.seconds,
        resumed=before.rows,
        scored=fresh.rows,
        wall_s=wall,
        utterances_per_s=fresh.rows / wall if fresh.rows and wall else None,
        real_time_factor=wall / fresh.seconds if fresh.seconds else None,
        notes=planned.notes,
    )


def _check_packages(options: ScoreOptions) -> None:
    """Miss a package now, and not in a worker after the corpus was listed."""
    for package in ("onnxruntime", "pyarrow", "soundfile", "soxr"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if options.engine == "ray":
        import_ray(ClusterOptions(options.address))
        import ray.data  # noqa: F401


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder: no other run may write into it."""
    try:
        with locked(out, timeout_s=0.0):
            yield
    except GalleryError as problem:
        if "another process" not in str(problem):
            raise
        raise ScaleError(f"{out}: another run of `voxport score` writes there; wait until it ends") from problem


def _sweep(parts: Path) -> None:
    """Remove what a killed run left unfinished."""
    for hidden in parts.glob(".*"):
        hidden.unlink(missing_ok=True)


def _write(path: Path, summary: Summary) -> None:
    write_text(path, json.dumps(encode(summary), indent=1, ensure_ascii=False) + "\n")


def cpus() -> int:
    """CPUs that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
