"""A gallery of enrolled speakers: people whom the model was never trained on, from a few utterances each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.calibration import Strangers, calibrate
from voxport.runtime.gallery.check import check, describe, examine
from voxport.runtime.gallery.results import Description, Enrolled, GalleryCheck, Likeness, Match, Matches, Verification
from voxport.runtime.gallery.search import Float32, Int64, nearest
from voxport.runtime.gallery.state import State, check_name, unit_rows
from voxport.runtime.gallery.store import StoredGallery
from voxport.runtime.gallery.thresholds import Thresholds, check_threshold
from voxport.runtime.gallery.voices import Embeddings, is_without_speech, refuse_without_speech, utterances_of
from voxport.runtime.results import Voice


class Gallery(StoredGallery):
    """Speakers enrolled without training, for the embeddings of one checkpoint.

    A voice is the mean of unit embeddings, brought to unit length again; voices are compared by cosine.
    Every model file exported from one checkpoint gives embeddings of one space, whatever its precision
    or input kind, so a gallery belongs to a checkpoint: its hash and the embedding size. An embedding
    cannot say where it comes from: take all of them from a model for which `check_model` passes.

    A model that was exported to normalise scores (`contract.as_norm`) has the gallery rank and decide by normalised
    scores, which thresholds are then in; who is enrolled, and what `check` says, is still judged by cosines.

    A threshold for a gallery comes from `calibrate` or from the caller. The contract's own rejection
    threshold is not used: it was set on cosines with trained class weights, which are distributed
    differently from cosines between embeddings.

    Any number of threads may share a gallery: a reader sees it as it was before a change or after it.

        gallery = Gallery(identifier.contract)
        gallery.enroll("Ada", identifier.embed_batch(["ada1.wav", "ada2.wav"]))
        gallery.verify("Ada", identifier.embed("who.wav")).cosine

    Every method that takes embeddings, float (embedding_size,) or (utterances, embedding_size), raises
    GalleryError where they have another shape or type, are not finite, or are zero. They need not be
    of unit length. A `Voice`, or several, is taken as well, and says how long its sound was and whether anybody
    spoke in it: one without speech is refused, and `identify` calls it nobody's. Names are any text
    that prints, of at most 200 characters, compared in NFC.
    """

    # --- changes ----------------------------------------------------------------------------------

    def enroll(self, name: str, embeddings: Embeddings) -> Enrolled:
        """Add utterances to a speaker, who is new or enrolled before; the result is their common mean.

        Utterances that are there already, among those that are kept, count once. Whether they are of the voice
        that is there is not judged here: ask `examine` before.

        Raises:
            GalleryError: the name or an embedding cannot be used, the utterances cancel each other out,
                or the gallery is full; nothing was changed.
        """
        (enrolled,) = self.enroll_many({name: embeddings})
        return enrolled

    def enroll_many(self, speakers: Mapping[str, Embeddings]) -> tuple[Enrolled, ...]:
        """Enroll everybody at once: all or, on an error, nobody. Much faster than one by one."""
        additions = {}
        for name, embeddings in speakers.items():
            checked = check_name(name)
            if checked in additions:
                raise GalleryError(f"the name {checked!r} is given twice, composed in two ways")
            additions[checked] = utterances_of(embeddings, self.embedding_size, repr(checked))
        before: dict[str, int] = {}

        def change(state: State) -> State:
            before.update({name: int(state.counts[state.index[name]]) for name in additions if name in state.index})
            return state.enroll(additions, self._labels)

        state = self._change(change)
        found = []
        for name, given in additions.items():
            count = int(state.counts[state.index[name]])
            found.append(Enrolled(name, count, before.get(name, 0) + len(given.vectors) - count))
        return tuple(found)

    def examine(self, name: str, embeddings: Embeddings) -> tuple[Likeness, ...]:
        """What each of these utterances is like, before it is enrolled under `name`; nothing is changed.

        Raises GalleryError as `enroll` does.
        """
        checked = check_name(name)
        given = utterances_of(embeddings, self.embedding_size, repr(checked))
        return examine(self._state, checked, given.vectors)

    def check(self) -> GalleryCheck:
        """What is wrong: names that are one voice, utterances that are not their speaker's, untrue thresholds."""
        return check(self._state)

    def describe(self, name: str) -> Description:
        """What is kept of a speaker, and who is most alike. Raises GalleryError where nobody has that name."""
        state = self._state
        return describe(state, _row(state, name))

    def alike(self, name: str, other: str) -> float:
        """The cosine of two speakers' voices. Raises GalleryError where one is not enrolled."""
        state = self._state
        return float(np.clip(state.voices[_row(state, name)] @ state.voices[_row(state, other)], -1, 1))

    def rename(self, name: str, new: str) -> None:
        """Give a speaker another name. Raises GalleryError where nobody has `name`, or somebody has `new` already."""
        checked = check_name(new)

        def change(state: State) -> State:
            row = _row(state, name)
            if checked in state.index and state.index[checked] != row:
                raise GalleryError(f"{checked!r} is enrolled already; to make one of two names: voxport gallery merge")
            return state.rename(row, checked)

        self._change(change)

    def merge(self, name: str, others: Sequence[str]) -> Enrolled:
        """Make one speaker, `name`, of several who are one person; the others' names are gone.

        Raises:
            GalleryError: one of them is not enrolled, or given twice, or the voices cancel each other out.
        """

        def change(state: State) -> State:
            if len({_row(state, each) for each in (name, *others)}) != 1 + len(others):
                raise GalleryError(f"{name!r} and {', '.join(map(repr, others))}: a name is given twice")
            for other in others:
                state = state.merge(_row(state, name), _row(state, other))
            return state

        state = self._change(change)
        row = _row(state, name)
        return Enrolled(state.names[row], int(state.counts[row]))

    def remove(self, name: str) -> None:
        """Forget a speaker and everything that was kept of them. Raises GalleryError where nobody has that name."""
        self._change(lambda state: state.remove(_row(state, name)))

    def calibrate(
        self,
        false_accept_rate: float,
        impostors: Embeddings | Strangers | None = None,
        *,
        accept_anyway: bool = False,
    ) -> Thresholds:
        """Set and return the thresholds at which at most this share of impostors is accepted.

        Args:
            false_accept_rate: between 0 and 1. `verify` holds it for one comparison of a voice with
                another speaker, `identify` for one stranger's best match among all who are enrolled.
            impostors: voices of people who are not enrolled, and whom the model was not trained on: embeddings
                (utterances, embedding_size), `Voice`s, or what `read_strangers` gives. None takes the enrolled
                against each other, from up to five utterances of each that the gallery keeps.
            accept_anyway: names that are one voice, and strangers who are enrolled, are counted as different
                people; without it they are an error, and nothing is set.

        `identify` is None where there are fewer than 1 / `false_accept_rate` utterances. It depends on
        how many are enrolled: calibrate again after the gallery has grown. `by_length` holds thresholds for
        sounds below one and below two seconds of speech, where enough of them were seen; `notes` says why the rate may
        be untrue.

        Raises:
            GalleryError: too few comparisons even for `verify`, or one voice that is two people; the old
                thresholds stay.
        """
        strangers = impostors if isinstance(impostors, Strangers) or impostors is None else self._strangers(impostors)

        def change(state: State) -> State:
            found = calibrate(state, false_accept_rate, strangers, accept_anyway=accept_anyway)
            return state.with_thresholds(found)

        return self._change(change).thresholds

    def _strangers(self, impostors: Embeddings) -> Strangers:
        given = utterances_of(impostors, self.embedding_size, "the impostors")
        names = tuple(f"impostor {i}" for i in range(len(given.vectors)))
        vectors, pieces = given.vectors.astype(np.float32), given.pieces.astype(np.float32)
        (seconds, spoken), (piece_seconds, piece_spoken) = given.lengths.T, given.piece_lengths.T
        return Strangers(vectors, seconds, names, pieces, piece_seconds, 0, spoken, piece_spoken)

    def set_thresholds(self, verify: float | None = None, identify: float | None = None) -> None:
        """Use these scores from now on. Raises GalleryError for cosines that are not in [-1, 1]."""

        def change(state: State) -> State:
            try:
                return state.with_thresholds(replace(Thresholds.unset(state.rule), verify=verify, identify=identify))
            except ValueError as problem:
                raise GalleryError(str(problem)) from problem

        self._change(change)

    # --- questions --------------------------------------------------------------------------------

    def identify(
        self,
        embedding: npt.ArrayLike | Voice,
        *,
        top: int = 5,
        threshold: float | None = None,
        seconds: float | None = None,
    ) -> Matches:
        """The `top` enrolled speakers most alike the voice `embedding` (embedding_size,), best first.

        Equal cosines keep the order of enrolment. Without `threshold`, the gallery's own is used: that for sounds
        of `seconds`, which a `Voice` says itself: of speech, where `thresholds.length_of` says so, else of sound. A
        `Voice` without speech is nobody's.

        Raises:
            GalleryError: the embedding cannot be used, nobody is enrolled, or `top` is below 1.
        """
        unspoken = isinstance(embedding, Voice) and is_without_speech(embedding)
        speech_s: float | None = None
        if isinstance(embedding, Voice):
            seconds, speech_s, embedding = embedding.duration_s, embedding.speech_s, embedding.embedding
        (found,) = self._identified(self._one(embedding), top, threshold, seconds, speech_s)
        return Matches((), found.threshold, False) if unspoken else found

    def identify_many(
        self, embeddings: npt.ArrayLike, *, top: int = 5, threshold: float | None = None
    ) -> tuple[Matches, ...]:
        """What `identify` says of each row of `embeddings` (utterances, embedding_size), as one matrix product.

        Much faster than one by one: all voices are read once for all utterances.

        Raises:
            GalleryError: an embedding cannot be used, nobody is enrolled, or `top` is below 1.
        """
        return self._identified(embeddings, top, threshold, None)

    def _identified(
        self,
        embeddings: npt.ArrayLike,
        top: int,
        threshold: float | None,
        seconds: float | None,
        speech_s: float | None = None,
    ) -> tuple[Matches, ...]:
        state = self._state
        if top < 1:
            raise GalleryError(f"top must be at least 1, found {top}")
        if not state.names:
            raise GalleryError("the gallery is empty; enroll a speaker first")
        questions = unit_rows(embeddings, self.embedding_size, "the voices").astype(np.float32)
        check_threshold("a threshold", threshold, state.thresholds.as_norm)
        used = state.thresholds.for_length(seconds, speech_s).identify if threshold is None else threshold
        rows, cosines, scores = nearest(state.voices, state.norm, questions, top)
        return tuple(
            _matches(state, rows[i], cosines[i], None if scores is None else scores[i], used) for i in range(len(rows))
        )

    def verify(
        self,
        name: str,
        embedding: npt.ArrayLike | Voice,
        *,
        threshold: float | None = None,
        seconds: float | None = None,
    ) -> Verification:
        """Compare the voice `embedding` (embedding_size,) with one speaker.

        Without `threshold`, the gallery's own is used: that for sounds of `seconds`, as in `identify`.

        Raises:
            GalleryError: the embedding cannot be used, a `Voice` holds no speech, or the speaker is not enrolled.
        """
        speech_s: float | None = None
        if isinstance(embedding, Voice):
            refuse_without_speech(embedding, "the voice")
            seconds, speech_s, embedding = embedding.duration_s, embedding.speech_s, embedding.embedding
        state = self._state
        row = _row(state, name)
        one = self._one(embedding)
        cosine = float(np.clip(state.voices[row] @ one, -1, 1))
        check_threshold("a threshold", threshold, state.thresholds.as_norm)
        used = state.thresholds.for_length(seconds, speech_s).verify if threshold is None else threshold
        found = Verification(state.names[row], cosine, used, None, state.normalized(row, one, cosine))
        return found if used is None else replace(found, accepted=found.score >= used)

    def _one(self, embedding: npt.ArrayLike) -> npt.NDArray[np.float32]:
        rows = unit_rows(embedding, self.embedding_size, "the voice")
        if len(rows) != 1:
            raise GalleryError(f"the voice: expected one embedding, found {len(rows)}; ask once for each")
        return np.asarray(rows[0], dtype=np.float32)


def _matches(state: State, rows: Int64, cosines: Float32, scores: Float32 | None, threshold: float | None) -> Matches:
    told = [None] * len(rows) if scores is None else scores.tolist()
    ranked = tuple(map(Match, (state.names[row] for row in rows), cosines.tolist(), told))
    return Matches(ranked, threshold, None if threshold is None else ranked[0].score >= threshold)


def _row(state: State, name: str) -> int:
    row = state.index.get(check_name(name))
    if row is None:
        some = ", ".join(state.names[:5]) + (", …" if len(state.names) > 5 else "")
        raise GalleryError(f"{name!r} is not enrolled; enrolled are: {some or 'nobody'}")
    return row
