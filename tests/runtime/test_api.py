"""What other people's processes import: everything is there, documented, typed, and listed."""

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import voxport.runtime

NAMES = voxport.runtime.__all__
PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def members(thing: Any) -> list[tuple[str, Any]]:
    """The public functions of a class, its constructor where it has one of its own."""
    if not inspect.isclass(thing):
        return []
    found = []
    for name, value in vars(thing).items():
        function: Any = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if inspect.isfunction(inspect.unwrap(function)) and not name.startswith("_"):
            found.append((f"{thing.__name__}.{name}", inspect.unwrap(function)))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_documented_and_typed(name: str) -> None:
    thing = getattr(voxport.runtime, name)
    assert inspect.getdoc(thing), name
    assert thing.__doc__, f"{name} has only the docstring of what it derives from"
    for where, function in members(thing):
        assert inspect.getdoc(function), where
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, where
        for parameter in list(signature.parameters.values()):
            if parameter.name not in ("self", "cls"):
                assert parameter.annotation is not inspect.Parameter.empty, f"{where}({parameter.name})"


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_page_has_every_name_with_its_methods_and_fields(name: str) -> None:
    words = set(re.findall(r"\w+", PAGE.read_text(encoding="utf-8")))
    thing = getattr(voxport.runtime, name)
    wanted = {name} | {where.rpartition(".")[2] for where, _ in members(thing)}
    if dataclasses.is_dataclass(thing) and name != "Frontend":  # of which it names the most important
        wanted |= {field.name for field in dataclasses.fields(thing)}
    assert wanted - words == set()


def test_the_reference_page_gives_the_defaults() -> None:
    text = PAGE.read_text(encoding="utf-8")
    options = [voxport.runtime.BatcherOptions, voxport.runtime.StreamOptions, voxport.runtime.TimelineOptions,
               voxport.runtime.BackendOptions, voxport.runtime.PlanOptions]  # fmt: skip
    for thing in options:
        for field in dataclasses.fields(thing):
            if field.name != "buckets":
                shown = f"{field.default}".removesuffix(".0")
                shown = f'"{shown}"' if isinstance(field.default, str) else shown
                assert f"{field.name}={shown}" in text, (thing, field.name)


def test_the_list_is_sorted_and_nothing_else_is_promised() -> None:
    assert sorted(NAMES) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) <= set(dir(voxport.runtime)), "what a shell completes"
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        voxport.runtime.Nobody  # noqa: B018 - asking is the test


def test_importing_the_package_loads_nothing_that_only_some_need() -> None:
    """Neither the packages that read sound and run models, nor galleries, streams, servers, plans and torch files."""
    code = "import sys, numpy; before = set(sys.modules); import voxport.runtime; print(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(result.stdout.split())
    late = {
        f"voxport.runtime.{part}"
        for part in ("gallery", "streaming", "serving", "backends.trt", "backends.pytorch", "backends.cuda")
    }
    packages = {"onnxruntime", "soundfile", "soxr", "torch", "onnx", "tensorrt", "asyncio", "hashlib", "zipfile"}
    assert loaded & (late | packages) == set()
