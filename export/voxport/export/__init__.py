"""Export: checkpoint → artefact, and the proof that both give the same answers.

    from voxport.export import ExportOptions, check, export_onnx

    report = export_onnx("runs/best/model.pt", "sound.onnx", ExportOptions(input_kind="waveform"))
    print(report.passed, report.agreement)
    assert check("sound.onnx", "runs/best/model.pt").passed

Each `export_…` is the command `voxport export …` of the same name. torch is imported with the first name.
"""

from typing import TYPE_CHECKING

from voxport.runtime.imports import on_demand

if TYPE_CHECKING:
    from voxport.export.errors import ExportError
    from voxport.export.inputs.corpus_samples import RealOptions
    from voxport.export.quantization.quantizer import QuantizeOptions
    from voxport.export.targets.onnx_graph import ExportOptions
    from voxport.export.targets.onnx_model import export_onnx
    from voxport.export.targets.pytorch.export import Pt2Options, TorchExportOptions, export_pt2, export_torchscript
    from voxport.export.targets.rtx.check import TensorRTOptions, check_tensorrt
    from voxport.export.targets.rtx.export import RtxExport, RtxExportOptions, export_rtx
    from voxport.export.targets.rtx.report import TensorRTReport
    from voxport.export.targets.sherpa.export import SherpaOptions, export_sherpa
    from voxport.export.targets.triton.config import TritonOptions
    from voxport.export.targets.triton.export import export_triton
    from voxport.export.targets.trt.export import PlanExport, PlanExportOptions, export_tensorrt
    from voxport.export.verification.accuracy import AccuracyOptions
    from voxport.export.verification.check import CheckOptions, check
    from voxport.export.verification.report import ParityError, ParityReport

__all__ = [
    "AccuracyOptions",
    "CheckOptions",
    "ExportError",
    "ExportOptions",
    "ParityError",
    "ParityReport",
    "PlanExport",
    "PlanExportOptions",
    "Pt2Options",
    "QuantizeOptions",
    "RealOptions",
    "RtxExport",
    "RtxExportOptions",
    "SherpaOptions",
    "TensorRTOptions",
    "TensorRTReport",
    "TorchExportOptions",
    "TritonOptions",
    "check",
    "check_tensorrt",
    "export_onnx",
    "export_pt2",
    "export_rtx",
    "export_sherpa",
    "export_tensorrt",
    "export_torchscript",
    "export_triton",
]

# Imported when first asked for: whoever compares two files does not wait for the compilers of all targets.
_LATER = {
    "AccuracyOptions": "verification.accuracy",
    "CheckOptions": "verification.check",
    "ExportError": "errors",
    "ExportOptions": "targets.onnx_graph",
    "ParityError": "verification.report",
    "ParityReport": "verification.report",
    "PlanExport": "targets.trt.export",
    "PlanExportOptions": "targets.trt.export",
    "Pt2Options": "targets.pytorch.export",
    "QuantizeOptions": "quantization.quantizer",
    "RealOptions": "inputs.corpus_samples",
    "RtxExport": "targets.rtx.export",
    "RtxExportOptions": "targets.rtx.export",
    "SherpaOptions": "targets.sherpa.export",
    "TensorRTOptions": "targets.rtx.check",
    "TensorRTReport": "targets.rtx.report",
    "TorchExportOptions": "targets.pytorch.export",
    "TritonOptions": "targets.triton.config",
    "check": "verification.check",
    "check_tensorrt": "targets.rtx.check",
    "export_onnx": "targets.onnx_model",
    "export_pt2": "targets.pytorch.export",
    "export_rtx": "targets.rtx.export",
    "export_sherpa": "targets.sherpa.export",
    "export_tensorrt": "targets.trt.export",
    "export_torchscript": "targets.pytorch.export",
    "export_triton": "targets.triton.export",
}

__getattr__, __dir__ = on_demand(__name__, _LATER)
