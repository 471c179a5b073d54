"""`voxport verify`: is it this speaker?"""

from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table
from voxport.cli.runtime.arguments import find_places
from voxport.cli.runtime.gallery_tables import likeness_cells, likeness_columns
from voxport.cli.runtime.shared import (
    channel_option,
    check_output,
    check_packages,
    check_threshold,
    each_file,
    fail_if_any,
    one_voice,
    per_channel,
    report_errors,
    run_options,
    show_errors,
    show_notes,
    titled,
)

if TYPE_CHECKING:
    from voxport.runtime import Verification, Voice
    from voxport.runtime.audio.channels import ChannelChoice

REJECTED = 3  # exit code; 1 is an error and 2 a wrong command line


@click.command(
    epilog=example(
        """
        voxport verify model.onnx people.gallery Ada door.wav
        voxport verify model.onnx people.gallery Ada door.wav --threshold 0.6 && open-the-door
        """
    )
)
@click.argument("arguments", nargs=-1, required=True, type=click.Path(), metavar="MODEL GALLERY NAME FILE...")
@click.option("--model", type=click.Path(), help="The model, where it is not the first argument.")
@click.option(
    "--threshold", type=float, help="Cosine, or normalised score, from which on to accept; default: the gallery's."
)
@channel_option("others are refused")
@run_options
@json_option
@needs("cpu", "audio")
def verify(
    arguments: tuple[str, ...],
    model: str | None,
    threshold: float | None,
    channel: "ChannelChoice | None",
    device: Any,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say whether NAME, enrolled in GALLERY with MODEL, is speaking in each FILE, of any length.

    A short sound is held to the threshold that was calibrated for its length.

    The exit code is 0 where every FILE is accepted, 3 where one is rejected, and 1 on an error: a file
    that cannot be used, a speaker who is not enrolled, or no threshold to decide with.
    """
    from voxport.runtime import Gallery, GalleryError, SpeakerIdentifier

    model, gallery, rest = find_places(arguments, model)
    if model is None or len(rest) < 2:
        raise click.UsageError("expected MODEL GALLERY NAME FILE...")
    name, *files = rest
    check_threshold(gallery, threshold)
    check_packages(files, model)
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads)
    check_output(identifier, model, "embedding")
    enrolled = Gallery.load(gallery, identifier.contract)
    enrolled.check_threshold(threshold)
    if name not in enrolled:
        raise GalleryError(f"{gallery}: {name!r} is not enrolled; see who is: voxport gallery list {gallery}")

    def answer(file: str) -> "list[tuple[Voice, Verification]]":
        voices = one_voice(identifier, file, channel)
        return [(voice, enrolled.verify(name, voice, threshold=threshold)) for voice in voices]

    heard, errors = each_file(files, "Verifying", answer)
    answers = per_channel(heard)
    show_notes([(file, voice) for file, (voice, _) in answers])
    show_errors(errors)
    if as_json:
        emit_json(_report(gallery, model, answers, errors))
    elif answers:
        _show(answers)
    fail_if_any(errors, files)
    if any(verification.accepted is None for _, (_, verification) in answers):
        raise GalleryError(
            f"{gallery}: no threshold to decide with; give --threshold, "
            f"or set one with: voxport gallery calibrate {gallery} 0.05"
        )
    if not all(verification.accepted for _, (_, verification) in answers):
        raise SystemExit(REJECTED)


def _show(answers: "list[tuple[str, tuple[Voice, Verification]]]") -> None:
    words = {True: "yes", False: "no", None: ""}
    rows = [
        (
            titled(file, voice.channel),
            found.speaker,
            *likeness_cells(found),
            "none" if found.threshold is None else f"{found.threshold:.4f}",
            words[found.accepted],
        )
        for file, (voice, found) in answers
    ]
    show_table(
        "", ("file", "speaker", *likeness_columns([found for _, (_, found) in answers]), "threshold", "accepted"), rows
    )


def _report(
    gallery: str, model: str, answers: "list[tuple[str, tuple[Voice, Verification]]]", errors: list[tuple[str, str]]
) -> dict[str, Any]:
    from voxport.runtime.storage.serialization import encode

    return {
        "gallery": gallery,
        "model": model,
        "results": [{"file": file} | encode(found) | voice.heard() for file, (voice, found) in answers],
        "errors": report_errors(errors),
    }
