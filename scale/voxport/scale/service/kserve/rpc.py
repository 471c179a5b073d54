"""The protocol over gRPC: bytes in, bytes out, so that one process and Ray's proxy serve the same."""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from voxport.runtime.errors import VoxportError
from voxport.scale.errors import ScaleError
from voxport.scale.service.answers import Service
from voxport.scale.service.doors import check_key
from voxport.scale.service.kserve.inference import (
    MALFORMED,
    NAME,
    VERSION,
    check_name,
    check_outputs,
    infer,
    malformed,
    metadata,
    outputs_of,
    sounds_of,
    tensor,
)
from voxport.scale.service.kserve.messages import METHODS, SERVICE, message
from voxport.scale.service.options import ServiceOptions
from voxport.scale.service.problems import ProblemError, problem_of

_OPEN = ("ServerLive", "ServerReady", "ServerMetadata")  # asked without a key, as over HTTP
_ROOM = 1 << 16  # bytes of a request besides its tensors
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}
Reply = tuple[bytes, grpc.StatusCode, str]


async def answer(service: Service, method: str, content: bytes, headers: Mapping[str, str]) -> Reply:
    """The answer to a call, or no bytes, with the status code and what went wrong."""
    began, status = time.monotonic(), 200
    try:
        if len(content) > service.limits.max_bytes + _ROOM:
            raise ProblemError(413, "size", "", f"at most {service.limits.max_bytes:,} bytes are taken")
        if method not in _OPEN:
            check_key(service.options.keys, headers)
        try:
            request = message(f"{method}Request").FromString(content)
        except DecodeError as undecoded:
            raise malformed(undecoded) from undecoded
        found = await _ANSWERS[method](service, request)
        return found.SerializeToString(), grpc.StatusCode.OK, ""
    except VoxportError as error:
        told = problem_of(error)
        status = told.status
        return b"", _CODES[status], told.detail
    except ProblemError as problem:
        status = problem.status
        return b"", _CODES[status], problem.detail
    finally:
        service.metrics.answered(f"/{SERVICE}/{method}", status, time.monotonic() - began)


# --- answers --------------------------------------------------------------------------------------------


async def _live(_: Service, __: Any) -> Any:
    return message("ServerLiveResponse")(live=True)


async def _ready(service: Service, _: Any) -> Any:
    return message("ServerReadyResponse")(ready=service.turnstile.ready)


async def _model_ready(service: Service, request: Any) -> Any:
    check_name(request.name, request.version)
    return message("ModelReadyResponse")(ready=service.turnstile.ready)


async def _server(_: Service, __: Any) -> Any:
    return message("ServerMetadataResponse")(name=NAME, version=VERSION)


async def _model(service: Service, request: Any) -> Any:
    check_name(request.name, request.version)
    return message("ModelMetadataResponse")(**metadata(service))


async def _infer(service: Service, request: Any) -> Any:
    async with service.turnstile.enter():
        check_name(request.model_name, request.model_version)
        try:
            tensors = _tensors(request)
        except MALFORMED as problem:
            raise malformed(problem) from problem
        wanted = [each.name for each in request.outputs] or outputs_of(service)
        check_outputs(wanted, service)
        answers = await infer(service, sounds_of(tensors, service), wanted)
    reply = message("ModelInferResponse")(model_name=NAME, model_version=VERSION, id=request.id)
    for name, values in answers.items():
        reply.outputs.add(name=name, datatype="FP32", shape=values.shape)
        reply.raw_output_contents.append(values.tobytes())
    return reply


_CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents", "INT32": "int_contents", "BYTES": "bytes_contents"}
_ANSWERS: dict[str, Callable[[Service, Any], Awaitable[Any]]] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ServerMetadata": _server,
    "ModelReady": _model_ready,
    "ModelMetadata": _model,
    "ModelInfer": _infer,
}


def _tensors(request: Any) -> dict[str, Any]:
    """Arrays by name, from the raw contents if there are any, else from each input's own."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise ValueError(f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    found = {}
    for place, each in enumerate(request.inputs):
        binary = memoryview(raw[place]) if raw else None
        data = getattr(each.contents, _CONTENTS.get(each.datatype, "fp32_contents"))
        found[each.name] = tensor(each.datatype, each.shape, binary, list(data))
    return found


# --- servers --------------------------------------------------------------------------------------------


def add_servicer(servicer: Any, server: Any) -> None:
    """Have `server` pass calls to the methods of `servicer`, as bytes. Ray's proxy calls this with a stand-in."""
    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class _Servicer:
    """A service's answers as the methods that gRPC calls."""

    def __init__(self, service: Service) -> None:
        for name in METHODS:
            setattr(self, name, partial(self._call, service, name))

    @staticmethod
    async def _call(service: Service, method: str, content: bytes, context: Any) -> bytes:
        found, code, detail = await answer(service, method, content, headers_of(context.invocation_metadata()))
        if code is not grpc.StatusCode.OK:
            await context.abort(code, detail)
        return found


def headers_of(given: Any) -> dict[str, str]:
    """A call's metadata as HTTP's headers."""
    return {str(key): value for key, value in given or () if isinstance(value, str)}


async def start(service: Service, options: ServiceOptions) -> Any:
    """A server of grpc.aio in this event loop, which listens; `stop` it.

    Raises:
        ScaleError: the port is taken.
    """
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", options.limits.max_bytes + _ROOM), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=2 * options.limits.queue,
    )
    add_servicer(_Servicer(service), server)
    host = f"[{options.host}]" if ":" in options.host else options.host
    try:
        server.add_insecure_port(f"{host}:{options.grpc_port}")
        await server.start()
    except RuntimeError as problem:
        raise ScaleError(f"{host}:{options.grpc_port} cannot be listened on; choose another --grpc-port") from problem
    return server
