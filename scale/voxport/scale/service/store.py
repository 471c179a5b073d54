"""The voices that a service knows, in a database that all of its replicas share.

A row a speaker: the sum and the number of what was enrolled, what is kept to calibrate with, and the number of the
change that wrote it. Enrolling reads one row and writes one row inside a transaction, so that two replicas that enroll
at once lose nothing. A replica holds all voices in memory, as a `Gallery`, and looks before each answer whether another
has changed any: that costs one small query, and reads only the rows that are new.
"""

import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime import Gallery
from voxport.runtime.contract import Contract
from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.results import Enrolled
from voxport.runtime.gallery.state import KEPT, PIECES, State, check_name, voices_of
from voxport.runtime.gallery.thresholds import Thresholds
from voxport.runtime.gallery.utterances import Kept
from voxport.runtime.results import Voice
from voxport.runtime.storage.serialization import decode, encode
from voxport.scale.service.database import Cursor, PostgresDatabase, SqliteDatabase, open_database

_COLUMNS = "name, place, change, count, total, kept, kept_lengths, pieces, piece_lengths, trained"


class VoiceStore:
    """Voices of one model's space in a database. Any number of threads and processes may share it."""

    def __init__(self, url: str, contract: Contract) -> None:
        """Open the database at `url`, and make its tables where they are not there.

        Raises:
            ScaleError: it does not answer.
            GalleryError: it holds voices of another model, or the model normalises scores, which a store does not.
        """
        if contract.as_norm is not None:
            raise GalleryError(
                "the store of voices compares by cosine alone, and this model normalises scores (AS-norm); serve an "
                "export of the same checkpoint without --as-norm"
            )
        self._contract, self._size = contract, contract.embedding_size
        self._database: SqliteDatabase | PostgresDatabase = open_database(url)
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._seen = (-1, -1)  # changes and removals
        self._gallery = Gallery(contract)
        try:
            self._prepare()
            self._refresh()
        except BaseException:
            self._database.close()
            raise

    def gallery(self) -> Gallery:
        """Everybody, as the database has them now; changing it changes nothing there."""
        self._refresh()
        return self._gallery

    def enroll(self, name: str, voices: Sequence[Voice]) -> Enrolled:
        """Add utterances to a speaker, new or not; raises GalleryError as `Gallery.enroll` does."""
        name = check_name(name)
        with self._database.write() as run:
            found = run(f"SELECT {_COLUMNS} FROM voices WHERE name = ?", name)
            alone = Gallery(self._contract)
            place = None
            if found:
                place = found[0][1]
                alone = _gallery_of(self._contract, found, Thresholds())
            enrolled = alone.enroll(name, list(voices))
            self._write(run, name, place, alone.state)
        self._refresh()
        return enrolled

    def remove(self, name: str) -> None:
        """Forget a speaker and all that is theirs. Raises GalleryError where nobody has that name."""
        name = check_name(name)
        with self._database.write() as run:
            if not run("SELECT 1 FROM voices WHERE name = ?", name):
                raise GalleryError(f"{name!r} is not enrolled")
            run("DELETE FROM voices WHERE name = ?", name)
            run("UPDATE facts SET removals = removals + 1")
        self._database.tidy()
        self._refresh()

    def calibrate(self, false_accept_rate: float) -> Thresholds:
        """Set the thresholds of all replicas from the enrolled against each other; raises as `Gallery.calibrate`."""
        thresholds = self.gallery().calibrate(false_accept_rate)
        text = json.dumps(encode(thresholds))
        with self._database.write() as run:
            run("UPDATE facts SET thresholds = ?, changes = changes + 1", text)
        self._refresh()
        return thresholds

    def close(self) -> None:
        """End the connections, when no thread uses the store any more."""
        self._database.close()

    # --- rows -------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        blob = self._database.blob
        with self._database.write() as run:
            run(
                "CREATE TABLE IF NOT EXISTS facts (one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint TEXT NOT NULL, "
                "size INTEGER NOT NULL, changes BIGINT NOT NULL, removals BIGINT NOT NULL, thresholds TEXT)"
            )
            run(
                "CREATE TABLE IF NOT EXISTS voices (name TEXT PRIMARY KEY, place BIGINT NOT NULL, "
                f"change BIGINT NOT NULL, count BIGINT NOT NULL, total {blob} NOT NULL, "
                f"kept {blob} NOT NULL, kept_lengths {blob} NOT NULL, "
                f"pieces {blob} NOT NULL, piece_lengths {blob} NOT NULL, trained BIGINT NOT NULL)"
            )
            run("CREATE INDEX IF NOT EXISTS voices_change ON voices (change)")
            mine = (self._contract.checkpoint_sha256, self._size)
            found = run("SELECT checkpoint, size FROM facts")
            if not found:
                run("INSERT INTO facts VALUES (1, ?, ?, 0, 0, NULL)", *mine)
            elif (found[0][0], int(found[0][1])) != mine:
                raise GalleryError(
                    f"the store holds voices of another model (checkpoint {found[0][0]:.12}, embeddings of "
                    f"{found[0][1]}); name another store, or serve that model"
                )

    def _write(self, run: Cursor, name: str, place: int | None, state: State) -> None:
        run("UPDATE facts SET changes = changes + 1")
        ((change,),) = run("SELECT changes FROM facts")
        values = (
            change,
            int(state.counts[0]),
            state.sums[0].astype("<f8").tobytes(),
            state.whole.vectors.astype("<f4").tobytes(),
            state.whole.lengths.astype("<f4").tobytes(),
            state.pieces.vectors.astype("<f4").tobytes(),
            state.pieces.lengths.astype("<f4").tobytes(),
            int(state.trained[0]),
        )
        if place is None:
            run(f"INSERT INTO voices ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", name, change, *values)
        else:
            columns = ("change", "count", "total", "kept", "kept_lengths", "pieces", "piece_lengths", "trained")
            run(f"UPDATE voices SET {', '.join(f'{each} = ?' for each in columns)} WHERE name = ?", *values, name)

    def _refresh(self) -> None:
        with self._lock, self._database.read() as run:
            ((changes, removals, thresholds),) = run("SELECT changes, removals, thresholds FROM facts")
            if (changes, removals) == self._seen:
                return
            if removals != self._seen[1]:
                rows = run(f"SELECT {_COLUMNS} FROM voices")
                self._rows = {}
            else:
                rows = run(f"SELECT {_COLUMNS} FROM voices WHERE change > ?", self._seen[0])
            self._rows |= {row[0]: row for row in rows}
            ordered = sorted(self._rows.values(), key=lambda row: int(row[1]))
            told = Thresholds()
            if thresholds is not None:
                told = decode(Thresholds, json.loads(thresholds), "the store's thresholds", GalleryError)
            self._gallery = _gallery_of(self._contract, ordered, told)
            self._seen = (changes, removals)


