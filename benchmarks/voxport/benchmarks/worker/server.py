"""The process that times one backend: `python -m voxport.benchmarks.worker`, driven over its pipes.

A fresh process for each backend and round keeps thread pools, caches and allocators of one library
away from another's times. Between requests it waits in a read, which costs no processor time.
"""

import gc
import importlib
import importlib.metadata
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from voxport.benchmarks.backends.registry import Backend, import_libraries, open_backend
from voxport.benchmarks.core.inputs import Inputs
from voxport.benchmarks.core.protocol import (
    Answered,
    Ask,
    Failed,
    Message,
    Open,
    Opened,
    ProtocolError,
    Time,
    Timed,
    from_line,
    to_line,
)
from voxport.benchmarks.core.settings import BackendSpec, Cell, Load
from voxport.benchmarks.core.timing import Clock, harness_cost_ns, time_calls, warm_up
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.system.resources import memory_now, open_meter, peak_memory
from voxport.benchmarks.worker.scenarios import answer_all, caller, load_inputs, time_server
from voxport.runtime.contract import Array
from voxport.runtime.errors import VoxportError

PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch", "torchaudio", "voxport")

# Requests to a fresh worker that is asked for nothing else; each module is imported for its own request only.
TASKS = {
    "BuildAsk": "voxport.benchmarks.backends.build:build",
    "Count": "voxport.benchmarks.tasks.flops:count",
    "Draw": "voxport.benchmarks.tasks.length_trace:draw",
    "Limit": "voxport.benchmarks.tasks.roofline:limit",
}
# The same, and they need the worker itself, to open a backend.
OPENING_TASKS = {
    "Cold": "voxport.benchmarks.tasks.cold_start:start",
    "Judge": "voxport.benchmarks.tasks.accuracy:judge",
    "ProfileAsk": "voxport.benchmarks.tasks.profile:profile",
}


@dataclass
class Worker:
    """Answers requests about the one backend that it was told to open. `own_imports_ns`: what loading itself took."""

    opener: Callable[[BackendSpec], Backend] = open_backend
    importer: Callable[[BackendSpec], None] = import_libraries
    clock: Clock = field(default_factory=Clock)
    own_imports_ns: int = 0
    _backend: Backend | None = None
    _asked: Open | None = None

    def reply(self, request: Message) -> Message:
        """Do what `request` asks. Whatever goes wrong becomes a Failed message."""
        try:
            if isinstance(request, Open):
                return self.open(request)
            if isinstance(request, Ask):
                return self.answer(request.cell, request.load)
            if isinstance(request, Time):
                return self.time(request)
            return self._task(request)
        except VoxportError as problem:
            return Failed(str(problem), mistake=True)
        except Exception as problem:
            return Failed(f"{type(problem).__name__}: {problem}", mistake=False, detail=traceback.format_exc())

    def _task(self, request: Message) -> Message:
        name = type(request).__name__
        place = TASKS.get(name) or OPENING_TASKS.get(name)
        if place is None:
            raise ProtocolError(f"a worker is never sent {name}")
        module, _, function = place.partition(":")
        task = getattr(importlib.import_module(module), function)
        answer: Message = task(request, self) if name in OPENING_TASKS else task(request)
        return answer

    def open(self, request: Open) -> Opened:
        """Load the back end that is to be asked from now on."""
        start = time.perf_counter()
        backend = self.opener(request.backend)
        load_seconds = time.perf_counter() - start
        self._backend, self._asked = backend, request
        return Opened(
            speakers=backend.speakers,
            frontend_digest=backend.frontend.digest,
            load_seconds=load_seconds,
            versions=versions(),
            facts=backend.facts(),
            harness_ns=measure_harness(self.clock),
        )

    def inputs(self, cell: Cell, load: Load) -> tuple[Backend, Inputs]:
        """The open back end, and the calls of a cell."""
        if self._backend is None or self._asked is None:
            raise ProtocolError("the worker was asked to run before it was told what to open")
        return self._backend, load_inputs(self._asked.inputs, cell, self._asked.backend.input_kind, load)

    def answer(self, cell: Cell, load: Load) -> Answered:
        """Scores of all calls of a cell."""
        backend, inputs = self.inputs(cell, load)
        return Answered(Array.of(answer_all(backend, inputs, cell, load)), inputs.digest)

    def time(self, request: Time) -> Timed:
        """Warm up, and time the calls of a cell."""
        cell, load = request.cell, request.load
        backend, inputs = self.inputs(cell, load)
        assert self._asked is not None
        call = caller(backend.run, inputs, load)
        digest = inputs.digest  # hashed here, not while warm-up has the caches ready
        meter = open_meter(self._asked.backend.device)
        gc.collect()  # leave the previous cell's garbage out of this one's times
        varied = len(inputs.arrays) if cell.trace and load.scenario != "offline" else 1
        warmup = warm_up(call, request.rule, self.clock, varied)
        meter.start()
        served = None
        if load.scenario == "server":
            walls, cpus, served = time_server(backend, inputs, cell, load, request.rule, self.clock)
        else:
            walls, cpus = time_calls(call, request.rule, self.clock, varied)
        energy = meter.stop()
        calls = len(inputs.arrays)
        offline = load.scenario == "offline"
        device_ns = getattr(backend, "device_ns", None)
        return Timed(
            wall_ns=tuple(walls),
            cpu_ns=tuple(cpus),
            warmup=warmup,
            audio_seconds=inputs.audio_seconds * (calls if offline else 1),
            inputs_digest=digest,
            peak_memory=peak_memory(),
            utterances=inputs.utterances if offline else len(inputs.lengths),
            device_ns=tuple(device_ns(inputs.arrays[0], inputs.lengths)) if device_ns and not cell.trace else (),
            served=served,
            memory=memory_now(),
            energy=energy,
        )


def measure_harness(clock: Clock) -> int:
    """Nanoseconds that the timing loop adds to each call, from a call that does nothing."""
    few = Inputs((np.zeros((1, 1), dtype=np.float32),), (np.ones(1, dtype=np.int64),), 1.0)
    return harness_cost_ns(caller(lambda values, lengths: None, few, Load()), clock=clock)


def versions() -> tuple[Fact, ...]:
    """Those of PACKAGES that are installed. Reads their metadata and imports none."""
    found = []
    for name in PACKAGES:
        try:
            found.append(Fact(name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def serve(source: TextIO, sink: TextIO, worker: Worker) -> None:
    """Answer each line of `source` with one line on `sink`, until `source` ends."""
    for line in source:
        try:
            message = worker.reply(from_line(line))
        except ProtocolError as problem:
            message = Failed(str(problem), mistake=False)
        sink.write(to_line(message))
        sink.flush()


def main(worker: Worker) -> None:
    """Serve the parent's pipes. What libraries print goes to stderr, away from the messages."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as sink:
        os.dup2(2, 1)
        serve(sys.stdin, sink, worker)
