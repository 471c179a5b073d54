"""What an ONNX file says about itself, read without onnx, onnxruntime or protobuf.

An ONNX file is one protobuf message, ModelProto (onnx/onnx.proto): a list of fields, each with a
number, a wire type and, where its size varies, its length. This reader walks that list, steps over
weights and nodes by their length, and keeps the few small fields it knows. A file may be truncated
or hostile, so every size is checked against the file and against a limit before anything is read.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from voxport.runtime.contract import Contract, Dim, TensorSpec, check_contract
from voxport.runtime.errors import ContractError

MAX_CONTRACT_BYTES = 8 << 20  # 100,000 speakers need 3 MB
MAX_NAME_BYTES = 1 << 10
MAX_TENSORS = 64
MAX_DIMS = 16
MAX_FIELDS = 200_000  # in one file: bounds the time that a file of nothing but tiny fields can take

# Field numbers of onnx.proto.
_MODEL_IR_VERSION, _MODEL_PRODUCER, _MODEL_PRODUCER_VERSION, _MODEL_GRAPH = 1, 2, 3, 7
_MODEL_OPSET, _MODEL_METADATA = 8, 14
_GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 2, 5, 11, 12
_TENSOR_NAME = 8

_ELEMENT_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 8: "string", 9: "bool", 10: "float16", 11: "float64"
}  # fmt: skip


@dataclass(frozen=True)
class OnnxFile:
    """The few facts that are kept. `contract` is None where the file has no such metadata."""

    contract: str | None
    ir_version: int
    producer: str
    opsets: tuple[tuple[str, int], ...]  # (domain, version); the domain of standard operators is ""
    inputs: tuple[TensorSpec, ...]  # empty unless the graph was asked for
    outputs: tuple[TensorSpec, ...]
    graph_name: str = ""


def read_onnx(path: str | os.PathLike[str], key: str, *, graph: bool = False) -> OnnxFile:
    """Read `path`; `key` is the metadata entry to keep, `graph` also reads input and output tensors.

    Raises:
        ContractError: no such file, not an ONNX file, damaged, or larger than the limits above.
    """
    name = os.fspath(path)
    try:
        with _open_regular(name) as (file, size):
            return _Walker(file, name).model(size, key.encode(), graph)
    except OSError as problem:
        raise ContractError(
            f"{name}: cannot be read ({problem.strerror or problem}); give a voxport model"
        ) from problem
    except ValueError as problem:  # a NUL or half a character, which no file's name can hold
        raise ContractError(f"{name!r}: cannot be the name of a file ({problem}); give a voxport model") from problem


@contextlib.contextmanager
def _open_regular(name: str) -> Iterator[tuple[BinaryIO, int]]:
    # A pipe would wait for ever and a device has no end, so the kind is asked before the file is opened.
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise ContractError(f"{name}: not a file; give a voxport model")
    with open(name, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


@dataclass(frozen=True)
class _Field:
    """One field: `value` of a number, or `start` and `end` of a payload in the file."""

    number: int
    value: int
    start: int
    end: int


class _Walker:
    """Walks the fields of one file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._fields_left = MAX_FIELDS

    def model(self, size: int, key: bytes, graph: bool) -> OnnxFile:
        if size == 0:
            raise self._error("the file is empty")
        contract: str | None = None
        ir_version, producer, producer_version, graph_name = 0, "", "", ""
        opsets: list[tuple[str, int]] = []
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for field in self._walk(0, size):
            if field.number == _MODEL_IR_VERSION:
                ir_version = field.value
            elif field.number == _MODEL_PRODUCER:
                producer = self._text(field, MAX_NAME_BYTES)
            elif field.number == _MODEL_PRODUCER_VERSION:
                producer_version = self._text(field, MAX_NAME_BYTES)
            elif field.number == _MODEL_OPSET and len(opsets) < MAX_TENSORS:
                opsets.append(self._opset(field))
            elif field.number == _MODEL_GRAPH and graph:
                graph_name = self._graph(field, inputs, outputs)
            elif field.number == _MODEL_METADATA:
                found = self._metadata(field, key)
                if found is not None and contract is not None:
                    raise self._error("it holds two contracts")
                contract = found if found is not None else contract
        if not ir_version:  # the one field that every ONNX file has
            raise self._error("it has no ONNX version")
        made_by = f"{producer} {producer_version}".strip()
        return OnnxFile(contract, ir_version, made_by, tuple(opsets), tuple(inputs), tuple(outputs), graph_name)

    def _metadata(self, entry: _Field, key: bytes) -> str | None:
        """The text of StringStringEntryProto `entry` if its key is `key`. Others are stepped over unread."""
        matches, value = False, None
        for field in self._walk(entry.start, entry.end):
            if field.number == 1:
                matches = field.end - field.start == len(key) and self._bytes(field, len(key)) == key
            elif field.number == 2:
                value = field
        if not matches or value is None:
            return None
        return self._text(value, MAX_CONTRACT_BYTES)

    def _opset(self, entry: _Field) -> tuple[str, int]:
        domain, version = "", 0
        for field in self._walk(entry.start, entry.end):
            if field.number == 1:
                domain = self._text(field, MAX_NAME_BYTES)
            elif field.number == 2:
                version = field.value
        return domain, version

    def _graph(self, graph: _Field, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> str:
        """Fill `inputs` and `outputs`; returns the graph's name."""
        name = ""
        weights: set[str] = set()  # up to IR version 3 weights are listed among the inputs too
        for field in self._walk(graph.start, graph.end):
            if field.number == _GRAPH_NAME:
                name = self._text(field, MAX_NAME_BYTES)
            elif field.number == _GRAPH_INPUT:
                inputs.append(self._tensor(field))
            elif field.number == _GRAPH_OUTPUT:
                outputs.append(self._tensor(field))
            elif field.number == _GRAPH_INITIALIZER:
                weights.update(self._text(part, MAX_NAME_BYTES) for part in self._named(field, _TENSOR_NAME))
            if max(len(inputs), len(outputs)) > MAX_TENSORS:
                raise self._error(f"it has more than {MAX_TENSORS} inputs or outputs")
        inputs[:] = [tensor for tensor in inputs if tensor.name not in weights]
        return name

    def _tensor(self, entry: _Field) -> TensorSpec:
        """ValueInfoProto: name = 1, type = 2 → TypeProto: tensor_type = 1 → elem_type = 1, shape = 2."""
        name, dtype = "", "not a tensor"
        shape: tuple[Dim, ...] = ()
        for field in self._walk(entry.start, entry.end):
            if field.number == 1:
                name = self._text(field, MAX_NAME_BYTES)
            elif field.number == 2:
                for tensor in self._named(field, 1):
                    for part in self._walk(tensor.start, tensor.end):
                        if part.number == 1:
                            dtype = _ELEMENT_TYPES.get(part.value, f"ONNX type {part.value}")
                        elif part.number == 2:
                            shape = self._shape(part)
        return TensorSpec(name, dtype, shape)

    def _shape(self, entry: _Field) -> tuple[Dim, ...]:
        """TensorShapeProto: dim = 1, each with dim_value = 1 or dim_param = 2."""
        dims: list[Dim] = []
        for dim in self._named(entry, 1):
            if len(dims) == MAX_DIMS:
                raise self._error(f"a tensor has more than {MAX_DIMS} dims")
            dims.append(None)
            for field in self._walk(dim.start, dim.end):
                dims[-1] = field.value if field.number == 1 else self._text(field, MAX_NAME_BYTES)
        return tuple(dims)

    def _named(self, entry: _Field, number: int) -> Iterator[_Field]:
        return (field for field in self._walk(entry.start, entry.end) if field.number == number)

    def _walk(self, start: int, end: int) -> Iterator[_Field]:
        """The fields between two offsets. The file may be moved between two of them."""
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise self._error(f"it has more than {MAX_FIELDS} fields")
            self._file.seek(position)
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0 or wire in (3, 4, 6, 7):  # 3 and 4 are groups, which ONNX never had
                raise self._error(f"byte {position - 1} is no ONNX")
            value, payload = 0, position
            if wire == 0:
                value, position = self._varint(position, end)
            elif wire == 2:
                length, payload = self._varint(position, end)
                position = payload + length
            elif wire in (1, 5):
                position += 8 if wire == 1 else 4
            if position > end:
                raise self._error(f"it is cut short: {position - end} bytes are missing after byte {end}")
            yield _Field(number, value, payload, position)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1) if position < end else b""
            if not byte:
                raise self._error(f"it is cut short at byte {position}")
            position += 1
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value, position
        raise self._error(f"byte {position} is no ONNX")

    def _bytes(self, field: _Field, limit: int) -> bytes:
        length = field.end - field.start
        if length > limit:
            raise self._error(f"a text of {length} bytes, at most {limit} are read")
        self._file.seek(field.start)
        data = self._file.read(length)
        if len(data) != length:
            raise self._error(f"it is cut short at byte {field.start + len(data)}")
        return data

    def _text(self, field: _Field, limit: int) -> str:
        try:
            return self._bytes(field, limit).decode()
        except UnicodeDecodeError as problem:
            raise self._error(f"a text at byte {field.start} is not UTF-8") from problem

    def _error(self, what: str) -> ContractError:
        return ContractError(f"{self._name}: not a whole ONNX file ({what}); export the model again")


def contract_of(file: OnnxFile, path: str | os.PathLike[str]) -> Contract:
    """The contract in `file`, which was read from `path`. Raises as `read_contract` does."""
    where = os.fspath(path)
    if file.contract is None:
        raise ContractError(
            f"{where}: this ONNX file has no voxport contract; "
            "write it with: voxport export onnx CHECKPOINT -o MODEL.onnx"
        )
    return check_contract(Contract.from_json(file.contract, where), where)
