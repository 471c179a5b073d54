"""A gallery of enrolled speakers: people whom the model was never trained on, from a few utterances each."""

import contextlib
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Contract
from voxport.runtime.errors import GalleryError
from voxport.runtime.forks import tell_of_forks
from voxport.runtime.gallery_calibration import calibrate
from voxport.runtime.gallery_file import read_gallery, write_gallery
from voxport.runtime.gallery_lock import locked
from voxport.runtime.gallery_results import Enrolled, Match, Matches, Verification
from voxport.runtime.gallery_search import Float32, Int64, MatrixSearch
from voxport.runtime.gallery_state import MAX_EMBEDDING_SIZE, State, Thresholds, check_name, unit_rows

PathLike = str | os.PathLike[str]


class Gallery:
    """Speakers enrolled without training, for the embeddings of one checkpoint.

    A voice is the mean of unit embeddings, brought to unit length again; voices are compared by cosine.
    Every model file exported from one checkpoint gives embeddings of one space, whatever its precision
    or input kind, so a gallery belongs to a checkpoint: its hash and the embedding size. An embedding
    cannot say where it comes from: take all of them from a model for which `check_model` passes.

    A threshold for a gallery comes from `calibrate` or from the caller. The contract's own rejection
    threshold is not used: it was set on cosines with trained class weights, which are distributed
    differently from cosines between embeddings.

    Any number of threads may share a gallery: a reader sees it as it was before a change or after it.

        gallery = Gallery(identifier.contract)
        gallery.enroll("Ada", identifier.embed_batch(["ada1.wav", "ada2.wav"]))
        gallery.verify("Ada", identifier.embed("who.wav")).cosine

    Every method that takes embeddings, float (embedding_size,) or (utterances, embedding_size), raises
    GalleryError where they have another shape or type, are not finite, or are zero. They need not be
    of unit length. Names are any text that prints, of at most 200 characters, compared in NFC.
    """

    def __init__(self, contract: Contract) -> None:
        """An empty gallery for the model with this contract."""
        if contract.embedding_size > MAX_EMBEDDING_SIZE:
            raise GalleryError(f"embeddings of {contract.embedding_size} numbers; at most {MAX_EMBEDDING_SIZE} fit")
        self._start(State.empty(contract.embedding_size), contract.checkpoint_sha256)

    def _start(self, state: State, checkpoint_sha256: str) -> None:
        self._checkpoint = checkpoint_sha256
        self._state = state  # read once in each method: the next look may see another
        self._writing = threading.Lock()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may have been changing the gallery, and never lets go."""
        self._writing = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is at this moment; the copy and the gallery change apart from each other."""
        return _unpickled, (self._state, self._checkpoint)

    # --- the file ---------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: PathLike, contract: Contract | None) -> "Gallery":
        """Read a gallery for the model with this contract; None only to look at it or remove from it.

        Raises:
            GalleryError: the file is missing, damaged, of another version or of another model.
        """
        header, state = read_gallery(Path(path))
        gallery = cls.__new__(cls)
        gallery._start(state, header.checkpoint_sha256)
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
    def edit(cls, path: PathLike, contract: Contract | None, *, timeout_s: float = 30.0) -> "Iterator[Gallery]":
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
        """Raise GalleryError unless the model with this contract gives embeddings of this gallery's space."""
        if (contract.checkpoint_sha256, contract.embedding_size) != (self._checkpoint, self.embedding_size):
            raise GalleryError(
                f"{where}: enrolled with another model (checkpoint {self._checkpoint:.12}, embeddings of "
                f"{self.embedding_size}), not with this one (checkpoint {contract.checkpoint_sha256:.12}, embeddings "
                f"of {contract.embedding_size}); their embeddings cannot be compared: enroll again with this model"
            )

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

    def __len__(self) -> int:
        return len(self._state.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and unicodedata.normalize("NFC", name) in self._state.index

    # --- changes ----------------------------------------------------------------------------------

    def enroll(self, name: str, embeddings: npt.ArrayLike) -> Enrolled:
        """Add utterances to a speaker, who is new or enrolled before; the result is their common mean.

        Raises:
            GalleryError: the name or an embedding cannot be used, the utterances cancel each other out,
                or the gallery is full; nothing was changed.
        """
        (enrolled,) = self.enroll_many({name: embeddings})
        return enrolled

    def enroll_many(self, speakers: Mapping[str, npt.ArrayLike]) -> tuple[Enrolled, ...]:
        """Enroll everybody at once: all or, on an error, nobody. Much faster than one by one."""
        additions = {}
        for name, embeddings in speakers.items():
            checked = check_name(name)
            if checked in additions:
                raise GalleryError(f"the name {checked!r} is given twice, composed in two ways")
            additions[checked] = unit_rows(embeddings, self.embedding_size, repr(checked))
        state = self._change(lambda state: state.enroll(additions))
        return tuple(Enrolled(name, int(state.counts[state.index[name]])) for name in additions)

    def remove(self, name: str) -> None:
        """Forget a speaker and everything that was kept of them. Raises GalleryError where nobody has that name."""
        self._change(lambda state: state.remove(_row(state, name)))

    def calibrate(self, false_accept_rate: float, impostors: npt.ArrayLike | None = None) -> Thresholds:
        """Set and return the thresholds at which at most this share of impostors is accepted.

        Args:
            false_accept_rate: between 0 and 1. `verify` holds it for one comparison of a voice with
                another speaker, `identify` for one stranger's best match among all who are enrolled.
            impostors: embeddings (utterances, embedding_size) of people who are not enrolled, and whom
                the model was not trained on. None takes the enrolled against each other, from up to five
                utterances of each that the gallery keeps.

        `identify` is None where there are fewer than 1 / `false_accept_rate` utterances. It depends on
        how many are enrolled: calibrate again after the gallery has grown.

        Raises:
            GalleryError: too few comparisons even for `verify`; the old thresholds stay.
        """
        rows = None
        if impostors is not None:
            rows = unit_rows(impostors, self.embedding_size, "the impostors").astype(np.float32)
        return self._change(lambda state: state.with_thresholds(calibrate(state, false_accept_rate, rows))).thresholds

    def set_thresholds(self, verify: float | None = None, identify: float | None = None) -> None:
        """Use these cosines from now on. Raises GalleryError where one is not in [-1, 1]."""
        try:
            thresholds = Thresholds(verify, identify)
        except ValueError as problem:
            raise GalleryError(str(problem)) from problem
        self._change(lambda state: state.with_thresholds(thresholds))

    def _change(self, change: Callable[[State], State]) -> State:
        with self._writing:
            self._state = state = change(self._state)
        return state

    # --- questions --------------------------------------------------------------------------------

    def identify(self, embedding: npt.ArrayLike, *, top: int = 5, threshold: float | None = None) -> Matches:
        """The `top` enrolled speakers most alike the voice `embedding` (embedding_size,), best first.

        Equal cosines keep the order of enrolment. Without `threshold`, the gallery's own is used.

        Raises:
            GalleryError: the embedding cannot be used, nobody is enrolled, or `top` is below 1.
        """
        return self.identify_many(self._one(embedding), top=top, threshold=threshold)[0]

    def identify_many(
        self, embeddings: npt.ArrayLike, *, top: int = 5, threshold: float | None = None
    ) -> tuple[Matches, ...]:
        """What `identify` says of each row of `embeddings` (utterances, embedding_size), as one matrix product.

        Much faster than one by one: all voices are read once for all utterances.

        Raises:
            GalleryError: an embedding cannot be used, nobody is enrolled, or `top` is below 1.
        """
        state = self._state
        if top < 1:
            raise GalleryError(f"top must be at least 1, found {top}")
        if not state.names:
            raise GalleryError("the gallery is empty; enroll a speaker first")
        questions = unit_rows(embeddings, self.embedding_size, "the voices").astype(np.float32)
        used = _threshold(threshold, state.thresholds.identify)
        found = zip(*MatrixSearch(state.voices)(questions, top), strict=True)
        return tuple(_matches(state, rows, cosines, used) for rows, cosines in found)

    def verify(self, name: str, embedding: npt.ArrayLike, *, threshold: float | None = None) -> Verification:
        """Compare the voice `embedding` (embedding_size,) with one speaker.

        Without `threshold`, the gallery's own is used.

        Raises:
            GalleryError: the embedding cannot be used, or the speaker is not enrolled.
        """
        state = self._state
        row = _row(state, name)
        cosine = float(np.clip(state.voices[row] @ self._one(embedding), -1, 1))
        used = _threshold(threshold, state.thresholds.verify)
        return Verification(state.names[row], cosine, used, None if used is None else cosine >= used)

    def _one(self, embedding: npt.ArrayLike) -> npt.NDArray[np.float32]:
        rows = unit_rows(embedding, self.embedding_size, "the voice")
        if len(rows) != 1:
            raise GalleryError(f"the voice: expected one embedding, found {len(rows)}; ask once for each")
        return np.asarray(rows[0], dtype=np.float32)


def _unpickled(state: State, checkpoint_sha256: str) -> Gallery:
    gallery = Gallery.__new__(Gallery)
    gallery._start(state, checkpoint_sha256)
    return gallery


def _matches(state: State, rows: Int64, cosines: Float32, threshold: float | None) -> Matches:
    ranked = tuple(Match(state.names[row], float(cosine)) for row, cosine in zip(rows, cosines, strict=True))
    return Matches(ranked, threshold, None if threshold is None else ranked[0].cosine >= threshold)


def _row(state: State, name: str) -> int:
    row = state.index.get(check_name(name))
    if row is None:
        some = ", ".join(state.names[:5]) + (", …" if len(state.names) > 5 else "")
        raise GalleryError(f"{name!r} is not enrolled; enrolled are: {some or 'nobody'}")
    return row


def _threshold(given: float | None, own: float | None) -> float | None:
    if given is not None and not -1 <= given <= 1:
        raise GalleryError(f"a threshold is a cosine between -1 and 1, found {given}")
    return own if given is None else given
