"""A cold start: from a fresh process to the first answer, and to the first at a length that it has not seen.

NumPy and `voxport.runtime` are loaded already when a worker is asked; their time is part of the process's start,
and that of the worker's own modules is taken off it. Files are in the system's page cache from the second process
on, as they are on a server that restarts.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from voxport.benchmarks.backends.registry import Backend
from voxport.benchmarks.core.inputs import make_inputs
from voxport.benchmarks.core.protocol import Cold, Colded
from voxport.benchmarks.core.records import ColdSample
from voxport.benchmarks.core.settings import BackendSpec


class Tools(Protocol):
    """What a worker opens backends with."""

    opener: Callable[[BackendSpec], Backend]
    importer: Callable[[BackendSpec], None]
    own_imports_ns: int


def start(request: Cold, tools: Tools) -> Colded:
    """Time each step once. The parent adds the time until this process was ready."""
    ready = time.monotonic_ns()
    spec = request.backend
    cells = [request.cell] + ([request.new_cell] if request.new_cell else [])
    made = [make_inputs(request.inputs, cell, spec.input_kind) for cell in cells]
    marks = [time.perf_counter_ns()]
    tools.importer(spec)
    marks.append(time.perf_counter_ns())
    backend = tools.opener(spec)
    marks.append(time.perf_counter_ns())
    for inputs in made:
        backend.run(inputs.arrays[0], inputs.lengths)
        marks.append(time.perf_counter_ns())
    imports, load, first, *rest = (after - before for before, after in pairwise(marks))
    return Colded(ColdSample(0, imports, load, first, rest[0] if rest else None), ready - tools.own_imports_ns)
