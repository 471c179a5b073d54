"""Where the time goes: ONNX Runtime's profile by kind of node, PyTorch's by operator."""

from collections import defaultdict
from collections.abc import Iterable

from voxport.benchmarks.backends.registry import kind_of
from voxport.benchmarks.core.inputs import make_inputs
from voxport.benchmarks.core.protocol import ProfileAsk, Profiled
from voxport.benchmarks.core.records import OpTime, Profile
from voxport.benchmarks.tasks.cold_start import Tools
from voxport.benchmarks.tasks.flops import executed_nodes
from voxport.runtime.errors import VoxportError

RUNS, MOST = 20, 12


def profile(request: ProfileAsk, tools: Tools) -> Profiled:
    """Profile `RUNS` calls.

    Raises:
        VoxportError: this kind of back end has no profiler here.
    """
    who = kind_of(request.backend).profiler
    if who == "onnx" and request.backend.device == "cpu":
        return Profiled(_onnx(request))
    if who == "torch":
        return Profiled(_torch(request, tools))
    raise VoxportError(
        f"{request.backend.name} has no profiler here: only ONNX Runtime on the CPU and PyTorch have one"
    )


def _onnx(request: ProfileAsk) -> Profile:
    inputs = make_inputs(request.inputs, request.cell, request.backend.input_kind)
    nodes = executed_nodes(request.backend, inputs, optimised=True, runs=RUNS)
    times = [(node["args"]["op_name"], 1, float(node["dur"])) for node in nodes]
    return _profile(request, "ONNX Runtime's profile, optimised graph", times)


def _torch(request: ProfileAsk, tools: Tools) -> Profile:
    import torch
    from torch.profiler import ProfilerActivity

    backend = tools.opener(request.backend)
    inputs = make_inputs(request.inputs, request.cell, request.backend.input_kind)
    on_gpu = request.backend.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    for _ in range(3):
        backend.run(inputs.arrays[0], inputs.lengths)
    with torch.profiler.profile(activities=activities) as seen:
        for _ in range(RUNS):
            backend.run(inputs.arrays[0], inputs.lengths)
    times = [
        (item.key, item.count, float(item.self_device_time_total if on_gpu else item.self_cpu_time_total))
        for item in seen.key_averages()
    ]
    return _profile(request, "torch.profiler, operators' own time", times)


def _profile(request: ProfileAsk, tool: str, times: Iterable[tuple[str, int, float]]) -> Profile:
    calls: dict[str, int] = defaultdict(int)
    spent: dict[str, float] = defaultdict(float)
    for name, count, us in times:
        calls[name] += count
        spent[name] += us
    total = sum(spent.values())
    order = sorted(spent, key=lambda name: -spent[name])
    ops = [OpTime(name, calls[name] / RUNS, spent[name] / RUNS, spent[name] / total) for name in order[:MOST]]
    rest = order[MOST:]
    if rest:
        us = sum(spent[name] for name in rest)
        ops.append(OpTime(f"{len(rest)} others", sum(calls[name] for name in rest) / RUNS, us / RUNS, us / total))
    return Profile(request.backend.name, request.cell, tool, RUNS, total / RUNS, tuple(ops))
