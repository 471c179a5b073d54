"""Will TensorRT take this ONNX file? Asked of NVIDIA's own parser and builder, on a machine without a GPU."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from voxport.export.errors import ExportError
from voxport.export.targets.rtx.advice import foreign_operators, gpu_lacks, readable, refused_nodes
from voxport.export.targets.rtx.isolated import ask
from voxport.export.targets.rtx.products import products_of
from voxport.export.targets.rtx.profiles import input_profiles
from voxport.export.targets.rtx.report import NetworkTensor, RefusedNode, ShapeSpan, TensorRTReport
from voxport.export.targets.trt.files import load_graph, size_with_weights
from voxport.export.targets.trt.profiles import BatchRange
from voxport.runtime.backends.formats import check_digest, read_contract
from voxport.runtime.backends.rtx.library import capability_names, need_library
from voxport.runtime.contract import METADATA_KEY, Contract

_GIB = 1 << 30
_LEAST_MEMORY, _MEMORY_OF_WEIGHTS = 8 * _GIB, 8  # a file of a megabyte takes 0.8 GiB, most of it libraries
USUAL_CAPABILITY = "8.9"  # Ada Lovelace, the middle one of those that the library names
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class TensorRTOptions:
    """What to ask TensorRT.

    `compute_capability` is the GPU to build for, `build=False` stops after parsing. `batch` are the rows of a voxport
    model's profile; `shapes` names for an input its smallest, tuned and largest shape, in place of the contract's or
    of an assumption. `timeout` is in seconds. `memory` is what TensorRT may take besides its libraries, in GiB; None
    stands for 8 and 8 times the file's size with its weights. Raises ExportError where one of them is not positive.
    """

    compute_capability: str | None = None
    build: bool = True
    batch: BatchRange = field(default_factory=BatchRange)
    shapes: Mapping[str, ShapeSpan] = field(default_factory=dict)
    timeout: float = 600.0
    memory: float | None = None

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ExportError(f"timeout {self.timeout:g} s: must be positive")
        if self.memory is not None and not self.memory > 0:
            raise ExportError(f"memory {self.memory:g} GiB: must be positive")


def check_tensorrt(path: str | os.PathLike[str], options: TensorRTOptions | None = None) -> TensorRTReport:
    """Whether TensorRT takes the ONNX file `path`, ours or any other; needs the extra `rtx` and no GPU.

    NVIDIA's parser and builder run in a process of their own; nothing is written. Look at `taken`: a file that
    TensorRT refuses raises nothing.

    Raises:
        ExportError: the file lacks its external data or reaches outside its folder for it, the compute capability
            or a shape is impossible, or the library crashed or took too long.
        ContractError: the file is missing, damaged or no ONNX, or it is of voxport and is not as it was written.
        BackendError: TensorRT for RTX is not installed.
    """
    chosen, path = options or TensorRTOptions(), Path(path)
    need_library()
    capability = _capability(chosen) if chosen.build else None
    model = load_graph(path)
    contract = None
    if METADATA_KEY in {each.key for each in model.metadata_props}:
        contract = read_contract(path)
        check_digest(path)
    profile = input_profiles(model, contract, chosen.batch, chosen.shapes)
    shapes = [{each.name: (each.smallest, each.tuned, each.largest) for each in profile}] if profile else []
    found = ask(str(path.absolute()), capability, shapes, chosen.timeout, _memory(chosen, path, model))
    inputs, outputs = _tensors(found["inputs"]), _tensors(found["outputs"])
    refused = refused_nodes(found["errors"], foreign_operators(model))
    return TensorRTReport(
        path=str(path),
        library=f"TensorRT for RTX {found['version']}",
        parsed=found["parsed"],
        built=found["built"],
        compute_capability=capability,
        engine_bytes=found["engine_bytes"],
        layers=found["layers"],
        products=products_of(found["products"], contract),
        inputs=inputs,
        outputs=outputs,
        profile=profile,
        refused=refused,
        failures=_failures(found, refused, inputs, chosen, contract is not None),
        warnings=_warnings(found, model, contract),
    )


def _memory(options: TensorRTOptions, path: Path, model: ModelProto) -> int:
    if options.memory is not None:
        return round(options.memory * _GIB)
    return _LEAST_MEMORY + _MEMORY_OF_WEIGHTS * size_with_weights(path, model)


def _capability(options: TensorRTOptions) -> str:
    names = capability_names()
    wanted = options.compute_capability or (USUAL_CAPABILITY if USUAL_CAPABILITY in names else max(names))
    if wanted not in names:
        raise ExportError(
            f"compute capability {wanted}: this TensorRT for RTX builds for {', '.join(names)}; choose one of them"
        )
    return wanted


def _tensors(told: list[dict[str, Any]]) -> tuple[NetworkTensor, ...]:
    return tuple(
        NetworkTensor(each["name"], _dtype(each["dtype"]), tuple(each["dims"]), each["is_shape"]) for each in told
    )


def _dtype(name: str) -> str:
    return _DTYPES.get(name, name.lower())


def _failures(
    found: Mapping[str, Any],
    refused: tuple[RefusedNode, ...],
    inputs: tuple[NetworkTensor, ...],
    options: TensorRTOptions,
    ours: bool,
) -> tuple[str, ...]:
    """Why the file is not taken, in sentences; none where it is."""
    if not found["parsed"]:
        count = len(found["errors"])
        first = f": {refused[0].text}" if refused else ""
        return (f"TensorRT's parser refuses it ({count} error{'s' if count != 1 else ''}){first}",)
    if not found["outputs"]:
        return ("TensorRT's parser finds no network in it",)
    if found["built"] is False:
        errors = [text for kind, text in found["builder_messages"] if kind != "WARNING"]
        missing = [each.name for each in inputs if each.is_shape_tensor and each.name not in options.shapes]
        if missing:
            what = f"{', '.join(missing)}: shapes depend on the values, so give these with --shapes NAME=MIN:OPT:MAX"
            return (f"TensorRT cannot build it without the range of {what}",)
        names = capability_names()
        told = [gpu_lacks(text, names, ours) or readable(text) for text in errors]
        why = "; ".join(dict.fromkeys(text for text in told if text)) or "it does not say why"
        return (f"TensorRT's builder refuses it: {why}",)
    return ()


def _warnings(found: Mapping[str, Any], model: ModelProto, contract: Contract | None) -> tuple[str, ...]:
    """What the library warns of, and what it keeps silent about."""
    told = [readable(text) for kind, text in found["parser_messages"] if kind == "WARNING"]
    if found["parsed"]:
        told += [readable(text) for _, text in found["builder_messages"]] if found["built"] else []
    # That inputs and outputs are int64 is named elsewhere in the report.
    told = [text for text in told if text and "Int64 binding" not in text]
    doubles = _doubles(model)
    if doubles:
        told.append(f"float64 becomes float32, without a word from TensorRT: {', '.join(doubles[:5])}")
    newest = onnx.defs.onnx_opset_version()
    told += [
        f"opset {each.version} is newer than any that onnx {onnx.__version__} knows ({newest}); TensorRT does not look"
        for each in model.opset_import
        if each.domain in ("", "ai.onnx") and each.version > newest
    ]
    return tuple(dict.fromkeys(told))


def _doubles(model: ModelProto) -> list[str]:
    graph = model.graph
    values = [each.name for each in (*graph.input, *graph.output) if _elements(each) == onnx.TensorProto.DOUBLE]
    weights = [each.name for each in graph.initializer if each.data_type == onnx.TensorProto.DOUBLE]
    return list(dict.fromkeys((*values, *weights)))


def _elements(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)
