"""`voxport embed`: voices as vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table
from voxport.cli.runtime.arguments import refuse_gallery
from voxport.cli.runtime.shared import (
    channel_option,
    check_output,
    check_packages,
    check_place,
    each_file,
    fail_if_any,
    per_channel,
    report_errors,
    run_options,
    show_errors,
    show_notes,
    titled,
    voices_of,
)

if TYPE_CHECKING:
    from voxport.runtime import Contract, Voice
    from voxport.runtime.audio.channels import ChannelChoice

_WIDEST = 8  # files; the table of more would not fit a terminal


@click.command(
    epilog=example(
        """
        voxport embed model.onnx one.wav two.wav
        voxport embed model.onnx clips/*.flac -o voices.npz
        """
    )
)
@click.argument("model", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("-o", "--output", type=click.Path(), help="Write the vectors there, as NumPy's .npz.")
@channel_option("others are embedded each")
@run_options
@json_option
@needs("cpu", "audio")
def embed(
    model: str,
    files: tuple[str, ...],
    output: str | None,
    channel: "ChannelChoice | None",
    device: Any,
    threads: int | None,
    as_json: bool,
) -> None:
    """Turn each FILE into a unit vector, and show how alike the voices are.

    The cosine of two voices is the dot product of their vectors: 1 is the same, 0 is nothing in common.
    The .npz holds embeddings (files, embedding_size), files, seconds, the checkpoint_sha256 of the model (only
    vectors of one checkpoint can be compared), and what calibrating a gallery needs besides: pieces of 0.75 and
    1.5 s, and which files lie in a folder with the name of a speaker of the model's training.

    A file that cannot be used is named on stderr and left out; the exit code is then 1.
    """
    from voxport.runtime import SpeakerIdentifier

    if output is not None and Path(output).suffix != ".npz":
        raise click.BadParameter(f"{output} does not end in .npz", param_hint="--output")
    check_place(None if output is None else Path(output))
    refuse_gallery(model)
    check_packages(files, model)
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads)
    check_output(identifier, model, "embedding")
    found, errors = each_file(
        files, "Embedding", lambda name: voices_of(identifier, name, channel, pieces=output is not None)
    )
    answers = per_channel(found)
    show_notes(answers)
    show_errors(errors)
    if output is not None and answers:
        _write(Path(output), answers, identifier.contract)
        click.echo(f"wrote {output}: {len(answers)} × {identifier.contract.embedding_size}", err=True)
    if as_json:
        emit_json(_report(model, answers, errors, identifier.contract))
    elif answers and output is None:
        _show(answers)
    fail_if_any(errors, files)


def _write(path: Path, answers: "list[tuple[str, Voice]]", contract: "Contract") -> None:
    from voxport.runtime.gallery.embeddings import write_embeddings

    names, voices = [titled(name, voice.channel) for name, voice in answers], [voice for _, voice in answers]
    write_embeddings(path, names, voices, contract.checkpoint_sha256, contract.labels)


def _show(answers: "list[tuple[str, Voice]]") -> None:
    others = answers[:_WIDEST]
    rows = [
        (
            number,
            titled(name, voice.channel),
            *(f"{float(voice.embedding @ other.embedding):.4f}" for _, other in others),
        )
        for number, (name, voice) in enumerate(answers, 1)
    ]
    show_table("Cosines", ("", "file", *(str(number) for number in range(1, len(others) + 1))), rows)


def _report(
    model: str, answers: "list[tuple[str, Voice]]", errors: list[tuple[str, str]], contract: "Contract"
) -> dict[str, Any]:

    return {
        "model": model,
        "checkpoint_sha256": contract.checkpoint_sha256,
        "embedding_size": contract.embedding_size,
        "results": [{"file": name, "embedding": voice.embedding} | voice.heard() for name, voice in answers],
        "errors": report_errors(errors),
    }
