"""Benchmark documents: written whole or not at all, and read within bounds."""

import json
from pathlib import Path
from typing import Any, TypeVar

from voxport.benchmarks.core.records import ReportError
from voxport.runtime.storage import atomic
from voxport.runtime.storage.serialization import decode

T = TypeVar("T")

_MAX_BYTES = 512 << 20


def write_json(value: Any, path: Path) -> None:
    """Write `value` (plain values) at `path`.

    Raises:
        ReportError: the file cannot be written.
    """
    write_text(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write `text` at `path`. Raises ReportError where that cannot be."""
    try:
        atomic.write_text(path, text)
    except OSError as problem:
        raise ReportError(f"{path}: cannot be written ({problem.strerror})") from problem


def read_plain(path: Path) -> dict[str, Any]:
    """The JSON object at `path`; `kind` and `version` say what it is.

    Raises:
        ReportError: missing, larger than any benchmark, or no JSON object.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ReportError(f"{path}: larger than {_MAX_BYTES:,} bytes, no benchmark is")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise ReportError(f"{path}: not a readable benchmark ({reason:.200})") from problem
    if not isinstance(data, dict):
        raise ReportError(f"{path}: not a readable benchmark (no JSON object)")
    return data


def read_json(path: Path, document: type[T], command: str) -> T:
    """Read a document of one kind, which `command` writes.

    Raises:
        ReportError: it cannot be read, or is none of that kind and version.
    """
    data, fields = read_plain(path), document.__dataclass_fields__  # type: ignore[attr-defined]
    kind, version = fields["kind"].default, fields["version"].default
    if (data.get("kind"), data.get("version")) != (kind, version):
        raise ReportError(f"{path}: expected a {kind} document of version {version}; write one with: {command}")
    return decode(document, data, str(path), ReportError)
