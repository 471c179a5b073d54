"""What is made of a checkpoint for one run of the benchmark, and the few facts that its opener needs beside it.

Without those facts a worker would have to load the checkpoint, and its memory and its start would be PyTorch's.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from voxport.benchmarks.backends.registry import build_backend
from voxport.benchmarks.core.protocol import BuildAsk, Built
from voxport.benchmarks.core.records import Build
from voxport.benchmarks.core.settings import BackendSpec
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.storage.serialization import decode, encode


@dataclass(frozen=True)
class BuiltFacts:
    """What the file itself does not say."""

    frontend: Frontend
    speakers: int


def build(request: BuildAsk) -> Built:
    """Make it, and time that."""
    start = time.perf_counter()
    detail = build_backend(request.backend, request.inputs)
    seconds = time.perf_counter() - start
    return Built(Build(seconds, size_of(request.backend.built), detail))


def write_facts(spec: BackendSpec, frontend: Frontend, speakers: int) -> None:
    """Beside `spec.built`."""
    _facts(spec).write_text(json.dumps(encode(BuiltFacts(frontend, speakers))), encoding="utf-8")


def read_facts(spec: BackendSpec) -> BuiltFacts:
    """What `write_facts` wrote. Raises VoxportError where nothing was built."""
    try:
        text = _facts(spec).read_text(encoding="utf-8")
    except OSError as problem:
        raise VoxportError(f"{spec.name}: nothing was built for it ({problem})") from problem
    return decode(BuiltFacts, json.loads(text), spec.built)


def _facts(spec: BackendSpec) -> Path:
    return Path(f"{spec.built}.facts.json")


def size_of(path: str) -> int:
    """Bytes of a file, or of all files of a folder."""
    place = Path(path)
    if place.is_dir():
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return place.stat().st_size
