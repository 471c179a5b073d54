"""What every way of running a model has in common: its answer, its protocol, its input checks."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Contract
from voxport.runtime.errors import ContractError, VoxportError
from voxport.runtime.lengths import LengthRange
from voxport.runtime.onnx_file import Dim, TensorSpec

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answer:
    """A model's answer to a batch.

    `scores` is float32 (batch, speakers): the contract's score_scale × cosine, one column per label.
    `embedding` is float32 (batch, embedding_size), rows of unit length.
    """

    scores: Float32
    embedding: Float32


class Backend(Protocol):
    """A loaded model. Its `run` may be called from any number of threads at once."""

    @property
    def contract(self) -> Contract: ...

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a padded batch; see `OnnxModel.run` for shapes and errors."""
        ...


def expected_tensors(contract: Contract) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that a model with this contract must have; a named dim must vary."""
    if contract.input_kind == "features":
        source = TensorSpec("features", "float32", ("batch", "frames", contract.frontend.n_mels))
    else:
        source = TensorSpec("waveform", "float32", ("batch", "samples"))
    scores = TensorSpec("scores", "float32", ("batch", len(contract.labels)))
    embedding = TensorSpec("embedding", "float32", ("batch", contract.embedding_size))
    return (source, TensorSpec("lengths", "int64", ("batch",))), (scores, embedding)


def check_tensors(
    contract: Contract, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], where: str
) -> None:
    """Raise ContractError unless the graph's tensors are those that the contract promises."""
    for kind, wanted, found in zip(("input", "output"), expected_tensors(contract), (inputs, outputs), strict=True):
        by_name = {tensor.name: tensor for tensor in found}
        for spec in wanted:
            tensor = by_name.get(spec.name)
            if tensor is None or tensor.dtype != spec.dtype or not _same_dims(spec.shape, tensor.shape):
                raise ContractError(
                    f"{where}: the contract promises the {kind} {spec}, the graph has "
                    f"{tensor or ', '.join(map(str, found)) or 'none'}; export the model again"
                )
        extra = sorted(set(by_name) - {spec.name for spec in wanted})
        if extra and kind == "input":  # nothing could be fed to it
            raise ContractError(f"{where}: the graph wants an unknown input {', '.join(extra)}; export the model again")


def _same_dims(wanted: tuple[Dim, ...], found: tuple[Dim, ...]) -> bool:
    def same(want: Dim, have: Dim) -> bool:
        return want == have if isinstance(want, int) else not isinstance(have, int)

    return len(wanted) == len(found) and all(map(same, wanted, found))


def check_batch(
    contract: Contract, allowed: LengthRange, inputs: npt.ArrayLike, lengths: npt.ArrayLike
) -> tuple[Float32, Int64]:
    """Return a batch as contiguous float32 and int64 arrays.

    Raises:
        VoxportError: a wrong type or shape, or a length beyond the array.
        LengthError: a length outside the contract's range.
    """
    batch = _plain(inputs, np.float32, "float32 inputs")
    counts = _plain(lengths, np.int64, "int64 lengths")
    (source, _), _ = expected_tensors(contract)
    fits = batch.ndim == len(source.shape) and (batch.ndim == 2 or batch.shape[2] == source.shape[2])
    if not fits or batch.shape[0] == 0:
        raise VoxportError(f"expected {source} with at least one row, found an array of shape {batch.shape}")
    if counts.shape != (batch.shape[0],):
        raise VoxportError(f"expected one length for each of {batch.shape[0]} rows, found shape {counts.shape}")
    allowed.check(counts)
    longest = int(counts.max())
    if longest > batch.shape[1]:
        raise VoxportError(f"a length of {longest} {allowed.unit}, but the array holds {batch.shape[1]}")
    return batch, counts


def _plain(values: npt.ArrayLike, dtype: Any, what: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as problem:  # ragged nested lists
        raise VoxportError(f"expected {what}, found rows of different lengths; pad them") from problem
    if array.dtype == object or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise VoxportError(f"expected {what}, found {array.dtype}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, as it may in the padding
        return array.astype(dtype, order="C", copy=False)
