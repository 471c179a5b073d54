"""Plans that were built and proven before, found again by what they were built from, with and for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxport.export.errors import ExportError
from voxport.export.staging import write_atomic


@dataclass(frozen=True)
class Found:
    """What the cache has: the plan, or None and, where an entry was there and could not be used, why."""

    plan: bytes | None
    note: str = ""


def find_engine(folder: Path, key: str) -> Found:
    """Look for the plan called `key`. An entry that is damaged is as good as none, and `note` says so.

    Raises:
        ExportError: an entry is there and cannot be read.
    """
    plan, about = _paths(folder, key)
    try:
        content = plan.read_bytes()
        recorded = json.loads(about.read_bytes())
    except FileNotFoundError:
        return Found(None)
    except ValueError:
        return Found(None, f"{about} is damaged")
    except OSError as problem:
        raise ExportError(
            f"{folder}: the engine cache cannot be read ({problem.strerror or problem}); name another folder"
        ) from problem
    if not isinstance(recorded, dict) or recorded.get("sha256") != hashlib.sha256(content).hexdigest():
        return Found(None, f"{plan} is damaged")
    return Found(content)


def store_engine(folder: Path, key: str, plan: bytes, facts: Mapping[str, object]) -> None:
    """Keep a proven plan. `facts` tell a person what the key stands for.

    Raises:
        ExportError: the folder cannot be written.
    """
    path, about = _paths(folder, key)
    content = {"sha256": hashlib.sha256(plan).hexdigest(), "built": dict(facts)}
    write_atomic(path, plan)  # first, so that what tells of it never tells of nothing
    write_atomic(about, json.dumps(content, indent=1, sort_keys=True).encode())


def _paths(folder: Path, key: str) -> tuple[Path, Path]:
    return folder / f"{key}.plan", folder / f"{key}.json"
