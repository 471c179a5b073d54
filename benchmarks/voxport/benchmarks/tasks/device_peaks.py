"""The measured ceilings of a device: the best rate of a matrix product, a copy, and an empty kernel. Imports torch."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from voxport.benchmarks.backends.precision import DTYPES, set_float32

_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}


def product_ceiling(device: str, precision: str, seconds: float = 0.4) -> tuple[float, str]:
    """The best rate of a square matrix product in GFLOP/s, and how it was found. Random values: zeros run faster."""
    set_float32(precision)
    best, size_of_best = 0.0, 0
    for size in _SIZES[device]:
        left, right = (torch.randn(size, size, device=device).to(DTYPES[precision]) for _ in range(2))
        out = torch.empty_like(left)
        rate = 2 * size**3 / best_seconds(partial(torch.mm, left, right, out=out), device, seconds) / 1e9
        if rate > best:
            best, size_of_best = rate, size
    return best, f"the best matrix product in {precision}, {size_of_best} × {size_of_best}: {best:,.0f} GFLOP/s"


def copy_ceiling(device: str, seconds: float = 0.4) -> float:
    """GB/s of a large copy within the device's memory, bytes read plus bytes written."""
    count = (1 << 30 if device == "cuda" else 1 << 27) // 4
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * count / best_seconds(lambda: target.copy_(source), device, seconds) / 1e9


def launch_us(device: str, count: int = 2000) -> float | None:
    """Microseconds from one launch of an almost empty kernel to the next; None on a CPU."""
    if device != "cuda":
        return None
    tiny = torch.zeros(1, device=device)
    for _ in range(100):
        tiny.add_(1)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        tiny.add_(1)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count * 1e6


def best_seconds(call: Callable[[], object], device: str, seconds: float) -> float:
    """The shortest of the calls that fit into `seconds`, after three that do not count."""
    for _ in range(3):
        call()
    wait(device)
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        wait(device)
        best = min(best, time.perf_counter() - before)
    return best


def wait(device: str) -> None:
    """Until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def cudnn_version() -> str:
    """As PyTorch tells it."""
    return str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]


def parameters_of(network: nn.Module) -> int:
    """Learnt numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
