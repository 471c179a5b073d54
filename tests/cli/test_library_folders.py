"""Where the libraries' own caches go: below voxport's, or where it cannot be written, among temporary files."""

import os
from pathlib import Path

import pytest

from voxport.cli.library_folders import set_library_folders

VARIABLES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is set but an empty home and an empty folder for temporary files."""
    for name in (*VARIABLES, "VOXPORT_CACHE", "TEMP", "TMP"):
        monkeypatch.setenv(name, "")  # so that what is set later is taken back
        monkeypatch.delenv(name)
    for name, variable in (("home", "HOME"), ("temporary", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def folders() -> list[str | None]:
    set_library_folders()
    return [os.environ.get(name) for name in VARIABLES]


def below(root: Path) -> list[str | None]:
    return [str(root / name) for name in ("matplotlib", "torchinductor", "triton")]


def test_they_are_below_the_cache_and_nothing_is_made_yet(places: Path) -> None:
    assert folders() == below(places / "home" / ".cache" / "voxport")
    assert not any((places / "home").iterdir())


def test_the_cache_is_where_the_user_says(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXPORT_CACHE", str(places / "own"))
    monkeypatch.setenv("MPLCONFIGDIR", "fonts")
    assert folders() == ["fonts", *below(places / "own")[1:]]


@pytest.mark.parametrize("home", ["read-only", "a file"])
def test_without_a_home_they_are_temporary_and_ones_own(
    places: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    if home == "a file":
        (places / "home").rmdir()
        (places / "home").touch()
    else:  # for root, too, every folder but those that the system cannot write
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(places / "home") and real(path, mode))
    mine = places / "temporary" / f"voxport-{os.getuid()}"
    assert folders() == below(mine)
    assert mine.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("taken", ["open to all", "a link"])
def test_a_folder_that_others_can_write_is_not_used(places: Path, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    monkeypatch.setenv("VOXPORT_CACHE", "/dev/null/nowhere")
    mine = places / "temporary" / f"voxport-{os.getuid()}"
    if taken == "a link":
        mine.symlink_to(places / "home")
    else:
        mine.mkdir()
        mine.chmod(0o777)
    monkeypatch.setattr("voxport.cli.library_folders._SHARED", "/dev/null/none")
    assert folders() == [None, None, None]
