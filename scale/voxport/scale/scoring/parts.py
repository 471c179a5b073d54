"""One part of a run: its rows, written whole or not at all, and what to do where a file ends the process."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.corpora.errors import Problem
from voxport.corpora.layouts.base import Entry
from voxport.runtime.storage.atomic import writing
from voxport.scale.errors import ScaleError
from voxport.scale.scoring.listening import Listener, Row
from voxport.scale.scoring.plan import PARTS, UTTERANCES, Part, read_part

_KEY = b"voxport"  # of the figures in a part's metadata
_BLAMED_AFTER = 2  # deaths while one utterance alone was read; one may be a machine that was taken away
_BATCH = 512  # rows that wait in memory to be written
Done = Callable[[int, float], None]


@dataclass(frozen=True)
class Figures:
    """What a part, or a run, came to: rows, those with an error, and seconds of sound that were scored."""

    rows: int = 0
    errors: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(self.rows + other.rows, self.errors + other.errors, self.seconds + other.seconds)


def schema() -> Any:
    """The columns of a part."""
    import pyarrow as pa

    candidate = pa.struct(
        [pa.field("speaker", pa.string()), pa.field("score", pa.float64()), pa.field("probability", pa.float64())]
    )
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("path", pa.string()),
            pa.field("label", pa.string()),
            pa.field("speaker", pa.string()),
            pa.field("known", pa.bool_()),
            pa.field("probability", pa.float64()),
            pa.field("top", pa.list_(candidate)),
            pa.field("embedding", pa.list_(pa.float32())),
            pa.field("seconds", pa.float64()),
            pa.field("windows", pa.int32()),
            pa.field("notes", pa.list_(pa.string())),
            pa.field("model", pa.string(), nullable=False),
            pa.field("error", pa.string()),
        ]
    )


def read_figures(out: Path, part: Part) -> Figures | None:
    """What a part that is done came to; None where it is not, or is not what was written."""
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(out / PARTS / part.name)
        found = Figures(**json.loads(metadata.metadata[_KEY]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):  # damaged since: it is written anew
        return None
    return found if found.rows == metadata.num_rows == part.rows else None


class PartWriter:
    """Scores parts into the folder of a run.

    A part that is begun leaves a note of that, which its end removes. Where a note of this run is there already, the
    process died over the part before: its utterances are then taken one by one, each noted before it is read, and one
    over which the process has died twice becomes a row with that error.
    """

    def __init__(self, out: Path, corpus: Path, listener: Listener, run: str) -> None:
        """`run` names this start of the run: notes of an earlier one, which was killed, blame nobody."""
        self._out, self._corpus, self._listener, self._run = out, corpus, listener, run

    def write(self, part: Part, done: Done = lambda rows, seconds: None) -> Figures:
        """Score `part`, and give its file its name.

        Raises:
            ScaleError: the folder cannot be written, or the list of utterances in it is not what was planned.
        """
        note = _Note(self._out / PARTS / f".{part.name}.note", self._run)
        try:
            note.begin()
            utterances: Iterator[Entry | Problem] = read_part(self._out / UTTERANCES, part, self._corpus)
            if note.deaths:
                rows = self._one_by_one(list(utterances), note, done)
            else:
                rows = self._listener.rows(utterances, done)
            figures = self._save(part, rows)
            note.end()
        except (OSError, ValueError) as problem:
            raise ScaleError(f"{self._out}: part {part.number} cannot be written ({problem})") from problem
        return figures

    def _one_by_one(self, utterances: list[Entry | Problem], note: "_Note", done: Done) -> Iterator[Row]:
        for number, utterance in enumerate(utterances):
            if note.blames(number):
                reason = "the process that read it died, twice; its format's decoder may be at fault"
                utterance = Problem(utterance.key, "unreadable", reason)
            else:
                note.at(number)
            yield from self._listener.rows([utterance], done)

    def _save(self, part: Part, rows: Iterator[Row]) -> Figures:
        import pyarrow as pa
        import pyarrow.parquet

        path = self._out / PARTS / part.name
        found = Figures()
        with writing(path) as hidden:
            with pyarrow.parquet.ParquetWriter(hidden, schema(), compression="zstd") as writer:
                waiting: list[Row] = []
                for row in rows:
                    waiting.append(row)
                    failed = row["error"] is not None
                    found += Figures(1, int(failed), 0.0 if failed else row["seconds"] or 0.0)
                    if len(waiting) == _BATCH:
                        writer.write_table(pa.Table.from_pylist(waiting, schema()))
                        waiting = []
                if waiting:
                    writer.write_table(pa.Table.from_pylist(waiting, schema()))
                writer.add_key_value_metadata({_KEY: json.dumps(vars(found)).encode()})
            if found.rows != part.rows:
                raise ValueError(f"{found.rows} rows in place of {part.rows}")
            with open(hidden, "rb+") as file:
                os.fsync(file.fileno())  # its name must not outlive a power cut that its content does not
        return found


class _Note:
    """A file beside a part that is being written: how often the process died over it in this run, and where."""

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        self._facts: dict[str, Any] = {"run": run, "starts": 0, "at": None, "counts": {}}

    @property
    def deaths(self) -> int:
        """Of the process, over this part."""
        return int(self._facts["starts"]) - 1

    def begin(self) -> None:
        try:
            before = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        if isinstance(before, dict) and before.get("run") == self._run:
            self._facts = before
            if self._facts["at"] is not None:
                key = str(self._facts["at"])
                self._facts["counts"][key] = self._facts["counts"].get(key, 0) + 1
        self._facts["starts"] += 1
        self._facts["at"] = None
        self._write()

    def at(self, number: int) -> None:
        """The utterance `number` is read now."""
        self._facts["at"] = number
        self._write()

    def blames(self, number: int) -> bool:
        return int(self._facts["counts"].get(str(number), 0)) >= _BLAMED_AFTER

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        hidden = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        hidden.write_text(json.dumps(self._facts), encoding="utf-8")
        os.replace(hidden, self._path)
