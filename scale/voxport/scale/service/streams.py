"""Who is speaking now, over a WebSocket: samples in as they come, decisions out."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import encode
from voxport.runtime.streaming.stream import Decision, Stream
from voxport.scale.service.answers import Service, service_of
from voxport.scale.service.doors import check_host, check_key, is_key
from voxport.scale.service.problems import ProblemError, busy, ending, problem_of

MOST_AT_ONCE = 1 << 20  # bytes of one message
_TYPES = {"s16le": "<i2", "f32le": "<f4"}


def add_streams(app: FastAPI) -> None:
    """Add `/v1/stream`.

    The first message is JSON: `sample_rate`, `format` (s16le or f32le), `among`, and where keys are needed `key`. Then
    come binary messages of samples, and at the end the text `end`. Each answer is a decision in JSON; a problem
    document is the last message.
    """

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        service = service_of(socket.app)
        await socket.accept()
        try:
            await _converse(service, socket)
            await socket.close()
        except ProblemError as problem:
            await _end(socket, problem)
        except VoxportError as problem:
            await _end(socket, problem_of(problem))
        except (WebSocketDisconnect, RuntimeError):  # the client has gone
            return


async def _converse(service: Service, socket: WebSocket) -> None:
    check_host(service.options.host, service.options.keys, socket.headers)
    if service.turnstile.draining:
        raise ending()
    if service.streams >= service.limits.streams:
        raise busy(f"{service.streams} streams are open already")
    service.streams += 1
    try:
        opening = _opening(await _next(service, socket))
        if service.options.keys and not is_key(service.options.keys, str(opening.get("key", ""))):
            check_key(service.options.keys, socket.headers)
        kind, rate, among = opening["format"], opening["sample_rate"], opening["among"]
        scorer = await service.scorer(among)
        open_stream = await service.run(lambda: Stream(service.identifier, rate, scorer=scorer))
        seconds = 0.0
        while True:
            message = await _next(service, socket)
            if isinstance(message, str):
                if message != "end":
                    raise _wrong("text that is not `end`")
                break
            samples = _samples(message, kind)
            seconds += len(samples) / rate
            if seconds > service.limits.stream_seconds:
                raise _wrong(f"more than {service.limits.stream_seconds:g} s of sound")
            await _tell(socket, await asyncio.to_thread(open_stream.push, samples))
            service.metrics.heard(len(samples) / rate)
        await _tell(socket, await asyncio.to_thread(open_stream.close))
    finally:
        service.streams -= 1


async def _next(service: Service, socket: WebSocket) -> str | bytes:
    try:
        async with asyncio.timeout(service.limits.stream_idle_s):
            message = await socket.receive()
    except TimeoutError:
        detail = f"nothing came for {service.limits.stream_idle_s:g} s"
        raise ProblemError(408, "slow", "The stream is idle", detail) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    content: str | bytes = message["text"] if message.get("text") is not None else message.get("bytes") or b""
    if len(content) > MOST_AT_ONCE:
        raise ProblemError(413, "size", "The message is too long", f"at most {MOST_AT_ONCE:,} bytes are taken at once")
    return content


def _opening(message: str | bytes) -> dict[str, Any]:
    facts: Any = None
    with suppress(ValueError, RecursionError):
        facts = json.loads(message)
    if not isinstance(facts, dict):
        raise _wrong("a first message that is no JSON object with sample_rate and format")
    found: dict[str, Any] = {"format": "s16le", "among": "model"} | facts
    if found["format"] not in _TYPES or found["among"] not in ("model", "voices"):
        raise _wrong(f"format {found['format']!r:.40}, among {found['among']!r:.40}; see /openapi.json")
    rate = found.get("sample_rate")
    if isinstance(rate, bool) or not isinstance(rate, int):
        raise _wrong(f"sample_rate {rate!r:.40}; it is a whole number of Hz")
    return found


def _samples(message: bytes, kind: str) -> Any:
    if len(message) % np.dtype(_TYPES[kind]).itemsize:
        raise _wrong("a part of a sample")
    return np.frombuffer(message, _TYPES[kind])


async def _tell(socket: WebSocket, decisions: tuple[Decision, ...]) -> None:
    for each in decisions:
        await socket.send_json({"speaker": each.speaker} | encode(each))


def _wrong(found: str) -> ProblemError:
    return ProblemError(422, "message", "A message is wrong", f"found {found}")


async def _end(socket: WebSocket, problem: ProblemError) -> None:
    try:
        await socket.send_json(problem.document())
        await socket.close(1013 if problem.status == 503 else 1008)
    except (WebSocketDisconnect, RuntimeError):
        return
