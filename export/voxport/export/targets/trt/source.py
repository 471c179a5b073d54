"""What an engine is built from: a checkpoint's graph, or an ONNX file of it, and the shapes that it is built for."""

import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import onnx
from onnx import ModelProto, TensorProto

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import to_bytes
from voxport.export.network.cohort import check_as_norm
from voxport.export.quantization.qdq import scheme_of
from voxport.export.targets.onnx_graph import ExportOptions, onnx_graph
from voxport.export.targets.trt.files import load_graph
from voxport.export.targets.trt.profiles import BatchRange, ShapeProfile, shape_profiles
from voxport.export.verification.gate import Named, named
from voxport.runtime.backends.formats import check_digest, read_contract
from voxport.runtime.contract import Contract, Precision, TensorSpec

_DYNAMIC_INT8 = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, kw_only=True)
class EngineOptions(ExportOptions):
    """What the exports to TensorRT and to TensorRT for RTX have in common, besides the ONNX graph's options.

    `batch` and `buckets` (frames) make the profiles, `workspace_mib` bounds the scratch memory. `onnx` names an ONNX
    file of the same checkpoint to start from; its contract then says input, outputs, precision and lengths.
    """

    precision: Precision = "fp16"
    batch: BatchRange = dataclasses.field(default_factory=BatchRange)
    buckets: tuple[int, ...] = ()
    workspace_mib: int | None = None
    onnx: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ExportError(f"workspace {self.workspace_mib} MiB: must be at least 1")


Options = TypeVar("Options", bound=EngineOptions)


@dataclass(frozen=True)
class EngineSource(Generic[Options]):
    """A graph without a contract, its bytes, and the profiles; `options` are as the contract of `onnx` has them."""

    named: Named
    options: Options
    profiles: tuple[ShapeProfile, ...]
    model: ModelProto
    graph: bytes

    @property
    def weights(self) -> int:
        """How many numbers the matrices and filters hold; the engine must hold each, in float or in half."""
        every = self.model.graph.initializer
        return sum(math.prod(each.dims) for each in every if each.data_type in _FLOATS and len(each.dims) > 1)

    def tensors(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The graph's inputs and outputs."""
        return _specs(self.model.graph.input), _specs(self.model.graph.output)


def engine_source(path: str | os.PathLike[str], options: Options, typed: bool = True) -> EngineSource[Options]:
    """Profiles and graph. Without typed graphs (TensorRT 8.6) flags say what is in half, not the graph.

    Raises:
        ExportError: the checkpoint or the options cannot be exported, or the file `options.onnx` is not the
            checkpoint's, or none that such libraries take, or there is no such labelled set.
        ContractError: the file `options.onnx` is missing, damaged or no ONNX model of voxport.
        CheckpointError: the checkpoint cannot be read.
    """
    if options.accuracy is not None:
        options.accuracy.check()
    source = named(path)
    check_as_norm(source.checkpoint, options.as_norm, source.path)
    if options.onnx is not None:
        options, model = _given_graph(options.onnx, source, options)
    else:
        if options.precision == "int8":
            raise ExportError(
                "int8 needs a calibrated graph: write it with voxport export onnx --precision int8, and give it "
                "with --onnx"
            )
        made = options if typed else dataclasses.replace(options, precision="fp32")
        model = onnx_graph(source.checkpoint, made, "the graph for TensorRT")
    frontend = source.checkpoint.frontend
    profiles = shape_profiles(frontend, options.input_kind, options.limits, options.batch, options.buckets)
    del model.metadata_props[:]  # labels and thresholds make no other engine
    return EngineSource(source, options, profiles, model, to_bytes(model))


def _given_graph(path: Path, source: Named, options: Options) -> tuple[Options, ModelProto]:
    """The graph of an ONNX file, and the options that its contract makes of the others."""
    load_graph(path)  # weights that are missing are told in a sentence
    contract = read_contract(path)
    check_digest(path)
    if contract.checkpoint_sha256 != source.sha256:
        raise ExportError(f"{path}: was not made from {source.path} (the checkpoint's hash differs); export it again")
    model = onnx.load(path)
    dynamic = sorted({node.op_type for node in model.graph.node} & set(_DYNAMIC_INT8))
    if scheme_of(model.graph) == "dynamic":
        raise ExportError(
            f"{path}: has unsigned activations with one scale per frame, which TensorRT does not take; "
            "give a model made with --precision int8 --quantize static"
        )
    if dynamic:
        raise ExportError(
            f"{path}: quantizes while it runs ({', '.join(dynamic)}), which TensorRT cannot; give a calibrated graph"
        )
    return _as_contracted(options, contract), model


def _as_contracted(options: Options, contract: Contract) -> Options:
    return dataclasses.replace(
        options,
        input_kind=contract.input_kind,
        precision=contract.precision,
        min_frames=contract.min_frames,
        max_frames=contract.max_frames,
        outputs=contract.outputs,
        as_norm=options.as_norm or (None if contract.as_norm is None else contract.as_norm.top),
    )


def _specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        dims = tuple(
            dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in tensor.shape.dim
        )
        found.append(TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, dims))
    return tuple(found)
