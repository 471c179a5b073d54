"""What commands that listen share: options of the model, files one after another, errors by file."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voxport.cli.common import together
from voxport.cli.progress import is_shown

if TYPE_CHECKING:
    from pathlib import Path

    from voxport.runtime import GalleryScorer, Identification, SpeakerIdentifier, Voice
    from voxport.runtime.audio.channels import ChannelChoice
    from voxport.runtime.contract import Output

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

_BAR_FROM = 5  # files; fewer are done before a bar could be read

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt", "rtx"]),
    default="auto",
    help="Device to run the model on. auto takes the GPU where onnxruntime starts on it, else the CPU.",
)
runtime_option = click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "openvino"]),
    help="The library that runs an ONNX model; openvino runs on the CPU.  [default: onnxruntime]",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "bf16"]),
    help="Refuse a model of another precision; with --runtime openvino, bf16 and fp16 compute float32 in it.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads; default: 1 on one or two cores, else 2."
)


def _parsed(ctx: click.Context, param: click.Parameter, value: str | None) -> "ChannelChoice | None":
    from voxport.runtime import AudioError
    from voxport.runtime.audio.channels import parse_channel

    if value is None:
        return None
    try:
        return parse_channel(value)
    except AudioError as problem:
        raise click.BadParameter(f"{value!r} is no channel: give its number from 1 on, mix or each") from problem


def channel_option(usual: str) -> Callable[[F], F]:
    """--channel; `usual` completes the sentence that says what is done without it."""
    return click.option(
        "--channel",
        callback=_parsed,
        metavar="N|mix|each",
        help="Of a sound with several channels, hear one (from 1), their average, or each by itself.  "
        f"[default: all as one where they are of one sound; {usual}]",
    )


gallery_option = click.option(
    "--gallery", type=click.Path(), help="Identify against this gallery, not against the model's own speakers."
)
threshold_option = click.option(
    "--threshold", type=float, help="With --gallery: cosine, or normalised score, from which a voice is known."
)

verify_option = click.option("--verify/--no-verify", default=True, help="Replay the model's golden vector first.")
run_options = together(device_option, threads_option)
live_options = together(gallery_option, threshold_option, run_options, verify_option)


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
        say_no_threshold(gallery)
    return scorer


def say_no_threshold(gallery: str) -> None:
    """A note on stderr: whoever is heard will be given a name."""
    click.echo(
        f"note: {gallery} has no threshold, so a stranger is given the name of whoever is most alike; "
        f"set one with --threshold, or calibrate it: voxport gallery calibrate {gallery} 0.01",
        err=True,
    )


def check_threshold(gallery: str | None, threshold: float | None) -> None:
    """Refuse a threshold that nothing would use, and one that is no number."""
    if threshold is not None and gallery is None:
        raise click.UsageError("--threshold needs --gallery: a model carries its own threshold")
    if threshold is not None and threshold != threshold:  # NaN, which lies in every range
        raise click.UsageError("--threshold must be a number, such as a cosine between -1 and 1, found nan")


def check_packages(files: Sequence[str], model: str | None = None, runtime: str | None = None) -> None:
    """Say all that is missing at once: installing one package would only show the next one."""
    from voxport.runtime.backends.formats import format_named, format_of

    found = format_named("onnx") if model is None else format_of(model)
    usual = found.name == "onnx" and runtime in (None, *found.modules) and not os.path.isdir(model or "")
    runners = found.modules if usual else ()  # the other engines say what they need
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
    from voxport.runtime.storage.atomic import writing

    try:
        with writing(path) as part:
            yield part
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem.strerror or problem})") from problem


def holds_features(name: str) -> bool:
    """Whether the file `name` is taken as features, not as sound."""
    return name.lower().endswith(".npy")


def each_file(
    files: Sequence[str], label: str, answer: Callable[[str], R]
) -> tuple[list[tuple[str, R]], list[tuple[str, str]]]:
    """What `answer` gives for each file, and the messages of those for which it raises VoxportError."""
    from voxport.runtime.errors import VoxportError

    answers: list[tuple[str, R]] = []
    errors: list[tuple[str, str]] = []
    shown = is_shown() and len(files) >= _BAR_FROM
    with click.progressbar(files, label=label, file=sys.stderr) if shown else nullcontext(files) as names:
        for name in names:
            try:
                answers.append((name, answer(name)))
            except VoxportError as problem:
                errors.append((name, str(problem)))
    return answers, errors


def voices_of(
    identifier: "SpeakerIdentifier", name: str, channel: "ChannelChoice | None", *, pieces: bool = False
) -> "tuple[Voice, ...]":
    """The voices of a sound file, one for each channel that is heard, or that of a `.npy` file of features.

    `pieces` adds what a gallery calibrates with.
    """
    if not holds_features(name):
        from voxport.runtime.audio.pieces import PIECE_SECONDS

        return identifier.voices(name, channel=channel, pieces=PIECE_SECONDS if pieces else ())
    from voxport.runtime.audio.preprocess import read_features

    return (identifier.voice_features(read_features(name)),)


def one_voice(
    identifier: "SpeakerIdentifier", name: str, channel: "ChannelChoice | None", *, pieces: bool = False
) -> "tuple[Voice, ...]":
    """What `voices_of` gives, where a sound must be of one voice: several only where each channel was asked for.

    Raises:
        ChannelError: the file's channels hold different sounds, and the user chose none.
        NoSpeechError: it holds no speech.
    """
    from voxport.runtime import NoSpeechError

    if channel == "each" or holds_features(name):
        found = voices_of(identifier, name, channel, pieces=pieces)
    else:
        from voxport.runtime.audio.pieces import PIECE_SECONDS

        found = (identifier.voice(name, channel=channel, pieces=PIECE_SECONDS if pieces else ()),)
    for voice in found:
        if voice.speech is not None and not voice.speech.found:
            raise NoSpeechError(f"{titled(name, voice.channel)}: {voice.speech.text}")
    return found


def per_channel(answers: Sequence[tuple[str, Sequence[R]]]) -> list[tuple[str, R]]:
    """Answers of files as answers of channels."""
    return [(name, each) for name, found in answers for each in found]


def titled(name: str, channel: int | None) -> str:
    """What a table calls a channel of a file."""
    return name if channel is None else f"{name}, channel {channel}"


def show_notes(answers: "Sequence[tuple[str, Identification]] | Sequence[tuple[str, Voice]]") -> None:
    """Say on stderr what is worth knowing about the sounds."""
    for name, answer in answers:
        if answer.speech is not None and not answer.speech.found:
            click.echo(f"note: {titled(name, answer.channel)}: {answer.speech.text}", err=True)
        for note in answer.notes:
            click.echo(f"note: {titled(name, answer.channel)}: {note.text}", err=True)


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
