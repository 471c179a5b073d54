"""`voxport gallery`: look at a gallery, and mend one that was spoiled."""

from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table
from voxport.cli.runtime.arguments import naming
from voxport.cli.runtime.gallery_tables import read_voices, show_speakers, threshold_lines

if TYPE_CHECKING:
    from voxport.runtime import Gallery, GalleryCheck

WRONG = 3  # exit code of `check`, as of a `verify` that rejects

gallery_argument = click.argument("gallery", type=click.Path())


@click.group(
    epilog=example(
        """
        voxport gallery list people.gallery
        voxport gallery check people.gallery
        voxport gallery merge people.gallery Ada "Ada L."
        """
    )
)
def gallery() -> None:
    """Look at a gallery of enrolled people, and mend one that was spoiled; but for convert no model is needed.

    Every change is made whole or not at all, and what several processes change at once is all kept.
    """


@gallery.command("list", epilog=example("voxport gallery list people.gallery --json"))
@gallery_argument
@json_option
@needs("cpu")
def list_(gallery: str, as_json: bool) -> None:
    """Show who is enrolled in GALLERY, and the thresholds."""
    from voxport.runtime import Gallery

    people = Gallery.load(gallery, None)
    if as_json:
        emit_json(_report(gallery, people))
        return
    show_speakers(gallery, people)
    for line in threshold_lines(people):
        click.echo(line)


@gallery.command(epilog=example("voxport gallery show people.gallery Ada"))
@gallery_argument
@click.argument("name")
@json_option
@needs("cpu")
def show(gallery: str, name: str, as_json: bool) -> None:
    """Show what GALLERY keeps of NAME: how alike the kept utterances are, and who is most alike."""
    from voxport.runtime import Gallery

    people = Gallery.load(gallery, None)
    with naming(gallery):
        found = people.describe(name)
    if as_json:
        emit_json({"gallery": gallery, "speaker": found})
        return
    trained = ", a name of the model's training" if found.trained else ""
    click.echo(
        f"{found.speaker}: utterances: {found.utterances}, kept: {len(found.own)}, pieces: {found.pieces}{trained}"
    )
    rows = [
        (number, "" if seconds is None else f"{seconds:.2f} s", "" if own is None else f"{own:.4f}")
        for number, (own, seconds) in enumerate(zip(found.own, found.seconds, strict=True), 1)
    ]
    show_table("Kept utterances", ("", "length", "cosine to the others"), rows)
    nearest = [(match.speaker, f"{match.cosine:.4f}") for match in found.nearest]
    if nearest:
        show_table("Most alike", ("speaker", "cosine"), nearest)


@gallery.command(epilog=example('voxport gallery rename people.gallery Ada "Ada Lovelace"'))
@gallery_argument
@click.argument("name")
@click.argument("new")
@json_option
@needs("cpu")
def rename(gallery: str, name: str, new: str, as_json: bool) -> None:
    """Give NAME in GALLERY the NEW name, which nobody has yet."""
    from voxport.runtime import Gallery

    with naming(gallery), Gallery.edit(gallery, None) as people:
        people.rename(name, new)
    _done(gallery, people, f"{name} is now {new}", as_json)


@gallery.command(epilog=example("voxport gallery remove people.gallery Ada Bob"))
@gallery_argument
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
@needs("cpu")
def remove(gallery: str, names: tuple[str, ...], as_json: bool) -> None:
    """Forget each NAME in GALLERY, and all that was kept of the voice; all of them or none."""
    from voxport.runtime import Gallery

    with naming(gallery), Gallery.edit(gallery, None) as people:
        for name in names:
            people.remove(name)
    _done(gallery, people, f"removed {', '.join(names)}", as_json)


@gallery.command(epilog=example('voxport gallery merge people.gallery Ada "Ada L."'))
@gallery_argument
@click.argument("name")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
@click.option("--accept-anyway", is_flag=True, help="Join voices that are not alike.")
@json_option
@needs("cpu")
def merge(gallery: str, name: str, others: tuple[str, ...], accept_anyway: bool, as_json: bool) -> None:
    """Make one voice, NAME, of NAME and each OTHER in GALLERY, whose names are then gone.

    Refused where an OTHER's voice is not like NAME's: below the cosine that voxport gallery check calls another
    person's.
    """
    from voxport.runtime import Gallery, GalleryError

    with naming(gallery), Gallery.edit(gallery, None) as people:
        bounds = people.check()
        for other in others:
            cosine = people.alike(name, other)
            if cosine < bounds.different and not accept_anyway:
                raise GalleryError(
                    f"{gallery}: {name!r} and {other!r} are not alike: cosine {cosine:.3f}, another person's below "
                    f"{bounds.different:.3f}; nothing was changed; to join them all the same: --accept-anyway"
                )
        merged = people.merge(name, others)
    _done(gallery, people, f"merged into {merged.speaker}, utterances: {merged.utterances}", as_json)


