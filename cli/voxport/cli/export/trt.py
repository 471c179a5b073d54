"""`voxport export tensorrt`: a plan for this machine's GPU, or an engine for RTX GPUs."""

from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, example, given_options, needs, show_table
from voxport.cli.export.options import export_options, opset_option, precision_option, run_export

if TYPE_CHECKING:
    from voxport.export.targets.rtx.export import RtxDryRun, RtxExport
    from voxport.export.targets.trt.export import PlanDryRun, PlanExport

_FOR_PLANS = ("version_compatible", "hardware", "timings", "engines")
_FROM_CONTRACT = ("input_kind", "precision", "min_frames", "max_frames", "opset")  # of the file behind --onnx


def numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Positive whole numbers with commas between them; none where the option is not given."""
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and 0 < int(part) < 1 << 31 for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of positive numbers, such as 200,400,1000")
    return tuple(int(part) for part in parts)


def three_numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """As `numbers`, and exactly three of them."""
    found = numbers(ctx, param, value)
    if len(found) != 3:
        raise click.BadParameter(f"{value!r} must be three numbers, such as 1,4,16")
    return found


def _not_beside_onnx() -> None:
    """Refuse options that the given ONNX file's contract has decided already."""
    given = given_options(_FROM_CONTRACT)
    if click.get_current_context().params.get("onnx") is not None and given:
        raise click.UsageError(f"--onnx: the file says that already; leave out {', '.join(given)}")


@click.command(
    epilog=example(
        """
        voxport export tensorrt runs/best/model.pt -o model.plan
        voxport export tensorrt runs/best/model.pt -o model.plan --batch 1,4,16 --buckets 200,400,1000
        voxport export tensorrt runs/best/model.pt -o model.plan --timing-cache trt.timings --engine-cache engines/
        voxport export tensorrt runs/best/model.pt -o model.plan --dry-run
        voxport export tensorrt runs/best/model.pt -o model.rtx --for rtx
        voxport export tensorrt runs/best/model.pt -o model.rtx --for rtx --compute-capability 8.9
        """
    )
)
@export_options(
    click.option(
        "--for",
        "library",
        type=click.Choice(["tensorrt", "rtx"]),
        default="tensorrt",
        help="tensorrt: a plan, built on the GPU that it is for. rtx: an engine for RTX GPUs, built without one.",
    ),
    click.option(
        "--compute-capability",
        "capabilities",
        metavar="X.Y",
        multiple=True,
        help="With --for rtx: GPUs to build for, such as 8.9; may be given more than once (default: 8.0 and newer).",
    ),
    precision_option(
        ["fp32", "fp16"],
        "fp16",
        "Precision of the engine; fp16 keeps inputs, outputs, norms, softmax and pooling in fp32. For int8 see --onnx.",
    ),
    click.option("--onnx", type=FILE_PATH, help="Start from this ONNX file of CHECKPOINT, for example in int8."),
    click.option(
        "--batch",
        metavar="MIN,OPT,MAX",
        default="1,1,8",
        callback=three_numbers,
        help="Batch sizes of the profile: smallest, tuned for, largest.",
    ),
    click.option(
        "--buckets", metavar="N,N,…", callback=numbers, help="Frames at which profiles end, such as 200,400,1000."
    ),
    click.option("--workspace", "workspace_mib", type=click.IntRange(1), help="Scratch memory in MiB, at most."),
    click.option("--version-compatible", is_flag=True, help="Also for later TensorRT; slower, carries native code."),
    click.option(
        "--hardware-compatible",
        "hardware",
        type=click.Choice(["none", "ampere", "same-capability"]),
        default="none",
        help="Also for other GPUs: Ampere and newer, or of the same compute capability.",
    ),
    click.option("--timing-cache", "timings", type=FILE_PATH, help="File of timings, read and written."),
    click.option("--engine-cache", "engines", type=FILE_PATH, help="Folder of plans proven before."),
    opset_option,
    outputs=False,
)
@needs("export", "cpu")
def tensorrt(library: str, capabilities: tuple[str, ...], **choices: Any) -> None:
    """Build CHECKPOINT's TensorRT plan on this machine's GPU, proven equal to eager PyTorch.

    With --for rtx it is an engine for GeForce and RTX GPUs, and no GPU is needed. Where there is none, the proof is of
    the ONNX graph that the engine is built from, and NAME.rtx.json says so.

    TensorRT 10 and 11 take each layer's precision from the graph; 8.6 builds with its FP16 flag. Beside
    the plan, NAME.plan.json has the contract, the profiles, what it was built with, and the proof that it
    computes in the precision that was asked for. Building takes minutes; Ctrl-C ends it.
    """
    from voxport.export.targets.trt.profiles import BatchRange

    _not_beside_onnx()
    choices["batch"] = BatchRange(*choices["batch"])
    if library == "rtx":
        if given := given_options(_FOR_PLANS):
            raise click.UsageError(f"--for rtx: {', '.join(given)} has no meaning there; leave it out")
        own = {name: value for name, value in choices.items() if name not in _FOR_PLANS}
        run_export("rtx", {"capabilities": capabilities, **own}, show=_show_rtx, preview=_show_rtx_preview)
        return
    if capabilities:
        raise click.UsageError("--compute-capability: a plan is for the GPU that builds it; give --for rtx too")
    run_export("tensorrt", choices, show=_show, preview=_show_preview)


