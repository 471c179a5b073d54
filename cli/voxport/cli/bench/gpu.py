"""`voxport bench gpu`: all evidence from a GPU machine in one command."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.bench.common import number, size
from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table

if TYPE_CHECKING:
    from voxport.benchmarks.gpu.report import GpuReport

_BACKENDS = ("back end", "how", "open s", "memory", "max |Δscore|", "relative", "allowed", "same best", "status")
_TRAINING = ("training", "steps/s", "of ceiling", "data", "forward", "backward", "optimiser", "memory", "status")


@click.command(
    "gpu",
    epilog=example(
        """
        voxport bench gpu --out gpu-evidence
        voxport bench gpu --out gpu-evidence --checkpoint runs/best/model.pt --onnx model.onnx --onnx model-fp16.onnx
        voxport bench gpu --out rehearsal --device cpu --budget-s 120 --batch 1 --frames 128
        """
    ),
)
@click.option("--out", required=True, type=FILE_PATH, help="Folder to write gpu.json to.")
@click.option("--checkpoint", type=FILE_PATH, help="Checkpoint to measure. Default: the recipe, freshly initialised.")
@click.option("--onnx", multiple=True, type=FILE_PATH, help="ONNX file exported from the checkpoint; repeatable.")
@click.option("--plan", "plans", multiple=True, type=FILE_PATH, help="A TensorRT plan or an RTX engine; repeatable.")
@click.option("--recipe", default="sap_am_bn_3layers", help="Recipe of the fresh network and of training.")
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1), default=(1, 8, 64), help="Batch size; repeatable."
)
@click.option(
    "--frames", multiple=True, type=click.IntRange(1), default=(128, 400, 1000), help="Length in frames; repeatable."
)
@click.option("--seconds", type=click.FloatRange(0.01), default=0.3, help="Seconds to time each cell.")
@click.option("--warmup", type=click.FloatRange(0), default=0.1, help="Shortest warm-up of a cell, in seconds.")
@click.option(
    "--train-seconds", type=click.FloatRange(0.05), default=4.0, help="Seconds to time each training variant."
)
@click.option("--budget-s", type=click.FloatRange(1), default=480.0, help="Time limit of the whole run, in seconds.")
@click.option("--step-s", type=click.FloatRange(1), default=150.0, help="Time limit of one step, in seconds.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Most rounds, as far as the budget allows.")
@click.option(
    "--only", multiple=True, help="Measure only eager fp32 and back ends whose names contain this; repeatable."
)
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="Device; cpu rehearses the procedure."
)
@click.option("--threads", type=click.IntRange(1), default=4, help="Number of CPU threads.")
@click.option("--seed", type=int, default=1, help="Seed of inputs, weights and order.")
@click.option("--resume", is_flag=True, help="Measure what the folder still lacks.")
@json_option
@needs("train")
def gpu_command(out: Path, resume: bool, as_json: bool, **choices: Any) -> None:
    """Measure every way of running a network on this GPU, within a budget of time.

    Environment, measured ceilings, answers against float64, a grid of latencies, training rates: each back
    end in a process of its own, so that one that is missing, crashes or hangs costs itself alone, and the
    report says why. OUT/gpu.json is written after every step; `voxport bench report` reads it. Exits with
    0 where eager fp32 was measured, whatever else failed.
    """
    from voxport.benchmarks.gpu.report import GpuSettings
    from voxport.benchmarks.gpu.runner import DOCUMENT, measure_gpu

    settings = GpuSettings(**_plain(choices))
    _check_files(settings)
    report = measure_gpu(settings, out, resume, lambda what: click.echo(what, err=True))
    if as_json:
        from voxport.runtime.storage.serialization import encode

        plain = encode(report)
        del plain["blocks"]
        emit_json(plain)
    else:
        click.echo(f"wrote {out / DOCUMENT}\n")
        _show(report)
    if not any(row.verdict == "baseline" for row in report.rows):
        click.echo("error: eager fp32 could not be measured, so nothing can be compared", err=True)
        raise click.exceptions.Exit(1)


def _plain(choices: dict[str, Any]) -> dict[str, Any]:
    """Paths as absolute text: the steps run elsewhere, and a resumed run must find the same."""
    absolute = {name: tuple(str(path.resolve()) for path in choices[name]) for name in ("onnx", "plans")}
    checkpoint = choices["checkpoint"]
    if checkpoint is not None and checkpoint.is_dir():
        checkpoint = checkpoint / "model.pt"
    return {**choices, **absolute, "checkpoint": "" if checkpoint is None else str(checkpoint.resolve())}


def _check_files(settings: Any) -> None:
    """Find out before the clock runs that a file is missing, or is of another checkpoint."""
    from voxport.runtime.backends.formats import read_contract
    from voxport.runtime.errors import ContractError
    from voxport.runtime.storage.atomic import file_sha256

    for path in (settings.checkpoint, *settings.onnx, *settings.plans):
        if path and not Path(path).is_file():
            raise click.BadParameter(f"{path}: no such file")
    if (settings.onnx or settings.plans) and not settings.checkpoint:
        raise click.BadParameter("a model file needs the --checkpoint that it was exported from", param_hint="--onnx")
    for path in (*settings.onnx, *settings.plans):
        try:
            told = read_contract(path).checkpoint_sha256
        except ContractError:
            continue  # a plain ONNX file: the comparison of answers will judge it
        if told != file_sha256(settings.checkpoint):
            raise click.BadParameter(f"{path}: was exported from another checkpoint than {settings.checkpoint}")


def _show(report: "GpuReport") -> None:
    facts = {fact.name: fact.value for fact in report.environment}
    click.echo(f"device: {facts.get('gpu', report.machine.cpu)}; torch {facts.get('torch', '?')}")
    builds = [f"{name} {facts[name]}" for name in ("onnxruntime-gpu", "onnxruntime") if _there(facts.get(name))]
    click.echo(f"ONNX Runtime: {', '.join(builds) or 'not installed'}; {facts.get('providers', 'no providers')}")
    click.echo(f"network: {report.network}, {report.parameters:,} parameters")
    if report.ceilings is not None:
        products = ", ".join(f"{each.name} {number(float(each.value) / 1e3)}" for each in report.ceilings.products)
        launch = "" if report.ceilings.launch_us is None else f"; empty kernel {report.ceilings.launch_us:.1f} µs"
        click.echo(f"ceilings: {products} TFLOP/s; copy {report.ceilings.copy_gb_s:,.0f} GB/s{launch}")
    show_table("\nBack ends, answers against float64 (worst cell)", _BACKENDS, _backends(report))
    show_table("\nTraining", _TRAINING, _training(report))
    for note in report.notes:
        click.echo(f"- {note}")
    cells = list(dict.fromkeys(row.cell for row in report.rows))
    columns = ("p50 ms, batch × frames", *(str(cell) for cell in cells))
    show_table("\nHost to host; × against eager fp32; * says that answers differ", columns, _grid(report))


def _there(version: str | None) -> bool:
    return version not in (None, "not installed")


def _backends(report: "GpuReport") -> Iterator[tuple[str, ...]]:
    for backend in report.backends:
        checks = [check for check in report.parity if check.backend == backend.name]
        worst = max((check.max_abs for check in checks if check.max_abs is not None), default=None)
        relative = max((check.relative for check in checks if check.relative is not None), default=None)
        best = f"{min(check.top1 for check in checks):.1%}" if checks else "n/a"
        status = f"{backend.status}: {backend.reason:.160}" if backend.reason else backend.status
        yield (
            backend.name,
            backend.how,
            number(backend.build_seconds),
            size(backend.device_bytes),
            "n/a" if worst is None else f"{worst:.1e}",
            "n/a" if relative is None else f"{relative:.1e}",
            f"{checks[0].allowed:.0e}" if checks else "n/a",
            best,
            status,
        )


def _training(report: "GpuReport") -> Iterator[tuple[str, ...]]:
    for each in report.training:
        phases = each.phases
        shares = [
            "n/a" if phases is None else f"{getattr(phases, name) / phases.total:.0%}"
            for name in ("data", "forward", "backward", "optimiser")
        ]
        share = "n/a" if each.share is None else f"{each.share:.1%}"
        status = each.status if each.status == "ok" else f"{each.status}: {each.reason:.160}"
        yield each.name, number(each.steps_per_second), share, *shares, size(each.device_bytes), status


def _grid(report: "GpuReport") -> Iterator[tuple[str, ...]]:
    cells = list(dict.fromkeys(row.cell for row in report.rows))
    rows = {(row.backend, row.cell): row for row in report.rows}
    for name in dict.fromkeys(row.backend for row in report.rows):
        texts = []
        for cell in cells:
            row = rows.get((name, cell))
            if row is None:
                texts.append("n/a")
                continue
            ratio = "" if row.ratio is None or row.verdict == "baseline" else f" ({row.ratio:.2f}×)"
            texts.append(f"{number(row.p50_ms)}{ratio}" + ("*" if row.verdict == "answers differ" else ""))
        yield name, *texts
