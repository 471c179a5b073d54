"""Predictions as the homework's graders read them: a CSV with header `Id,Category`."""

import csv
from pathlib import Path

from voxport.runtime.errors import VoxportError
from voxport.runtime.replacing import check_replaceable, replace_file
from voxport.train.batches import WholeUtterances
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus
from voxport.train.long_utterances import corpus_windows
from voxport.train.scoring import Progress, answer_whole


def predict(
    checkpoint: Checkpoint, corpus: Corpus, device: str = "cpu", progress: Progress | None = None
) -> list[tuple[str, str]]:
    """(utterance, speaker) for the corpus's test part, in testdata.json's order.

    A corpus without a test part (sound files) is predicted whole, in its own order.
    """
    if corpus.test:
        utterances, source = corpus.test, corpus.test_features
    else:
        utterances, source = corpus.utterances, corpus.features
    frames = [utterance.frames for utterance in utterances]
    windows = None if corpus.test else corpus_windows(corpus)
    whole = WholeUtterances(source, range(len(frames)), frames)
    scores = answer_whole(checkpoint, whole, device, progress, windows).scores
    speakers = [checkpoint.labels[i] for i in scores.argmax(axis=1)]
    return [(utterance.key, speaker) for utterance, speaker in zip(utterances, speakers, strict=True)]


def check_csv(path: Path) -> None:
    """Raise VoxportError where `write_csv` could not write `path`: before the work, not after it."""
    try:
        check_replaceable(path)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem
    if not path.absolute().parent.is_dir():
        raise VoxportError(f"{path}: cannot be written; there is no folder {path.parent}")


def write_csv(rows: list[tuple[str, str]], path: Path) -> None:
    """Write `rows` under the header `Id,Category`, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("Id", "Category"))
            writer.writerows(rows)
        replace_file(part, path)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem
    finally:
        part.unlink(missing_ok=True)
