"""What an inference request of KServe's protocol asks for, and its answer, whichever way it came.

The model is called `voxport`. It takes `sound`, BYTES [n]: n sound files; or `waveform`, FP32 [n, samples] at the
model's rate, and perhaps `lengths`, INT64 [n] or [n, 1], of rows that are padded. It gives `scores`, FP32
[n, speakers], and `embedding`, FP32 [n, size], whichever the model has. The protocol:
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

import asyncio
import contextlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from voxport.scale.service.answers import Service
from voxport.scale.service.problems import ProblemError, unknown

NAME, VERSION, PLATFORM = "voxport", "1", "voxport_onnx"
TYPES = {"FP32": "<f4", "INT64": "<i8", "INT32": "<i4"}
_MOST = 64  # sounds of one request
_LARGEST = 1 << 31  # of a dimension
# What numpy, struct and missing members say of a request that is not one.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, struct.error)


def check_name(name: str, version: str) -> None:
    """Raise ProblemError unless it is the one model that there is; gRPC's clients leave the version empty."""
    if name != NAME or version not in ("", VERSION):
        raise unknown(f"no model {name:.80}, version {version:.20}; there is {NAME}, version {VERSION}")


def metadata(service: Service) -> dict[str, Any]:
    """The model's name, and its tensors."""
    return {
        "name": NAME,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": "sound", "datatype": "BYTES", "shape": [-1]},
            {"name": "waveform", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "lengths", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": each, "datatype": "FP32", "shape": [-1, _width(service, each)]} for each in outputs_of(service)
        ],
    }


def outputs_of(service: Service) -> list[str]:
    """Names of the tensors that the model gives."""
    return [each for each in ("scores", "embedding") if each in service.contract.outputs]


def _width(service: Service, output: str) -> int:
    return len(service.contract.labels) if output == "scores" else service.contract.embedding_size


def wrong(detail: str) -> ProblemError:
    """A request that is none of the protocol, or asks for what there is not."""
    return ProblemError(400, "inference", "The inference request is wrong", detail)


def malformed(problem: Exception) -> ProblemError:
    """The same, for an error that reading the request has raised, one of MALFORMED."""
    return wrong(f"not a request of the protocol ({type(problem).__name__}: {problem!s:.200})")


def tensor(kind: str, shape: Iterable[int], raw: memoryview | None, data: Any) -> Any:
    """An array, or for BYTES a list of bytes, from binary data or else from `data`; raises one of MALFORMED."""
    whole = [natural(each, _LARGEST) for each in shape]
    if kind == "BYTES":
        found = list(_strings(raw)) if raw is not None else [_bytes(each) for each in data]
        if len(found) != int(np.prod(whole)):
            raise ValueError(f"{len(found)} elements, and the shape {whole}")
        return found
    if kind not in TYPES:
        raise ValueError(f"datatype {kind!r:.20}; taken are BYTES, {', '.join(TYPES)}")
    flat = np.frombuffer(raw, TYPES[kind]) if raw is not None else np.asarray(data, TYPES[kind]).ravel()
    return flat.reshape(whole)


def natural(number: Any, most: int) -> int:
    """A whole number from 0 to `most`; raises ValueError for anything else."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
        raise ValueError(f"{number!r:.40}, where a whole number from 0 to {most} was expected")
    return number


def _bytes(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


def _strings(raw: memoryview) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each its length in four bytes, and its content."""
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        if at + 4 + length > len(raw):
            raise ValueError("an element that is longer than its tensor")
        yield bytes(raw[at + 4 : at + 4 + length])
        at += 4 + length


def sounds_of(tensors: dict[str, Any], service: Service) -> list[Any]:
    """Sound files as bytes, or rows of samples; raises ProblemError where the tensors are not those of the model."""
    if set(tensors) == {"sound"} and isinstance(tensors["sound"], list):
        found = tensors["sound"]
    elif "waveform" in tensors and set(tensors) <= {"waveform", "lengths"}:
        waveform = tensors["waveform"]
        if not isinstance(waveform, np.ndarray) or waveform.ndim != 2 or waveform.dtype != np.float32:
            raise wrong("waveform is FP32 of shape [sounds, samples]")
        lengths = np.ravel(tensors.get("lengths", np.full(len(waveform), waveform.shape[1])))
        if lengths.dtype.kind != "i" or len(lengths) != len(waveform):
            raise wrong("lengths is INT64, one for each row of waveform")
        if not all(0 < length <= waveform.shape[1] for length in lengths):
            raise wrong(f"lengths lie between 1 and {waveform.shape[1]}, the samples of a row")
        rate = service.contract.frontend.sample_rate
        if waveform.shape[1] > service.limits.max_seconds * rate:
            raise wrong(f"more than {service.limits.max_seconds:g} s of sound")
        found = [row[:length] for row, length in zip(waveform, lengths, strict=True)]
    else:
        raise wrong(f"inputs are sound, or waveform and lengths; found {', '.join(sorted(tensors)) or 'none'!s:.200}")
    if not 0 < len(found) <= _MOST:
        raise wrong(f"{len(found)} sounds; 1 to {_MOST} are taken in one request")
    return found


def check_outputs(asked: Iterable[str], service: Service) -> None:
    """Raise ProblemError where an output is asked for that the model has not."""
    has = outputs_of(service)
    if unknown_names := set(asked) - set(has):
        raise wrong(f"no output {', '.join(sorted(unknown_names))!s:.100}; there are {', '.join(has)}")


async def infer(service: Service, sounds: list[Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Each output as an array [sounds, width]. What cannot be answered is the request's problem, and names it."""
    names = list(wanted)
    rows = await asyncio.gather(*(_answer(service, each, names) for each in sounds), return_exceptions=True)
    for place, row in enumerate(rows):
        if isinstance(row, ProblemError):
            row.detail = f"sound {place}: {row.detail}"
            raise row
        if isinstance(row, BaseException):
            raise row
    return {name: np.stack([row[name] for row in rows]).astype("<f4") for name in names}  # type: ignore[index]


async def _answer(service: Service, sound: Any, wanted: list[str]) -> dict[str, Any]:
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
