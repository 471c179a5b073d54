"""What the speech check adds to a call, and where its time goes: calls with and without it, in random turns.

    python docs/results/2026-11-29-speech-check/marginal.py SPEECH.flac MODEL.onnx --rounds 1500

`added` is the difference of the medians of whole calls, with an interval by bootstrap: what the check costs wherever
it may be felt, and not only in its own function. `in place` is the check alone, timed in such calls, and `alone` in a
loop of its own, where code and tables stay in the cache.
"""

import argparse
import time

import numpy as np

from voxport.runtime import SpeakerIdentifier
from voxport.runtime.audio import preprocess
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.speech import find_speech


def main() -> None:
    """A line for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", help="A sound file of 11 s or more, speech from its second second on.")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--rounds", type=int, default=1500)
    arguments = parser.parse_args()
    identifier, random = SpeakerIdentifier.load(arguments.model, threads=1), np.random.default_rng(0)
    rate, rule = identifier.contract.frontend.sample_rate, identifier.contract.speech
    assert rule is not None, f"{arguments.model}: its contract has no rule"
    speech = read_audio(arguments.speech, rate)
    preprocess.quality_notes = lambda *_: ()
    for seconds in arguments.seconds:
        sound = speech[rate : rate + round(seconds * rate)]
        found = find_speech(sound, rate, rule)
        alone = []
        for _ in range(300):
            start = time.thread_time()
            find_speech(sound, rate, rule)
            alone.append(time.thread_time() - start)
        place: list[float] = []

        def timed(*given: object, place: list[float] = place) -> object:
            start = time.thread_time()
            answer = find_speech(*given)  # type: ignore[arg-type]
            place.append(time.thread_time() - start)
            return answer

        calls: dict[int, list[float]] = {0: [], 1: [], 2: []}
        for turn in range(round(arguments.rounds / seconds)):
            for kind in random.permutation(3).tolist():
                preprocess.find_speech = (lambda *_, found=found: found, find_speech, timed)[kind]
                start = time.thread_time()
                identifier.identify(sound, rate)
                if turn > 5:
                    calls[kind].append(time.thread_time() - start)
        without, whole = np.array(calls[0]), np.array(calls[1])
        draws = [
            np.median(random.choice(whole, len(whole))) - np.median(random.choice(without, len(without)))
            for _ in range(1000)
        ]
        low, high = np.percentile(draws, [2.5, 97.5]) * 1e6
        added = np.median(whole) - np.median(without)
        print(  # noqa: T201
            f"{seconds:g} s: without {np.median(without) * 1e6:,.0f} µs, added {added * 1e6:,.0f} "
            f"[{low:,.0f}, {high:,.0f}] µs, {added / np.median(whole):.1%}; in place {np.median(place) * 1e6:,.0f} µs, "
            f"alone {np.median(alone) * 1e6:,.0f} µs",
            flush=True,
        )


if __name__ == "__main__":
    main()
