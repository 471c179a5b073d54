"""Held-out utterances under each kind of condition, as features: what calibration is done over."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxport.train.augmentation.changing import Changer, Features, features_by_kind
from voxport.train.augmentation.pool import map_in_processes
from voxport.train.data import Corpus
from voxport.train.data.corpus import CorpusOptions
from voxport.train.effects.kinds import KINDS
from voxport.train.effects.options import AugmentOptions
from voxport.train.progress import track


def changed_by_kind(
    corpus: Corpus, indices: npt.NDArray[np.int64], options: AugmentOptions, seed: int, opening: CorpusOptions
) -> dict[str, list[Features]]:
    """Features of the utterances `indices` (n,) under every kind but clean, n for each kind.

    `options` say what rooms are simulated; noises are our own and not the user's files, who trained on those.
    Stored features are changed in the power domain of their mel bands.

    Raises:
        CorpusError: a sound cannot be read any more, or stored features cannot be changed with this frontend.
    """
    changer = Changer.of(corpus, indices, options, None, None, "calibration", seed)
    results = map_in_processes(features_by_kind, changer, [int(i) for i in indices], opening.jobs)
    rows: Sequence[list[Features]] = list(track(results, "Changing", len(indices), opening.progress))
    return {kind: [row[number] for row in rows] for number, kind in enumerate(KINDS[1:])}
