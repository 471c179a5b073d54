"""`voxport enroll`: who is in a gallery, and from which cosine on somebody is accepted."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table
from voxport.cli.sounds import (
    channel_option,
    check_output,
    check_packages,
    device_option,
    each_file,
    one_voice,
    per_channel,
    show_errors,
    show_notes,
    threads_option,
    titled,
)

if TYPE_CHECKING:
    from voxport.runtime import Contract, Enrolled, Gallery, Voice
    from voxport.runtime.channels import ChannelChoice


@click.command(
    epilog=example(
        """
        voxport enroll people.gallery --model model.onnx Ada ada1.wav ada2.wav ada3.wav
        voxport enroll people.gallery --list
        voxport enroll people.gallery --calibrate 0.05
        voxport enroll people.gallery --calibrate 0.01 --strangers voices.npz
        voxport enroll people.gallery --remove Ada
        """
    )
)
@click.argument("gallery", type=click.Path())
@click.argument("name", required=False)
@click.argument("files", nargs=-1, type=click.Path(), metavar="[FILE]...")
@click.option("--model", type=click.Path(), help="The model to listen with; needed to enroll.")
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
@click.option("--list", "listed", is_flag=True, help="Show who is enrolled, and the thresholds.")
@click.option(
    "--accept-anyway",
    is_flag=True,
    help="Enroll recordings that are noisy, clipped, very quiet or narrow in band all the same.",
)
@channel_option("others are refused")
@device_option
@threads_option
@json_option
@needs("cpu", "audio")
def enroll(
    gallery: str,
    name: str | None,
    files: tuple[str, ...],
    model: str | None,
    remove: tuple[str, ...],
    calibrate: float | None,
    strangers: str | None,
    listed: bool,
    accept_anyway: bool,
    channel: "ChannelChoice | None",
    device: Any,
    threads: int | None,
    as_json: bool,
) -> None:
    """Enroll NAME in GALLERY from sound FILEs, without any training.

    GALLERY is made where there is none. Enrolling a NAME again adds to what is known of the voice. Some
    seconds of speech in three or more FILEs are a good start. Where one FILE cannot be used, nothing is
    enrolled. What several processes change at once is all kept. Voices of strangers for --calibrate come
    from: voxport embed MODEL FILE... -o EMB.npz
    """
    if name is None and not (remove or calibrate or listed):
        raise click.UsageError("give NAME and FILEs to enroll, or --list, --remove or --calibrate")
    if name is not None and os.path.isfile(name):
        raise click.UsageError(f"NAME comes before the FILEs, and {name!r} is a file")
    if name is not None and not files:
        raise click.UsageError(f"no sound of {name!r} was given: voxport enroll GALLERY --model MODEL NAME FILE...")
    if name is not None and model is None:
        raise click.UsageError("to enroll, name the model to listen with: --model MODEL")
    if strangers is not None and calibrate is None:
        raise click.UsageError("--strangers are for --calibrate RATE")
    from voxport.runtime import Gallery

    contract, vectors = _listen(gallery, name, files, model, channel, accept_anyway, device, threads)
    enrolled = None
    if name is None and not (remove or calibrate):
        people = Gallery.load(gallery, contract)
    else:
        with Gallery.edit(gallery, contract if name is not None else None) as people:
            if contract is not None:
                people.check_model(contract, gallery)
            for leaving in remove:
                people.remove(leaving)
            if name is not None:
                enrolled = people.enroll(name, vectors)
            if calibrate is not None:
                people.calibrate(calibrate, _strangers(people, strangers))
    if as_json:
        emit_json(_report(gallery, people, enrolled, remove))
    else:
        _show(gallery, people, enrolled, remove, listed, calibrate is not None)


def _listen(
    gallery: str,
    name: str | None,
    files: tuple[str, ...],
    model: str | None,
    channel: "ChannelChoice | None",
    accept_anyway: bool,
    device: Any,
    threads: int | None,
) -> "tuple[Contract | None, Any]":
    """The model's contract and the embeddings of `files`; before the gallery is locked, as it takes time."""
    from voxport.runtime import Gallery, SpeakerIdentifier, VoxportError, read_contract
    from voxport.runtime.gallery_state import check_name

    if model is None or name is None:
        return (None if model is None else read_contract(model)), None
    check_name(name)
    check_packages(files, model)
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads)
    check_output(identifier, model, "embedding")
    if os.path.lexists(gallery):
        Gallery.load(gallery, identifier.contract)  # another model's gallery is refused before the work

    def listen(file: str) -> "tuple[Voice, ...]":
        voices = one_voice(identifier, file, channel)
        return voices if accept_anyway else _unspoilt(voices, file)

    found, errors = each_file(files, "Listening", listen)
    answers = per_channel(found)
    show_notes(answers)
    if errors:
        show_errors(errors)
        raise VoxportError(f"{len(errors)} of {len(files)} files could not be used; nothing was enrolled")
    return identifier.contract, [voice.embedding for _, voice in answers]


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


def _strangers(gallery: "Gallery", path: str | None) -> Any:
    if path is None:
        return None
    from voxport.runtime.embeddings_file import read_embeddings

    return read_embeddings(Path(path), gallery.checkpoint_sha256, gallery.embedding_size)


def _show(
    path: str, gallery: "Gallery", enrolled: "Enrolled | None", removed: tuple[str, ...], listed: bool, calibrated: bool
) -> None:
    for name in removed:
        click.echo(f"{path}: removed {name}")
    if enrolled is not None:
        click.echo(f"{path}: enrolled {enrolled.speaker}, utterances: {enrolled.utterances}")
    if listed:
        rows = [(entry.speaker, entry.utterances) for entry in gallery.speakers]
        show_table(f"{path}: speakers", ("speaker", "utterances"), rows)
    if listed or calibrated:
        for line in _threshold_lines(gallery):
            click.echo(line)


def _threshold_lines(gallery: "Gallery") -> list[str]:
    thresholds = gallery.thresholds
    if thresholds.verify is None and thresholds.identify is None:
        return ["thresholds: none; set them with --calibrate"]
    rate = thresholds.false_accept_rate
    lines = [
        f"{task}: " + ("no threshold" if value is None else f"accepted from a cosine of {value:.4f} on")
        for task, value in (("verify", thresholds.verify), ("identify", thresholds.identify))
    ]
    if rate is None:
        return lines
    lines.append(f"calibrated for a false-accept rate of {rate:g} among {thresholds.speakers} speakers")
    if thresholds.identify is None:
        lines.append(
            f"a threshold for identify needs {1 / rate:,.0f} utterances to compare; enroll more, or give --strangers"
        )
    if thresholds.speakers != len(gallery):
        lines.append(f"now there are {len(gallery)}: calibrate again")
    return lines


def _report(path: str, gallery: "Gallery", enrolled: "Enrolled | None", removed: tuple[str, ...]) -> dict[str, Any]:
    return {
        "gallery": path,
        "checkpoint_sha256": gallery.checkpoint_sha256,
        "embedding_size": gallery.embedding_size,
        "enrolled": enrolled,
        "removed": removed,
        "speakers": gallery.speakers,
        "thresholds": gallery.thresholds,
    }
