"""`voxport enroll`: who is in a gallery, and from which cosine on somebody is accepted."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table
from voxport.cli.runtime.arguments import find_places, naming
from voxport.cli.runtime.gallery_tables import read_voices, show_speakers, threshold_lines
from voxport.cli.runtime.shared import (
    channel_option,
    check_output,
    check_packages,
    each_file,
    one_voice,
    per_channel,
    run_options,
    show_errors,
    show_notes,
    titled,
)

if TYPE_CHECKING:
    from voxport.runtime import Contract, Enrolled, Gallery, Likeness, Voice
    from voxport.runtime.audio.channels import ChannelChoice


@click.command(
    epilog=example(
        """
        voxport enroll model.onnx people.gallery Ada ada1.wav ada2.wav ada3.wav
        voxport enroll people.gallery --calibrate 0.05
        voxport enroll people.gallery --calibrate 0.01 --strangers voices.npz
        voxport enroll people.gallery --remove Ada
        """
    )
)
@click.argument("arguments", nargs=-1, required=True, type=click.Path(), metavar="[MODEL] GALLERY [NAME FILE...]")
@click.option("--model", type=click.Path(), help="The model to listen with, where it is not the first argument.")
@click.option("--remove", multiple=True, metavar="NAME", help="Forget a speaker; may be given several times.")
@click.option(
    "--calibrate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATE",
    help="Set thresholds at which at most this share of impostors is accepted.",
)
@click.option(
    "--strangers",
    type=click.Path(),
    metavar="EMB.npz",
    help="Calibrate with these voices of people who are not enrolled; default: the enrolled against each other.",
)
@click.option(
    "--accept-anyway",
    is_flag=True,
    help="Enroll, or calibrate, in spite of what is said against it, a spoiled recording or another's voice; it is "
    "still said.",
)
@click.option("--list", "listed", is_flag=True, help="Show who is enrolled, and the thresholds.")
@channel_option("others are refused")
@run_options
@json_option
@needs("cpu", "audio")
def enroll(
    arguments: tuple[str, ...],
    model: str | None,
    remove: tuple[str, ...],
    calibrate: float | None,
    strangers: str | None,
    accept_anyway: bool,
    listed: bool,
    channel: "ChannelChoice | None",
    device: Any,
    threads: int | None,
    as_json: bool,
) -> None:
    """Enroll NAME in GALLERY from sound FILEs, heard by MODEL, without any training.

    GALLERY is made where there is none. Enrolling a NAME again adds to what is known of the voice. Some
    seconds of speech in three or more FILEs are a good start. Where one FILE cannot be used, nothing is
    enrolled. What several processes change at once is all kept. A recording that is there already counts once.

    Nothing is enrolled either where a FILE is more like another's voice than like NAME's, is as unlike NAME's
    other sounds as another person's are (a cosine below 0.3, or what the gallery itself tells), or where a new NAME's
    voice is enrolled already (see voxport gallery check); nor where a FILE is noisy, clipped, very quiet or narrow in
    band. --accept-anyway enrolls all these. One without speech is refused always. --calibrate refuses names that are
    one voice, and strangers who are enrolled. Voices of strangers come from: voxport embed MODEL FILE... -o EMB.npz
    """
    model, gallery, rest = find_places(arguments, model)
    name, files = (rest[0] if rest else None), rest[1:]
    _check_usage(name, files, model, strangers, bool(remove or calibrate or listed), calibrate)
    from voxport.runtime import Gallery

    contract, heard = _listen(gallery, name, files, model, channel, accept_anyway, device, threads)
    voices, titles = [voice for _, voice in heard], [titled(file, voice.channel) for file, voice in heard]
    enrolled = None
    likenesses: tuple[Likeness, ...] = ()
    if name is None and not (remove or calibrate):
        people = Gallery.load(gallery, contract)
    else:
        new = contract if contract is not None and name is not None else None
        with naming(gallery, strangers), Gallery.edit(gallery, new) as people:
            if contract is not None:
                people.check_model(contract, gallery)
            for leaving in remove:
                people.remove(leaving)
            if name is not None:
                likenesses = people.examine(name, voices)
                _judge(titles, likenesses, accept_anyway)
                enrolled = people.enroll(name, voices)
            if calibrate is not None:
                people.calibrate(calibrate, read_voices(people, strangers), accept_anyway=accept_anyway)
    likeness = list(zip(heard, likenesses, strict=True)) if likenesses else []
    if as_json:
        emit_json(_report(gallery, people, enrolled, remove, likeness))
    else:
        _show(gallery, people, enrolled, remove, listed, calibrate is not None)
        if likeness:
            _show_likeness(likeness)


def _check_usage(
    name: str | None,
    files: tuple[str, ...],
    model: str | None,
    strangers: str | None,
    something: bool,
    calibrate: float | None,
) -> None:
    """Refuse what cannot be meant; `something` says that one of the other things was asked for."""
    if name is None and not something:
        raise click.UsageError("give NAME and FILEs to enroll, or --list, --remove or --calibrate")
    if name is not None and os.path.isfile(name):
        raise click.UsageError(f"NAME comes before the FILEs, and {name!r} is a file")
    if name is not None and not files:
        raise click.UsageError(f"no sound of {name!r} was given: voxport enroll MODEL GALLERY NAME FILE...")
    if name is not None and model is None:
        raise click.UsageError("to enroll, name the model that listens: voxport enroll MODEL GALLERY NAME FILE...")
    if strangers is not None and calibrate is None:
        raise click.UsageError("--strangers are for --calibrate RATE")


def _judge(files: "Sequence[str]", likenesses: "Sequence[Likeness]", accept_anyway: bool) -> None:
    """Say what speaks against enrolling each file; refuse, unless it is accepted anyway."""
    from voxport.runtime import GalleryError

    doubts = [(file, each.doubt) for file, each in zip(files, likenesses, strict=True) if each.doubt]
    for file, each in zip(files, likenesses, strict=True):
        if each.doubt or each.warning:
            click.echo(f"warning: {file}: {each.doubt or each.warning}", err=True)
    if doubts and not accept_anyway:
        raise GalleryError(
            f"{len(doubts)} of {len(files)} sounds do not fit, so nothing was enrolled; leave them out, or enroll them "
            "all the same with --accept-anyway"
        )


def _show_likeness(likeness: "Sequence[tuple[tuple[str, Voice], Likeness]]") -> None:
    rows = [
        (
            titled(file, voice.channel),
            f"{voice.duration_s:.2f} s",
            "" if each.own is None else f"{each.own:.4f}",
            each.nearest or "",
            "" if each.nearest_cosine is None else f"{each.nearest_cosine:.4f}",
        )
        for (file, voice), each in likeness
    ]
    show_table("", ("file", "length", "own voice", "nearest other", "cosine"), rows)


def _listen(
    gallery: str,
    name: str | None,
    files: tuple[str, ...],
    model: str | None,
    channel: "ChannelChoice | None",
    accept_anyway: bool,
    device: Any,
    threads: int | None,
) -> "tuple[Contract | None, list[tuple[str, Voice]]]":
    """The model's contract and the voices of `files`; before the gallery is locked, as it takes time."""
    from voxport.runtime import Gallery, SpeakerIdentifier, VoxportError, read_contract
    from voxport.runtime.gallery.state import check_name

    if model is None or name is None:
        return (None if model is None else read_contract(model)), []
    check_name(name)
    check_packages(files, model)
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads)
    check_output(identifier, model, "embedding")
    if os.path.lexists(gallery):
        Gallery.load(gallery, identifier.contract)  # another model's gallery is refused before the work

    def listen(file: str) -> "tuple[Voice, ...]":
        voices = one_voice(identifier, file, channel, pieces=True)
        return voices if accept_anyway else _unspoilt(voices, file)

    found, errors = each_file(files, "Listening", listen)
    answers = per_channel(found)
    show_notes(answers)
    if errors:
        show_errors(errors)
        raise VoxportError(f"{len(errors)} of {len(files)} files could not be used; nothing was enrolled")
    return identifier.contract, answers


