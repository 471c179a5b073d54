"""What the speech check and the notes on a recording cost, beside the rest of `identify`, by processor time.

    python docs/results/2026-11-29-speech-check/measure.py SPEECH.flac MODEL.onnx [MODEL.onnx ...]

Calls with and without check and notes take turns in one process. Both are timed where they stand, in a call that has
just run the network before: hot in a loop of their own they take half of it. The share is the median over the calls.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from voxport.runtime import SpeakerIdentifier
from voxport.runtime.audio import preprocess
from voxport.runtime.audio.decode import read_audio

CHECK = preprocess.find_speech
NOTES = preprocess.quality_notes


class Timed:
    """A function, and the processor time of its last call in this thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.thread_time()
        result = self.function(*arguments)
        self.seconds = time.thread_time() - start
        return result


def cost(model: str, speech: np.ndarray, seconds: float, rounds: int) -> np.ndarray:
    """Medians: seconds of a call without both; of check and notes; and their shares of the call that has them."""
    identifier = SpeakerIdentifier.load(model, threads=1)
    rate, rule = identifier.contract.frontend.sample_rate, identifier.contract.speech
    assert rule is not None, f"{model}: its contract has no rule"
    sound = speech[rate : rate + round(seconds * rate)]  # the first second is often a pause
    found = CHECK(sound, rate, rule)
    assert found.found, "the recording holds no speech from its second second on"
    check, notes = Timed(CHECK), Timed(NOTES)
    rows = []
    for i in range(-3, rounds):
        preprocess.find_speech, preprocess.quality_notes = (lambda *_: found), (lambda *_: ())
        start = time.process_time()
        identifier.identify(sound, rate)
        middle = time.process_time()
        preprocess.find_speech, preprocess.quality_notes = check, notes
        identifier.identify(sound, rate)
        whole = time.process_time() - middle
        if i >= 0:
            rows.append((middle - start, check.seconds, notes.seconds, check.seconds / whole, notes.seconds / whole))
    return np.median(rows, axis=0)


def main() -> None:
    """A row for each model and length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", help="A sound file of 11 s or more, speech from its second second on.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0, 9.9])
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    speech = read_audio(arguments.speech, 16000)
    print("| model | sound | the rest | speech check | notes |\n|---|--:|--:|--:|--:|")  # noqa: T201
    for model in arguments.models:
        for seconds in arguments.seconds:
            rest, check, notes, of_check, of_notes = cost(model, speech, seconds, arguments.rounds)
            cells = f"{check * 1e6:,.0f} µs, {of_check:.1%} | {notes * 1e6:,.0f} µs, {of_notes:.1%}"
            print(f"| {model} | {seconds:g} s | {rest * 1e3:.2f} ms | {cells} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
