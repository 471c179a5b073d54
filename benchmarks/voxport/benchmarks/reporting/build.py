"""From benchmark documents to one report."""

from collections.abc import Sequence
from pathlib import Path

from voxport.benchmarks.conditions.report import ConditionsReport
from voxport.benchmarks.documents import Document, read_document
from voxport.benchmarks.gpu.report import GpuReport
from voxport.benchmarks.latency.report import LatencyReport
from voxport.benchmarks.reporting.page import Page, Part
from voxport.benchmarks.reporting.sections.conditions import conditions_part
from voxport.benchmarks.reporting.sections.gpu import gpu_part
from voxport.benchmarks.reporting.sections.latency import latency_part
from voxport.benchmarks.reporting.sections.scaling import scale_part
from voxport.benchmarks.reporting.sections.training import train_part
from voxport.benchmarks.scaling.report import ScaleReport


def build_page(paths: Sequence[Path], title: str = "") -> Page:
    """One part for each document, in the order given.

    Raises:
        ReportError: a file cannot be read, or is no benchmark of voxport's.
    """
    parts = tuple(part_of(read_document(path)) for path in paths)
    footer = f"Made by voxport bench report from {', '.join(path.name for path in paths)}."
    return Page(title or "voxport benchmark report", parts, footer)


def part_of(document: Document) -> Part:
    """The part about one document."""
    if isinstance(document, LatencyReport):
        return latency_part(document)
    if isinstance(document, ScaleReport):
        return scale_part(document)
    if isinstance(document, GpuReport):
        return gpu_part(document)
    if isinstance(document, ConditionsReport):
        return conditions_part(document)
    return train_part(document)
