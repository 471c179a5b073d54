"""`voxport export check MODEL.onnx --tensorrt`: will TensorRT take this file, before anyone touches a GPU?"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from voxport.cli.common import emit_json, given_options, needs, show_table

if TYPE_CHECKING:
    from voxport.export.targets.rtx.report import TensorRTReport

F = TypeVar("F", bound=Callable[..., Any])

_OWN = ("no_build", "compute_capability", "shapes", "timeout", "memory")
_SHOWN = 20


def _shapes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=MIN:OPT:MAX, each of the three numbers with x between them, as the three shapes of each name."""
    found: dict[str, Any] = {}
    for value in values:
        name, _, rest = value.rpartition("=")
        try:
            spans = tuple(tuple(map(int, part.split("x"))) for part in rest.replace(",", "x").split(":"))
        except ValueError:
            spans = ()
        if not name or len(spans) != 3:
            example = "features=1x20x40:1x400x40:8x3000x40"
            raise click.BadParameter(f"{value!r} is not NAME=MIN:OPT:MAX, such as {example}", ctx, param)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
        found[name] = spans
    return found


@dataclass(frozen=True)
class TensorRTChoice:
    """What `--tensorrt` and its own options say."""

    no_build: bool
    compute_capability: str | None
    shapes: dict[str, Any]
    timeout: float
    memory: float | None


def tensorrt_check_options(command: F) -> F:
    """`--tensorrt` and what belongs to it, which reach `command` as one, `fit`: None without `--tensorrt`."""

    @functools.wraps(command)
    def wrapper(
        *,
        tensorrt: bool,
        no_build: bool,
        compute_capability: str | None,
        shapes: dict[str, Any],
        timeout: float,
        memory: float | None,
        **choices: Any,
    ) -> Any:
        if not tensorrt and (given := given_options(_OWN)):
            raise click.UsageError(f"{', '.join(given)}: of --tensorrt alone; give that too, or leave them out")
        fit = TensorRTChoice(no_build, compute_capability, shapes, timeout, memory) if tensorrt else None
        return command(fit=fit, **choices)

    for option in (
        click.option(
            "--memory",
            metavar="GIB",
            type=click.FloatRange(0, min_open=True),
            help="Memory that TensorRT may take (with --tensorrt; default: 8 and 8 times the file's size).",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            default=600.0,
            help="Seconds after which TensorRT is ended (with --tensorrt).",
        ),
        click.option(
            "--shapes",
            metavar="NAME=MIN:OPT:MAX",
            multiple=True,
            callback=_shapes,
            help="Shapes of an input in the profile, or values of a shape tensor, such as "
            "features=1x20x40:1x400x40:8x3000x40 (with --tensorrt; default: the contract's, else assumed).",
        ),
        click.option(
            "--compute-capability",
            metavar="X.Y",
            help="GPU to build for, such as 12.0 (with --tensorrt; default: 8.9).",
        ),
        click.option("--no-build", is_flag=True, help="Only parse; build nothing (with --tensorrt)."),
        click.option(
            "--tensorrt",
            is_flag=True,
            help="Have NVIDIA's parser and builder judge A, any ONNX file, without a GPU; B is left out then.",
        ),
    ):
        wrapper = option(wrapper)
    return cast(F, wrapper)


@needs("export", "rtx")
def check_fit(model: Path, choice: TensorRTChoice, as_json: bool) -> None:
    """Ask TensorRT about `model` and print what it says. Raises ExportError where it refuses the file."""
    from voxport.export.errors import ExportError
    from voxport.export.targets.rtx.check import TensorRTOptions, check_tensorrt

    options = TensorRTOptions(
        compute_capability=choice.compute_capability,
        build=not choice.no_build,
        shapes=choice.shapes,
        timeout=choice.timeout,
        memory=choice.memory,
    )
    report = check_tensorrt(model, options)
    if as_json:
        emit_json(report.facts())
    else:
        _show(report)
    for text in report.warnings:
        click.echo(f"warning: {text}", err=True)
    if not report.taken:
        raise ExportError(f"{model}: {'; '.join(report.failures)}")


def _show(report: "TensorRTReport") -> None:
    show_table(f"TensorRT: {'takes it' if report.taken else 'REFUSES it'}", ("", ""), _facts(report))
    if report.refused:
        click.echo()
        rows = [(each.node, each.operator, each.reason, each.way_out) for each in report.refused]
        show_table("Refused nodes", ("node", "operator", "NVIDIA's reason", "way out"), rows)
    if report.profile:
        click.echo()
        spans = [
            (each.name, *map(_times, (each.smallest, each.tuned, each.largest)), each.source) for each in report.profile
        ]
        show_table("Optimization profile", ("input", "smallest", "tuned for", "largest", "from"), spans)
    told = [(each.node, each.kind, each.computes_in, each.why) for each in report.products if each.why]
    if told:
        click.echo()
        more = f", the first {_SHOWN} of {len(told)}" if len(told) > _SHOWN else ""
        show_table(f"Products in float{more}", ("node", "kind", "computes in", "why"), told[:_SHOWN])


def _facts(report: "TensorRTReport") -> list[tuple[str, str]]:
    rows = [("judged by", report.library), ("parsed", f"yes, {report.layers} layers" if report.parsed else "NO")]
    if report.built is None:
        rows.append(("built", "not tried"))
    else:
        size = f", {report.engine_bytes / 1e6:.1f} MB" if report.engine_bytes is not None else ""
        verdict = "yes" if report.built else "NO"
        rows.append(("built", f"{verdict}, for compute capability {report.compute_capability}{size}"))
    for kind, counts in report.counts().items():
        rows.append((f"{_plural(kind)} in", ", ".join(f"{name} {count}" for name, count in counts.items())))
    rows += [("input", _tensor(each)) for each in report.inputs]
    rows += [("output", _tensor(each)) for each in report.outputs]
    if report.parsed:
        rows.append(("64-bit inputs", ", ".join(report.wide_inputs) or "none"))
        rows.append(("shape tensors", ", ".join(report.shape_tensors) or "none"))
    return rows


def _plural(kind: str) -> str:
    return "matrix products" if kind == "matrix product" else "convolutions"


def _tensor(tensor: Any) -> str:
    dims = "×".join("?" if dim is None else str(dim) for dim in tensor.dims)
    return f"{tensor.name} {tensor.dtype}" + (f" {dims}" if dims else "")


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
