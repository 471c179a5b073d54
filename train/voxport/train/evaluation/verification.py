"""Verification trials, and how well scores tell them apart: DET curve, equal error rate, detection cost."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from voxport.runtime.errors import VoxportError

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Det:
    """Detection error trade-off: at `threshold[k]`, shares of non-targets accepted and of targets missed.

    Accepted are scores ≥ threshold. It goes from rejecting everything (infinite threshold) to accepting
    everything; points on a straight line between two others are left out.

    Martin et al.: "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """

    false_accept: Float64
    miss: Float64
    threshold: Float64


@dataclass(frozen=True)
class Verification:
    """Speaker verification by the cosine of two embeddings.

    `min_dcf_01` and `min_dcf_05` are minimum detection costs for a prior of targets of 0.01 and 0.05.
    `trials` are those scored, `possible_trials` those from which they were drawn, `source` is "all pairs"
    or the trial list's file. `seen_in_training` counts the compared utterances that the network was
    trained on. `eer_threshold` is a cosine.
    """

    source: str
    trials: int
    target_trials: int
    possible_trials: int
    utterances: int
    seen_in_training: int
    eer: float
    eer_threshold: float
    min_dcf_01: float
    min_dcf_05: float


def det_curve(target: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]) -> Det:
    """The curve of trials with `scores` (trials,); `target` (trials,) must hold both kinds."""
    # Not scikit-learn's det_curve: that leaves out the points where nothing or everything is accepted.
    false_accept, accept, threshold = roc_curve(target, scores)
    return Det(false_accept, 1.0 - accept, threshold)


def equal_error_rate(det: Det) -> tuple[float, float]:
    """Rate at which as many non-targets are accepted as targets missed, and the nearest threshold.

    Between two thresholds the curve is taken as straight.
    """
    difference = det.miss - det.false_accept  # from 1 down to -1
    after = int(np.argmax(difference <= 0))
    before = after - 1
    step = difference[before] / (difference[before] - difference[after])
    rate = det.miss[before] + step * (det.miss[after] - det.miss[before])
    nearest = after if np.isinf(det.threshold[before]) or step >= 0.5 else before
    return float(rate), float(det.threshold[nearest])


def min_dcf(det: Det, p_target: float, c_miss: float = 1.0, c_false_accept: float = 1.0) -> float:
    """Lowest detection cost over all thresholds, as a multiple of the better of two blind answers.

    NIST, 2008 Speaker Recognition Evaluation plan: C_Det over C_Default. 1 says that the scores are of no use.
    """
    cost = c_miss * p_target * det.miss + c_false_accept * (1 - p_target) * det.false_accept
    return float(cost.min() / min(c_miss * p_target, c_false_accept * (1 - p_target)))


MAX_TRIALS = 4_000_000
_BLOCK = 65_536  # trials scored at once, so that memory stays bounded


Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trials:
    """Trial k compares utterances `left[k]` and `right[k]`, positions in a list of utterances.

    `target[k]` says whether one speaker said both. `possible` counts the trials from which these were
    drawn; where it is larger than their number they are a sample.
    """

    left: Int64
    right: Int64
    target: npt.NDArray[np.bool_]
    possible: int

    def __len__(self) -> int:
        return len(self.target)


