"""`voxport train evaluate`: accuracy, verification, calibration, and a rejection threshold."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import (
    CONDITION_COLUMNS,
    FILE_PATH,
    condition_row,
    emit_json,
    example,
    needs,
    show_table,
)
from voxport.cli.progress import is_shown
from voxport.cli.train.options import (
    LAYOUT_NAMES,
    bar,
    checkpoint_argument,
    corpus_of,
    data_option,
    reading_options,
)

if TYPE_CHECKING:
    from voxport.runtime.contract import ConditionLine
    from voxport.train.checkpoint import Checkpoint
    from voxport.train.data import Corpus
    from voxport.train.evaluation.evaluate import Evaluation
    from voxport.train.evaluation.lengths import LengthRow
    from voxport.train.evaluation.unseen import Unseen


@click.command(
    epilog=example(
        """
        voxport train evaluate runs/best/model.pt --data corpus/ --out report/
        voxport train evaluate runs/best/model.pt --data held-out/ --part all --conditions --save
        voxport train evaluate runs/best/model.pt --trials trials.txt
        voxport train evaluate runs/best/model.pt --unseen strangers/ --as-norm 40
        voxport train evaluate runs/best/model.pt --false-accept-rate 0.01 --save
        """
    )
)
@checkpoint_argument
@data_option
@click.option(
    "--part", type=click.Choice(["valid", "train", "all"]), default="valid", help="Part of the corpus to score."
)
@click.option("--crop-frames", type=click.IntRange(1), help="Length of the crops; default: the recipe's.")
@click.option(
    "--max-frames",
    type=click.IntRange(1),
    default=3000,
    help="Longer utterances are heard in windows of this length, as by an export with this --max-frames.",
)
@click.option("--out", type=FILE_PATH, help="Folder for the report (JSON) and plots.")
@click.option("--trials", type=FILE_PATH, help="Lines `1 keyA keyB` or `0 keyA keyB`, in place of all pairs.")
@click.option(
    "--lengths", default="64,100,128,200,400", help="Frames of the pieces in the table by length, with commas."
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=4,
    help="Pieces of each utterance and length that the table's figures are means over.",
)
@click.option(
    "--unseen",
    type=FILE_PATH,
    help="A corpus of speakers that the network was not trained on: how well it compares strangers, by length.",
)
@click.option("--unseen-trials", type=FILE_PATH, help="A trial list of --unseen, for all its pairs.")
@click.option(
    "--as-norm",
    type=click.IntRange(2),
    help="With --unseen: also after score normalisation by so many of the network's own speakers.",
)
@click.option(
    "--false-accept-rate", type=float, help="Choose a rejection threshold for this share of accepted impostors."
)
@click.option(
    "--conditions",
    is_flag=True,
    help="Answer the part's sounds (at most 200) also changed, in every kind of condition; see docs/conditions.md.",
)
@click.option(
    "--save",
    is_flag=True,
    help="Store the threshold, and the lines of --conditions, in the checkpoint; an export then carries them.",
)
@reading_options
@needs("train")
def evaluate(checkpoint: Path, out: Path | None, conditions: bool, save: bool, as_json: bool, **choices: Any) -> None:
    """Score a checkpoint on labelled utterances.

    Accuracy on whole utterances and on crops, by length and by speaker; accuracy, calibration and equal error rate of
    pieces of each length; equal error rate and minimum detection cost of the embeddings over all pairs or a trial
    list; and, for a chosen false-accept rate, a threshold below which a speaker is rejected as unknown.
    """
    from voxport.runtime.storage.serialization import encode
    from voxport.train.checkpoint import load_checkpoint, save_checkpoint
    from voxport.train.evaluation.evaluate import EvaluateOptions
    from voxport.train.evaluation.evaluate import evaluate as run_evaluate
    from voxport.train.reporting import write_evaluation
    from voxport.train.training.fit import choose_device

    rate = choices["false_accept_rate"]
    if save and rate is None and not conditions:
        raise click.UsageError(
            "--save stores a rejection threshold or conditions; say for which --false-accept-rate, or give --conditions"
        )
    if choices["unseen"] is None and (choices["unseen_trials"] is not None or choices["as_norm"] is not None):
        raise click.UsageError("--unseen-trials and --as-norm go with --unseen DATA")
    lengths = _lengths(choices["lengths"])
    loaded = load_checkpoint(checkpoint)
    corpus = corpus_of(loaded, choices)
    options = EvaluateOptions(
        choices["part"],
        choose_device(choices["device"]),
        choices["trials"],
        rate,
        crop_frames=choices["crop_frames"],
        max_frames=choices["max_frames"],
        lengths=lengths,
        draws=choices["draws"],
    )
    with bar("Scoring", is_shown(choices["progress"])) as progress:
        evaluation, evidence = run_evaluate(loaded, corpus, options, progress)
    unseen = _unseen(loaded, lengths, choices)
    if out is not None:
        write_evaluation(evaluation, evidence, out, unseen)
    changed = loaded
    if save and evaluation.rejection is not None:
        changed = dataclasses.replace(changed, rejection=evaluation.rejection.rejection)
    found = _conditions(changed, corpus, choices) if conditions else ()
    if save:
        changed = dataclasses.replace(changed, conditions=found or changed.conditions)
        save_checkpoint(changed, checkpoint / "model.pt" if checkpoint.is_dir() else checkpoint)
    if as_json:
        extra = {"conditions": found} if conditions else {}
        emit_json({**encode(evaluation), **extra, **({"unseen": unseen} if unseen is not None else {})})
        return
    _show(evaluation)
    if unseen is not None:
        _show_unseen(unseen)
    if found:
        show_table(f"Outside the studio, on {found[0].measured_on}", CONDITION_COLUMNS, map(condition_row, found))
    if out is not None:
        click.echo(f"report and plots: {out}")
    if save:
        click.echo(f"stored in {checkpoint}; models exported before do not have it")


def _lengths(text: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        lengths = (0,)
    if any(length < 1 for length in lengths):
        raise click.BadParameter(
            f"expected whole numbers of frames with commas, found {text!r}", param_hint="--lengths"
        )
    return lengths


def _unseen(checkpoint: "Checkpoint", lengths: tuple[int, ...], choices: dict[str, Any]) -> "Unseen | None":
    from voxport.train.evaluation.unseen import UnseenOptions, evaluate_unseen
    from voxport.train.training.fit import choose_device

    if choices["unseen"] is None:
        return None
    # Its layout is its own, whatever was said of --data.
    given = {**choices, **dict.fromkeys(LAYOUT_NAMES), "data": choices["unseen"]}
    corpus = corpus_of(checkpoint, given)
    device = choose_device(choices["device"])
    options = UnseenOptions(choices["unseen_trials"], lengths, choices["as_norm"], device, draws=choices["draws"])
    with bar("Comparing strangers", is_shown(choices["progress"])) as progress:
        return evaluate_unseen(checkpoint, corpus, options, progress)


def _conditions(checkpoint: "Checkpoint", corpus: "Corpus", choices: dict[str, Any]) -> "tuple[ConditionLine, ...]":
    import numpy as np

    from voxport.runtime.errors import VoxportError
    from voxport.train.data import CorpusOptions
    from voxport.train.effects.options import AugmentOptions
    from voxport.train.evaluation.evaluate import choose_utterances
    from voxport.train.open_set import answers_by_kind, condition_lines_of, spread
    from voxport.train.training.fit import choose_device

    indices, labels = choose_utterances(checkpoint, corpus, choices["part"])
    sounds = spread([place for place, i in enumerate(indices) if corpus.has_sound(i)])
    if not len(sounds):
        raise VoxportError(
            f"{corpus.path}: holds features; --conditions changes sounds, so give --data with sound files"
        )
    opening = CorpusOptions(
        corpus.frontend, cache=choices["cache"], jobs=choices["jobs"], progress=is_shown(choices["progress"])
    )
    augment, device = checkpoint.recipe.augment or AugmentOptions(), choose_device(choices["device"])
    answers = answers_by_kind(checkpoint, corpus, np.array(indices)[sounds], augment, opening, device)
    what = f"{len(sounds)} utterances of {corpus.path.name}, part {choices['part']}"
    return condition_lines_of(checkpoint, answers, labels[sounds], what)


def _show(evaluation: "Evaluation") -> None:
    top5 = [] if evaluation.top5_whole is None else [("whole utterances, top 5", f"{evaluation.top5_whole:.2%}")]
    rows = [
        ("utterances", f"{evaluation.utterances:,} ({evaluation.part})"),
        ("whole utterances", f"{evaluation.accuracy_whole:.2%}"),
        *top5,
        *([("heard in windows", f"{evaluation.in_windows:,}")] if evaluation.in_windows else []),
        (f"crops of {evaluation.crop_frames} frames", f"{evaluation.accuracy_crop:.2%}"),
        ("calibration error", f"{evaluation.calibration_error:.2%}"),
    ]
    show_table("Accuracy", ("", "accuracy"), rows)
    lengths = [
        (f"{b.low}–{b.high - 1 if b.high else ''}", b.utterances, f"{b.accuracy:.2%}") for b in evaluation.by_length
    ]
    show_table("By length", ("frames", "utterances", "accuracy"), lengths)
    show_table(
        "Pieces of each length: means, and the lowest and highest draw's",
        PIECE_COLUMNS,
        map(_piece_row, evaluation.pieces),
    )
    worst = [(s.speaker, s.utterances, f"{s.accuracy:.2%}", s.taken_for or "") for s in evaluation.speakers[:10]]
    show_table("Worst speakers", ("speaker", "utterances", "accuracy", "most often taken for"), worst)
    _show_verification(evaluation)
    _show_rejection(evaluation)


HEARD = {"whole": "whole", "alone": "as a sound of its own", "cut": "cut from the whole's features"}
PIECE_COLUMNS = ("frames", "heard", "utterances", "shorter", "accuracy", "calibration error", "equal error rate")


def _piece_row(row: "LengthRow") -> tuple[object, ...]:
    accuracy = _share(row.accuracy, row.accuracy_range)
    return (*_piece(row), accuracy, _share(row.calibration_error), _share(row.eer, row.eer_range))


def _share(share: float | None, of_draws: tuple[float, float] | None = None) -> str:
    """A share, and behind it those of the lowest and the highest draw."""
    if share is None:
        return "–"
    return f"{share:.2%}" if of_draws is None else f"{share:.2%} ({100 * of_draws[0]:.1f}–{100 * of_draws[1]:.1f})"


def _piece(row: "LengthRow") -> tuple[object, ...]:
    return ("all" if row.frames is None else row.frames, HEARD[row.heard], row.utterances, row.shorter)


def _show_unseen(unseen: "Unseen") -> None:
    columns = (*PIECE_COLUMNS[:4], "equal error rate", "with AS-norm", "taken for known")
    rows = [
        (*_piece(row), _share(row.eer, row.eer_range), _share(row.eer_as_norm), _share(row.accepted))
        for row in unseen.rows
    ]
    of = f"{unseen.trials:,} trials ({unseen.target_trials:,} of one speaker) of {unseen.speakers} speakers"
    show_table(f"Voices that it never heard: {of} in {unseen.path}", columns, rows)


def _show_verification(evaluation: "Evaluation") -> None:
    result = evaluation.verification
    if result is None:
        click.echo("Verification: not computed, for want of pairs of one speaker and of two.")
        return
    sampled = "" if result.trials == result.possible_trials else f", drawn from {result.possible_trials:,}"
    rows = [
        ("trials", f"{result.trials:,} ({result.target_trials:,} of one speaker) from {result.source}{sampled}"),
        ("equal error rate", f"{result.eer:.2%} at cosine {result.eer_threshold:.3f}"),
        ("minDCF, target prior 0.01", f"{result.min_dcf_01:.3f}"),
        ("minDCF, target prior 0.05", f"{result.min_dcf_05:.3f}"),
    ]
    if result.seen_in_training:
        rows.append(("seen in training", f"{result.seen_in_training:,} of {result.utterances:,} utterances"))
    show_table("Verification, by the cosine of two embeddings of speakers known from training", ("", "result"), rows)


def _show_rejection(evaluation: "Evaluation") -> None:
    found = evaluation.rejection
    if found is None:
        return

    def share(rate: float, interval: tuple[float, float], count: int) -> str:
        return f"{rate:.2%} ({count:,} of {found.utterances:,}), 95 % {interval[0]:.2%}–{interval[1]:.2%}"

    rows = [
        ("threshold", f"best cosine below {found.threshold:.4f}"),
        ("impostors accepted", share(found.false_accept_rate, found.false_accept_interval, found.false_accepts)),
        ("known speakers rejected", share(found.false_reject_rate, found.false_reject_interval, found.false_rejects)),
    ]
    title = f"Rejection, for a false-accept rate of {found.asked_false_accept_rate:g}; impostors are simulated"
    show_table(title, ("", "result"), rows)
