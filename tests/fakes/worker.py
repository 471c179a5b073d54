"""A worker whose eager PyTorch is NumPy, and whose ONNX models can misbehave on purpose.

The "checkpoint" is an .npz with a tiny model's weights. How an .onnx file behaves depends on its name:
crash, hang, wrong, nan, and mute; any other runs through the real runtime.
"""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxport.benchmarks.backends.onnx import OnnxBackend
from voxport.benchmarks.backends.registry import Backend
from voxport.benchmarks.core.settings import BackendSpec
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.worker.server import Worker, main
from voxport.runtime.errors import BackendError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.frontend.spec import Frontend

SCALE = 30.0


@dataclass
class NumpyBackend:
    """The tiny model's answer, computed by NumPy."""

    path: str
    frontend: Frontend = field(default_factory=lambda: profile("homework_mel40"))

    def __post_init__(self) -> None:
        weights = np.load(self.path)
        self.project, self.classes = weights["project"], weights["classes"]
        self.speakers = self.classes.shape[1]

    def run(self, inputs: Any, lengths: Any) -> Any:
        if inputs.ndim == 2:
            inputs = np.stack([np.abs(inputs), inputs**2, np.cos(40 * inputs)], axis=2)
        means = [row[:count].astype(np.float64).mean(axis=0) for row, count in zip(inputs, lengths, strict=True)]
        vectors = np.stack(means) @ self.project
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return (SCALE * vectors @ self.classes).astype(np.float32)

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("threads", os.environ["OMP_NUM_THREADS"]),)


class Misbehaving:
    """An ONNX model with a fault that its file's name tells."""

    def __init__(self, spec: BackendSpec) -> None:
        self.real, self.fault = OnnxBackend(spec), Path(spec.path).stem
        self.frontend, self.speakers, self.calls = self.real.frontend, self.real.speakers, 0

    def run(self, inputs: Any, lengths: Any) -> Any:
        self.calls += 1
        scores = self.real.run(inputs, lengths)
        if self.fault == "crash":
            sys.stderr.write("the accelerator is on fire\n")
            sys.stderr.flush()
            os._exit(7)
        if self.fault == "late-crash" and self.calls > 8:  # after its answers were compared
            os.abort()
        if self.fault == "hang":
            time.sleep(600)
        if self.fault == "nan":
            return np.full_like(scores, np.nan)
        return scores + 1.0 if self.fault == "wrong" else scores

    def facts(self) -> tuple[Fact, ...]:
        return self.real.facts()


def opener(spec: BackendSpec) -> Backend:
    print("a library that talks on stdout")  # noqa: T201 - it must not reach the messages
    if spec.kind == "openvino" or spec.device != "cpu":
        raise BackendError(f"{spec.name} needs what this machine has not")
    return NumpyBackend(spec.path) if spec.kind == "eager" else Misbehaving(spec)


if __name__ == "__main__":
    main(Worker(opener, importer=lambda spec: None))
