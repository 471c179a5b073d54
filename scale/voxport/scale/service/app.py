"""The pages of the service: FastAPI's routes over a `Service`, the same in one process and behind Ray Serve."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response

from voxport.runtime.audio.channels import ChannelChoice, parse_channel
from voxport.runtime.errors import AudioError
from voxport.runtime.storage.serialization import encode
from voxport.scale.service.answers import Among, Service, service_of
from voxport.scale.service.doors import body_file, check_host, check_key
from voxport.scale.service.kserve.rest import add_kserve
from voxport.scale.service.metrics import CONTENT_TYPE
from voxport.scale.service.problems import SAFE, ProblemError, ending, reply, tell_problems, unknown
from voxport.scale.service.streams import add_streams

_PAGE = {"index.html": "text/html", "app.js": "text/javascript", "wave.js": "text/javascript", "style.css": "text/css"}
_SECURE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    SAFE: "nosniff",
    "Referrer-Policy": "no-referrer",
}
_SOUND = {
    "requestBody": {
        "required": True,
        "description": "A sound file: wav, flac, ogg, mp3, and with the extra `media` m4a, WebM and others.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
Life = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def _channel(channel: Annotated[str | None, Query(description="A number from 1, mix or each.")] = None) -> Any:
    if channel is None:
        return None
    try:
        return parse_channel(channel)
    except AudioError as problem:
        raise ProblemError(422, "parameter", "A parameter is wrong", str(problem)) from problem


def _one_channel(channel: Annotated[Any, Depends(_channel)]) -> Any:
    if channel == "each":
        raise ProblemError(422, "parameter", "A parameter is wrong", "channel: one answer has one channel, or mix")
    return channel


def _service(request: Request) -> Service:
    return service_of(request.app)


Served = Annotated[Service, Depends(_service)]
OneChannel = Annotated[Any, Depends(_one_channel)]
Top = Annotated[int, Query(ge=1, le=1000, description="How many speakers are named.")]
Name = Annotated[str, Path(max_length=200, description="A speaker's name.")]


def create_app(service: Service | None = None, life: Life | None = None) -> FastAPI:
    """The application; without `service`, where Ray Serve copies it into replicas, it is that of the process."""
    app = FastAPI(title="voxport", version="1", docs_url=None, redoc_url=None, lifespan=life)
    app.state.service = service
    tell_problems(app)
    _add_doors(app)
    _add_health(app)
    _add_answers(app)
    _add_voices(app)
    add_kserve(app)
    add_streams(app)
    _add_page(app)
    return app


def _add_doors(app: FastAPI) -> None:
    @app.middleware("http")
    async def doors(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        service = service_of(request.app)
        began, path = time.monotonic(), request.url.path
        try:
            check_host(service.options.host, service.options.keys, request.headers)
            if path.startswith(("/v1/", "/v2/models", "/metrics")):
                check_key(service.options.keys, request.headers)
            if request.method in ("POST", "PUT") and path.startswith(("/v1/", "/v2/")):
                async with service.turnstile.enter():
                    response = await go_on(request)
            else:
                response = await go_on(request)
        except ProblemError as problem:
            response = reply(problem, request)
        response.headers.update(_SECURE)
        if not service.turnstile.ready:
            response.headers["Connection"] = "close"  # the next request of this client goes to another replica
        route = request.scope.get("route")
        name = getattr(route, "path", "other")
        service.metrics.answered(name, response.status_code, time.monotonic() - began)
        service.metrics.at_work(service.turnstile.inside, service.streams)
        return response


def _add_health(app: FastAPI) -> None:
    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["health"])
    async def ready(service: Served) -> dict[str, str]:
        """Requests are taken: the model is loaded, and the service does not end."""
        if not service.turnstile.ready:
            raise ending()
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"])
    async def metrics(service: Served) -> Response:
        """What this replica has counted, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/v1/model", tags=["health"])
    async def model(service: Served) -> dict[str, Any]:
        """What the model says about itself, and what is taken."""
        return service.describe()


