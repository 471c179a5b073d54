"""Measures artefacts against the network that they came from, in a form that a reader can check.

    from voxport.benchmarks import LatencySettings, measure_latency

    report = measure_latency(["model.onnx"], "runs/best/model.pt", LatencySettings(frames=(400,)))
    for row in report.rows:
        print(row.backend, row.cell, row.speed_up, row.verdict)

`measure_latency` is the command `voxport bench latency`, `LatencyReport` its JSON document, `draw_latency` its chart.
"""

from typing import TYPE_CHECKING

from voxport.runtime.imports import on_demand

if TYPE_CHECKING:
    from voxport.benchmarks.core.settings import LatencySettings, ServerRule, TruthSettings
    from voxport.benchmarks.core.timing import BlockRule
    from voxport.benchmarks.latency.chart import draw_latency
    from voxport.benchmarks.latency.report import LatencyReport, read_report, write_report
    from voxport.benchmarks.latency.runner import measure_latency

__all__ = [
    "BlockRule",
    "LatencyReport",
    "LatencySettings",
    "ServerRule",
    "TruthSettings",
    "draw_latency",
    "measure_latency",
    "read_report",
    "write_report",
]

# Imported when first asked for: whoever compares two files does not wait for the compilers of all targets.
_LATER = {
    "BlockRule": "core.timing",
    "LatencyReport": "latency.report",
    "LatencySettings": "core.settings",
    "ServerRule": "core.settings",
    "TruthSettings": "core.settings",
    "draw_latency": "latency.chart",
    "measure_latency": "latency.runner",
    "read_report": "latency.report",
    "write_report": "latency.report",
}

__getattr__, __dir__ = on_demand(__name__, _LATER)
