"""KServe's inference protocol, version 2, over HTTP, with Triton's binary tensors: tritonclient talks to it.

The model is called `voxport`. It takes `sound`, BYTES [n]: n sound files; or `waveform`, FP32 [n, samples] at the
model's rate, and perhaps `lengths`, INT64 [n] or [n, 1], of rows that are padded. It gives `scores`, FP32
[n, speakers], and `embedding`, FP32 [n, size], whichever the model has. The protocol:
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

import asyncio
import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from voxport.scale.service.answers import Service, service_of
from voxport.scale.service.doors import body_file
from voxport.scale.service.problems import ProblemError, unknown

NAME, VERSION = "voxport", "1"
_MOST = 64  # sounds of one request
_HEADER = "Inference-Header-Content-Length"
_TYPES = {"FP32": "<f4", "INT64": "<i8", "INT32": "<i4"}


def _service(request: Request) -> Service:
    return service_of(request.app)


Served = Annotated[Service, Depends(_service)]


def add_kserve(app: FastAPI) -> None:
    """The protocol's pages below `/v2`."""

    @app.get("/v2", tags=["kserve"])
    async def server() -> dict[str, Any]:
        return {"name": "voxport", "version": VERSION, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", tags=["kserve"])
    async def live() -> Response:
        return Response()

    @app.get("/v2/health/ready", tags=["kserve"])
    async def ready(service: Served) -> Response:
        return Response(status_code=503 if service.turnstile.draining else 200)

    @app.get("/v2/models/{name}/ready", tags=["kserve"])
    @app.get("/v2/models/{name}/versions/{version}/ready", tags=["kserve"], include_in_schema=False)
    async def model_ready(service: Served, name: str, version: str = VERSION) -> Response:
        _check(name, version)
        return Response(status_code=503 if service.turnstile.draining else 200)

    @app.get("/v2/models/{name}", tags=["kserve"])
    @app.get("/v2/models/{name}/versions/{version}", tags=["kserve"], include_in_schema=False)
    async def metadata(service: Served, name: str, version: str = VERSION) -> dict[str, Any]:
        _check(name, version)
        return {
            "name": NAME,
            "versions": [VERSION],
            "platform": "voxport_onnx",
            "inputs": [
                {"name": "sound", "datatype": "BYTES", "shape": [-1]},
                {"name": "waveform", "datatype": "FP32", "shape": [-1, -1]},
                {"name": "lengths", "datatype": "INT64", "shape": [-1]},
            ],
            "outputs": [
                {"name": each, "datatype": "FP32", "shape": [-1, _width(service, each)]} for each in _outputs(service)
            ],
        }

    @app.post("/v2/models/{name}/infer", tags=["kserve"])
    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["kserve"], include_in_schema=False)
    async def infer(request: Request, service: Served, name: str, version: str = VERSION) -> Response:
        _check(name, version)
        async with body_file(request, service.limits) as path:
            header, tensors = await asyncio.to_thread(_read, path, request.headers.get(_HEADER))
        wanted = _wanted(header, service)
        answers = await _answers(service, _sounds(tensors, service), wanted)
        return _reply(header, answers, wanted)


def _check(name: str, version: str) -> None:
    if name != NAME or version != VERSION:
        raise unknown(f"no model {name:.80}, version {version:.20}; there is {NAME}, version {VERSION}")


def _outputs(service: Service) -> list[str]:
    return [each for each in ("scores", "embedding") if each in service.contract.outputs]


def _width(service: Service, output: str) -> int:
    return len(service.contract.labels) if output == "scores" else service.contract.embedding_size


def _wrong(detail: str) -> ProblemError:
    return ProblemError(400, "inference", "The inference request is wrong", detail)


