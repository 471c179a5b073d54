"""The optimization profile that a network of this shape needs: of the contract, of the caller, or assumed."""

from collections.abc import Mapping

from onnx import ModelProto, TensorProto, ValueInfoProto

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.targets.rtx.report import InputProfile, Shape, ShapeSpan, Source
from voxport.export.targets.trt.profiles import BatchRange, shape_profiles
from voxport.runtime.contract import Contract

_ASSUMED = (1, 128, 1024)  # for a free dimension that is not the first, of which nothing is known
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)


def input_profiles(
    model: ModelProto, contract: Contract | None, batch: BatchRange, given: Mapping[str, ShapeSpan]
) -> tuple[InputProfile, ...]:
    """A profile for each input with free dimensions, and for those that `given` names.

    Raises:
        ExportError: `given` names no input, or shapes that the input cannot have, or that fall.
    """
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    strangers = sorted(set(given) - {each.name for each in inputs})
    if strangers:
        names = ", ".join(each.name for each in inputs)
        raise ExportError(f"shapes for {', '.join(strangers)}: the model's inputs are {names or 'none'}")
    promised = _promised(contract, batch)
    found = []
    for value in inputs:
        dims = _dims(value)
        if value.name in given:
            found.append(_profile(value.name, _checked(value, dims, given[value.name]), "given"))
        elif value.name in promised:
            found.append(_profile(value.name, promised[value.name], "contract"))
        elif None in dims:
            found.append(_profile(value.name, _assumed(dims, batch), "assumed"))
    return tuple(found)


def _promised(contract: Contract | None, batch: BatchRange) -> dict[str, ShapeSpan]:
    if contract is None:
        return {}
    limits = LengthLimits(contract.min_frames, contract.max_frames)
    (profile,) = shape_profiles(contract.frontend, contract.input_kind, limits, batch)
    return profile.shapes()


def _profile(name: str, span: ShapeSpan, source: Source) -> InputProfile:
    return InputProfile(name, *span, source)


def _dims(value: ValueInfoProto) -> tuple[int | None, ...]:
    """The input's sizes, None where free."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _assumed(dims: tuple[int | None, ...], batch: BatchRange) -> ShapeSpan:
    rows = (batch.smallest, batch.typical, batch.largest)

    def shape(which: int) -> Shape:
        free = (rows[which] if axis == 0 else _ASSUMED[which] for axis in range(len(dims)))
        return tuple(size if size is not None else other for size, other in zip(dims, free, strict=True))

    return shape(0), shape(1), shape(2)


def _checked(value: ValueInfoProto, dims: tuple[int | None, ...], span: ShapeSpan) -> ShapeSpan:
    """The caller's shapes where the input can have them. For an input of whole numbers of a fixed size: its values."""
    name, texts = value.name, [",".join(map(str, shape)) for shape in span]
    if any(len(shape) != len(span[0]) for shape in span):
        raise ExportError(f"shapes of {name}, {':'.join(texts)}: the three must have as many numbers")
    low, tuned, high = span
    if not all(a <= b <= c for a, b, c in zip(low, tuned, high, strict=True)):
        raise ExportError(f"shapes of {name}, {':'.join(texts)}: MIN ≤ OPT ≤ MAX must hold for each number")
    if None not in dims and value.type.tensor_type.elem_type in _INTEGERS:
        return span
    for text, shape in zip(texts, span, strict=True):
        fits = len(shape) == len(dims) and all(dim in (None, size) for dim, size in zip(dims, shape, strict=True))
        if not fits or min(shape, default=1) < 1:
            wanted = "×".join("any" if dim is None else str(dim) for dim in dims)
            raise ExportError(f"shape of {name}, {text}: the model takes {wanted or 'a single number'}")
    return span
