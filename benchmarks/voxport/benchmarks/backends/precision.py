"""How PyTorch computes, and how its GPU's time is taken. Imports torch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

DEVICE_CALLS = 50  # timed with CUDA events, after the block
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def set_float32(precision: str) -> None:
    """Full float32 products, or TF32 where `precision` is tf32. PyTorch itself leaves cuDNN's TF32 on."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The context in which a float32 network computes in `precision`."""
    if precision in ("bf16", "fp16"):
        return torch.autocast(device, dtype=DTYPES[precision])
    return nullcontext()


def cuda_event() -> Any:
    """An event that keeps the time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def device_times(call: Callable[[], object]) -> list[int]:
    """Nanoseconds between CUDA events around `call`, whose input is on the GPU already."""
    times = []
    for _ in range(DEVICE_CALLS):
        begin, end = cuda_event(), cuda_event()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(round(begin.elapsed_time(end) * 1e6))
    return times
