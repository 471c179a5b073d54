"""Files written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from voxport.benchmarks.core.records import ReportError
from voxport.runtime.storage.atomic import replace_file


def write_json(value: Any, path: Path) -> None:
    """Write `value` (plain values) at `path`; a reader sees the whole file or none.

    Raises:
        ReportError: the file cannot be written.
    """
    write_text(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write `text` at `path`; a reader sees the whole file or none. Raises ReportError where that cannot be."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        replace_file(part, path)
    except OSError as problem:
        raise ReportError(f"{path}: cannot be written ({problem.strerror})") from problem
    finally:
        part.unlink(missing_ok=True)
