"""The accuracy gate: does an artefact recognise as many of a labelled set as the eager network does?

Parity bounds how far answers move; with fewer bits they move, and what counts then is whether they stay
right. Both see each utterance alone, so no batch decides an answer; what the artefact does not take whole both
see in windows.

A drop over the allowed one fails unless chance explains it (see voxport.train.evaluation.paired). Where the set is
too small to tell, the verdict says so and is no failure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.export.errors import ExportError
from voxport.export.verification.reference import eager_answer, few_threads
from voxport.runtime.backends.base import Backend
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusError, CorpusOptions, open_corpus
from voxport.train.evaluation.intervals import wilson
from voxport.train.evaluation.labelled import LabelledSet, choose_labelled, heard
from voxport.train.evaluation.paired import Verdict, chance_of_loss, verdict_on
from voxport.train.models.speaker_net import SpeakerNet
from voxport.train.progress import track

MAX_DROP = 0.2
_Z_CHANCE = 1.645  # the standard normal's 95 % quantile
_SHOWN = 10


@dataclass(frozen=True)
class AccuracyOptions:
    """The labelled set, and how many points of accuracy an artefact may lose on it; with 0 any loss fails.

    `data` is what training takes: a homework folder, a folder per speaker, or a manifest. With `limit` so
    many utterances are taken, evenly from all. `cache` and `progress` are for opening the set. Raises
    ExportError for numbers that are impossible.
    """

    data: Path
    max_drop: float = MAX_DROP
    limit: int | None = None
    cache: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 100:
            raise ExportError(f"max_drop is {self.max_drop}; give percentage points, 0 or more and below 100")
        if self.limit is not None and self.limit < 1:
            raise ExportError(f"accuracy_limit is {self.limit}; give at least 1 utterance")

    def check(self) -> None:
        """Raise ExportError where there is no such set; asked before a build, which may take minutes."""
        if not self.data.exists():
            raise ExportError(f"{self.data}: no such directory or manifest; give a labelled set with --accuracy-data")


@dataclass(frozen=True)
class SpeakerLoss:
    """A speaker of whom the artefact recognises fewer utterances than the eager network, or others."""

    speaker: str
    utterances: int
    eager: int
    artefact: int


@dataclass(frozen=True)
class AccuracyReport:
    """Accuracies in [0, 1] on the same utterances; `drop` is the eager one minus the artefact's, in points.

    `eager_interval` is Wilson's, 95 %. `lost` and `gained` count utterances that one of the two has right, and
    `chance` is the probability of so many lost among them where either is as likely.
    `unknown` names labels of the set that the model does not know, with their utterances left out; `short`
    counts utterances below the model's shortest length, `in_windows` those above its longest, of which it saw the
    start; `trained_on` those left out because the network has seen them in training; `namesakes` those that
    count and have the name of a training utterance, in a corpus that is not the whole one of the training.
    """

    data: str
    utterances: int
    speakers: int
    eager: float
    eager_interval: tuple[float, ...]
    artefact: float
    drop: float
    max_drop: float
    lost: int
    gained: int
    chance: float
    verdict: Verdict
    worst: tuple[SpeakerLoss, ...]
    unknown: dict[str, int]
    short: int
    in_windows: int
    trained_on: int
    namesakes: int = 0

    @property
    def passed(self) -> bool:
        """Whether the artefact may be used: nothing says that it is worse than allowed."""
        return self.verdict != "failed"

    @property
    def figures(self) -> str:
        """Both accuracies and what lies between them, for a person."""
        low, high = self.eager_interval
        return (
            f"{self.artefact:.2%} of {self.utterances} utterances, eager PyTorch {self.eager:.2%} (95 % interval "
            f"{low:.2%} to {high:.2%}): drop {self.drop:.2f} points, at most {self.max_drop:g} allowed; "
            f"{self.lost} lost, {self.gained} gained"
        )

    @property
    def doubt(self) -> str:
        """Why the set cannot tell, for a person; empty where it can."""
        if self.verdict != "undecided":
            return ""
        return (
            f"undecided: the drop is over the allowed {self.max_drop:g} points, but {self.lost} lost against "
            f"{self.gained} gained is what chance does too (McNemar's exact test: p = {self.chance:.2g}); "
            f"if both go on like this, about {self._telling} utterances would tell"
        )

    @property
    def _telling(self) -> int:
        """How many utterances it takes until the same shares of lost and gained are no chance any more.

        Lost and gained, `k` times as many, are where (k · difference - 1) / √(k · sum) reaches the normal's
        95 % quantile: McNemar's test with continuity correction, which stays near the exact one.
        """
        both, more, z = self.lost + self.gained, self.lost - self.gained, _Z_CHANCE
        root = (z * math.sqrt(both) + math.sqrt(z * z * both + 4 * more)) / (2 * more)
        return math.ceil(self.utterances * root * root)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out of the set or cut, for a person; empty where nothing was."""
        found = []
        if self.unknown:
            names = ", ".join(f"{name} ({count})" for name, count in list(self.unknown.items())[:_SHOWN])
            more = f" and {len(self.unknown) - _SHOWN} more" if len(self.unknown) > _SHOWN else ""
            found.append(
                f"{sum(self.unknown.values())} utterances left out: the model does not know their labels {names}{more}"
            )
        if self.trained_on:
            found.append(f"{self.trained_on} utterances left out: the network was trained on them")
        if self.namesakes:
            found.append(
                f"{self.namesakes} utterances have names of training utterances; if they are the same ones, their "
                "accuracy says little: give the training's whole corpus, of which those are left out"
            )
        if self.short:
            found.append(f"{self.short} utterances left out: shorter than the model takes")
        if self.in_windows:
            found.append(f"{self.in_windows} utterances heard in windows of the longest length that the model takes")
        return tuple(found)

    @property
    def complaint(self) -> str:
        """Why the artefact does not pass, for a person."""
        losers = [f"{each.speaker} {each.eager} → {each.artefact} of {each.utterances}" for each in self.worst[:3]]
        needed = -(-100 // self.max_drop) if self.max_drop else 0
        few = (
            f"; one utterance weighs {100 / self.utterances:.2g} points here, so give at least {needed:.0f}"
            if self.lost and 100 / self.utterances > self.max_drop > 0
            else ""
        )
        return (
            f"accuracy on {self.data}: {self.figures} (by chance with p = {self.chance:.2g}){few}; "
            f"most lost: {', '.join(losers) or 'nobody'}"
        )


def accuracy_gate(
    backend: Backend, checkpoint: Checkpoint, options: AccuracyOptions, known: dict[int, int] | None = None
) -> AccuracyReport:
    """Let the eager network and the artefact answer the labelled set.

    `known` holds whom the eager network names, by the utterance's place in the set: what is there is not computed
    again, the rest is added. It serves artefacts of one checkpoint that take the same input and lengths.

    Raises:
        CorpusError: the set cannot be opened, or holds unusable entries.
        ExportError: nothing of it can be used with this model.
        VoxportError: the artefact could not be run.
    """
    contract = backend.contract
    layout = checkpoint.layout_for(options.data)
    opening = CorpusOptions(checkpoint.frontend, cache=options.cache, progress=options.progress, layout=layout)
    corpus = open_corpus(options.data, opening)
    try:
        chosen = choose_labelled(corpus, checkpoint, (contract.min_frames, contract.max_frames), options.limit)
    except CorpusError as problem:
        raise ExportError(f"{problem}; give held-out utterances of its speakers with --accuracy-data") from problem
    network, answers, known = checkpoint.network(), [], {} if known is None else known
    with few_threads():
        for i in track(chosen.indices, "Accuracy", len(chosen.indices), options.progress):
            answers.append(_answers(backend, network, corpus, i, known))
    truth = np.array(chosen.truth)
    right = np.array(answers) == truth[:, None]
    return _report(str(options.data), chosen, truth, right, checkpoint.labels, options.max_drop)


def _answers(backend: Backend, network: SpeakerNet, corpus: Corpus, i: int, known: dict[int, int]) -> tuple[int, int]:
    """Whom the eager network and the artefact name."""
    contract = backend.contract
    eager, own = np.zeros(len(contract.labels)), np.zeros(len(contract.labels))
    for values, weight in heard(corpus, i, contract.input_kind, contract.max_frames):
        if i not in known:
            eager += weight * eager_answer(network, corpus.frontend, values)[0].numpy()
        own += weight * backend.run(values[None], [len(values)]).scores[0]
    return known.setdefault(i, int(eager.argmax())), int(own.argmax())


def _report(
    data: str,
    chosen: LabelledSet,
    truth: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_],
    labels: Sequence[str],
    max_drop: float,
) -> AccuracyReport:
    """`right` is (utterances, 2): whether the eager network and the artefact named the true speaker."""
    eager, artefact = right.mean(axis=0).tolist()
    lost, gained = int((right[:, 0] & ~right[:, 1]).sum()), int((~right[:, 0] & right[:, 1]).sum())
    drop, chance = 100 * (eager - artefact), chance_of_loss(lost, gained)
    losses = [
        SpeakerLoss(labels[speaker], int(mine.sum()), *right[mine].sum(axis=0).tolist())
        for speaker in np.unique(truth)
        for mine in [truth == speaker]
        if not np.array_equal(right[mine, 0], right[mine, 1])
    ]
    losses.sort(key=lambda each: (each.artefact - each.eager, each.speaker))
    return AccuracyReport(
        data=data,
        utterances=len(truth),
        speakers=len(np.unique(truth)),
        eager=eager,
        eager_interval=wilson(eager, len(truth)),
        artefact=artefact,
        drop=drop,
        max_drop=max_drop,
        lost=lost,
        gained=gained,
        chance=chance,
        verdict=verdict_on(drop, max_drop, chance),
        worst=tuple(losses[:_SHOWN]),
        unknown=dict(chosen.unknown),
        short=chosen.short,
        in_windows=chosen.in_windows,
        trained_on=chosen.trained_on,
        namesakes=chosen.namesakes,
    )
