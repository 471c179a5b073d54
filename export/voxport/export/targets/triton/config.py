"""The config.pbtxt of an NVIDIA Triton model, from what the model's file and contract say.

Source: Triton's user guide, "Model Configuration", and the protobuf ModelConfig. Triton batches along the first
dimension, which `dims` leave out where max_batch_size is above 0; a tensor of that dimension alone, such as
`lengths`, is sent as (batch, 1) and reshaped.
"""

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from voxport.export.errors import ExportError
from voxport.runtime.contract import Contract, Dim, TensorSpec
from voxport.runtime.length_range import LengthRange

Place = Literal["auto", "cpu", "gpu"]
ServedBy = Literal["onnxruntime", "tensorrt"]

LABELS_FILE = "labels.txt"
WARMUP_LENGTHS = "lengths"  # a file in the folder warmup/
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "int32": "TYPE_INT32"}
_MODEL_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
_KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
_MAX_BATCH = 16
_HEURISTIC = "1"  # of cuDNN's searches; the exhaustive one would search again at every new length


@dataclass(frozen=True)
class TritonOptions:
    """How Triton is to serve a model.

    `max_batch` bounds what Triton batches itself, 0 leaves batches to the client, None takes as many rows as a
    plan's profiles, or 16. `preferred` are batch sizes to wait for, at most `delay_us` microseconds. `instances`
    run at once on each `device`; on the CPU each with `threads` threads.
    """

    name: str
    max_batch: int | None = None
    preferred: tuple[int, ...] = ()
    delay_us: int = 2000
    instances: int = 1
    device: Place = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ExportError(
                f"model name {self.name!r}: it becomes a folder and a part of URLs; use up to 128 letters a to z, "
                "digits, '_', '-' and '.', beginning with a letter or digit"
            )
        if (self.max_batch or 0) < 0 or self.delay_us < 0 or self.instances < 1 or self.threads < 1:
            raise ExportError("max batch and delay must not be negative, instances and threads at least 1")

    def fitted(self, model: "Served") -> "TritonOptions":
        """These options with a `max_batch`, checked against the model.

        Raises:
            ExportError: more rows than a plan takes, a plan without a GPU, or a preferred batch above the largest.
        """
        most = min((rows for rows, _ in model.profiles), default=None)
        largest = self.max_batch if self.max_batch is not None else most or _MAX_BATCH
        if most is not None and largest > most:
            raise ExportError(
                f"max batch {largest}: the plan's profiles take {most} rows at most; lower --max-batch, or build "
                f"the plan with --batch 1,1,{largest}"
            )
        if model.by == "tensorrt" and self.device == "cpu":
            raise ExportError("a TensorRT plan runs on a GPU alone; leave --device away, or serve the ONNX model")
        wrong = [size for size in self.preferred if not 1 <= size <= largest]
        if wrong:
            raise ExportError(f"preferred batch {wrong[0]}: must be 1 to {largest}, the largest batch")
        return dataclasses.replace(self, max_batch=largest)


@dataclass(frozen=True)
class Served:
    """A model to be served: its contract, its tensors with the batch first, and, for a plan, its profiles' largest.

    `profiles` has (rows, length) of each profile's largest shape; an ONNX model has none.
    """

    by: ServedBy
    contract: Contract
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[tuple[int, int], ...] = ()

    @property
    def file(self) -> str:
        return _MODEL_FILES[self.by]


def config_text(model: Served, options: TritonOptions) -> str:
    """The whole config.pbtxt; `options` are `fitted` to the model.

    Raises:
        ExportError: a tensor that Triton has no type for.
    """
    batched = bool(options.max_batch)
    blocks = [
        f'name: "{options.name}"\nbackend: "{model.by}"\ndefault_model_filename: "{model.file}"\n'
        f"max_batch_size: {options.max_batch}",
        _list("input", [_tensor(spec, batched) for spec in model.inputs]),
        _list("output", [_tensor(spec, batched, spec.name == "scores") for spec in model.outputs]),
        _list("instance_group", [_instances(model, options)]),
        _batching(options) if batched else "",
        _optimization(model, options),
        _list("model_warmup", [_warmup(model, batched)]),
    ]
    return "\n".join(block for block in blocks if block) + "\n"


