"""`voxport identify`: who is speaking in these files?"""

import math
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table
from voxport.cli.runtime.arguments import refuse_gallery
from voxport.cli.runtime.gallery_tables import likeness_cells, likeness_columns
from voxport.cli.runtime.shared import (
    channel_option,
    check_output,
    check_packages,
    check_threshold,
    device_option,
    each_file,
    fail_if_any,
    gallery_option,
    holds_features,
    per_channel,
    precision_option,
    report_errors,
    runtime_option,
    say_no_threshold,
    show_errors,
    show_notes,
    threads_option,
    threshold_option,
    titled,
    verify_option,
    voices_of,
)

if TYPE_CHECKING:
    from voxport.runtime import Identification, Matches, SpeakerIdentifier, Voice
    from voxport.runtime.audio.channels import ChannelChoice


@click.command(
    epilog=example(
        """
        voxport identify model.onnx meeting.wav
        voxport identify model.onnx clips/*.flac --top 1 --json
        voxport identify model.onnx door.wav --gallery people.gallery
        """
    )
)
@click.argument("model", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--top", type=click.IntRange(1), default=3, help="Speakers to show for each file.")
@channel_option("others are answered each")
@gallery_option
@threshold_option
@device_option
@runtime_option
@precision_option
@threads_option
@verify_option
@click.option("--explain", is_flag=True, help="Say on stderr what runs where, and why. --json always holds it.")
@json_option
@needs("cpu", "audio")
def identify(
    model: str,
    files: tuple[str, ...],
    top: int,
    channel: "ChannelChoice | None",
    gallery: str | None,
    threshold: float | None,
    device: Any,
    runtime: Any,
    precision: Any,
    threads: int | None,
    verify: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Say who is speaking in each FILE: the most probable speakers of MODEL.

    A FILE is a sound file of any rate and channel count. Where the model takes features, a FILE that
    ends in .npy is taken as features of shape (frames, bands), computed with the model's frontend.

    A FILE may be of any length: what the model does not take whole is heard in windows, averaged by speech.
    With --gallery a short sound is held to the threshold that was calibrated for its length.

    A file that cannot be used is named on stderr and the others are answered; the exit code is then 1.
    """
    from voxport.runtime import SpeakerIdentifier

    refuse_gallery(model)
    check_threshold(gallery, threshold)
    check_packages(files, model, runtime)
    identifier = SpeakerIdentifier.load(
        model, device=device, threads=threads, precision=precision, verify=verify, runtime=runtime
    )
    check_output(identifier, model, "scores" if gallery is None else "embedding")
    if explain:
        click.echo(str(identifier.explain()), err=True)
    if gallery is not None:
        _among_enrolled(identifier, model, files, channel, top, gallery, threshold, as_json)
        return
    found, errors = each_file(files, "Identifying", lambda name: _identify(identifier, name, top, channel))
    answers = per_channel(found)
    show_notes(answers)
    show_errors(errors)
    if as_json:
        emit_json(_report({"model": model}, identifier, answers, errors))
    elif answers:
        _show(answers)
    fail_if_any(errors, files)


def _identify(
    identifier: "SpeakerIdentifier", name: str, top: int, channel: "ChannelChoice | None"
) -> "tuple[Identification, ...]":
    if not holds_features(name):
        return identifier.identify_channels(name, top=top, channel=channel)
    from voxport.runtime.audio.preprocess import read_features

    return (identifier.identify_features(read_features(name), top=top),)


def _show(answers: list[tuple[str, "Identification"]]) -> None:
    known = {True: "yes", False: "no", None: "no threshold"}
    rejects = any(answer.known is not None for _, answer in answers)
    rows = []
    for name, answer in answers:
        lines = [[each.speaker, f"{each.probability:.1%}", f"{each.score:.2f}"] for each in answer.ranked]
        if not answer.ranked:
            lines = [["(no speech)", "", ""]]
        elif answer.known is False:  # a name in the first line would be read as the answer
            lines = [["(nobody known)", "", ""], *([f"most like {lines[0][0]}", *lines[0][1:]], *lines[1:])]
        first = [titled(name, answer.channel), f"{answer.duration_s:.2f} s"]
        for place, line in enumerate(lines):
            told = [known[answer.known] if place == 0 else ""] if rejects else []
            rows.append([*(first if place == 0 else ["", ""]), *line, *told])
    columns = ("file", "length", "speaker", "probability", "score", *(("known",) if rejects else ()))
    show_table("Who is speaking", columns, rows)


def _among_enrolled(
    identifier: "SpeakerIdentifier",
    model: str,
    files: tuple[str, ...],
    channel: "ChannelChoice | None",
    top: int,
    path: str,
    threshold: float | None,
    as_json: bool,
) -> None:
    from voxport.runtime import Gallery

    gallery = Gallery.load(path, identifier.contract)
    gallery.check_threshold(threshold)

    def answer(name: str) -> "list[tuple[Voice, Matches]]":
        voices = voices_of(identifier, name, channel)
        return [(voice, gallery.identify(voice, top=top, threshold=threshold)) for voice in voices]

    found, errors = each_file(files, "Identifying", answer)
    answers = per_channel(found)
    show_notes([(name, voice) for name, (voice, _) in answers])
    show_errors(errors)
    if any(matches.known is None for _, (_, matches) in answers):
        say_no_threshold(path)
    if as_json:
        emit_json(_report({"model": model, "gallery": path}, identifier, answers, errors))
    elif answers:
        _show_matches(answers)
    fail_if_any(errors, files)


def _show_matches(answers: "list[tuple[str, tuple[Voice, Matches]]]") -> None:
    from voxport.runtime import Match

    words = {True: "yes", False: "no", None: "no threshold"}
    every = [match for _, (_, matches) in answers for match in matches.ranked]
    nothing = math.nan if any(match.normalized is not None for match in every) else None
    rows = [
        (
            titled(name, voice.channel) if place == 0 else "",
            match.speaker,
            *likeness_cells(match),
            words[matches.known] if place == 0 else "",
        )
        for name, (voice, matches) in answers
        for place, match in enumerate(matches.ranked or (Match("(no speech)", math.nan, nothing),))
    ]
    show_table("Who is speaking", ("file", "speaker", *likeness_columns(every), "known"), rows)


def _report(
    source: dict[str, str],
    identifier: "SpeakerIdentifier",
    answers: "list[tuple[str, Identification]] | list[tuple[str, tuple[Voice, Matches]]]",
    errors: list[tuple[str, str]],
) -> dict[str, Any]:
    from voxport.runtime.storage.serialization import encode

    results = []
    for name, answer in answers:
        if isinstance(answer, tuple):
            voice, matches = answer
            results.append({"file": name, "speaker": matches.speaker} | encode(matches) | voice.heard())
        else:
            results.append({"file": name, "speaker": answer.speaker} | encode(answer))
    runs_on = encode(identifier.explain())
    return {**source, "runs_on": runs_on, "results": results, "errors": report_errors(errors)}
