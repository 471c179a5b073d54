"""Processor time of ONNX files in ONNX Runtime and OpenVINO, in turns in one process, one thread, batch 1.

    python in_turns.py 128,400,1000 plain=plain.onnx fp32=fp32.onnx fp32_openvino=fp32.onnx@openvino

The first is what the others are compared with. Files take features (batch, frames, 40), or sound at 16 kHz with a hop
of 160 samples. Each line: the median of the rounds' medians, the least, and the median of the rounds' ratios with its
interval, as `voxport bench profile` has it.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from voxport.benchmarks.stats.intervals import median_interval
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session
from voxport.runtime.backends.ov.session import Engine, OpenVinoOptions

ROUNDS, BLOCK_SECONDS = 11, 0.08


def main() -> None:
    """The command."""
    rng = np.random.default_rng(1)
    for frames in map(int, sys.argv[1].split(",")):
        samples = 400 + 160 * (frames - 1)
        values = {
            "features": 3 * rng.standard_normal((1, frames, 40)).astype(np.float32),
            "waveform": 0.05 * rng.standard_normal((1, samples)).astype(np.float32),
        }
        names, calls = [], []
        for each in sys.argv[2:]:
            name, _, place = each.partition("=")
            path, _, engine = place.partition("@")
            names.append(name)
            calls.append((openvino_call if engine else onnxruntime_call)(path, values))
        for call in calls:
            for _ in range(3):
                call()
        times = np.zeros((len(calls), ROUNDS))
        for turn in range(ROUNDS):
            for i in rng.permutation(len(calls)):
                times[i, turn] = block(calls[i])
        for i, name in enumerate(names):
            ms, faster = median_interval(times[i] / 1e6), median_interval(times[0] / times[i])
            print(  # noqa: T201
                f"{frames:5d} {name:16s} {ms.median:7.2f} ms, least {times[i].min() / 1e6:.2f}, "
                f"{faster.median:.2f} [{faster.low:.2f}, {faster.high:.2f}]",
                flush=True,
            )


def feeds(names: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """A model's inputs by their names."""
    source = next(name for name in names if name in values)
    given = {source: values[source], "lengths": np.array([values[source].shape[1]])}
    return {name: given[name] for name in names}


def onnxruntime_call(path: str, values: dict[str, Any]) -> Callable[[], object]:
    """A call in ONNX Runtime."""
    session = start_session(path, OnnxOptions(threads=1))
    given = feeds([each.name for each in session.get_inputs()], values)
    return lambda: session.run(None, given)


def openvino_call(path: str, values: dict[str, Any]) -> Callable[[], object]:
    """A call in OpenVINO."""
    engine = Engine(OpenVinoOptions(threads=1, keep=False))
    compiled = engine.compile(engine.read(path), path, "fp32")
    names = [next(name for name in each.get_names() if name in (*values, "lengths")) for each in compiled.inputs]
    given = feeds(names, values)
    arrays = {at: given[name] for at, name in enumerate(names)}
    request = compiled.create_infer_request()
    return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)


def block(call: Callable[[], object]) -> float:
    """Nanoseconds of processor time of a call: the median of a block of calls."""
    spent: list[int] = []
    while len(spent) < 2 or sum(spent) < BLOCK_SECONDS * 1e9:
        start = time.process_time_ns()
        call()
        spent.append(time.process_time_ns() - start)
    return float(np.median(spent))


if __name__ == "__main__":
    main()
