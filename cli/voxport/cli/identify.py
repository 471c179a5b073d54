"""`voxport identify`: who is speaking in these files?"""

import importlib.util
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table

if TYPE_CHECKING:
    from voxport.runtime import Identification, SpeakerIdentifier

_BAR_FROM = 5  # files; fewer are done before a bar could be read


@click.command(
    epilog=example(
        """
        voxport identify model.onnx meeting.wav
        voxport identify model.onnx clips/*.flac --top 1 --json
        """
    )
)
@click.argument("model", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="Speakers to show for each file.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: 1 on one or two cores, else 2.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Replay the model's golden vector first.")
@json_option
@needs("cpu", "audio")
def identify(
    model: str, files: tuple[str, ...], top: int, device: Any, threads: int | None, verify: bool, as_json: bool
) -> None:
    """Say who is speaking in each FILE: the most probable speakers of MODEL.

    A FILE is a sound file of any rate and channel count. Where the model takes features, a FILE that
    ends in .npy is taken as features of shape (frames, bands), computed with the model's frontend.

    A file that cannot be used is named on stderr and the others are answered; the exit code is then 1.
    """
    from voxport.runtime import SpeakerIdentifier

    _check_packages(files)
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads, verify=verify)
    answers, errors = _answer(identifier, files, top)
    for name, message in errors:
        click.echo(f"error: {message if message.startswith(name) else f'{name}: {message}'}", err=True)
    if as_json:
        emit_json(_report(model, answers, errors))
    elif answers:
        _show(answers)
    if errors:
        click.echo(f"{len(errors)} of {len(files)} files could not be answered", err=True)
        raise SystemExit(1)


def _check_packages(files: tuple[str, ...]) -> None:
    """Say all that is missing at once: installing one package would only show the next one."""
    decoders = ("soundfile", "soxr") if any(not _holds_features(name) for name in files) else ()
    for package in ("onnxruntime", *decoders):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def _holds_features(name: str) -> bool:
    return name.lower().endswith(".npy")


def _answer(
    identifier: "SpeakerIdentifier", files: tuple[str, ...], top: int
) -> tuple[list[tuple[str, "Identification"]], list[tuple[str, str]]]:
    from voxport.runtime.errors import VoxportError
    from voxport.runtime.prepare import read_features

    answers: list[tuple[str, Identification]] = []
    errors: list[tuple[str, str]] = []
    shown = at_terminal() and len(files) >= _BAR_FROM
    with click.progressbar(files, label="Identifying", file=sys.stderr) if shown else nullcontext(files) as names:
        for name in names:
            try:
                if _holds_features(name):
                    answers.append((name, identifier.identify_features(read_features(name), top=top)))
                else:
                    answers.append((name, identifier.identify(name, top=top)))
            except VoxportError as problem:
                errors.append((name, str(problem)))
    return answers, errors


def at_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()


def _show(answers: list[tuple[str, "Identification"]]) -> None:
    rejects = any(answer.known is not None for _, answer in answers)
    rows = []
    for name, answer in answers:
        for place, candidate in enumerate(answer.ranked):
            row = ["", "", candidate.speaker, f"{candidate.probability:.1%}", f"{candidate.score:.2f}"]
            if place == 0:
                row[:2] = [name, f"{answer.duration_s:.2f} s"]
            if rejects:
                row.append(("yes" if answer.known else "no") if place == 0 else "")
            rows.append(row)
    columns = ("file", "length", "speaker", "probability", "score", *(("known",) if rejects else ()))
    show_table("Who is speaking", columns, rows)


def _report(model: str, answers: list[tuple[str, "Identification"]], errors: list[tuple[str, str]]) -> dict[str, Any]:
    from voxport.runtime.schema import encode

    return {
        "model": model,
        "results": [{"file": name} | encode(answer) for name, answer in answers],
        "errors": [{"file": name, "error": message} for name, message in errors],
    }