@gallery.command(epilog=example("voxport gallery calibrate people.gallery 0.01 --strangers voices.npz"))
@gallery_argument
@click.argument("rate", type=click.FloatRange(0, 1, min_open=True, max_open=True))
@click.option(
    "--strangers",
    type=click.Path(),
    metavar="EMB.npz",
    help="Voices of people who are not enrolled; default: the enrolled against each other.",
)
@click.option("--accept-anyway", is_flag=True, help="Count voices that are alike as different people's.")
@json_option
@needs("cpu")
def calibrate(gallery: str, rate: float, strangers: str | None, accept_anyway: bool, as_json: bool) -> None:
    """Set the thresholds of GALLERY at which at most the share RATE of impostors is accepted.

    Names that are one voice, and strangers who are enrolled, are refused and named. Voices of strangers come from:
    voxport embed MODEL FILE... -o EMB.npz
    """
    from voxport.runtime import Gallery

    with naming(gallery, strangers), Gallery.edit(gallery, None) as people:
        people.calibrate(rate, read_voices(people, strangers), accept_anyway=accept_anyway)
    if as_json:
        emit_json(_report(gallery, people))
        return
    for line in threshold_lines(people):
        click.echo(line)


@gallery.command(epilog=example("voxport gallery convert people.gallery model.onnx"))
@gallery_argument
@click.argument("model", type=click.Path())
@json_option
@needs("cpu")
def convert(gallery: str, model: str, as_json: bool) -> None:
    """Have GALLERY compare voices as MODEL does: by cosine, or by scores normalised with AS-norm.

    MODEL is one of the checkpoint that GALLERY was enrolled with, exported with --as-norm or without. Nobody has to
    be enrolled anew. The thresholds were for other scores, and are gone: calibrate again.
    """
    from voxport.runtime import Gallery, read_contract
    from voxport.runtime.backends.formats import is_gallery
    from voxport.runtime.contract import rule_text

    if is_gallery(model) and not is_gallery(gallery):  # MODEL comes first in other commands
        gallery, model = model, gallery
    contract = read_contract(model)
    with naming(gallery), Gallery.edit(gallery, None) as people:
        changed = people.convert(contract)
    what = f"voices are {'now' if changed else 'already'} compared {rule_text(people.as_norm)}"
    _done(
        gallery, people, f"{what}; calibrate it: voxport gallery calibrate {gallery} 0.01" if changed else what, as_json
    )


@gallery.command(epilog=example("voxport gallery check people.gallery || echo look at it"))
@gallery_argument
@json_option
@needs("cpu")
def check(gallery: str, as_json: bool) -> None:
    """Say whether everybody in GALLERY is one voice and nobody is there twice.

    The exit code is 3 where names are one voice, or a kept utterance does not fit its speaker: it is less like
    the speaker's others than another person's would be, or more like another's voice.
    """
    from voxport.runtime import Gallery

    people = Gallery.load(gallery, None)
    found = people.check()
    if as_json:
        from voxport.runtime.storage.serialization import encode

        emit_json({"gallery": gallery, "sound": found.sound} | encode(found))
    else:
        _show_check(gallery, people, found)
    if not found.sound:
        raise SystemExit(WRONG)


def _show_check(path: str, people: "Gallery", found: "GalleryCheck") -> None:
    for pair in found.pairs:
        click.echo(
            f"one voice: {pair.first!r} and {pair.second!r}, cosine {pair.cosine:.3f}; see voxport gallery merge"
        )
    for misfit in found.misfits:
        other = "" if misfit.nearest is None else f", to {misfit.nearest!r} {misfit.nearest_cosine:.3f}"
        click.echo(
            f"not one voice: utterance {misfit.utterance} of {misfit.speaker!r}, cosine to the others {misfit.own:.3f}"
            f"{other}; remove the name, and enroll it again"
        )
    if found.trained:
        more = ", …" if len(found.trained) > 10 else ""
        click.echo(f"names of the model's training: {', '.join(found.trained[:10])}{more}")
    for note in found.notes:
        click.echo(f"note: {note}")
    click.echo(
        f"{path}: {len(people)} speakers, {len(found.pairs)} pairs of one voice, {len(found.misfits)} utterances that "
        f"do not fit (different below {found.different:.3f}, one voice from {found.alike:.3f} on)"
    )


def _done(path: str, people: "Gallery", what: str, as_json: bool) -> None:
    if as_json:
        emit_json(_report(path, people))
        return
    click.echo(f"{path}: {what}")
    thresholds = people.thresholds
    if thresholds.false_accept_rate is not None and thresholds.speakers != len(people):
        click.echo(f"calibrated with {thresholds.speakers} speakers, now there are {len(people)}: calibrate again")


def _report(path: str, people: "Gallery") -> dict[str, Any]:
    return {
        "gallery": path,
        "checkpoint_sha256": people.checkpoint_sha256,
        "embedding_size": people.embedding_size,
        "speakers": people.speakers,
        "thresholds": people.thresholds,
    }
