"""How cost grows with length, batch, speakers, enrolled voices and the length of a recording."""

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from voxport.benchmarks.scaling.report import Curve, CurveName, ScaleReport, ScaleSettings
from voxport.benchmarks.system.machine import Fact, describe_machine, load_average
from voxport.benchmarks.worker.job import JobError, run_job
from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode, encode

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what comes next

_HOME = "voxport.benchmarks."
_JOBS: dict[CurveName, str] = {
    "length": _HOME + "scaling.curves:length_curve",
    "batch": _HOME + "scaling.curves:batch_curve",
    "speakers": _HOME + "scaling.curves:speakers_curve",
    "gallery": _HOME + "scaling.gallery:gallery_curve",
    "chunks": _HOME + "scaling.chunks:chunks_curve",
}
_TEXTS: dict[CurveName, tuple[str, str, str]] = {
    "length": ("Length of an utterance", "frames", "one call, batch 1"),
    "batch": ("Utterances in a call", "utterances", "an utterance's part of a call"),
    "speakers": ("Trained speakers", "speakers", "one embedding to all scores"),
    "gallery": ("Enrolled voices", "voices", "a question, the best five found"),
    "chunks": ("Length of a recording", "seconds of sound", "the whole recording answered"),
}
_WAYS = ("whole sound in one call", "windows of 2 s side by side")  # whose memory is compared


def measure_scale(settings: ScaleSettings, progress: Progress | None = None) -> ScaleReport:
    """Measure every curve that `settings` name, each in a process of its own. One that fails does not end the others.

    Raises:
        VoxportError: the model, the recipe, the device or a package is not usable.
    """
    created, machine = datetime.now(timezone.utc).isoformat(timespec="seconds"), describe_machine()
    tell = progress or _silent
    request = {"settings": encode(settings)}
    try:
        told = run_job(_HOME + "scaling.curves:describe", request, settings.timeout, settings.threads)
    except JobError as problem:
        raise VoxportError(str(problem)) from problem
    curves = []
    for number, name in enumerate(settings.curves):
        tell(number, len(settings.curves), f"curve: {_TEXTS[name][0].lower()}")
        curves.append(_curve(name, settings, request))
    tell(len(settings.curves), len(settings.curves), "")
    end = load_average()
    return ScaleReport(
        created=created,
        settings=settings,
        machine=machine,
        load_average_end=end,
        model=told["model"],
        curves=tuple(curves),
        notes=tuple(
            f"the load average was {load:.1f} on {machine.usable_cores:g} cores: other work may have bent curves"
            for load in (max(machine.load_average or 0.0, end or 0.0),)
            if load > machine.usable_cores and settings.device == "cpu"
        ),
        versions=tuple(Fact(name, version) for name, version in told["versions"].items()),
    )


def _silent(done: int, total: int, what: str) -> None:
    return None


def _curve(name: CurveName, settings: ScaleSettings, request: dict[str, Any]) -> Curve:
    title, size, cost = _TEXTS[name]
    try:
        told = run_job(_JOBS[name], request, settings.timeout, settings.threads)
    except JobError as problem:
        return Curve(name, title, size, cost, failure=str(problem))
    notes = list(told["notes"])
    if told.get("longest"):
        notes.append(_memory_note(told["longest"], settings, request))
    plain = {"name": name, "title": title, "size": size, "cost": cost, "series": told["series"], "notes": notes}
    return decode(Curve, plain, f"curve {name}")


def _memory_note(seconds: int, settings: ScaleSettings, request: dict[str, Any]) -> str:
    """Memory at the longest recording that can be answered whole; a fresh process each, since a peak never sinks."""
    found = []
    for way in _WAYS:
        try:
            job = dict(request, name=way, seconds=seconds)
            told = run_job(_HOME + "scaling.chunks:chunk_memory", job, settings.timeout, settings.threads)
            found.append(f"{way} {told['bytes'] / 1e6:,.0f} MB" if told["bytes"] is not None else f"{way} unknown")
        except JobError as problem:
            found.append(f"{way} failed ({problem})")
    return f"peak memory above the loaded model for {seconds} s of sound: {'; '.join(found)}"