def _unspoilt(voices: "tuple[Voice, ...]", file: str) -> "tuple[Voice, ...]":
    """`voices` of `file`, unless one of them is spoilt: the gallery would keep what is wrong with the recording."""
    from voxport.runtime import AudioError
    from voxport.runtime.quality import SPOILING

    for voice in voices:
        reasons = [note.text for note in voice.notes if note.code in SPOILING]
        if reasons:
            way_out = "record it anew, or give --accept-anyway"
            raise AudioError(f"{titled(file, voice.channel)}: {'; '.join(reasons)}; {way_out}")
    return voices


def _show(
    path: str, gallery: "Gallery", enrolled: "Enrolled | None", removed: tuple[str, ...], listed: bool, calibrated: bool
) -> None:
    for name in removed:
        click.echo(f"{path}: removed {name}")
    if enrolled is not None:
        click.echo(f"{path}: enrolled {enrolled.speaker}, utterances: {enrolled.utterances}")
    if listed:
        show_speakers(path, gallery)
    if listed or calibrated:
        for line in threshold_lines(gallery):
            click.echo(line)


def _report(
    path: str,
    gallery: "Gallery",
    enrolled: "Enrolled | None",
    removed: tuple[str, ...],
    likeness: "Sequence[tuple[tuple[str, Voice], Likeness]]",
) -> dict[str, Any]:
    from voxport.runtime.storage.serialization import encode

    return {
        "gallery": path,
        "checkpoint_sha256": gallery.checkpoint_sha256,
        "embedding_size": gallery.embedding_size,
        "enrolled": enrolled,
        "files": [{"file": file} | voice.heard() | encode(each) for (file, voice), each in likeness],
        "removed": removed,
        "speakers": gallery.speakers,
        "thresholds": gallery.thresholds,
    }
