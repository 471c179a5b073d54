"""What stands in Ray's HTTP proxy before the replicas: a request whose replica dies is asked again, or told so.

Ray Serve's proxy answers by itself where a replica dies over a request (500), where none is there yet or any more
(404, 503), and in its own words. It calls `middlewares` when it starts, if RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH
says so in its environment.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request

from voxport.scale.service.problems import SAFE, ProblemError, reply

IMPORT_PATH = "voxport.scale.service.proxy.middlewares"
VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
TRIES = 2  # and no more: a request that itself ends a replica should not end all of them
_KEPT = 8_000_000  # bytes of a request, and of an answer, that are held; above that a request is asked only once
_AGAIN = ("GET", "HEAD", "POST", "PUT")  # none changes anything when it comes twice: one utterance counts once

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def middlewares() -> list[Middleware]:
    """For Ray's proxy, which calls this by its import path."""
    return [Middleware(Again)]


class Again:
    """Asks the replicas again where Ray's proxy has failed, before the client has seen anything of it."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request; `/-/` is the proxy's own."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        for _ in range(TRIES if scope["method"] in _AGAIN else 1):
            answer = _Answer(send)
            await self._app(dict(scope), body.again(), answer)
            if answer.passed or body.gone:
                return
            if answer.whole and not answer.of_the_proxy:
                await answer.release()
                return
            if answer.status != 500 and answer.whole:  # no replica had it
                break
            if body.lost:
                break
        await reply(_problem(answer), Request(scope))(scope, receive, send)


class _Body:
    """A request's messages, which may be received again."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._messages = receive, list[Message]()
        self._size = 0
        self.gone = False  # the client
        self.lost = False  # a part of it is not kept

    def again(self) -> Receive:
        """Receives from the beginning."""
        at = 0

        async def receive() -> Message:
            nonlocal at
            if at < len(self._messages):
                at += 1
                return self._messages[at - 1]
            message = await self._receive()
            if message["type"] != "http.request":
                self.gone = True
                return message
            self._size += len(message.get("body", b""))
            if self._size > _KEPT:
                self.lost = True
                self._messages.clear()
            if not self.lost:
                self._messages.append(message)
                at += 1
            return message

        return receive


class _Answer:
    """An answer that is held back until it is whole, or too long to be held."""

    def __init__(self, send: Send) -> None:
        self._send, self._messages = send, list[Message]()
        self._size = 0
        self.status = 0
        self.whole = False
        self.of_the_proxy = False
        self.passed = False  # the client has seen some of it

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            names = {name.lower() for name, _ in message.get("headers", ())}
            self.of_the_proxy = self.status >= 400 and SAFE.lower().encode() not in names
        if self.passed:
            await self._send(message)
            return
        self._messages.append(message)
        self._size += len(message.get("body", b""))
        self.whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        if self._size > _KEPT:
            await self.release()

    async def release(self) -> None:
        """Pass on what was held back, and all that follows."""
        self.passed = True
        for message in self._messages:
            await self._send(message)
        self._messages.clear()


def _problem(answer: _Answer) -> ProblemError:
    if answer.status in (404, 503) and answer.whole:
        detail, kind = "no replica takes requests: the service begins or ends", "draining"
    else:
        detail, kind = "the replica that had the request died; it may be sent again", "replica"
    return ProblemError(503, kind, "The service cannot answer now", detail, {"Retry-After": "1"})
