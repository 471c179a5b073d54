"""What stands in Ray's proxy, over applications that fail as Ray's proxy does."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("starlette")

from voxport.scale.service.problems import MEDIA_TYPE, SAFE
from voxport.scale.service.proxy import _KEPT, TRIES, Again, middlewares

OURS = [(b"content-type", b"application/json"), (SAFE.lower().encode(), b"nosniff")]
RAYS = [(b"content-type", b"text/plain")]
Turn = Sequence[dict[str, Any]]


def answer(status: int, body: bytes, headers: Any) -> list[dict[str, Any]]:
    """An answer as the replicas give it: in pieces."""
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": True},
        {"type": "http.response.body", "body": b""},
    ]


DIED = answer(500, b"The actor died unexpectedly before finishing this task.", RAYS)
GOOD = answer(200, b'{"speaker": "Ada"}', OURS)


class Proxy:
    """Answers by turns, each after it has read all of the request, as Ray's proxy does."""

    def __init__(self, *turns: Turn) -> None:
        self._turns = list(turns)
        self.heard: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.heard.append(body)
        waiting = asyncio.create_task(receive())  # it also waits for the client to go, until it is cancelled
        await asyncio.sleep(0)
        for message in self._turns.pop(0):
            await send(message)
        waiting.cancel()


def ask(
    proxy: Callable[..., Any], method: str = "POST", path: str = "/v1/identify", body: Sequence[bytes] = (b"RI", b"FF")
) -> list[dict[str, Any]]:
    """The messages that a client gets."""
    got: list[dict[str, Any]] = []
    pieces = [{"type": "http.request", "body": each, "more_body": True} for each in body[:-1]]
    pieces.append({"type": "http.request", "body": body[-1], "more_body": False})

    async def receive() -> dict[str, Any]:
        if pieces:
            return pieces.pop(0)
        await asyncio.sleep(60)  # a client that waits for its answer
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        got.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "server": ("one", 80)}
    asyncio.run(Again(proxy)(scope, receive, send))  # type: ignore[arg-type]
    return got


def whole(messages: list[dict[str, Any]]) -> tuple[int, dict[str, str], bytes]:
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], headers, b"".join(each["body"] for each in messages[1:])


def problem(messages: list[dict[str, Any]], kind: str) -> None:
    status, headers, body = whole(messages)
    assert status == 503
    assert headers["content-type"] == MEDIA_TYPE
    assert headers["retry-after"] == "1"
    assert json.loads(body)["type"] == f"urn:voxport:{kind}"


def test_a_request_whose_replica_dies_is_asked_again_with_its_whole_body() -> None:
    proxy = Proxy(DIED, GOOD)
    assert ask(proxy) == GOOD
    assert proxy.heard == [b"RIFF", b"RIFF"]


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_an_answer_that_breaks_off_is_no_answer(seen: int) -> None:
    assert ask(Proxy(GOOD[:seen], GOOD)) == GOOD


def test_a_request_that_ends_every_replica_is_told_so_and_ends_no_more() -> None:
    proxy = Proxy(*[DIED] * TRIES)
    problem(ask(proxy), "replica")
    assert len(proxy.heard) == TRIES


def test_what_is_no_replicas_yet_or_any_more_is_told_as_the_end() -> None:
    for status in (404, 503):
        proxy = Proxy(answer(status, b"Path '/' not found.", RAYS))
        problem(ask(proxy), "draining")
        assert len(proxy.heard) == 1
    messages = ask(Proxy(answer(404, b"", RAYS)), path="/v2/models/voxport/infer")
    assert "error" in json.loads(whole(messages)[2]), "where KServe's clients look"


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
def test_what_a_replica_says_is_passed_on(status: int) -> None:
    said = answer(status, b'{"title": "mine"}', OURS)
    assert ask(Proxy(said)) == said


def test_a_removal_is_not_asked_twice() -> None:
    proxy = Proxy(DIED, GOOD)
    problem(ask(proxy, "DELETE", "/v1/voices/Ada"), "replica")
    assert len(proxy.heard) == 1


def test_a_long_request_is_asked_once() -> None:
    proxy = Proxy(DIED, GOOD)
    problem(ask(proxy, body=[b"a" * (_KEPT // 2), b"b" * (_KEPT // 2), b"c"]), "replica")
    assert [len(each) for each in proxy.heard] == [_KEPT // 2 * 2 + 1]
    proxy = Proxy(GOOD)
    assert ask(proxy, body=[b"a" * _KEPT, b"b"]) == GOOD
    assert proxy.heard == [b"a" * _KEPT + b"b"], "and is passed on whole"


def test_a_long_answer_is_not_held() -> None:
    long = answer(200, b"a" * (_KEPT + 1), OURS)
    assert ask(Proxy(long)) == long


def test_a_client_that_has_gone_is_not_answered() -> None:
    proxy = Proxy(DIED, GOOD)
    got: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        got.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/identify", "headers": [], "query_string": b""}
    asyncio.run(Again(proxy)(scope, receive, send))
    assert got == []


def test_what_is_the_proxys_own_is_left_alone() -> None:
    said = answer(500, b"no replica is healthy", RAYS)
    assert ask(Proxy(said), "GET", "/-/healthz") == said
    (one,) = middlewares()
    assert isinstance(one.cls(Proxy()), Again)  # type: ignore[call-arg]
