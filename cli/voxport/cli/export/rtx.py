"""`voxport export tensorrt --for rtx`: an engine for GeForce and RTX GPUs, built on a machine without one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, needs, show_table
from voxport.cli.export.options import show_report

if TYPE_CHECKING:
    from voxport.export.targets.rtx.export import RtxDryRun, RtxExport


@needs("export", "cpu", "rtx")
def run_rtx(checkpoint: Path, output: Path, choices: dict[str, Any], dry_run: bool, as_json: bool) -> None:
    """Build the engine, or with `dry_run` say what would be built; `choices` are those of RtxExportOptions."""
    from voxport.export.targets.rtx.export import RtxExportOptions, export_rtx, rtx_dry_run

    options = RtxExportOptions(**choices)
    if dry_run:
        _show_dry_run(rtx_dry_run(checkpoint, output, options), as_json)
    else:
        _show(export_rtx(checkpoint, output, options), output, as_json)


def _show_dry_run(found: "RtxDryRun", as_json: bool) -> None:
    if as_json:
        emit_json(found)
        return
    rows = [("input", shape) for shape in map(str, found.inputs)]
    rows += [("output", shape) for shape in map(str, found.outputs)]
    rows.append(("precision", found.precision))
    rows += [(f"profile {index}", str(profile)) for index, profile in enumerate(found.profiles)]
    rows.append(("graph", f"{found.nodes} nodes, {found.graph_bytes / 1e6:.2f} MB"))
    rows.append(("for", f"compute capability {found.built_for}"))
    rows.append(("workspace", f"{found.workspace_mib} MiB" if found.workspace_mib else "the library's own choice"))
    rows.append(("built with", f"TensorRT for RTX {found.version}"))
    show_table("Would be built", ("", ""), rows)


def _show(found: "RtxExport", output: Path, as_json: bool) -> None:
    from voxport.export.pipeline import report_stem
    from voxport.export.verification.report import plain

    if as_json:
        emit_json({**plain(found.parity), "rtx": found.facts()})
        return
    show_report(found.parity)
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
    show_table("RTX engine", ("", ""), rows)
    if found.proof != "engine":
        click.echo(f"on an RTX GPU: voxport export check {output} CHECKPOINT")
    click.echo(f"contract: {output}.json; report: {report_stem(output)}.json, .md, .png")