def _read(path: str, header_length: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request's JSON, and its tensors by name: arrays, or lists of bytes."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        cut = len(content) if header_length is None else int(header_length)
        if not 0 <= cut <= len(content):
            raise ValueError(f"a header of {cut} bytes in a body of {len(content)}")
        header = json.loads(content[:cut])
        inputs = header["inputs"]
        if not isinstance(header, dict) or not isinstance(inputs, list):
            raise TypeError("inputs is no list")
        tensors, rest = {}, memoryview(content)[cut:]
        for each in inputs:
            size = (each.get("parameters") or {}).get("binary_data_size")
            raw = None if size is None else rest[: _whole(size, len(rest))]
            rest = rest if raw is None else rest[len(raw) :]
            tensors[str(each["name"])] = _tensor(each, raw)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as problem:
        raise _wrong(f"not a request of the protocol ({type(problem).__name__}: {problem!s:.200})") from problem
    return header, tensors


def _whole(size: Any, most: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= most:
        raise ValueError(f"binary_data_size {size!r:.40}, where {most} bytes are left")
    return size


def _tensor(facts: dict[str, Any], raw: memoryview | None) -> Any:
    kind, shape = facts["datatype"], [_whole(each, 1 << 31) for each in facts["shape"]]
    if kind == "BYTES":
        found = list(_strings(raw)) if raw is not None else [str(each).encode() for each in np.ravel(facts["data"])]
        if len(found) != int(np.prod(shape)):
            raise ValueError(f"{len(found)} elements, and the shape {shape}")
        return found
    if kind not in _TYPES:
        raise ValueError(f"datatype {kind!r:.20}; taken are BYTES, {', '.join(_TYPES)}")
    flat = np.frombuffer(raw, _TYPES[kind]) if raw is not None else np.asarray(facts["data"], _TYPES[kind]).ravel()
    return flat.reshape(shape)


def _strings(raw: memoryview) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each its length in four bytes, and its content."""
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        if at + 4 + length > len(raw):
            raise ValueError("an element that is longer than its tensor")
        yield bytes(raw[at + 4 : at + 4 + length])
        at += 4 + length


def _sounds(tensors: dict[str, Any], service: Service) -> list[Any]:
    """Sound files as bytes, or rows of samples."""
    if set(tensors) == {"sound"} and isinstance(tensors["sound"], list):
        found = tensors["sound"]
    elif "waveform" in tensors and set(tensors) <= {"waveform", "lengths"}:
        waveform = tensors["waveform"]
        if not isinstance(waveform, np.ndarray) or waveform.ndim != 2 or waveform.dtype != np.float32:
            raise _wrong("waveform is FP32 of shape [sounds, samples]")
        lengths = np.ravel(tensors.get("lengths", np.full(len(waveform), waveform.shape[1])))
        if lengths.dtype.kind != "i" or len(lengths) != len(waveform):
            raise _wrong("lengths is INT64, one for each row of waveform")
        if not all(0 < length <= waveform.shape[1] for length in lengths):
            raise _wrong(f"lengths lie between 1 and {waveform.shape[1]}, the samples of a row")
        rate = service.contract.frontend.sample_rate
        if waveform.shape[1] > service.limits.max_seconds * rate:
            raise _wrong(f"more than {service.limits.max_seconds:g} s of sound")
        found = [row[:length] for row, length in zip(waveform, lengths, strict=True)]
    else:
        raise _wrong(f"inputs are sound, or waveform and lengths; found {', '.join(sorted(tensors)) or 'none'!s:.200}")
    if not 0 < len(found) <= _MOST:
        raise _wrong(f"{len(found)} sounds; 1 to {_MOST} are taken in one request")
    return found


def _wanted(header: dict[str, Any], service: Service) -> dict[str, bool]:
    """The outputs that are asked for, and whether each goes back as binary data."""
    has = _outputs(service)
    everything = bool((header.get("parameters") or {}).get("binary_data_output", False))
    asked = header.get("outputs") or [{"name": each} for each in has]
    try:
        found = {str(each["name"]): (each.get("parameters") or {}).get("binary_data", everything) for each in asked}
    except (TypeError, KeyError, AttributeError) as problem:
        raise _wrong(f"outputs is a list of objects with a name ({problem})") from problem
    if unknown_names := set(found) - set(has):
        raise _wrong(f"no output {', '.join(sorted(unknown_names))!s:.100}; there are {', '.join(has)}")
    return {name: bool(binary) for name, binary in found.items()}


async def _answers(service: Service, sounds: list[Any], wanted: dict[str, bool]) -> dict[str, Any]:
    """Each output as an array [sounds, width]. What cannot be answered is the request's problem, and names it."""
    rows = await asyncio.gather(*(_answer(service, each, wanted) for each in sounds), return_exceptions=True)
    for place, row in enumerate(rows):
        if isinstance(row, ProblemError):
            row.detail = f"sound {place}: {row.detail}"
            raise row
        if isinstance(row, BaseException):
            raise row
    return {name: np.stack([row[name] for row in rows]).astype("<f4") for name in wanted}  # type: ignore[index]


async def _answer(service: Service, sound: Any, wanted: dict[str, bool]) -> dict[str, Any]:
    calls = {"scores": service.scores, "embedding": service.embedding}
    if not isinstance(sound, bytes):
        return {name: await calls[name](sound) for name in wanted}
    handle, path = tempfile.mkstemp(prefix="voxport-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(sound)
        return {name: await calls[name](path) for name in wanted}
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _reply(header: dict[str, Any], answers: dict[str, Any], wanted: dict[str, bool]) -> Response:
    outputs, binary = [], []
    for name, values in answers.items():
        facts: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if wanted[name]:
            binary.append(values.tobytes())
            facts["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            facts["data"] = values.ravel().tolist()
        outputs.append(facts)
    document = {"model_name": NAME, "model_version": VERSION, "outputs": outputs}
    if isinstance(header.get("id"), str):
        document["id"] = header["id"]
    if not binary:
        return JSONResponse(document)
    text = json.dumps(document).encode()
    headers = {_HEADER: str(len(text))}
    return Response(text + b"".join(binary), media_type="application/octet-stream", headers=headers)
