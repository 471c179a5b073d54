"""What TensorRT makes of an ONNX file, as data."""

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
ShapeSpan = tuple[Shape, Shape, Shape]  # smallest, the one to tune for, largest
Source = Literal["contract", "given", "assumed"]


@dataclass(frozen=True)
class RefusedNode:
    """A node that the parser does not take: NVIDIA's `reason`, and a `way_out`. Names are empty where it has none."""

    node: str
    operator: str
    code: str
    reason: str
    way_out: str

    @property
    def text(self) -> str:
        """A clause of it."""
        place = " ".join(filter(None, (self.node, f"({self.operator})" if self.operator else "")))
        return f"{place or 'the graph'}: {self.reason}; {self.way_out}"


@dataclass(frozen=True)
class Product:
    """A matrix product or convolution of the network, by the ONNX `node` that it comes from.

    `computes_in` is "half", "bfloat16", "float", "int8", "fp8", …: the type of its operands, for int8 and below
    the type before they were dequantized. `why` says why it is not half, in a file that has half elsewhere.
    """

    node: str
    kind: Literal["matrix product", "convolution"]
    computes_in: str
    why: str = ""


@dataclass(frozen=True)
class NetworkTensor:
    """An input or output of the network. `dims` are sizes, names of free dims, or None for a free one without."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...]
    is_shape_tensor: bool


@dataclass(frozen=True)
class InputProfile:
    """The shapes of one input that an optimization profile must name; for a shape tensor, its values.

    `source` says where they come from: the file's contract, the caller, or an assumption.
    """

    name: str
    smallest: Shape
    tuned: Shape
    largest: Shape
    source: Source


@dataclass(frozen=True)
class TensorRTReport:
    """Whether TensorRT takes an ONNX file, and what it makes of it.

    `built` is None where no build was asked for. `failures` are empty where the file is taken; `compute_capability`
    is the one that it was built for, `engine_bytes` the size of what was built, which is kept nowhere.
    """

    path: str
    library: str
    parsed: bool
    built: bool | None
    compute_capability: str | None
    engine_bytes: int | None
    layers: int
    products: tuple[Product, ...]
    inputs: tuple[NetworkTensor, ...]
    outputs: tuple[NetworkTensor, ...]
    profile: tuple[InputProfile, ...]
    refused: tuple[RefusedNode, ...]
    failures: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def taken(self) -> bool:
        """Whether the file was parsed, and built where that was asked for."""
        return not self.failures

    @property
    def shape_tensors(self) -> tuple[str, ...]:
        """Inputs that a shape depends on: a profile names their values, and they lie in the host's memory."""
        return tuple(each.name for each in self.inputs if each.is_shape_tensor)

    @property
    def wide_inputs(self) -> tuple[str, ...]:
        """Inputs of 64-bit integers: TensorRT 8.6 reads them as 32-bit ones."""
        return tuple(each.name for each in self.inputs if each.dtype == "int64")

    def counts(self) -> dict[str, dict[str, int]]:
        """For each kind of product, how many compute in which type."""
        found: dict[str, dict[str, int]] = {}
        for each in self.products:
            kinds = found.setdefault(each.kind, {})
            kinds[each.computes_in] = kinds.get(each.computes_in, 0) + 1
        return found

    def facts(self) -> dict[str, object]:
        """What `--json` prints: the fields, and what follows from them."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        derived = {"shape_tensors": self.shape_tensors, "wide_inputs": self.wide_inputs}
        return {"taken": self.taken, **own, "counts": self.counts(), **derived}
