"""Utterances a second on two cores, offline: plain ONNX one at a time, and ours in sorted batches by two workers.

    python two_cores.py plain.onnx ours.onnx LENGTHS.txt      # one length in frames a line

Plain ONNX runs with two threads in each call, ours with one thread in each of two workers. Wall time, in turns.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from voxport.benchmarks.stats.intervals import median_interval
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session

ROUNDS, COUNT = 7, 48


def main() -> None:
    """The command."""
    rng = np.random.default_rng(1)
    lengths = rng.choice([int(line) for line in Path(sys.argv[3]).read_text().split()], COUNT)
    utterances = [rng.standard_normal((length, 40)).astype(np.float32) for length in lengths]
    plain = start_session(sys.argv[1], OnnxOptions(threads=2))
    ours = [start_session(sys.argv[2], OnnxOptions(threads=1)) for _ in range(2)]
    print(f"{COUNT} utterances of {lengths.min()} to {lengths.max()} frames, median {np.median(lengths):.0f}")  # noqa: T201

    def one_at_a_time() -> None:
        for each in utterances:
            plain.run(None, {plain.get_inputs()[0].name: each[None]})

    forms = {"plain, one at a time": one_at_a_time}
    for size in (1, 2, 4, 8):
        forms[f"ours, two workers, batches of {size}"] = lambda size=size: in_batches(ours, utterances, size)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(-1, ROUNDS):
        for i in rng.permutation(len(forms)):
            name = list(forms)[i]
            start = time.perf_counter()
            forms[name]()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    first = np.array(times["plain, one at a time"])
    for name, spent in times.items():
        rate, faster = median_interval(COUNT / np.array(spent)), median_interval(first / np.array(spent))
        print(f"{name:36s} {rate.median:6.1f} a second, {faster.median:.2f} [{faster.low:.2f}, {faster.high:.2f}]")  # noqa: T201


def in_batches(sessions: list[Any], utterances: list[Any], size: int) -> None:
    """Longest first, batches of like lengths, each by whichever worker is free."""
    order = sorted(utterances, key=len, reverse=True)
    idle = list(sessions)

    def run(batch: list[Any]) -> None:
        session = idle.pop()
        padded = np.zeros((len(batch), len(batch[0]), 40), np.float32)
        for row, each in zip(padded, batch, strict=True):
            row[: len(each)] = each
        session.run(None, {"features": padded, "lengths": np.array([len(each) for each in batch])})
        idle.append(session)

    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(run, [order[i : i + size] for i in range(0, len(order), size)]))


if __name__ == "__main__":
    main()
