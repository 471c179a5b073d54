"""`voxport score`: every utterance of a corpus, in as many processes as there are cores or machines."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table
from voxport.cli.progress import counting_bar, is_shown, progress_option

if TYPE_CHECKING:
    from voxport.scale.scoring.run import Summary


@click.command(
    epilog=example(
        """
        voxport score recordings/ model.onnx --out scored
        voxport score calls.parquet model.onnx --out scored --engine local --workers 4
        voxport score /mnt/calls model.onnx --out /mnt/scored --address ray://head:10001
        """
    )
)
@click.argument("corpus", type=FILE_PATH)
@click.argument("model", type=FILE_PATH)
@click.option("--out", required=True, type=FILE_PATH, help="Folder of the run; it may be resumed.")
@click.option(
    "--engine",
    type=click.Choice(["ray", "local"]),
    default="ray",
    help="What spreads the work: Ray Data, on this machine or a cluster, or processes of this machine.",
)
@click.option("--address", help="A cluster of Ray to work on, such as ray://head:10001.  [default: this machine]")
@click.option("--workers", type=click.IntRange(1), help="Processes that run the model; default: one per CPU, or GPU.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "tensorrt"]), default="cpu", help="Device of each worker.")
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads of each worker.")
@click.option("--top", type=click.IntRange(1), default=5, help="Number of speakers that a row names.")
@click.option("--embeddings/--no-embeddings", default=True, help="Keep each utterance's vector.")
@click.option("--gallery", type=FILE_PATH, help="Look among the speakers enrolled there instead.")
@click.option("--part-rows", type=click.IntRange(1), help="Utterances of one Parquet file; default: 32 to 1024.")
@click.option("--layout", help="Layout of the corpus, where it is not recognised; see docs/training.md.")
@click.option("--speaker-column", help="Column of a table that holds the speaker, if one does.")
@click.option("--encoding", help="Encoding of a manifest that is not UTF-8, such as cp1252.")
@click.option(
    "--channel",
    metavar="N|mix|each",
    help="Channel of sounds that have several: its number from 1, their average, or each as a row of its own.  "
    "[default: all where they are of one sound; others become rows with an error]",
)
@progress_option
@json_option
@needs("scale", "cpu")
def score(
    corpus: Path,
    model: Path,
    out: Path,
    progress: bool | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Write a row of Parquet for every utterance of CORPUS: who speaks, how sure that is, and the voice's vector.

    CORPUS is a folder of sounds, a manifest or Parquet list of them, or tar shards; nothing need say whose they are.
    A file that cannot be used becomes a row with an error. The same command again goes on with what is missing,
    however the run was ended. Exit code 1 where nothing could be scored at all.
    """
    from voxport.corpora.layouts.base import LayoutOptions
    from voxport.scale.scoring.options import ScoreOptions
    from voxport.scale.scoring.run import score as run

    layout = LayoutOptions(**{name: choices.pop(name) for name in ("layout", "speaker_column", "encoding", "channel")})
    with counting_bar("Scoring", is_shown(progress)) as told:
        summary = run(corpus, model, out, ScoreOptions(layout=layout, **choices), told)
    if as_json:
        emit_json(summary)
    else:
        _show(summary)
    if summary.errors == summary.utterances:
        click.echo("error: no utterance could be scored; the column `error` says why", err=True)
        raise SystemExit(1)


def _show(summary: "Summary") -> None:
    for note in summary.notes:
        click.echo(f"note: {note}", err=True)
    rows = [
        ("rows", f"{summary.utterances:,}"),
        ("of them with an error", f"{summary.errors:,}"),
        ("hours of sound", f"{summary.seconds / 3600:,.2f}"),
        *([("of an earlier start", f"{summary.resumed:,} rows")] if summary.resumed else []),
    ]
    if summary.utterances_per_s is not None:
        rows.append(("utterances a second", f"{summary.utterances_per_s:,.1f}"))
    if summary.real_time_factor is not None:
        rows.append(("real-time factor", f"{summary.real_time_factor:.4f}"))
    show_table("Scored", ("", summary.parts), rows)