def typical_length(model: Served) -> int:
    """The length to warm up and to measure with: four seconds, or the nearest that the model takes, in its unit."""
    allowed, frontend = LengthRange.of_input(model.contract), model.contract.frontend
    rate = frontend.sample_rate / (1 if allowed.unit == "samples" else frontend.hop_length)
    return min(max(round(4 * rate), allowed.shortest), allowed.longest)


def _tensor(spec: TensorSpec, batched: bool, labelled: bool = False) -> str:
    kind = _TYPES.get(spec.dtype)
    if kind is None:
        raise ExportError(f"the tensor {spec} is of a type that Triton is not told here; export the model again")
    dims = spec.shape[1:] if batched else spec.shape
    fields = [f'name: "{spec.name}"', f"data_type: {kind}"]
    fields += [f"dims: [ {_dims(dims)} ]"] if dims else ["dims: [ 1 ]", "reshape: { shape: [ ] }"]
    fields += [f'label_filename: "{LABELS_FILE}"'] if labelled else []
    return "\n".join(fields)


def _dims(dims: Iterable[Dim]) -> str:
    return ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in dims)


def _instances(model: Served, options: TritonOptions) -> str:
    kind = "KIND_GPU" if model.by == "tensorrt" else _KINDS[options.device]
    fields = [f"count: {options.instances}", f"kind: {kind}"]
    if len(model.profiles) > 1:  # without this Triton uses the first alone
        fields.append(f"profile: [ {', '.join(json.dumps(str(i)) for i in range(len(model.profiles)))} ]")
    return "\n".join(fields)


def _batching(options: TritonOptions) -> str:
    fields = [f"max_queue_delay_microseconds: {options.delay_us}"]
    if options.preferred:
        fields.insert(0, f"preferred_batch_size: [ {', '.join(map(str, sorted(set(options.preferred))))} ]")
    return _block("dynamic_batching", fields)


def _optimization(model: Served, options: TritonOptions) -> str:
    pinned = ["input_pinned_memory { enable: true }", "output_pinned_memory { enable: true }"]
    blocks = [_block("optimization", pinned)] if options.device != "cpu" else []
    if model.by == "onnxruntime" and options.device != "gpu":
        blocks.append(_parameter("intra_op_thread_count", str(options.threads)))
    if model.by == "onnxruntime" and options.device != "cpu":
        blocks.append(_parameter("cudnn_conv_algo_search", _HEURISTIC))
    return "\n".join(blocks)


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def _warmup(model: Served, batched: bool) -> str:
    """One request of typical length before the model is called ready; its length must be a true one."""
    source, lengths = model.inputs
    shape = (typical_length(model), *source.shape[2:])
    lead: tuple[Dim, ...] = () if batched else (1,)
    data = [f"data_type: {_TYPES[source.dtype]}", f"dims: [ {_dims((*lead, *shape))} ]", "zero_data: true"]
    count = [f"data_type: {_TYPES[lengths.dtype]}", "dims: [ 1 ]", f'input_data_file: "{WARMUP_LENGTHS}"']
    fields = ['name: "typical length"', "batch_size: 1"]
    fields += [_entry(source.name, data), _entry(lengths.name, count)]
    return "\n".join(fields)


def _entry(key: str, value: list[str]) -> str:
    return _block("inputs", [f'key: "{key}"', _block("value", value)])


def _list(name: str, items: list[str]) -> str:
    return f"{name} [\n" + ",\n".join(_indent("{\n" + _indent(item) + "\n}") for item in items) + "\n]"


def _block(name: str, fields: list[str]) -> str:
    return f"{name} {{\n" + "\n".join(map(_indent, fields)) + "\n}"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