def _show_preview(found: "PlanDryRun") -> None:
    settings = found.settings
    rows = [("input", shape) for shape in map(str, found.inputs)]
    rows += [("output", shape) for shape in map(str, found.outputs)]
    rows.append(("precision", settings.precision))
    rows += [(f"profile {index}", str(profile)) for index, profile in enumerate(settings.profiles)]
    rows.append(("graph", f"{found.nodes} nodes, {found.graph_bytes / 1e6:.2f} MB"))
    rows.append(("version compatible", "yes" if settings.version_compatible else "no"))
    rows.append(("hardware compatible", settings.hardware))
    rows.append(("workspace", f"{settings.workspace_mib} MiB" if settings.workspace_mib else "TensorRT's own choice"))
    machine = found.machine
    rows.append(("machine", f"{machine.gpu}, TensorRT {machine.tensorrt}" if machine else "cannot build here"))
    rows += [("missing", text) for text in found.missing]
    rows.append(("engine key", found.key))
    show_table("Dry run", ("", ""), rows)


def _show(found: "PlanExport") -> None:
    click.echo()
    rows = [("precision", f"{found.settings.precision}: {found.precision}")]
    rows += [(f"profile {index}", str(profile)) for index, profile in enumerate(found.settings.profiles)]
    rows.append(("built with", f"TensorRT {found.machine.tensorrt} for {found.machine.gpu}"))
    rows.append(("plan", f"from the engine cache, {found.key}" if found.cached else "built now"))
    if found.note:
        rows.append(("note", found.note))
    show_table("Plan", ("", ""), rows)


def _show_rtx_preview(found: "RtxDryRun") -> None:
    rows = [("input", shape) for shape in map(str, found.inputs)]
    rows += [("output", shape) for shape in map(str, found.outputs)]
    rows.append(("precision", found.precision))
    rows += [(f"profile {index}", str(profile)) for index, profile in enumerate(found.profiles)]
    rows.append(("graph", f"{found.nodes} nodes, {found.graph_bytes / 1e6:.2f} MB"))
    rows.append(("for", f"compute capability {found.built_for}"))
    rows.append(("workspace", f"{found.workspace_mib} MiB" if found.workspace_mib else "the library's own choice"))
    rows.append(("built with", f"TensorRT for RTX {found.version}"))
    show_table("Dry run", ("", ""), rows)


def _show_rtx(found: "RtxExport") -> None:
    click.echo()
    counts = ", ".join(f"{count} in {name}" for name, count in found.counts().items())
    rows = [("precision", f"{found.precision}: of {len(found.products)} products {counts}")]
    rows += [(f"profile {index}", str(profile)) for index, profile in enumerate(found.profiles)]
    rows.append(("for", f"compute capability {found.built_for}"))
    rows.append(("built with", f"TensorRT for RTX {found.version}"))
    if found.proof == "engine":
        rows.append(("parity", "of the engine, on this GPU"))
    else:
        rows.append(("parity", "of the ONNX graph that it was built from; the engine itself was not run"))
        rows.append(("why", found.why))
        rows.append(("on such a GPU", "voxport export check ENGINE CHECKPOINT"))
    show_table("RTX engine", ("", ""), rows)
