"""Utterances that are too long to be heard at once, answered in windows as the runtime answers them."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import InputKind, Windowing
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.length_range import LengthRange
from voxport.runtime.speech import USUAL_RULE
from voxport.runtime.windowing.cutting import SpokenWindows, sound_windows, spans
from voxport.train.data import Corpus
from voxport.train.data.collation import LONGEST, Features, FeatureSource

Windows = Callable[[int], Iterator[tuple[Features, int]]]  # an utterance's index → windows, and what each counts for


def feature_windows(source: FeatureSource, frontend: Frontend, longest: int = LONGEST) -> Windows:
    """Windows of features; each frame counts, since features do not tell speech from silence."""
    rule = Windowing.for_export(frontend, 1, longest)
    size = rule.max_frames or longest

    def windows(index: int) -> Iterator[tuple[Features, int]]:
        features = source(index)
        for start, weight in spans(len(features), size, rule.hop):
            yield np.array(features[start : start + size]), weight

    return windows


def corpus_windows(corpus: Corpus, longest: int = LONGEST, kind: InputKind = "features") -> Windows:
    """Windows of a corpus's utterances, by the rule of new files: of the speech in their sound, where it has that.

    With `kind` "waveform" the windows are samples; a call then raises VoxportError for stored features.
    """
    frontend = corpus.frontend
    of_features = feature_windows(corpus.features, frontend, longest)
    rule = Windowing.for_export(frontend, 1, longest)
    size = min_samples(frontend, (rule.max_frames or longest) + 1) - 1
    allowed = LengthRange("samples", min_samples(frontend, 1), size, frontend)

    def windows(index: int) -> Iterator[tuple[Features, int]]:
        if not corpus.has_sound(index) and kind == "features":
            yield from of_features(index)
            return
        sound: npt.NDArray[np.float32] = corpus.samples(index, frontend.sample_rate)
        cut = sound_windows(frontend, allowed, rule, iter([sound]))
        for samples, weight in SpokenWindows(cut, frontend.sample_rate, USUAL_RULE):
            yield samples if kind == "waveform" else compute_features(samples, frontend), weight

    return windows
