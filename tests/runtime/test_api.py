"""What other people's processes import: everything is there, documented, typed, and listed."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

import voxport.runtime

NAMES = voxport.runtime.__all__


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


def test_the_list_is_sorted_and_nothing_else_is_promised() -> None:
    assert sorted(NAMES) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        voxport.runtime.Nobody  # noqa: B018 - asking is the test


def test_importing_the_package_loads_nothing_that_only_some_need() -> None:
    """Neither the packages that read sound and run models, nor galleries, streams, servers, plans and torch files."""
    code = "import sys, voxport.runtime; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(result.stdout.split())
    late = {
        f"voxport.runtime.{part}" for part in ("gallery", "stream", "batcher", "plan_file", "torch_file", "cuda_memory")
    }
    packages = {"onnxruntime", "soundfile", "soxr", "torch", "onnx", "tensorrt", "asyncio", "hashlib", "zipfile"}
    assert loaded & (late | packages) == set()
