"""Long sound: the whole of it in one call, against windows of constant length: jobs of `scaling.runner`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from voxport.benchmarks.core.inputs import Array, voice
from voxport.benchmarks.scaling.models import open_model
from voxport.benchmarks.scaling.points import Work, make_series, measure_points
from voxport.benchmarks.scaling.report import ScaleSettings
from voxport.benchmarks.system.resources import peak_memory
from voxport.runtime.errors import LengthError
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.length_range import LengthRange
from voxport.runtime.storage.serialization import decode
from voxport.runtime.windowing.windows import WindowOptions, WindowPlan, Windows

WHOLE = "whole sound in one call"
OVERLAPPING, SEPARATE = "windows of 2 s every 0.5 s", "windows of 2 s side by side"
HOPS = {OVERLAPPING: 0.5, SEPARATE: 2.0}
BATCH = 16  # windows that run together, as in a timeline


def chunks_curve(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds of sound against the time to answer for all of it; the frontend is inside."""
    settings = decode(ScaleSettings, request["settings"], "settings")
    identifier = SpeakerIdentifier(open_model(settings).backend)
    works, notes, longest = [], [], 0
    for seconds in settings.of("chunks"):
        for name in (WHOLE, *HOPS):
            call = answer(identifier, name, seconds, settings)
            try:
                if name == WHOLE:  # which would be windows too above the longest length
                    allowed = LengthRange.of_sound(identifier.contract)
                    allowed.check(np.array([seconds * allowed.frontend.sample_rate]))
                call()
            except LengthError as problem:
                notes.append(f"{name} ends before {seconds} s: {problem}")
                continue
            longest = max(longest, seconds) if name == WHOLE else longest
            works.append(Work(name, seconds, call))
    measure_points(works, settings)
    notes.append(
        "windows every 0.5 s hear each moment four times: they cost four times as much as windows side by side, "
        "and both grow with the length alone"
    )
    return {"series": make_series(works), "notes": notes, "longest": longest}


def answer(identifier: SpeakerIdentifier, name: str, seconds: int, settings: ScaleSettings) -> Callable[[], object]:
    """A call that answers for `seconds` of sound: whole, or as the mean over windows."""
    rate = identifier.contract.frontend.sample_rate
    sound = voice(seconds * rate, rate, np.random.default_rng((settings.seed, seconds)))
    if name == WHOLE:
        return lambda: identifier.scores(sound, rate)
    return lambda: windowed_scores(identifier, sound, HOPS[name])


def windowed_scores(identifier: SpeakerIdentifier, sound: Array, hop_s: float) -> Array:
    """The mean of the scores of 2 s windows, every window counted, in memory that does not grow with the sound."""
    options = WindowOptions(window_s=2.0, hop_s=hop_s, min_speech=0.0)
    plan = WindowPlan.of(options, identifier.contract)
    windows = Windows(plan, options)
    waiting: list[Array] = []
    total, count = np.zeros(len(identifier.contract.labels)), 0

    def run() -> None:
        nonlocal total, count
        total = total + identifier.scores_batch(waiting, plan.rate).sum(axis=0)
        count += len(waiting)
        waiting.clear()

    for start in range(0, len(sound), plan.rate):
        for window in windows.push(sound[start : start + plan.rate]):
            waiting.append(window.samples)
            if len(waiting) == BATCH:
                run()
    last, fresh = windows.tail()
    if last is not None and (fresh or not count + len(waiting)):
        waiting.append(last.samples)
    if waiting:
        run()
    return np.asarray(total / count, dtype=np.float32)


def chunk_memory(request: dict[str, Any]) -> dict[str, int | None]:
    """Peak resident bytes above the loaded model, of answering once in the way `request["name"]`."""
    settings = decode(ScaleSettings, request["settings"], "settings")
    identifier = SpeakerIdentifier(open_model(settings).backend)
    answer(identifier, SEPARATE, 2, settings)()  # libraries take their own memory at the first call
    before = peak_memory()
    answer(identifier, request["name"], request["seconds"], settings)()
    after = peak_memory()
    return {"bytes": None if before is None or after is None else after - before}
