"""Sounds that lie inside other files: members of tar archives, cells of Parquet tables."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.runtime.errors import BackendError

MAX_BYTES = 1 << 30  # of one sound inside another file: it is held in memory


@dataclass(frozen=True)
class TarMember:
    """The file `name` in a tar archive: `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int

    def read(self, path: Path) -> bytes:
        """Its content; fewer bytes where the archive was cut since it was listed."""
        with open(path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class ParquetCell:
    """The sound of row `row` (from 0) of a Parquet table, as Hugging Face stores it: {bytes, path} in `column`."""

    name: str
    row: int
    column: str

    def read(self, path: Path) -> bytes:
        """Its content.

        Raises:
            ValueError: the table is damaged (pyarrow's errors are ValueErrors and OSErrors).
        """
        first, sounds = _row_group(path, path.stat().st_mtime_ns, self.row, self.column)
        content = sounds[self.row - first].as_py()
        if not isinstance(content, bytes):
            raise ValueError(f"row {self.row} holds no sound")
        return content


def parquet_file(path: Path) -> Any:
    """The open Parquet table. Raises BackendError where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BackendError(f'{path}: reading Parquet needs pyarrow: pip install "voxport[parquet]"')
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path)


def _row_group(path: Path, stamp: int, row: int, column: str) -> tuple[int, Any]:
    """The first row of the row group of `row`, and the sounds of that group."""
    table = _open(path, stamp)
    first = 0
    for number in range(table.num_row_groups):
        count = table.metadata.row_group(number).num_rows
        if row < first + count:
            return first, _sounds(path, stamp, number, column)
        first += count
    raise ValueError(f"no row {row}")


# A process that computes features asks for neighbouring rows; one group of rows is held.
@functools.lru_cache(maxsize=1)
def _sounds(path: Path, stamp: int, group: int, column: str) -> Any:
    return (
        _open(path, stamp).read_row_group(group, columns=[f"{column}.bytes"]).column(0).combine_chunks().field("bytes")
    )


@functools.lru_cache(maxsize=4)
def _open(path: Path, stamp: int) -> Any:
    return parquet_file(path)
