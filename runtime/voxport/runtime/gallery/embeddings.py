"""A file of embeddings: the vectors, the sounds that they are of, and the checkpoint that they belong to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.npz import open_npz, write_npz

_NAMES = ("embeddings", "files", "checkpoint_sha256")


def write_embeddings(
    path: Path, files: Sequence[str], embeddings: npt.NDArray[np.float32], checkpoint_sha256: str
) -> None:
    """Write `embeddings` (files, embedding_size) to `path`, whole or not at all.

    Raises:
        GalleryError: the file cannot be written; an older one stays.
    """
    values = (np.ascontiguousarray(embeddings, "<f4"), np.array(files, "<U"), np.array(checkpoint_sha256, "<U"))
    write_npz(path, dict(zip(_NAMES, values, strict=True)))


def read_embeddings(path: Path, checkpoint_sha256: str, embedding_size: int) -> npt.NDArray[np.float32]:
    """The embeddings, float32 (files, embedding_size), of a file that `write_embeddings` wrote.

    Raises:
        GalleryError: the file is missing, damaged, or of another checkpoint.
    """
    with open_npz(path, "file that `voxport embed -o` wrote", _NAMES) as reader:
        written = reader.array("checkpoint_sha256", f"<U{max(1, len(checkpoint_sha256))}", ())
        if str(written) != checkpoint_sha256:
            raise GalleryError(
                f"{path}: made with another model (checkpoint {written!s:.12}, not {checkpoint_sha256:.12}); "
                "embed the sounds again with the gallery's model"
            )
        return reader.array("embeddings", "<f4", (-1, embedding_size))
