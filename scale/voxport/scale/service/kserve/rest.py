"""The protocol over HTTP, with Triton's binary tensors."""

import asyncio
import json
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from voxport.scale.service.answers import Service, service_of
from voxport.scale.service.doors import body_file
from voxport.scale.service.kserve.inference import (
    MALFORMED,
    NAME,
    VERSION,
    check_name,
    check_outputs,
    infer,
    malformed,
    metadata,
    natural,
    outputs_of,
    sounds_of,
    tensor,
    wrong,
)

_HEADER = "Inference-Header-Content-Length"


def _service(request: Request) -> Service:
    return service_of(request.app)


Served = Annotated[Service, Depends(_service)]


def add_kserve(app: FastAPI) -> None:
    """The protocol's pages below `/v2`."""

    @app.get("/v2", tags=["kserve"])
    async def server() -> dict[str, Any]:
        return {"name": NAME, "version": VERSION, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", tags=["kserve"])
    async def live() -> Response:
        return Response()

    @app.get("/v2/health/ready", tags=["kserve"])
    async def ready(service: Served) -> Response:
        return Response(status_code=200 if service.turnstile.ready else 503)

    @app.get("/v2/models/{name}/ready", tags=["kserve"])
    @app.get("/v2/models/{name}/versions/{version}/ready", tags=["kserve"], include_in_schema=False)
    async def model_ready(service: Served, name: str, version: str = VERSION) -> Response:
        check_name(name, version)
        return Response(status_code=200 if service.turnstile.ready else 503)

    @app.get("/v2/models/{name}", tags=["kserve"])
    @app.get("/v2/models/{name}/versions/{version}", tags=["kserve"], include_in_schema=False)
    async def describe(service: Served, name: str, version: str = VERSION) -> dict[str, Any]:
        check_name(name, version)
        return metadata(service)

    @app.post("/v2/models/{name}/infer", tags=["kserve"])
    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["kserve"], include_in_schema=False)
    async def answer(request: Request, service: Served, name: str, version: str = VERSION) -> Response:
        check_name(name, version)
        async with body_file(request, service.limits) as path:
            header, tensors = await asyncio.to_thread(_read, path, request.headers.get(_HEADER))
        wanted = _wanted(header, service)
        answers = await infer(service, sounds_of(tensors, service), wanted)
        return _reply(header, answers, wanted)


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
            raw = None if size is None else rest[: natural(size, len(rest))]
            rest = rest if raw is None else rest[len(raw) :]
            data = None if raw is not None else each["data"]
            tensors[str(each["name"])] = tensor(each["datatype"], each["shape"], raw, _flat(each["datatype"], data))
    except MALFORMED as problem:
        raise malformed(problem) from problem
    return header, tensors


def _flat(kind: str, data: Any) -> Any:
    """JSON nests a tensor's elements, or does not."""
    return np.ravel(data) if kind == "BYTES" and data is not None else data


def _wanted(header: dict[str, Any], service: Service) -> dict[str, bool]:
    """The outputs that are asked for, and whether each goes back as binary data."""
    everything = bool((header.get("parameters") or {}).get("binary_data_output", False))
    asked = header.get("outputs") or [{"name": each} for each in outputs_of(service)]
    try:
        found = {str(each["name"]): (each.get("parameters") or {}).get("binary_data", everything) for each in asked}
    except (TypeError, KeyError, AttributeError) as problem:
        raise wrong(f"outputs is a list of objects with a name ({problem})") from problem
    check_outputs(found, service)
    return {name: bool(binary) for name, binary in found.items()}


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
