"""Utterances that are too long to be heard at once, answered in windows as the runtime answers them."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import InputKind, Windowing
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.length_range import LengthRange
from voxport.runtime.windowing.long_input import sound_windows, spans
from voxport.train.data import Corpus
from voxport.train.data.collation import LONGEST, Features, FeatureSource

Windows = Callable[[int], Iterator[tuple[Features, int]]]  # an utterance's index → windows, and what each counts for


def feature_windows(source: FeatureSource, longest: int = LONGEST) -> Windows:
    """Windows of features; each frame counts, since features do not tell speech from silence."""

    def windows(index: int) -> Iterator[tuple[Features, int]]:
        features = source(index)
        for start, weight in spans(len(features), longest, Windowing().hop):
            yield np.array(features[start : start + longest]), weight

    return windows


def corpus_windows(corpus: Corpus, longest: int = LONGEST, kind: InputKind = "features") -> Windows:
    """Windows of a corpus's utterances: of their sound where it has it, by what is speech in it.

    With `kind` "waveform" the windows are samples; a call then raises VoxportError for stored features.
    """
    of_features = feature_windows(corpus.features, longest)
    frontend = corpus.frontend
    allowed = LengthRange("samples", min_samples(frontend, 1), min_samples(frontend, longest + 1) - 1, frontend)

    def windows(index: int) -> Iterator[tuple[Features, int]]:
        if not corpus.has_sound(index) and kind == "features":
            yield from of_features(index)
            return
        sound: npt.NDArray[np.float32] = corpus.samples(index, frontend.sample_rate)
        for samples, weight in sound_windows(frontend, allowed, Windowing(), iter([sound])):
            yield samples if kind == "waveform" else compute_features(samples, frontend), weight

    return windows