def _gallery_of(contract: Contract, rows: Sequence[tuple[Any, ...]], thresholds: Thresholds) -> Gallery:
    """A gallery of these rows, in their order."""
    gallery = Gallery(contract)
    if not rows:
        gallery.set_thresholds(thresholds.verify, thresholds.identify)
        return gallery
    size = contract.embedding_size
    names = tuple(str(row[0]) for row in rows)
    counts = np.array([int(row[3]) for row in rows], np.int64)
    sums = np.stack([_numbers(row[4], "<f8", size)[0] for row in rows]).astype(np.float64)
    state = State(
        names,
        counts,
        sums,
        voices_of(sums, counts, names),
        _kept([(row[5], row[6]) for row in rows], size, KEPT),
        _kept([(row[7], row[8]) for row in rows], size, PIECES),
        np.array([bool(row[9]) for row in rows], np.bool_),
        thresholds,
    )
    return Gallery.of(state, contract)


def _kept(cells: Sequence[tuple[Any, Any]], size: int, most: int) -> Kept:
    vectors = [_numbers(cell, "<f4", size) for cell, _ in cells]
    lengths = [_numbers(cell, "<f4", 2) for _, cell in cells]
    owners = np.repeat(np.arange(len(cells)), [len(each) for each in vectors])
    joined = np.concatenate(vectors).astype(np.float32)
    return Kept(joined[:most], owners[:most].astype(np.int64), np.concatenate(lengths).astype(np.float32)[:most])


def _numbers(cell: Any, kind: str, size: int) -> npt.NDArray[Any]:
    return np.frombuffer(bytes(cell), kind).reshape(-1, size)
