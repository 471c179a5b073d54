"""Which precision a plan really computes in: the proof that half precision did not silently become float.

Two pieces of evidence. The engine inspector names the type of what each layer reads and writes, as far as it
tells. What counts are the matrix products and convolutions: they do nearly all of the work, while norms and
sums stay in float on purpose. And the plan's size: a plan holds every weight, in half or in float, so a plan
that is smaller than its weights in float must hold many of them in half. It decides where the inspector names
no products, as TensorRT 8.6 often does not.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxport.export.errors import ExportError
from voxport.export.targets.trt.settings import PlanSettings
from voxport.runtime.backends.cuda import Cuda, cuda_module
from voxport.runtime.backends.trt.engine import Context
from voxport.runtime.backends.trt.library import TENSORRT
from voxport.runtime.contract import Precision

_MOSTLY = 0.5
# Words of the inspector: «Half», «Row major linear FP16 format», «BFloat16». Others say nothing about types.
_WORDS = {
    **dict.fromkeys(("half", "fp16", "float16"), "half"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat"),
    **dict.fromkeys(("float", "fp32", "float32", "tf32"), "float"),
    "int8": "int8",
    **dict.fromkeys(("int32", "int64", "bool", "uint8", "int4", "fp8", "fp4"), "other"),
}
_SIZES = {"half": 2, "bfloat": 2, "float": 4, "int8": 1}
_COPIES = ("reformat", "noop", "constant", "signal", "wait", "shapehosttodevice")  # they compute nothing


_PRODUCTS = ("gemm", "conv", "matrixmultiply", "fullyconnected", "mha")  # in a layer's type or its kernel's name


@dataclass(frozen=True)
class PrecisionProof:
    """What was found, over all profiles.

    Counted are layers that compute on floats or int8. `half_layers` are mostly in half, by the bytes that they
    read, write and hold at the shapes that the profiles are tuned for; `half_products` are the products that
    read half. `untold` are layers of which the inspector tells no type. `half_weights` is the least share of the
    weights that must be in half.
    """

    products: int
    half_products: int
    layers: int
    half_layers: int
    int8_layers: int
    bytes: int
    half_bytes: int
    untold: int
    half_weights: float

    @property
    def half_layer_share(self) -> float:
        return self.half_layers / self.layers if self.layers else 0.0

    @property
    def half_byte_share(self) -> float:
        return self.half_bytes / self.bytes if self.bytes else 0.0

    @property
    def half_share(self) -> float:
        """The share that decides: of the products, or else the best of the others."""
        if self.products:
            return self.half_products / self.products
        return max(self.half_layer_share, self.half_byte_share, self.half_weights)

    def __str__(self) -> str:
        return (
            f"{self.half_products} of {self.products} matrix products, {self.half_layers} of {self.layers} layers "
            f"({self.half_layer_share:.0%}) and {self.half_byte_share:.0%} of their bytes in half, "
            f"{self.int8_layers} layers in int8, {self.untold} layers untold; by the plan's size at least "
            f"{self.half_weights:.0%} of the weights in half"
        )

    def facts(self) -> dict[str, float]:
        """The figures, for the file beside the plan."""
        return {
            "products": self.products,
            "half_products": self.half_products,
            "layers": self.layers,
            "half_layers": self.half_layers,
            "int8_layers": self.int8_layers,
            "half_layer_share": round(self.half_layer_share, 4),
            "half_byte_share": round(self.half_byte_share, 4),
            "untold_layers": self.untold,
            "half_weight_share_at_least": round(self.half_weights, 4),
        }

    def check(self, precision: Precision) -> None:
        """Raise ExportError, with the figures, where a plan of `precision` is mostly something else."""
        if precision == "fp16" and self.half_share < _MOSTLY:
            raise ExportError(
                f"the plan was asked for in half precision and came out mostly in float: {self}; nothing was written"
            )
        if precision == "int8" and not self.int8_layers:
            raise ExportError(
                f"the plan was asked for in int8 and no layer computes in it: {self}; nothing was written"
            )


def precision_proof(inspections: Iterable[str], plan_bytes: int, weights: int) -> PrecisionProof:
    """Judge the inspector's JSON of each profile, and a plan of `plan_bytes` that holds `weights` numbers.

    Raises:
        ExportError: the inspector's answer is not what any known version gives.
    """
    counts = _Counts()
    for text in inspections:
        for layer in _layers(text):
            counts.add(layer)
    return PrecisionProof(**vars(counts), half_weights=half_weights(plan_bytes, weights))


@dataclass
class _Counts:
    """Sums over layers; the names are those of the proof."""

    products: int = 0
    half_products: int = 0
    layers: int = 0
    half_layers: int = 0
    int8_layers: int = 0
    bytes: int = 0
    half_bytes: int = 0
    untold: int = 0

    def add(self, layer: Mapping[str, Any]) -> None:
        kind = str(layer.get("LayerType", "")).casefold()
        if kind in _COPIES:
            return
        sizes = _sizes(layer)
        if sizes is None:
            self.untold += 1
        if not sizes:
            return
        whole, half = sum(sizes.values()), sizes.get("half", 0)
        self.layers += 1
        self.half_layers += 2 * half >= whole
        self.int8_layers += sizes.get("int8", 0) > 0
        self.bytes += whole
        self.half_bytes += half
        if any(word in f"{kind} {layer.get('TacticName', '')}".casefold() for word in _PRODUCTS):
            self.products += 1
            self.half_products += _reads_half(layer)


def half_weights(plan_bytes: int, weights: int) -> float:
    """The least share h of `weights` in half: a plan takes at least 4 bytes of each in float, 2 in half.

    plan ≥ 4·w·(1 - h) + 2·w·h, so h ≥ 2 - plan / (2·w). Code and tables in the plan only lower the bound.
    """
    if weights <= 0:
        return 0.0
    return min(1.0, max(0.0, 2 - plan_bytes / (2 * weights)))


def _layers(text: str) -> Sequence[Mapping[str, Any]]:
    """The layers that the inspector lists. Without detailed verbosity it lists their names alone."""
    try:
        data = json.loads(text)
    except ValueError as problem:
        raise ExportError(f"TensorRT's inspector gave no JSON ({problem}); its precision cannot be proven") from problem
    found = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(found, list) or not found:
        raise ExportError("TensorRT's inspector lists no layers; the plan's precision cannot be proven")
    return [layer if isinstance(layer, dict) else {} for layer in found]


def _sizes(layer: Mapping[str, Any]) -> dict[str, int] | None:
    """Bytes that a layer reads, writes and holds, by type; None where a type is not told.

    Types that are neither float nor int8 (lengths, masks) are left out.
    """
    if not layer:  # its name alone
        return None
    sizes: dict[str, int] = {}
    told = True
    for tensor in (*_listed(layer, "Inputs"), *_listed(layer, "Outputs")):
        kind = _type_of(tensor)
        told = told and kind is not None
        if kind in _SIZES:
            sizes[kind] = sizes.get(kind, 0) + _SIZES[kind] * _volume(tensor.get("Dimensions"))
    weights = layer.get("Weights")
    kind = _kind(weights.get("Type")) if isinstance(weights, dict) else None
    if kind in _SIZES and isinstance(weights, dict):
        sizes[kind] = sizes.get(kind, 0) + _SIZES[kind] * _volume([weights.get("Count")])
        told = True  # a layer computes in the type of its weights
    return sizes if told else None


def _reads_half(layer: Mapping[str, Any]) -> bool:
    """Whether a product's operands are in half; what is added to it may be in float."""
    weights = layer.get("Weights")
    own = _kind(weights.get("Type")) if isinstance(weights, dict) else None
    return own == "half" if own in _SIZES else any(_type_of(each) == "half" for each in _listed(layer, "Inputs"))


