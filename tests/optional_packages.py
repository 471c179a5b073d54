"""Packages that a test can do without."""

import importlib
from typing import Any

import pytest


def import_or_skip(name: str) -> Any:
    """The module `name`, or a skipped test (or module of tests) where it is missing or does not load.

    `pytest.importorskip` skips for a missing package alone; torchaudio beside a torch that it was not built for
    raises OSError.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as problem:
        pytest.skip(f"{name} cannot be imported: {problem}", allow_module_level=True)
