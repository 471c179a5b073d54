"""A gallery as it is kept: its file, the model that it belongs to, and changes that readers see whole."""

import contextlib
import os
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from voxport.runtime.contract import AsNorm, Contract, rule_text
from voxport.runtime.errors import GalleryError
from voxport.runtime.forks import tell_of_forks
from voxport.runtime.gallery.file import read_gallery, write_gallery
from voxport.runtime.gallery.results import Enrolled
from voxport.runtime.gallery.state import MAX_EMBEDDING_SIZE, State
from voxport.runtime.gallery.thresholds import Thresholds, check_threshold
from voxport.runtime.storage.lock import locked

PathLike = str | os.PathLike[str]
G = TypeVar("G", bound="StoredGallery")


class StoredGallery:
    """What `Gallery` stands on."""

    def __init__(self, contract: Contract) -> None:
        """An empty gallery for the model with this contract."""
        if contract.embedding_size > MAX_EMBEDDING_SIZE:
            raise GalleryError(f"embeddings of {contract.embedding_size} numbers; at most {MAX_EMBEDDING_SIZE} fit")
        self._start(State.empty(contract.embedding_size, contract.as_norm), contract.checkpoint_sha256, contract.labels)

    def _start(self, state: State, checkpoint_sha256: str, labels: Iterable[str]) -> None:
        self._checkpoint = checkpoint_sha256
        self._labels = frozenset(labels)  # of the model's training; empty where the model is not known
        self._state = state  # read once in each method: the next look may see another
        self._writing = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have been changing the gallery, and never lets go."""
        self._writing = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is at this moment; the copy and the gallery change apart from each other."""
        return _unpickled, (type(self), self._state, self._checkpoint, self._labels)

    @classmethod
    def of(cls: type[G], state: State, contract: Contract) -> G:
        """A gallery that begins as `state`, for the model with this contract: for who keeps voices elsewhere."""
        gallery = cls(contract)
        gallery._state = state
        return gallery

    # --- the file ---------------------------------------------------------------------------------

    @classmethod
    def load(cls: type[G], path: PathLike, contract: Contract | None) -> G:
        """Read a gallery for the model with this contract; None only to look at it or remove from it.

        Raises:
            GalleryError: the file is missing, damaged, of another version or of another model.
        """
        header, state = read_gallery(Path(path))
        gallery = cls.__new__(cls)
        gallery._start(state, header.checkpoint_sha256, () if contract is None else contract.labels)
        if contract is not None:
            gallery.check_model(contract, os.fspath(path))
        return gallery

    def save(self, path: PathLike) -> None:
        """Write the gallery, whole or not at all. Equal galleries give equal files.

        What another process saved there meanwhile is lost; use `edit` where several may write.

        Raises:
            GalleryError: the file cannot be written; an older one stays as it was.
        """
        write_gallery(Path(path), self._state, self._checkpoint)

    @classmethod
    @contextlib.contextmanager
    def edit(cls: type[G], path: PathLike, contract: Contract | None, *, timeout_s: float = 30.0) -> Iterator[G]:
        """Load `path`, or begin a new gallery, and save it when the block ends without an exception.

        Other processes that edit the same file wait for it, so none of their changes is lost.

        Raises:
            GalleryError: as `load` and `save` do; there is no file and no contract; or the lock was not
                free within `timeout_s` seconds.
        """
        with locked(Path(path), timeout_s):
            new = contract is not None and not os.path.lexists(path)
            gallery = cls(contract) if new and contract is not None else cls.load(path, contract)
            before = None if new else gallery._state
            yield gallery
            if gallery._state is not before:
                gallery.save(path)

    def check_model(self, contract: Contract, where: str = "the gallery") -> None:
        """Raise GalleryError unless the model with this contract gives embeddings of this gallery's space.

        And unless it compares voices by the same rule: by cosines, or by normalised scores.
        """
        self._check_space(contract, where)
        if contract.as_norm != self._state.rule:
            raise GalleryError(
                f"{where}: compares voices {rule_text(self._state.rule)}, and the model {rule_text(contract.as_norm)}; "
                "have the gallery do as the model does with: voxport gallery convert GALLERY MODEL; then calibrate it"
            )

    def _check_space(self, contract: Contract, where: str) -> None:
        if (contract.checkpoint_sha256, contract.embedding_size) != (self._checkpoint, self.embedding_size):
            raise GalleryError(
                f"{where}: enrolled with another model (checkpoint {self._checkpoint:.12}, embeddings of "
                f"{self.embedding_size}), not with this one (checkpoint {contract.checkpoint_sha256:.12}, embeddings "
                f"of {contract.embedding_size}); their embeddings cannot be compared: enroll again with this model"
            )

    def convert(self, contract: Contract) -> bool:
        """Compare voices as the model with this contract does: by normalised scores, or by cosines.

        Whether that was another rule before; the thresholds were for that, and are gone.

        Raises:
            GalleryError: the gallery is of another model.
        """
        self._check_space(contract, "the gallery")
        before = self._state
        return self._change(lambda state: state.compared_by(contract.as_norm)) is not before

    # --- what it holds ----------------------------------------------------------------------------

    @property
    def checkpoint_sha256(self) -> str:
        """The SHA-256 of the checkpoint that the gallery belongs to, in hexadecimal."""
        return self._checkpoint

    @property
    def embedding_size(self) -> int:
        """Numbers of one embedding."""
        return int(self._state.sums.shape[1])

    @property
    def speakers(self) -> tuple[Enrolled, ...]:
        """Everybody, in the order of first enrolment."""
        state = self._state
        return tuple(map(Enrolled, state.names, state.counts.tolist()))

    @property
    def state(self) -> State:
        """Names, voices and thresholds as they are at this moment; a later change makes another state."""
        return self._state

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds that are used where the caller gives none."""
        return self._state.thresholds

    @property
    def as_norm(self) -> AsNorm | None:
        """By whom scores are normalised; None: voices are compared by cosine."""
        return self._state.rule

    def check_threshold(self, threshold: float | None) -> None:
        """Raise GalleryError for a threshold that no score of this gallery could be held to."""
        check_threshold("a threshold", threshold, self._state.thresholds.as_norm)

    def __len__(self) -> int:
        return len(self._state.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and unicodedata.normalize("NFC", name) in self._state.index

    def _change(self, change: Callable[[State], State]) -> State:
        with self._writing:
            self._state = state = change(self._state)
        return state


def _unpickled(kind: type[G], state: State, checkpoint_sha256: str, labels: frozenset[str]) -> G:
    gallery = kind.__new__(kind)
    gallery._start(state, checkpoint_sha256, labels)
    return gallery