def all_pairs(speakers: Int64, limit: int = MAX_TRIALS, seed: int = 0) -> Trials:
    """Every pair of the utterances whose speakers are `speakers` (utterances,), at most `limit` of them.

    Beyond the limit, target trials (the rare ones) are kept, up to half of it; the rest is drawn
    without replacement from the non-target trials. Shares of each kind are estimated without bias.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(speakers, kind="stable")
    # Sorted by speaker, an utterance's later partners are first its own speaker's, then all others.
    end = np.searchsorted(speakers[order], speakers[order], side="right")
    following = np.arange(1, len(order) + 1)
    same, other = end - following, len(order) - end
    possible = int(same.sum() + other.sum())
    room = limit if possible <= limit else limit // 2
    targets = _draw(following, same, room, generator)
    others = _draw(end, other, limit - len(targets[0]), generator)
    left, right = (order[np.concatenate(pair)] for pair in zip(targets, others, strict=True))
    return Trials(left, right, np.arange(len(left)) < len(targets[0]), possible)


def _draw(first: Int64, count: Int64, limit: int, generator: np.random.Generator) -> tuple[Int64, Int64]:
    """Pairs (i, j) with first[i] ≤ j < first[i] + count[i]: all of them, or `limit` at random."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    if total <= limit:
        ranks = np.arange(total)
    elif total <= 4 * limit:
        ranks = generator.permutation(total)[:limit]
    else:  # too many to list
        ranks = np.empty(0, dtype=np.int64)
        while len(ranks) < limit:
            ranks = np.unique(np.concatenate([ranks, generator.integers(total, size=limit)]))
        ranks = generator.permutation(ranks)[:limit]
    left = np.searchsorted(ends, ranks, side="right")
    return left, first[left] + ranks - (ends[left] - count[left])


@dataclass(frozen=True)
class TrialList:
    """A list of trials by the keys of utterances, as `keys[left[k]]` and `keys[right[k]]`."""

    keys: tuple[str, ...]
    trials: Trials


def read_trials(path: Path) -> TrialList:
    """Read lines `1 keyA keyB` (one speaker) or `0 keyA keyB` (two), as VoxCeleb's lists have them.

    Fields are separated by tabs where a line has any, so that keys may hold spaces; else by white space.

    Raises:
        VoxportError: the file cannot be read, a line is not a trial, or all trials are of one kind.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise VoxportError(f"{path}: the trial list cannot be read ({problem})") from problem
    positions: dict[str, int] = {}
    rows: list[tuple[int, int, bool]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if len(fields) != 3 or fields[0] not in ("0", "1") or not all(fields):
            raise VoxportError(
                f"{path}, line {number}: expected `1 keyA keyB` (one speaker) or `0 keyA keyB` (two), "
                f"found {line!r:.80}"
            )
        left, right = (positions.setdefault(key, len(positions)) for key in fields[1:])
        rows.append((left, right, fields[0] == "1"))
    targets = sum(row[2] for row in rows)
    if targets in (0, len(rows)):
        raise VoxportError(f"{path}: {targets} of {len(rows)} trials are of one speaker; both kinds are needed")
    pairs = np.array([row[:2] for row in rows], dtype=np.int64)
    target = np.array([row[2] for row in rows])
    return TrialList(tuple(positions), Trials(pairs[:, 0], pairs[:, 1], target, len(rows)))


def score_trials(embeddings: npt.NDArray[np.float32], trials: Trials) -> npt.NDArray[np.float32]:
    """Cosine of each trial's two embeddings, rows of unit length."""
    scores = np.empty(len(trials), dtype=np.float32)
    for start in range(0, len(trials), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores[block] = np.einsum("ij,ij->i", embeddings[trials.left[block]], embeddings[trials.right[block]])
    return scores


def adaptive_s_norm(
    scores: npt.NDArray[np.float32], trials: Trials, cohort: npt.NDArray[np.float32], top: int
) -> npt.NDArray[np.float32]:
    """`scores` (trials,) by how each side compares with the speakers of a cohort that are nearest to it.

    `cohort` (utterances, cohort speakers) are each utterance's scores against the cohort; the `top` largest give the
    mean and the deviation that this side's half of the score is measured in.
    Matějka et al.: "Analysis of Score Normalization in Multilingual Speaker Recognition", 2017, AS-norm.

    Raises:
        VoxportError: fewer than two speakers to take a deviation of.
    """
    count = min(top, cohort.shape[1])
    if count < 2:
        raise VoxportError(f"score normalisation needs two speakers of the cohort or more, found {count}")
    nearest = np.sort(cohort.astype(np.float64), axis=1)[:, -count:]
    mean, deviation = nearest.mean(axis=1), np.maximum(nearest.std(axis=1), 1e-9)
    sides = [(scores - mean[side]) / deviation[side] for side in (trials.left, trials.right)]
    return np.asarray(0.5 * (sides[0] + sides[1]), np.float32)
