"""A file of embeddings: the vectors, the sounds that they are of, and the checkpoint that they belong to."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import printable
from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.calibration import Strangers
from voxport.runtime.gallery.state import unit_rows
from voxport.runtime.gallery.voices import lengths_of, pieces_of
from voxport.runtime.results import Voice
from voxport.runtime.storage.npz import NpzReader, open_npz, write_npz

_NAMES = ("embeddings", "files", "checkpoint_sha256")
_MORE = ("seconds", "trained", "pieces", "piece_seconds")
_SPOKEN = ("spoken", "piece_spoken")  # seconds of active speech, in newer files


def write_embeddings(
    path: Path,
    files: Sequence[str],
    voices: Sequence[Voice] | npt.NDArray[np.float32],
    checkpoint_sha256: str,
    labels: Collection[str] = (),
) -> None:
    """Write the voices of `files` to `path`, whole or not at all; arrays (files, embedding_size) have no lengths.

    Files in a folder that has the name of one of `labels` are marked as heard in training.

    Raises:
        GalleryError: the file cannot be written; an older one stays.
    """
    given = [voice if isinstance(voice, Voice) else Voice(voice, 0.0) for voice in voices]
    size = len(given[0].embedding)
    pieces = pieces_of(given)
    lengths, piece_lengths = lengths_of(given), lengths_of(pieces)
    arrays = {
        "embeddings": np.array([voice.embedding for voice in given], "<f4").reshape(len(given), size),
        "files": np.array(files, "<U"),
        "checkpoint_sha256": np.array(checkpoint_sha256, "<U"),
        "seconds": lengths[:, 0].astype("<f4"),
        "spoken": lengths[:, 1].astype("<f4"),
        "trained": np.array([not set(labels).isdisjoint(Path(name).parts[:-1]) for name in files], "|u1"),
        "pieces": np.array([piece.embedding for piece in pieces], "<f4").reshape(len(pieces), size),
        "piece_seconds": piece_lengths[:, 0].astype("<f4"),
        "piece_spoken": piece_lengths[:, 1].astype("<f4"),
    }
    write_npz(path, arrays)


def read_embeddings(path: Path, checkpoint_sha256: str, embedding_size: int) -> npt.NDArray[np.float32]:
    """The embeddings, float32 (files, embedding_size), of a file that `write_embeddings` wrote.

    Raises:
        GalleryError: the file is missing, damaged, or of another checkpoint.
    """
    with _open(path, checkpoint_sha256) as reader:
        return reader.array("embeddings", "<f4", (-1, embedding_size))


def read_strangers(path: Path, checkpoint_sha256: str, embedding_size: int) -> Strangers:
    """All of such a file, to calibrate with; what files of older versions do not say is not known.

    Raises:
        GalleryError: the file is missing, damaged, or of another checkpoint.
    """
    with _open(path, checkpoint_sha256) as reader:
        rows = reader.array("embeddings", "<f4", (-1, embedding_size))
        count = len(rows)
        names = tuple(printable(name) for name in reader.texts("files", count))
        seconds, trained = np.zeros(count, np.float32), 0
        pieces, piece_seconds = np.zeros((0, embedding_size), np.float32), np.zeros(0, np.float32)
        spoken = piece_spoken = None
        if all(name in reader for name in _MORE):
            seconds = reader.array("seconds", "<f4", (count,))
            trained = int((reader.array("trained", "|u1", (count,)) > 0).sum())
            pieces = reader.array("pieces", "<f4", (-1, embedding_size))
            piece_seconds = reader.array("piece_seconds", "<f4", (len(pieces),))
            if all(name in reader for name in _SPOKEN):
                spoken = reader.array("spoken", "<f4", (count,))
                piece_spoken = reader.array("piece_spoken", "<f4", (len(pieces),))
    vectors = unit_rows(rows, embedding_size, str(path)).astype(np.float32)
    if len(pieces):
        pieces = unit_rows(pieces, embedding_size, str(path)).astype(np.float32)
    return Strangers(vectors, seconds, names, pieces, piece_seconds, trained, spoken, piece_spoken)


@contextlib.contextmanager
def _open(path: Path, checkpoint_sha256: str) -> Iterator[NpzReader]:
    with open_npz(path, "file that `voxport embed -o` wrote", _NAMES, (*_MORE, *_SPOKEN)) as reader:
        written = reader.array("checkpoint_sha256", f"<U{max(1, len(checkpoint_sha256))}", ())
        if str(written) != checkpoint_sha256:
            raise GalleryError(
                f"{path}: made with another model (checkpoint {written!s:.12}, not {checkpoint_sha256:.12}); "
                "embed the sounds again with the gallery's model"
            )
        yield reader
