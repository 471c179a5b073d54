"""The process that times one backend: `python -m voxport.benchmarks.worker`, driven over its pipes.

A fresh process for each backend and round keeps thread pools, caches and allocators of one library
away from another's times. Between requests it waits in a read, which costs no processor time.
"""

import gc
import importlib.metadata
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from voxport.benchmarks.backends import Array as Values
from voxport.benchmarks.backends import Backend, Lengths, open_backend
from voxport.benchmarks.inputs import Inputs, make_inputs
from voxport.benchmarks.machine import Fact
from voxport.benchmarks.plan import BackendSpec, Cell
from voxport.benchmarks.protocol import (
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
from voxport.benchmarks.timing import Call, Clock, harness_cost_ns, time_calls, warm_up
from voxport.runtime.contract import Array
from voxport.runtime.errors import VoxportError

PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "torchaudio", "voxport")


@dataclass
class Worker:
    """Answers requests about the one backend that it was told to open."""

    opener: Callable[[BackendSpec], Backend] = open_backend
    clock: Clock = field(default_factory=Clock)
    _backend: Backend | None = None
    _asked: Open | None = None

    def reply(self, request: Message) -> Message:
        """Do what `request` asks. Whatever goes wrong becomes a Failed message."""
        try:
            if isinstance(request, Open):
                return self._open(request)
            if isinstance(request, Ask):
                return self._answer(request.cell)
            if isinstance(request, Time):
                return self._time(request)
            raise ProtocolError(f"a worker is never sent {type(request).__name__}")
        except VoxportError as problem:
            return Failed(str(problem), mistake=True)
        except Exception as problem:
            return Failed(f"{type(problem).__name__}: {problem}", mistake=False, detail=traceback.format_exc())

    def _open(self, request: Open) -> Opened:
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
            harness_ns=harness_cost_ns(_caller(_nothing, _FEW), clock=self.clock),
        )

    def _inputs(self, cell: Cell) -> tuple[Backend, Inputs]:
        if self._backend is None or self._asked is None:
            raise ProtocolError("the worker was asked to run before it was told what to open")
        return self._backend, make_inputs(self._asked.inputs, cell, self._asked.backend.input_kind)

    def _answer(self, cell: Cell) -> Answered:
        backend, inputs = self._inputs(cell)
        scores = np.stack([backend.run(values, inputs.lengths) for values in inputs.arrays])
        return Answered(Array.of(scores), inputs.digest)

    def _time(self, request: Time) -> Timed:
        backend, inputs = self._inputs(request.cell)
        call = _caller(backend.run, inputs)
        digest = inputs.digest  # hashed here, not while warm-up has the caches ready
        gc.collect()  # leave the previous cell's garbage out of this one's times
        warmup = warm_up(call, request.rule, self.clock)
        walls, cpus = time_calls(call, request.rule, self.clock)
        return Timed(tuple(walls), tuple(cpus), warmup, inputs.audio_seconds, digest, peak_memory())


def _caller(run: Callable[[Values, Lengths], object], inputs: Inputs) -> Call:
    arrays, lengths, count = inputs.arrays, inputs.lengths, len(inputs.arrays)
    return lambda number: run(arrays[number % count], lengths)


def _nothing(values: Values, lengths: Lengths) -> None:
    return None


_FEW = Inputs((np.zeros((1, 1), dtype=np.float32),), np.ones(1, dtype=np.int64), 1.0)


def versions() -> tuple[Fact, ...]:
    """Those of PACKAGES that are installed. Reads their metadata and imports none."""
    found = []
    for name in PACKAGES:
        try:
            found.append(Fact(name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def peak_memory() -> int | None:
    """The most resident bytes that this process had so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(source: TextIO, sink: TextIO, worker: Worker) -> None:
    """Answer each line of `source` with one line on `sink`, until `source` ends."""
    for line in source:
        try:
            message = worker.reply(from_line(line))
        except ProtocolError as problem:
            message = Failed(str(problem), mistake=False)
        sink.write(to_line(message))
        sink.flush()


def main(worker: Worker | None = None) -> None:
    """Serve the parent's pipes. What libraries print goes to stderr, away from the messages."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as sink:
        os.dup2(2, 1)
        serve(sys.stdin, sink, worker or Worker())


if __name__ == "__main__":
    main()
