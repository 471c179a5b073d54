"""What commands that listen share: options of the model, files one after another, errors by file."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from voxport.runtime import GalleryScorer, SpeakerIdentifier, Voice
    from voxport.runtime.contract import Output

R = TypeVar("R")

_BAR_FROM = 5  # files; fewer are done before a bar could be read

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="What must run the model. auto takes the GPU where onnxruntime starts on it, else the CPU.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads; default: 1 on one or two cores, else 2."
)

gallery_option = click.option(
    "--gallery", type=click.Path(), help="Look among the speakers enrolled there, not among the model's own."
)
threshold_option = click.option(
    "--threshold", type=click.FloatRange(-1, 1), help="With --gallery: cosine from which a voice is known."
)


def gallery_scorer(
    identifier: "SpeakerIdentifier", gallery: str | None, threshold: float | None
) -> "GalleryScorer | None":
    """What `Stream` and `Timeline` compare with: the enrolled of the file `gallery`; None: the model's own speakers.

    Says on stderr where strangers will not be told apart, for want of a threshold.
    """
    if gallery is None:
        return None
    from voxport.runtime import Gallery, GalleryScorer

    scorer = GalleryScorer(identifier, Gallery.load(gallery, identifier.contract), threshold=threshold)
    if scorer.threshold is None:
        click.echo(
            f"note: {gallery} has no threshold, so a stranger is given the name of whoever is most alike; "
            f"set one with --threshold, or calibrate it: voxport gallery calibrate {gallery} 0.01",
            err=True,
        )
    return scorer


def check_threshold(gallery: str | None, threshold: float | None) -> None:
    """Refuse a threshold that nothing would use, and one that is no number."""
    if threshold is not None and gallery is None:
        raise click.UsageError("--threshold needs --gallery: a model carries its own threshold")
    if threshold is not None and threshold != threshold:  # NaN, which lies in every range
        raise click.UsageError("--threshold must be a cosine between -1 and 1, found nan")


def check_packages(files: Sequence[str], model: str | None = None) -> None:
    """Say all that is missing at once: installing one package would only show the next one."""
    from voxport.runtime.backends.formats import is_plan, is_torch_file

    other = model is not None and (is_plan(model) or is_torch_file(model))  # their back ends say what they need
    runners = () if other else ("onnxruntime",)
    decoders = ("soundfile", "soxr") if any(not holds_features(name) for name in files) else ()
    for package in (*runners, *decoders):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def check_output(identifier: "SpeakerIdentifier", model: str, output: "Output") -> None:
    """Say once, and not of every file, that the model in the file `model` was exported without `output`.

    Raises:
        VoxportError: it was.
    """
    from voxport.runtime import VoxportError
    from voxport.runtime.backends.base import need_output

    try:
        need_output(identifier.contract, output)
    except VoxportError as problem:
        raise VoxportError(f"{model}: {problem}") from problem


def check_place(path: "Path | None") -> None:
    """Say before the work, which may take long, where its result could not be written.

    Raises:
        VoxportError: there is no such folder, or what is there is no regular file.
    """
    from voxport.runtime import VoxportError
    from voxport.runtime.storage.atomic import check_replaceable

    if path is None:
        return
    if not path.parent.is_dir():
        raise VoxportError(f"{path.parent}: there is no such folder; make it, or write to another")
    try:
        check_replaceable(path)
    except OSError as problem:
        raise VoxportError(f"{path}: {problem.strerror}") from problem


@contextmanager
def written_whole(path: "Path") -> Iterator["Path"]:
    """The name of a file to write beside `path`, which takes its place at the end of the block, or is removed.

    Raises:
        VoxportError: the system would not take it; an older file stays.
    """
    from voxport.runtime import VoxportError
    from voxport.runtime.storage.atomic import replace_file

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        replace_file(part, path)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem.strerror or problem})") from problem
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def holds_features(name: str) -> bool:
    """Whether the file `name` is taken as features, not as sound."""
    return name.lower().endswith(".npy")


def at_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()


def each_file(
    files: Sequence[str], label: str, answer: Callable[[str], R]
) -> tuple[list[tuple[str, R]], list[tuple[str, str]]]:
    """What `answer` gives for each file, and the messages of those for which it raises VoxportError."""
    from voxport.runtime.errors import VoxportError

    answers: list[tuple[str, R]] = []
    errors: list[tuple[str, str]] = []
    shown = at_terminal() and len(files) >= _BAR_FROM
    with click.progressbar(files, label=label, file=sys.stderr) if shown else nullcontext(files) as names:
        for name in names:
            try:
                answers.append((name, answer(name)))
            except VoxportError as problem:
                errors.append((name, str(problem)))
    return answers, errors


def voice_file(identifier: "SpeakerIdentifier", name: str, *, pieces: bool = False) -> "Voice":
    """The voice in a sound file or in a `.npy` file of features; `pieces` adds what a gallery calibrates with."""
    if not holds_features(name):
        from voxport.runtime.audio.pieces import PIECE_SECONDS

        return identifier.voice(name, pieces=PIECE_SECONDS if pieces else ())
    from voxport.runtime.audio.preprocess import read_features

    return identifier.voice_features(read_features(name))


def heard_as(voice: "Voice") -> dict[str, float]:
    """How a sound was heard, for a report in JSON."""
    return {"duration_s": voice.duration_s, "windows": voice.windows}


def show_errors(errors: Sequence[tuple[str, str]]) -> None:
    """Name each file that could not be used, on stderr."""
    for name, message in errors:
        click.echo(f"error: {message if message.startswith(name) else f'{name}: {message}'}", err=True)


def report_errors(errors: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """The same for a report in JSON."""
    return [{"file": name, "error": message} for name, message in errors]


def fail_if_any(errors: Sequence[tuple[str, str]], files: Sequence[str]) -> None:
    """Exit with 1 where a file could not be used."""
    if errors:
        click.echo(f"{len(errors)} of {len(files)} files could not be answered", err=True)
        raise SystemExit(1)
