"""`voxport export triton`: a model of an NVIDIA Triton repository."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, given_options, json_option, needs, show_table
from voxport.cli.export.options import (
    as_norm_option,
    gate_choices,
    gate_options,
    input_option,
    length_options,
    precision_option,
)
from voxport.cli.export.trt import numbers

if TYPE_CHECKING:
    from voxport.export.targets.triton.export import TritonModel

_SERVING = ("name", "max_batch", "preferred", "delay_us", "instances", "device", "threads")
_OF_CHECKPOINTS = ("input_kind", "precision", "as_norm", "min_frames", "max_frames", "real", "cache", "accuracy_data")


@click.command(
    epilog=example(
        """
        voxport export triton model.onnx -o models/ --name speakers
        voxport export triton model.plan -o models/ --name speakers --preferred 4,8 --delay 1000
        voxport export triton runs/best/model.pt -o models/ --name speakers --precision fp16 --device gpu
        """
    )
)
@click.argument("model", type=FILE_PATH)
@click.option("-o", "--output", "repository", type=FILE_PATH, required=True, help="Model repository, a folder.")
@click.option("--name", required=True, help="The model's name in Triton, and its folder in the repository.")
@click.option("--max-batch", type=click.IntRange(0), help="Largest batch that Triton makes; 0: none.")
@click.option("--preferred", metavar="N,N,…", callback=numbers, help="Batch sizes to wait for, such as 4,8.")
@click.option("--delay", "delay_us", type=click.IntRange(0), default=2000, help="Longest queueing delay, in µs.")
@click.option("--instances", type=click.IntRange(1), default=1, help="Number of instances.")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", help="Device of the instances.")
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads of each instance.")
@input_option
@precision_option(["fp32", "fp16"], "fp32", "Precision of the ONNX graph, where MODEL is a checkpoint.")
@as_norm_option
@length_options
@click.option("--dry-run", is_flag=True, help="Print the config.pbtxt; export and write nothing.")
@click.option("--force", is_flag=True, help="Replace an existing model of that name.")
@gate_options
@json_option
@needs("export", "cpu")
def triton(model: Path, repository: Path, dry_run: bool, as_json: bool, **choices: Any) -> None:
    """Write MODEL into an NVIDIA Triton repository: an ONNX model, a TensorRT plan, or a checkpoint.

    A checkpoint is exported to ONNX and proven first; input, precision, lengths and the options of the proof
    are for it alone. The folder holds config.pbtxt with dynamic batching, version 1 of the model, the labels, the
    contract, and a README with ready lines for docker and perf_analyzer. It appears whole or not at all.
    """
    from voxport.export.targets.onnx_graph import ExportOptions
    from voxport.export.targets.triton.config import TritonOptions
    from voxport.export.targets.triton.export import export_triton, preview_triton

    _only_of_checkpoints(model)
    serving = TritonOptions(**{name: choices.pop(name) for name in _SERVING})
    graph = ExportOptions(**gate_choices(choices), **choices)
    if dry_run:
        _show_preview(
            preview_triton(model, repository, serving, graph), repository / serving.name, graph.force, as_json
        )
        return
    found = export_triton(model, repository, serving, graph)
    if as_json:
        emit_json(found)
    else:
        _show(found, repository)


def _only_of_checkpoints(model: Path) -> None:
    """Refuse options that say how a checkpoint is exported and proven, where MODEL was so already."""
    from voxport.runtime.backends.formats import is_checkpoint

    given = given_options(_OF_CHECKPOINTS)
    if given and not is_checkpoint(model):
        raise click.UsageError(f"{', '.join(given)}: for a checkpoint alone, and {model} is none")


def _show_preview(config: str, folder: Path, force: bool, as_json: bool) -> None:
    exists = folder.exists()
    if as_json:
        emit_json({"folder": folder, "exists": exists, "replaced": exists and force, "config.pbtxt": config})
        return
    click.echo(config, nl=False)
    if exists:
        fate = "replaced" if force else "refused without --force"
        click.echo(f"note: {folder} exists, and would be {fate}", err=True)


def _show(found: "TritonModel", repository: Path) -> None:
    batching = f"up to {found.max_batch} rows of equal length" if found.max_batch else "none, the client's own"
    rows = [("back end", found.backend), ("precision", found.precision), ("batches", batching)]
    rows += [("input", str(spec)) for spec in found.inputs]
    rows += [("output", str(spec)) for spec in found.outputs]
    rows += [("labels", f"{found.speakers} speakers"), *(("file", name) for name in found.files)]
    show_table(found.folder, ("", ""), rows)
    click.echo(f"serve: tritonserver --model-repository={repository.absolute()}; see {found.folder}/README.md")
