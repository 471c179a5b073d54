"""`voxport tune`: which form of a network is the fastest on this machine, of those that are proven?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table
from voxport.cli.progress import step_bar

if TYPE_CHECKING:
    from voxport.cli.tune.report import TuneReport


def _numbers(ctx: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,2` as numbers."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r}: give numbers of threads from 1 on, such as 1,2")
    return tuple(int(part) for part in parts)


@click.command(
    epilog=example(
        """
        voxport tune model.onnx --against runs/best/model.pt -o tuned
        voxport tune model.onnx --against runs/best/model.pt --accuracy-data corpus/ --trace corpus/ -o tuned
        voxport identify tuned who.wav
        """
    )
)
@click.argument("model", type=FILE_PATH)
@click.option(
    "--against",
    "checkpoint",
    required=True,
    type=FILE_PATH,
    help="The checkpoint behind MODEL; eager PyTorch with it is the reference.",
)
@click.option("-o", "--output", "folder", type=FILE_PATH, required=True, help="Folder of what was found.")
@click.option(
    "--accuracy-data",
    type=FILE_PATH,
    help="Labelled utterances on which each form must be as accurate as eager PyTorch.",
)
@click.option("--accuracy-limit", type=click.IntRange(1), help="Labelled utterances to take, at most.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100, max_open=True),
    default=0.2,
    help="Points of accuracy that may be lost on --accuracy-data; more fails where chance does not explain it.",
)
@click.option(
    "--calibration",
    type=FILE_PATH,
    help="Utterances that static int8 is calibrated with. Default: the checkpoint's training utterances.",
)
@click.option(
    "--trace",
    default="",
    show_default=False,
    metavar="DATA",
    help="Time lengths as they come in this corpus, or .txt file.",
)
@click.option("--frames", multiple=True, type=click.IntRange(1), help="Length to time; repeatable. Each counts alike.")
@click.option(
    "--threads",
    default="1",
    metavar="N[,N…]",
    callback=_numbers,
    help="CPU threads of one run; with several numbers, such as 1,2, each is tried with every form.",
)
@click.option(
    "--rounds", type=click.IntRange(5), default=5, help="Number of rounds, each in a fresh process per candidate."
)
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, help="Seconds to time in each block.")
@click.option("--warmup", type=click.FloatRange(0), default=0.5, help="Shortest warm-up of a block, in seconds.")
@click.option("--real", type=click.IntRange(0), default=40, help="Real utterances to compare in each proof, at most.")
@click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    help="What ranks: wall-clock time, or, with one number of threads, processor time, which other work disturbs less.",
)
@click.option("--again", is_flag=True, help="Prove and measure anew what is there from an earlier run.")
@json_option
@needs("export", "bench", "cpu")
def tune(as_json: bool, **choices: Any) -> None:
    """Find the fastest form of MODEL on this machine, among those that are proven, and write it to a folder.

    Candidates are the model in float32 and in int8 (static and dynamic, exported here from the checkpoint), in ONNX
    Runtime and in OpenVINO, there also in bfloat16 where the processor has it. Each is held against the
    checkpoint first, by the parity gate and, with --accuracy-data, by its accuracy; what does not pass takes no part.
    The others are timed as by bench latency. Those that chance may explain are not ranked: the most precise is chosen.

    The folder is then a model: voxport identify DIR, SpeakerIdentifier.load("DIR"). A run that was stopped goes on; on
    another machine it measures anew, and says what changed.
    """
    from voxport.cli.tune.work import TuneOptions, Tuning

    choices["frames"] = choices["frames"] or None
    options = TuneOptions(**choices)
    with step_bar() as progress:
        report = Tuning(options, progress).run()
    if as_json:
        emit_json(report)
        return
    _show(report, options.folder)


def _show(report: "TuneReport", folder: Path) -> None:
    from voxport.benchmarks.latency.candidates import threaded

    proofs = {threaded(proof.name, count): proof for proof in report.proofs for count in report.threads}
    rows = []
    for place in report.places:
        proof = proofs[place.name]
        accuracy = "" if proof.accuracy is None else f"{proof.accuracy:.2%}"
        behind = "" if place.behind is None else "{:.2f}× [{:.2f}, {:.2f}]".format(*place.behind)
        times = [f"{value:.2f}" for value in place.milliseconds]
        if len(report.threads) > 1:
            times += [f"{value:.2f}" for value in place.processor]
        ratio = "{:.2f}× [{:.2f}, {:.2f}]".format(*place.against)
        rows.append([place.name, place.verdict, *times, ratio, behind, f"{proof.max_abs_score:.2g}", accuracy])
    cells = [f"{cell}, ms" for cell in report.cells]
    if len(report.threads) > 1:
        cells += [f"{cell}, processor's ms" for cell in report.cells]
    columns = ("form", "verdict", *cells, "against eager", "behind", "max |Δscore|", "accuracy")
    show_table("Fastest of those that are proven", columns, rows)
    for proof in report.proofs:
        if not proof.passed:
            click.echo(f"not ranked: {proof.name}: {proof.problem}")
    for line in report.changed:
        click.echo(f"changed: {line}")
    click.echo(report.finding)
    click.echo(f"wrote {folder}: voxport identify {folder} FILE")
