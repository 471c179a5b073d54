"""A finished file never takes the place of a device: run as root, a rename would take it from the whole machine."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.runtime.tiny_models import SIZE, TinyModel, tone
from voxport.cli.root import cli
from voxport.runtime import Gallery, GalleryError
from voxport.runtime.storage.atomic import check_replaceable, replace_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="devices and pipes with names are a POSIX matter")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """What stands for a device: only root could make one, and could lose one."""
    os.mkfifo(tmp_path / "pipe.npz")
    return tmp_path / "pipe.npz"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "who.wav", tone(0.4), 16000)
    return tmp_path / "who.wav"


def test_files_and_links_are_replaced_and_nothing_else(tmp_path: Path, pipe: Path) -> None:
    part, path, link = tmp_path / "part", tmp_path / "path", tmp_path / "link"
    for content in (b"new", b"newer"):
        part.write_bytes(content)
        replace_file(part, path)
        assert path.read_bytes() == content
    link.symlink_to("nowhere")
    check_replaceable(link)
    part.write_bytes(b"kept")
    for place, why in ((pipe, "is a device or a pipe"), (tmp_path, "is a folder"), (Path("/dev/null"), "is a device")):
        with pytest.raises(OSError, match=why):
            replace_file(part, place)
    link.unlink()
    link.symlink_to(pipe)
    with pytest.raises(OSError, match="is a device or a pipe"):
        replace_file(part, link)
    assert part.read_bytes() == b"kept"
    assert pipe.is_fifo()


def test_commands_refuse_such_places_before_the_work(tiny: TinyModel, pipe: Path, sound: Path) -> None:
    missing = str(sound.with_name("never-read.wav"))
    for command in (
        ["timeline", tiny.path, missing, "--rttm", pipe],
        ["timeline", tiny.path, missing, "--plot", pipe],
        ["embed", tiny.path, missing, "-o", pipe],
    ):
        result = CliRunner().invoke(cli, [*map(str, command)])
        assert result.exit_code == 1
        assert result.stderr == f"error: {pipe}: is a device or a pipe; name a file\n"
        assert pipe.is_fifo()


def test_a_gallery_is_never_saved_over_one(tiny: TinyModel, pipe: Path) -> None:
    gallery = Gallery(tiny.contract)
    gallery.enroll("Ada", np.ones(SIZE))
    with pytest.raises(GalleryError, match=r"pipe\.npz: cannot be written \(is a device or a pipe; name a file\)"):
        gallery.save(pipe)
    assert pipe.is_fifo()
    assert [path.name for path in pipe.parent.iterdir()] == ["pipe.npz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_names_the_file_that_was_asked_for(
    tiny: TinyModel, sound: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = CliRunner().invoke(cli, ["timeline", str(tiny.path), str(sound), "--rttm", str(locked / "who.rttm")])
    assert result.exit_code == 1
    assert result.stderr == f"error: {locked / 'who.rttm'}: cannot be written (Permission denied)\n"
