"""Files that are whole or not there.

An artefact of several files stands in a hidden folder beside its destination until it has earned its name.
Inside it the artefact has its final name already: loaders that go by suffixes, and formats of several files that
refer to each other, see what users will see.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from voxport.export.errors import ExportError
from voxport.export.leftovers import mark, sweep
from voxport.runtime.backends.formats import FORMATS
from voxport.runtime.storage.atomic import replace_file, writing


def check_output(output: Path, force: bool, folder: bool = False) -> None:
    """Raise ExportError unless an artefact may be written to `output`; makes the folder that it goes into.

    `folder` says that the artefact is a folder itself.
    """
    refuse_output(output, folder)
    refuse_existing(output, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise cannot_write(output, problem) from problem


def refuse_output(output: Path, folder: bool = False) -> None:
    """Raise ExportError where `output` is of the wrong kind, whatever may be replaced."""
    if output.is_dir() and not folder:
        raise ExportError(f"{output}: is a folder; name a file in it, such as {output / 'model.onnx'}")
    if os.path.lexists(output) and folder and not output.is_dir():
        raise ExportError(f"{output}: is a file, and a folder is to be written; give another name")


def refuse_existing(output: Path, force: bool) -> None:
    """Raise ExportError where something stands under `output` already, unless `force` replaces it."""
    if os.path.lexists(output) and not force:
        raise ExportError(f"{output}: exists; give another name, or --force to replace it")


def refuse_source(output: Path, source: Path) -> None:
    """Raise ExportError where `output` is what is exported, a checkpoint's file or its run's folder."""
    for each in (source, source / "model.pt"):
        with contextlib.suppress(OSError):  # one of the two is not there
            if os.path.samefile(output, each):
                raise ExportError(f"{output}: is the checkpoint itself, and would be lost; give another name with -o")


def refuse_name(output: Path) -> None:
    """Raise ExportError for a name by which the artefact would be loaded as another format, whatever is in it."""
    for each in FORMATS:
        if each.by_suffix and output.suffix.lower() in each.suffixes:
            raise ExportError(f"{output}: by its name it would be taken for {each.title}; give another name")


class Staging:
    """Use it in a `with` block: at its end the hidden folder is gone, whatever happened.

    A process that is killed leaves it; the next one to stage an artefact in the same folder takes it away.

    `beside` are suffixes of files that belong to the artefact; see `pipeline.Target`.
    """

    def __init__(self, output: Path, beside: tuple[str, ...] = (), folder: bool = False) -> None:
        self._output, self._beside, self._is_folder = output, beside, folder
        self._home = part_of(output)
        self.artefact = self._home / output.name

    def __enter__(self) -> "Staging":
        self.clear()
        sweep(self._home.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._home, ignore_errors=True)

    def clear(self) -> None:
        """Start anew with an empty folder."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        mark(self._home)

    def name(self) -> None:
        """Move the artefact to its name.

        Raises:
            ExportError: it would replace a folder that holds more than an export writes.
        """
        self._move(self._output)

    def keep_failed(self) -> Path:
        """Move the artefact to NAME.failed.SUFFIX, and return that path."""
        failed = self._output.with_name(f"{self._output.stem}.failed{self._output.suffix}")
        self._move(failed)
        return failed

    def _move(self, to: Path) -> None:
        # The artefact goes last: where it stands under its name, what belongs to it is there.
        for suffix in self._beside:
            os.replace(f"{self.artefact}{suffix}", f"{to}{suffix}")
        if self._is_folder and to.is_dir():
            self._replace_folder(to)
        elif self._is_folder:
            os.replace(self.artefact, to)
        else:
            replace_file(self.artefact, to)

    def _replace_folder(self, to: Path) -> None:
        """A full folder cannot be replaced in one step; the old one is put aside and comes back on failure."""
        strange = sorted({each.name for each in to.iterdir()} - {each.name for each in self.artefact.iterdir()})
        if strange:
            raise ExportError(
                f"{to}: holds {', '.join(strange[:5])}, which no export wrote there; move that, or give another name"
            )
        aside = self._home / f"{to.name}.old"
        os.replace(to, aside)
        try:
            os.replace(self.artefact, to)
        except OSError:
            os.replace(aside, to)
            raise


def part_of(path: Path) -> Path:
    """A name beside `path` for the file while it is being written."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_atomic(path: Path, content: bytes) -> None:
    """Write `path`, making its folder, so that a reader sees the old file or the new one.

    Raises:
        ExportError: the folder cannot be written, or the disk is full; an older file stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as part:
            part.write_bytes(content)
    except OSError as problem:
        raise cannot_write(path, problem) from problem


def check_folder(folder: Path, option: str) -> None:
    """Raise ExportError where no file can be written in `folder`, or it cannot be made; `option` names another."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        raise ExportError(
            f"{folder}: cannot be written ({problem.strerror or problem}); choose another place with {option}"
        ) from problem


def cannot_write(path: Path, problem: OSError) -> ExportError:
    """The error for a file that the system would not take."""
    return ExportError(f"{path}: cannot be written ({problem.strerror or problem}); choose another place with -o")
