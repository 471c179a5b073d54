"""The messages of the protocol's gRPC service, made from a table: no generated code, and no compiler to run.

Names and numbers are those of KServe's `grpc_predict_v2.proto`, which Triton serves too. The maps of parameters are
left out: nothing here depends on one, and protobuf passes over fields that it does not know.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# Message: its fields, in the order of their numbers, which begin at 1; `None` is a number that is not used here.
_TABLE: dict[str, tuple[str | None, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready",),
    "ModelReadyRequest": ("string name", "string version"),
    "ModelReadyResponse": ("bool ready",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name", "string version", "string* extensions"),
    "ModelMetadataRequest": ("string name", "string version"),
    "ModelMetadataResponse.TensorMetadata": ("string name", "string datatype", "int64* shape"),
    "ModelMetadataResponse": (
        "string name",
        "string* versions",
        "string platform",
        "ModelMetadataResponse.TensorMetadata* inputs",
        "ModelMetadataResponse.TensorMetadata* outputs",
    ),
    "InferTensorContents": (
        "bool* bool_contents",
        "int32* int_contents",
        "int64* int64_contents",
        "uint32* uint_contents",
        "uint64* uint64_contents",
        "float* fp32_contents",
        "double* fp64_contents",
        "bytes* bytes_contents",
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name",
        "string datatype",
        "int64* shape",
        None,
        "InferTensorContents contents",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name",),
    "ModelInferRequest": (
        "string model_name",
        "string model_version",
        "string id",
        None,
        "ModelInferRequest.InferInputTensor* inputs",
        "ModelInferRequest.InferRequestedOutputTensor* outputs",
        "bytes* raw_input_contents",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name",
        "string datatype",
        "int64* shape",
        None,
        "InferTensorContents contents",
    ),
    "ModelInferResponse": (
        "string model_name",
        "string model_version",
        "string id",
        None,
        "ModelInferResponse.InferOutputTensor* outputs",
        "bytes* raw_output_contents",
    ),
}
METHODS = tuple(name.removesuffix("Request") for name in _TABLE if name.endswith("Request"))


@cache
def _classes() -> dict[str, Any]:
    """Message classes by name, in a pool of their own: whoever else knows the protocol has registered it already."""
    file = descriptor_pb2.FileDescriptorProto(name="voxport_predict_v2.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(_TABLE, key=lambda each: each.count(".")):  # a message before those inside it
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
    for name, fields in _TABLE.items():
        for number, field in enumerate(fields, 1):
            if field is not None:
                _add_field(made[name], number, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _TABLE}


def _add_field(message: Any, number: int, kind: str, name: str) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number)
    field.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
    kind = kind.removesuffix("*")
    if kind in _TABLE:
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")


def message(name: str) -> Any:
    """The class of a message, such as ModelInferRequest."""
    return _classes()[name]
