"""What is shipped: exactly the rooms, with extras that never bring two ONNX Runtimes."""

import ast
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.packaging_tools import ROOMS, ROOT, build
from voxport.export.targets import TARGETS

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
VERSION: str = PROJECT["project"]["version"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def sources() -> set[str]:
    """What the rooms hold, by its place in a wheel."""
    return {
        str(file.relative_to(ROOT / room))
        for room in ROOMS
        for file in (ROOT / room / "voxport").rglob("*")
        if file.is_file()
        and not any(part == "__pycache__" or part.startswith(".") for part in file.relative_to(ROOT).parts)
    }


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    info = f"voxport-{VERSION}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    about |= {f"{info}/licenses/{name}" for name in ("LICENSE", "CITATION.cff")}
    assert contents(wheel) == sources() | about


def test_every_room_is_typed_and_the_namespace_is_open(wheel: Path) -> None:
    names = contents(wheel)
    assert {f"voxport/{room}/py.typed" for room in ROOMS} <= names
    assert "voxport/__init__.py" not in names, "an __init__.py would close the namespace to the other rooms"
    page = {".html", ".css", ".js"}
    assert {Path(name).suffix for name in names if name.startswith("voxport/")} == {".py", ".toml", ".typed", *page}


def test_every_recipe_is_in_the_wheel(wheel: Path) -> None:
    recipes = {file.name for file in (ROOT / "train/voxport/train/recipes").glob("*.toml")}
    assert recipes
    assert {f"voxport/train/recipes/{name}" for name in recipes} <= contents(wheel)


def test_a_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # early 3.11 has no filters
    with tarfile.open(build("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, **safely)
    again = build("wheel", tmp_path, tmp_path / f"voxport-{VERSION}")
    assert contents(again) == contents(wheel)


def test_the_changelog_knows_the_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == VERSION


def reached(extra: str) -> Iterator[Requirement]:
    """Every requirement of an extra, through the extras of ours that it names."""
    for text in EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name == "voxport":
            for inner in requirement.extras:
                yield from reached(inner)
        else:
            yield requirement


def test_only_the_two_extras_made_for_it_bring_an_onnxruntime() -> None:
    """The two packages overwrite each other's files, so that no other extra may choose for the user."""
    brings = {extra: {r.name for r in reached(extra) if r.name.startswith("onnxruntime")} for extra in EXTRAS}
    assert {extra: names for extra, names in brings.items() if names} == {
        "cpu": {"onnxruntime"},
        "gpu": {"onnxruntime-gpu"},
        "rtx-provider": {"onnxruntime-ep-nv-tensorrt-rtx"},  # a plugin with files of its own, for either of them
    }
    assert PROJECT["tool"]["uv"]["conflicts"] == [[{"extra": "cpu"}, {"extra": "gpu"}]]


def test_the_gpu_extra_brings_cuda_and_cudnn() -> None:
    (requirement,) = reached("gpu")
    assert requirement.extras == {"cuda", "cudnn"}


def test_the_base_install_is_numpy_and_click() -> None:
    assert {Requirement(text).name for text in PROJECT["project"]["dependencies"]} == {"numpy", "click"}


def test_torch_is_bounded_by_what_was_run_and_torchaudio_is_not_needed() -> None:
    specifiers = {r.name: r.specifier for r in reached("train")}
    assert "torchaudio" not in specifiers
    assert [specifiers["torch"].contains(version) for version in ("2.8.0", "2.9.0", "2.15.1", "2.16.0")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert str(next(iter(reached("torch"))).specifier) == str(specifiers["torch"])


@pytest.mark.parametrize(
    "file", sorted((ROOT / "cli/voxport/cli").rglob("*.py")), ids=lambda file: f"{file.parent.name}/{file.name}"
)
def test_commands_need_extras_that_exist(file: Path) -> None:
    """`@needs("trian")` would advise a pip command that installs nothing."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "needs":
            named = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            others = [ast.unparse(argument) for argument in node.args if not isinstance(argument, ast.Constant)]
            assert others in ([], ["*target.extras"]), file.name
            assert set(named) <= set(EXTRAS), file.name


def test_targets_need_extras_that_exist() -> None:
    assert {extra for target in TARGETS.values() for extra in target.extras} <= set(EXTRAS)


def test_the_pip_commands_in_messages_and_pages_name_extras_that_exist() -> None:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(f for room in ROOMS for f in (ROOT / room).rglob("*.py"))]
    for file in files:
        for names in re.findall(r"voxport\[([a-z, ]+)\]", file.read_text(encoding="utf-8")):
            assert {name.strip() for name in names.split(",")} <= set(EXTRAS), file.name
