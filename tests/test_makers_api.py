"""What programs that make models import: documented, typed, listed, and loaded only when it is asked for."""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = [importlib.import_module(f"voxport.{room}") for room in ("train", "export", "benchmarks")]
NAMES = [(package, name) for package in PACKAGES for name in package.__all__]
PAGE = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda each: getattr(each, "__name__", each))
def test_every_public_name_is_documented_typed_and_on_the_page(package: ModuleType, name: str) -> None:
    thing = getattr(package, name)
    assert thing.__doc__, name
    assert thing.__name__ == name
    wanted = {name}
    if inspect.isfunction(thing):
        parameters = inspect.signature(thing).parameters.values()
        assert all(each.annotation is not inspect.Parameter.empty for each in parameters)
        assert "Raises:" in thing.__doc__ or name.startswith(("draw", "write", "recipe_names"))
    if dataclasses.is_dataclass(thing) and name.endswith("Options"):
        wanted |= {field.name for field in dataclasses.fields(thing)}
    assert wanted - set(re.findall(r"\w+", PAGE.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_list_is_sorted_and_complete(package: ModuleType) -> None:
    assert sorted(package.__all__) == package.__all__
    assert set(package.__all__) == set(package._LATER)
    assert set(package.__all__) <= set(dir(package)), "what a shell completes"
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        package.Nobody  # noqa: B018 - asking is the test


def test_importing_the_packages_loads_no_framework() -> None:
    code = "import sys, voxport.train, voxport.export, voxport.benchmarks; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert set(result.stdout.split()) & {"torch", "onnx", "onnxruntime", "matplotlib"} == set()