def _add_answers(app: FastAPI) -> None:
    @app.post("/v1/identify", tags=["answers"], openapi_extra=_SOUND)
    async def identify(
        request: Request, service: Served, channel: OneChannel, top: Top = 5, among: Among = "model"
    ) -> dict[str, Any]:
        """Who speaks, among the model's own speakers or the enrolled voices."""
        async with body_file(request, service.limits) as path:
            if among == "model":
                answer = await service.identify(path, top, channel)
                return {"speaker": answer.speaker} | _plain(answer)
            voice = await service.voice(path, channel)
        store = service.voices()
        matches = await service.run(lambda: store.gallery().identify(voice, top=top))
        return {"speaker": matches.speaker} | _plain(matches) | voice.heard()

    @app.post("/v1/embed", tags=["answers"], openapi_extra=_SOUND)
    async def embed(request: Request, service: Served, channel: OneChannel) -> dict[str, Any]:
        """The voice as a unit vector; two are compared by their dot product."""
        async with body_file(request, service.limits) as path:
            voice = await service.voice(path, channel)
        return {"embedding": voice.embedding.tolist()} | voice.heard()

    @app.post("/v1/verify", tags=["answers"], openapi_extra=_SOUND)
    async def verify(
        request: Request, service: Served, channel: OneChannel, speaker: Annotated[str, Query(max_length=200)]
    ) -> dict[str, Any]:
        """Whether it is that enrolled speaker."""
        async with body_file(request, service.limits) as path:
            voice = await service.spoken_voice(path, channel)
        store = service.voices()

        def work() -> Any:
            gallery = store.gallery()
            if speaker not in gallery.state.index:
                raise unknown(f"{speaker!r} is not enrolled")
            return gallery.verify(speaker, voice)

        return _plain(await service.run(work)) | voice.heard()

    @app.post("/v1/timeline", tags=["answers"], openapi_extra=_SOUND)
    async def timeline(
        request: Request, service: Served, channel: Annotated[Any, Depends(_channel)], among: Among = "model"
    ) -> dict[str, Any]:
        """Who speaks when."""
        choice: ChannelChoice | None = channel
        async with body_file(request, service.limits) as path:
            found = await service.timeline(path, among, choice)
        return {"segments": [encode(each) for each in found]}


def _add_voices(app: FastAPI) -> None:
    @app.get("/v1/voices", tags=["voices"])
    async def listed(service: Served) -> dict[str, Any]:
        """Who is enrolled, from how many utterances, and from which cosine on somebody is known."""
        store = service.voices()

        def work() -> dict[str, Any]:
            gallery = store.gallery()
            state = gallery.state
            pairs = zip(state.names, state.counts.tolist(), strict=True)
            return {
                "voices": [{"speaker": name, "utterances": count} for name, count in pairs],
                "thresholds": encode(state.thresholds),
            }

        return await service.run(work)

    @app.put("/v1/voices/{name:path}", tags=["voices"], openapi_extra=_SOUND)
    async def enroll(request: Request, service: Served, channel: OneChannel, name: Name) -> dict[str, Any]:
        """Enroll a voice from one more utterance; the very same one counts once."""
        async with body_file(request, service.limits) as path:
            voice = await service.spoken_voice(path, channel)
        store = service.voices()
        return _plain(await service.run(lambda: store.enroll(name, [voice]))) | voice.heard()

    @app.delete("/v1/voices/{name:path}", tags=["voices"], status_code=204)
    async def remove(service: Served, name: Name) -> Response:
        """Forget a voice and all that was kept of it."""
        store = service.voices()
        if name not in await service.run(lambda: store.gallery().state.index):
            raise unknown(f"{name!r} is not enrolled")
        await service.run(lambda: store.remove(name))
        return Response(status_code=204)

    @app.post("/v1/calibrate", tags=["voices"])
    async def calibrate(
        service: Served, false_accept_rate: Annotated[float, Query(gt=0, lt=1)] = 0.01
    ) -> dict[str, Any]:
        """Set the cosines from which on a voice is known, from the enrolled against each other."""
        store = service.voices()
        return _plain(await service.run(lambda: store.calibrate(false_accept_rate)))


def _add_page(app: FastAPI) -> None:
    folder = files("voxport.scale.service") / "page"

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response((folder / "index.html").read_bytes(), media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        if name not in _PAGE:
            raise unknown(f"no page {name:.80}")
        return Response((folder / name).read_bytes(), media_type=_PAGE[name])


def _plain(answer: object) -> dict[str, Any]:
    """A dataclass of the runtime as JSON holds it."""
    found: dict[str, Any] = encode(answer)
    return found
