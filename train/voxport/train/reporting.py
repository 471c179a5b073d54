"""An evaluation as files: JSON and plots."""

import json
from pathlib import Path

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage import atomic
from voxport.runtime.storage.serialization import encode
from voxport.train import plots
from voxport.train.evaluation.evaluate import Evaluation, Evidence
from voxport.train.evaluation.unseen import Unseen


def write_evaluation(evaluation: Evaluation, evidence: Evidence, out: Path, unseen: Unseen | None = None) -> None:
    """Write evaluation.json, confusion.png, lengths.png, pieces.png, and with trials det.png and scores.png into `out`.

    With `unseen` its figures lie in unseen.json and in pieces.png.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(evaluation, out / "evaluation.json")
        title = f"{evaluation.accuracy_whole:.1%} of {evaluation.utterances} whole utterances"
        plots.plot_confusion(evidence.confusion, evidence.labels, title, out / "confusion.png")
        plots.plot_lengths(evaluation, out / "lengths.png")
        if unseen is not None:
            write_json(unseen, out / "unseen.json")
        plots.plot_pieces(evaluation.pieces, () if unseen is None else unseen.rows, out / "pieces.png")
        if evaluation.verification is not None:
            plots.plot_det({evaluation.verification.source: evidence.det}, out / "det.png")
            threshold = evaluation.verification.eer_threshold
            plots.plot_scores(evidence.target, evidence.cosine, threshold, out / "scores.png")
    except OSError as problem:
        raise VoxportError(f"{out}: the report cannot be written ({problem})") from problem


def write_json(value: object, path: Path) -> None:
    """Write `value` (dataclasses included) as JSON, whole or not at all."""
    write_text(json.dumps(encode(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write `text`, whole or not at all."""
    try:
        atomic.write_text(path, text)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem
