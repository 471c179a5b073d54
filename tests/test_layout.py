"""Where modules lie: a folder that is opened can be read at a glance, and says what it holds."""

import ast
import re
from pathlib import Path

import pytest

from tests.packaging_tools import ROOMS, ROOT

MOST = 12  # modules in a folder, besides its __init__.py
FOLDERS = sorted(
    {
        file.parent
        for folder, package in ROOMS.items()
        for file in (ROOT / folder / "voxport" / package).rglob("*.py")
        if "__pycache__" not in file.parts
    }
)


def name_of(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix()


def test_every_room_is_looked_at() -> None:
    assert {name_of(folder).partition("/")[0] for folder in FOLDERS} == set(ROOMS)
    assert len(FOLDERS) > 5 * len(ROOMS)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_folder_holds_more_modules_than_can_be_read_at_a_glance(folder: Path) -> None:
    modules = sorted(file.stem for file in folder.glob("*.py") if file.name != "__init__.py")
    assert len(modules) <= MOST, f"{', '.join(modules)}: put those of one subject into a folder of their own"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_every_folder_says_what_it_holds(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert docstring, "a package without a docstring"


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_module_repeats_the_name_of_its_folder(folder: Path) -> None:
    doubled = [file.stem for file in folder.glob("*.py") if file.stem.startswith(f"{folder.name}_")]
    assert doubled == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_for_contributors_names_what_is_there(room: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{room}` |"))
    named = set(re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[2]))
    top = ROOT / room / "voxport" / room
    there = {path.stem for path in top.rglob("*") if path.suffix == ".py" or path.is_dir()}
    assert named <= there
    folders = {path.parent.name for path in top.glob("*/__init__.py")}
    assert folders <= named, "a folder that the page does not know"
