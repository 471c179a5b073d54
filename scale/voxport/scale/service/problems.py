"""Errors as problem documents (RFC 9457): what is wrong, in words for people and a type for programs."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from voxport.runtime.errors import (
    AudioError,
    BackendError,
    BatcherClosedError,
    ChannelError,
    GalleryError,
    LengthError,
    NoSpeechError,
    QueueFullError,
    VoxportError,
)

MEDIA_TYPE = "application/problem+json"
SAFE = "X-Content-Type-Options"  # every answer of a replica has it, and none that Ray's proxy makes itself
_RETRY_S = "1"


@dataclass
class ProblemError(Exception):
    """A problem that a client is told. `type` is the last word of its URI, `urn:voxport:TYPE`."""

    status: int
    type: str
    title: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The members of RFC 9457."""
        return {
            "type": f"urn:voxport:{self.type}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }


_KINDS: tuple[tuple[type[VoxportError], int, str, str], ...] = (
    (ChannelError, 422, "channels", "The channels hold different sounds"),
    (NoSpeechError, 422, "no-speech", "Nobody speaks"),
    (AudioError, 422, "sound", "The sound cannot be used"),
    (LengthError, 422, "length", "The sound is too short or too long"),
    (GalleryError, 422, "voices", "The voice cannot be used"),
    (QueueFullError, 503, "busy", "Too many requests wait"),
    (BatcherClosedError, 503, "draining", "The service ends"),
    (BackendError, 415, "format", "The format cannot be read here"),
    (VoxportError, 422, "request", "The request cannot be answered"),
)


def problem_of(error: VoxportError, named: str | None = None) -> ProblemError:
    """What a client is told of an error of the runtime; `named` is a file's name, which is not the client's."""
    for kind, status, name, title in _KINDS:
        if isinstance(error, kind):
            detail = str(error) if named is None else str(error).replace(f"{named}: ", "").replace(named, "the sound")
            headers = {"Retry-After": _RETRY_S} if status == 503 else {}
            return ProblemError(status, name, title, detail, headers)
    raise AssertionError("VoxportError is the last kind")


def busy(detail: str) -> ProblemError:
    """Come back later."""
    return ProblemError(503, "busy", "Too many requests wait", detail, {"Retry-After": _RETRY_S})


def ending() -> ProblemError:
    """This replica takes no more requests."""
    return ProblemError(503, "draining", "The service ends", "ask another replica", {"Retry-After": _RETRY_S})


def unknown(detail: str) -> ProblemError:
    """No such voice, model or page."""
    return ProblemError(404, "unknown", "There is no such thing", detail)


def reply(problem: ProblemError, request: Request) -> JSONResponse:
    """The response that tells a problem; clients of KServe's protocol look for it in a member `error`."""
    document = problem.document()
    if request.url.path.startswith("/v2/"):
        document["error"] = problem.detail
    return JSONResponse(document, problem.status, {SAFE: "nosniff"} | problem.headers, MEDIA_TYPE)


def tell_problems(app: FastAPI) -> None:
    """Have every error of `app` told as a problem document."""

    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> JSONResponse:
        return reply(error, request)

    @app.exception_handler(VoxportError)
    async def ours(request: Request, error: VoxportError) -> JSONResponse:
        return reply(problem_of(error), request)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
        return reply(ProblemError(422, "parameter", "A parameter is wrong", wrong), request)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        titles = {404: "There is no such page", 405: "The page takes another method"}
        title = titles.get(error.status_code, str(error.detail))
        return reply(
            ProblemError(error.status_code, "http", title, str(error.detail), dict(error.headers or {})), request
        )

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        # What happened stands in the log, and is nobody else's business.
        return reply(
            ProblemError(500, "fault", "The service is at fault", "an unexpected error; the log has it"), request
        )
