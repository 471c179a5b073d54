"""Processor time of ONNX files in ONNX Runtime and OpenVINO, in turns in one process, one thread, batch 1.

    python in_turns.py [--no-amx] 128,400,1000 plain=plain.onnx fp32=fp32.onnx bf16=fp32.onnx@bf16

`@f32`, `@bf16` and `@f16` are OpenVINO in that precision. The first is what the others are compared with. Files take
features (batch, frames, 40), or sound at 16 kHz with a hop of 160 samples. `--no-amx` refuses this process the kernel's
permission to use AMX (Linux, x86-64), so that either library takes what a processor without AMX has; OpenVINO does
the same with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16, ONNX Runtime has no switch.
"""

import ctypes
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from voxport.benchmarks.stats.intervals import median_interval
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session
from voxport.runtime.privacy import import_openvino

ROUNDS, BLOCK_SECONDS = 9, 0.06


def refuse_amx() -> None:
    """A seccomp filter: arch_prctl(ARCH_REQ_XCOMP_PERM) fails with EINVAL, everything else goes on."""

    def step(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    arch_prctl, request, allow, refuse = 158, 0x1023, 0x7FFF0000, 0x00050000 | 22
    program = b"".join(
        [
            step(0x20, 0, 0, 0),  # the call's number
            step(0x15, 0, 3, arch_prctl),
            step(0x20, 0, 0, 16),  # its first argument
            step(0x15, 0, 1, request),
            step(0x06, 0, 0, refuse),
            step(0x06, 0, 0, allow),
        ]
    )
    buffer = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("steps", ctypes.c_void_p))

    whole = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(38, 1, 0, 0, 0) or library.prctl(22, 2, ctypes.byref(whole), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter was refused")


def main(arguments: list[str]) -> None:
    """The command."""
    if arguments[0] == "--no-amx":
        refuse_amx()
        arguments = arguments[1:]
    rng = np.random.default_rng(1)
    for frames in map(int, arguments[0].split(",")):
        values = {
            "features": 3 * rng.standard_normal((1, frames, 40)).astype(np.float32),
            "waveform": 0.05 * rng.standard_normal((1, 400 + 160 * (frames - 1))).astype(np.float32),
        }
        names, calls = [], []
        for each in arguments[1:]:
            name, _, place = each.partition("=")
            path, _, hint = place.partition("@")
            names.append(name)
            calls.append(openvino_call(path, values, hint) if hint else onnxruntime_call(path, values))
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


def openvino_call(path: str, values: dict[str, Any], hint: str) -> Callable[[], object]:
    """A call in OpenVINO, with the settings of `voxport.runtime.backends.ov.session`."""
    core = import_openvino().Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": hint,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": "500",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
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
    main(sys.argv[1:])