def _listed(layer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = layer.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _type_of(tensor: Mapping[str, Any]) -> str | None:
    """8.6 and 10 have one field «Format/Datatype», 11 has «Format» and «DataType»."""
    fields = {key.casefold(): value for key, value in tensor.items()}
    found = next((value for key, value in fields.items() if "datatype" in key), fields.get("format"))
    return _kind(found)


def _kind(text: object) -> str | None:
    words = re.findall(r"[a-z]+[0-9]*", str(text).casefold())
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def _volume(dims: object) -> int:
    """Elements; a dim that is free, or told as anything but a number, counts as one."""
    sizes = dims if isinstance(dims, list) else []
    return math.prod(size for size in sizes if isinstance(size, int) and size >= 0)


def inspect_plan(plan: bytes, settings: PlanSettings) -> tuple[str, ...]:
    """The inspector's JSON about all layers, for each profile at the shape that it is tuned for.

    Without shapes the inspector tells neither formats nor types of an engine with free dimensions.

    Raises:
        BackendError: TensorRT or the GPU is missing, or TensorRT refuses anything.
    """
    cuda = Cuda(cuda_module())
    try:
        return _inspect(plan, settings, cuda)
    finally:
        cuda.close()


def _inspect(plan: bytes, settings: PlanSettings, cuda: Cuda) -> tuple[str, ...]:
    TENSORRT.load()
    import tensorrt as trt

    attempt = TENSORRT.attempt
    TENSORRT.log.take()
    runtime: trt.Runtime = attempt("starting its runtime", lambda: trt.Runtime(TENSORRT.log))
    if settings.version_compatible:
        runtime.engine_host_code_allowed = True  # the plan was built here
    engine: trt.ICudaEngine = attempt("loading the plan", lambda: runtime.deserialize_cuda_engine(plan))
    inspector: trt.EngineInspector = attempt("starting its inspector", engine.create_engine_inspector)
    made: trt.IExecutionContext = attempt("creating an execution context", engine.create_execution_context)
    context = Context(made)
    found = []
    for index, profile in enumerate(settings.profiles):
        context.choose(index, int(cuda.stream))
        cuda.wait()
        context.reshape(((name, tuned) for name, (_, tuned, _) in profile.shapes().items()), ())
        inspector.execution_context = made
        what = f"inspecting profile {index}"
        found.append(str(attempt(what, lambda: inspector.get_engine_information(trt.LayerInformationFormat.JSON))))
    return tuple(found)
