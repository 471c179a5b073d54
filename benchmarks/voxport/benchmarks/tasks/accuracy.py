"""How many labelled utterances a back end gets right, each alone. Apart from all timing."""

from pathlib import Path

import numpy as np

from voxport.benchmarks.backends.registry import Array
from voxport.benchmarks.core.protocol import Judge, Judged
from voxport.benchmarks.core.records import Accuracy
from voxport.benchmarks.tasks.cold_start import Tools
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions, open_corpus
from voxport.train.evaluation.labelled import LabelledSet, choose_labelled, heard


def judge(request: Judge, tools: Tools) -> Judged:
    """Run every labelled utterance.

    Raises:
        VoxportError: the corpus cannot be used, or has nobody whom the checkpoint knows.
    """
    backend = tools.opener(request.backend)
    checkpoint = load_checkpoint(request.checkpoint)
    layout = checkpoint.layout_for(request.data)
    corpus = open_corpus(request.data, CorpusOptions(checkpoint.frontend, skip_bad=True, progress=False, layout=layout))
    chosen = choose_labelled(corpus, checkpoint, (request.min_frames, request.max_frames), request.limit)
    wrong = []
    for number, (position, label) in enumerate(zip(chosen.indices, chosen.truth, strict=True)):
        summed: Array = np.zeros(backend.speakers, np.float32)
        for values, weight in heard(corpus, position, request.backend.input_kind, request.max_frames):
            summed = summed + weight * backend.run(values[np.newaxis], np.array([len(values)], dtype=np.int64))[0]
        if int(summed.argmax()) != label:
            wrong.append(number)
    total = len(chosen.indices)
    correct, note = total - len(wrong), _note(chosen, request)
    share = correct / total
    return Judged(Accuracy(request.backend.name, total, correct, share, None, 0.0, None, note, tuple(wrong)))


def _note(chosen: LabelledSet, request: Judge) -> str:
    part = "all that training has not seen" if chosen.trained_on else "all utterances of known speakers"
    if chosen.namesakes:
        part += f" ({chosen.namesakes} have names of training utterances; if they are the same ones, this says little)"
    windows = f"{chosen.in_windows} heard in windows of {request.max_frames} frames"
    return f"{len(chosen.indices)} utterances of {Path(request.data).name}, {part}, {windows}"
