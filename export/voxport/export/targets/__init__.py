"""The table of targets: what `voxport export` writes.

A target is a row; its module lies in this folder, and is imported when the target is exported to. The commands, the
doctor and the dry runs ask this table.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_HERE = "voxport.export.targets."


@dataclass(frozen=True, kw_only=True)
class TargetEntry:
    """A row of the table.

    Attributes:
        name: short, unique, as in JSON; in most rows also the command's, `voxport export NAME`.
        export: `module:function` that takes a model, a place to write and options, and returns a report.
        preview: `module:function` that takes the same, and says what would be written.
        options: `module:class` of the options of both.
        command: what is typed after `voxport export`, where that is not the name.
        extras: what brings the packages that it needs, as `export` does in `pip install "voxport[export]"`.
    """

    name: str
    export: str
    preview: str
    options: str
    command: str = ""
    extras: tuple[str, ...] = ("export", "cpu")

    def __str__(self) -> str:
        """What is typed after `voxport export`."""
        return self.command or self.name

    def load(self, what: str) -> Callable[..., Any]:
        """The function or class behind `export`, `preview` or `options`; imports its module."""
        module, _, name = getattr(self, what).partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(_HERE + module), name)
        return found


_ROWS = (
    TargetEntry(
        name="onnx",
        export="onnx_model:export_onnx",
        preview="onnx_model:preview_onnx",
        options="onnx_graph:ExportOptions",
    ),
    TargetEntry(
        name="sherpa",
        export="sherpa.export:export_sherpa",
        preview="sherpa.export:preview_sherpa",
        options="sherpa.export:SherpaOptions",
    ),
    TargetEntry(
        name="triton",
        export="triton.export:export_triton",
        preview="triton.export:preview_triton",
        options="triton.config:TritonOptions",
    ),
    TargetEntry(
        name="torchscript",
        export="pytorch.export:export_torchscript",
        preview="pytorch.export:preview_torchscript",
        options="pytorch.export:TorchExportOptions",
        extras=("export",),
    ),
    TargetEntry(
        name="pt2",
        export="pytorch.export:export_pt2",
        preview="pytorch.export:preview_pt2",
        options="pytorch.export:Pt2Options",
        extras=("export",),
    ),
    TargetEntry(
        name="tensorrt",
        export="trt.export:export_tensorrt",
        preview="trt.export:preview_tensorrt",
        options="trt.export:PlanExportOptions",
        extras=("export", "cpu", "tensorrt"),
    ),
    TargetEntry(
        name="rtx",
        export="rtx.export:export_rtx",
        preview="rtx.export:preview_rtx",
        options="rtx.export:RtxExportOptions",
        command="tensorrt --for rtx",
        extras=("export", "cpu", "rtx"),
    ),
)
TARGETS = {row.name: row for row in _ROWS}
