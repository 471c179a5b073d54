"""The ONNX graph of a checkpoint, in the precision that is asked for, without a contract."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from onnx import ModelProto
from torch import nn

from voxport.export.errors import ExportError
from voxport.export.graph.capture import GraphInput, check_opset, to_onnx
from voxport.export.graph.cleanup import check_graph, keep_outputs
from voxport.export.graph.fp16 import to_half
from voxport.export.network.cohort import check_compared
from voxport.export.network.frontend import FrontendGraph
from voxport.export.network.inference_net import DeployableNet, SoundNet, deployable_net
from voxport.export.network.layers import AttentionForm
from voxport.export.quantization.quantizer import QuantizationReport, QuantizeOptions, quantize_graph
from voxport.export.verification.gate import GateOptions
from voxport.runtime.contract import OUTPUTS, InputKind, Output, Precision
from voxport.runtime.frontend.log_mel import min_samples
from voxport.train.checkpoint import Checkpoint
from voxport.train.progress import status

_EXAMPLE_FRAMES = 53  # of the capture; no other size of a network is likely to equal it


@dataclass(frozen=True, kw_only=True)
class ExportOptions(GateOptions):
    """How to export: what the gate's options say, the graph's input, its outputs, its precision and its opset.

    `quantize` is for precision int8, where None takes the defaults.
    """

    input_kind: InputKind = "features"
    outputs: tuple[Output, ...] = OUTPUTS
    precision: Precision = "fp32"
    opset: int = 20
    quantize: QuantizeOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_opset(self.opset)
        if not self.outputs or not set(self.outputs) <= set(OUTPUTS):
            raise ExportError(f"outputs must be some of {', '.join(OUTPUTS)}, found {self.outputs or 'none'}")
        check_compared(self.as_norm, self.outputs)


class Built(NamedTuple):
    """A graph without a contract, and for int8 what that costs each layer."""

    graph: ModelProto
    quantization: QuantizationReport | None = None


def build_graph(checkpoint: Checkpoint, options: ExportOptions, where: str, for_cpu: bool = True) -> Built:
    """The ONNX graph of a checkpoint in the precision that is asked for, without a contract. `where` names it.

    Half is for GPUs in any case; `for_cpu` says what the other precisions are for.

    Raises:
        ExportError: the checkpoint cannot be exported, or not in that precision or opset.
    """
    network = deployable_net(checkpoint, _attention(options.precision) if for_cpu else "summed").float()
    with status("Capturing the graph", options.progress):
        graph = capture(network, checkpoint, options)
    quantization = None
    if options.precision == "fp16":
        graph = to_half(graph)
    if options.precision == "int8":
        chosen = options.quantize or QuantizeOptions(cache=options.real.cache, progress=options.progress)
        graph, quantization = quantize_graph(graph, checkpoint, options.input_kind, options.limits, chosen)
    graph = keep_outputs(graph, options.outputs)  # last: what int8 costs is measured on scores and embeddings
    check_graph(graph, options.opset, where)
    return Built(graph, quantization)


def _attention(precision: Precision) -> AttentionForm:
    """The form that is fastest on CPUs. That of int8 is ONNX Runtime's; fp32 may be OpenVINO's too."""
    forms: dict[Precision, AttentionForm] = {"fp32": "in_keys", "int8": "by_head", "fp16": "summed"}
    return forms[precision]


def onnx_graph(checkpoint: Checkpoint, options: ExportOptions, where: str) -> ModelProto:
    """The graph alone, for a GPU; see `build_graph`."""
    return build_graph(checkpoint, options, where, for_cpu=False).graph


def capture(network: DeployableNet, checkpoint: Checkpoint, options: ExportOptions) -> ModelProto:
    """The ONNX graph of the deployable network, with the frontend before it for waveform input."""
    frontend = checkpoint.frontend
    module: nn.Module
    if options.input_kind == "features":
        example = torch.zeros(2, _EXAMPLE_FRAMES, frontend.n_mels)
        module, source = network, ("features", GraphInput(example, ("batch", "frames", None)))
    else:
        example = torch.zeros(2, min_samples(frontend, _EXAMPLE_FRAMES))
        module = SoundNet(FrontendGraph(frontend).float(), network).eval()
        source = ("waveform", GraphInput(example, ("batch", "samples")))
    lengths = GraphInput(torch.full((2,), example.shape[1]), ("batch",))
    return to_onnx(module, {source[0]: source[1], "lengths": lengths}, ("scores", "embedding"), options.opset)
