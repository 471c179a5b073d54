"""The JSON documents that `voxport bench` writes, read whatever their kind."""

from pathlib import Path
from typing import Any

from voxport.benchmarks.conditions.report import CONDITIONS_KIND, ConditionsReport
from voxport.benchmarks.core.records import ReportError
from voxport.benchmarks.core.writing import read_plain
from voxport.benchmarks.gpu.report import GPU_KIND, GpuReport
from voxport.benchmarks.latency.report import REPORT_KIND, LatencyReport
from voxport.benchmarks.scaling.report import SCALE_KIND, ScaleReport
from voxport.benchmarks.training.report import TRAIN_KIND, TrainReport
from voxport.runtime.storage.serialization import decode

Document = LatencyReport | TrainReport | ScaleReport | GpuReport | ConditionsReport

_KINDS: dict[str, type[Any]] = {
    REPORT_KIND: LatencyReport,
    TRAIN_KIND: TrainReport,
    SCALE_KIND: ScaleReport,
    GPU_KIND: GpuReport,
    CONDITIONS_KIND: ConditionsReport,
}


def read_table(path: Path) -> dict[str, Any]:
    """The document at `path` as plain values, of a kind that is known here but perhaps of another version.

    Raises:
        ReportError: missing, not JSON, or no benchmark of voxport's.
    """
    data = read_plain(path)
    if data.get("kind") not in _KINDS:
        raise ReportError(
            f"{path}: no benchmark of voxport's; give a file that `voxport bench latency`, `train`, `scale`, `gpu` "
            "or `conditions` wrote"
        )
    return data


def read_document(path: Path) -> Document:
    """Read the document at `path`, whatever its kind.

    Raises:
        ReportError: missing, damaged, no benchmark of voxport's, or of another version.
    """
    data = read_table(path)
    kind: type[Any] = _KINDS[data["kind"]]
    version = kind.__dataclass_fields__["version"].default
    if data.get("version") != version:
        raise ReportError(
            f"{path}: {data['kind']} of version {data.get('version')!r:.20}, this voxport reads version {version}; "
            "measure again, or use the voxport that wrote it"
        )
    if data["kind"] == REPORT_KIND and "blocks" not in data:
        data["blocks"] = []  # what --json printed, without the samples
    document: Document = decode(kind, data, str(path), ReportError)
    return document
