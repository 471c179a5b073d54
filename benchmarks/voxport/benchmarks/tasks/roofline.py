"""What this machine can do, measured in the same run: the models' own matrix products, a copy, a launch.

A ceiling is the best of all libraries at hand and of all repeats, not a data sheet's number: it is what
somebody's code really reached here, with the same number of threads, in the same hour.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from voxport.benchmarks.core.protocol import Limit, Limited
from voxport.benchmarks.core.records import Floor, Limits, Product, Work
from voxport.benchmarks.tasks.gemm import Runner, Tool, cpu_tools, cuda_tools

COVERED = 0.97  # of the operations: the products beyond are too many and too small to matter
REPEATS, SHORTEST = 5, 0.004  # seconds of one repeat, at least
COPY_BYTES = 64 << 20


def limit(request: Limit) -> Limited:
    """Measure the ceilings and work out each model's floor."""
    tools = list(cuda_tools() if request.device != "cpu" else cpu_tools(request.threads))
    best: dict[tuple[object, ...], tuple[float, str]] = {}
    for product in _important(request.works):
        best[_key(product)] = max(_rates(product, tools), default=(0.0, ""))
    copy, launch = _copy_rate(request.device), _launch(request.device)
    works = tuple(_with_rates(work, best) for work in request.works)
    floors = tuple(floor for work in works if (floor := floor_of(work, copy)) is not None)
    notes = tuple(
        f"no floor for {work.model}: no product of its kind ({', '.join(sorted({p.dtype for p in work.products}))}) "
        "could be measured here"
        for work in works
        if floor_of(work, copy) is None
    )
    return Limited(Limits(request.device, request.threads, copy, launch, works, floors, tuple(dict.fromkeys(notes))))


def floor_of(work: Work, copy_gb_s: float | None) -> Floor | None:
    """The least time of a call; None where none of its products was measured.

    Products without a rate of their own are taken at the mean rate of the others.
    """
    known = [product for product in work.products if product.gflops]
    done = sum(product.flops for product in known)
    if not done:
        return None
    seconds = sum(product.flops / 1e9 / product.gflops for product in known if product.gflops)
    gflops = done / 1e9 / seconds
    product_ms = work.product_flops / 1e6 / gflops
    memory_ms = work.parameter_bytes / 1e6 / copy_gb_s if copy_gb_s else 0.0
    return Floor(
        work.model,
        work.cell,
        work.product_flops / 1e9,
        product_ms,
        memory_ms,
        max(product_ms, memory_ms),
        gflops,
        done / work.product_flops,
    )


def _key(product: Product) -> tuple[object, ...]:
    return product.batch, product.m, product.k, product.n, product.dtype


def _important(works: Sequence[Work]) -> list[Product]:
    """The products that make most of each work, each shape once."""
    chosen: dict[tuple[object, ...], Product] = {}
    for work in works:
        done = 0
        for product in work.products:
            if done >= COVERED * work.product_flops:
                break
            chosen[_key(product)] = product
            done += product.flops
    return list(chosen.values())


def _with_rates(work: Work, best: dict[tuple[object, ...], tuple[float, str]]) -> Work:
    products = []
    for product in work.products:
        rate, tool = best.get(_key(product), (0.0, ""))
        products.append(dataclasses.replace(product, gflops=rate or None, tool=tool))
    return dataclasses.replace(work, products=tuple(products))


def _rates(product: Product, tools: Sequence[Tool]) -> Iterator[tuple[float, str]]:
    for name, prepare in tools:
        prepared = prepare(product)
        if prepared is not None:
            flops = 2 * product.batch * product.m * product.k * product.n * prepared.times
            yield flops / _best_seconds(prepared.run) / 1e9, name


def _best_seconds(run: Runner) -> float:
    """Seconds of one call: the least over repeats, each of enough calls for the clock."""
    run()
    calls = 1
    while (spent := _seconds(run, calls)) < SHORTEST:
        calls *= 2 if spent <= 0 else max(2, min(16, int(1.5 * SHORTEST / spent)))
    return min(_seconds(run, calls) for _ in range(REPEATS)) / calls


def _seconds(run: Runner, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def _copy_rate(device: str) -> float | None:
    """GB/s of a large copy, reads plus writes."""
    if device == "cpu":
        source = np.ones(COPY_BYTES, dtype=np.uint8)
        target = np.empty_like(source)
        return 2 * COPY_BYTES / _best_seconds(lambda: np.copyto(target, source)) / 1e9
    import torch

    on_gpu = torch.ones(4 * COPY_BYTES, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(on_gpu)

    def run() -> None:
        copy.copy_(on_gpu)
        torch.cuda.synchronize()

    return 8 * COPY_BYTES / _best_seconds(run) / 1e9


def _launch(device: str) -> float | None:
    """Microseconds of the smallest kernel: launch it and wait."""
    if device == "cpu":
        return None
    import torch

    one = torch.zeros(1, device="cuda")

    def run() -> None:
        one.add_(1)
        torch.cuda.synchronize()

    return _best_seconds(run) * 1e6
