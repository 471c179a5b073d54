"""Who may come in, with how much: API keys, hosts, the length of bodies, and how many at once."""

import asyncio
import hashlib
import hmac
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request

from voxport.scale.service.options import LOOPBACK, Limits
from voxport.scale.service.problems import ProblemError, busy, ending


def check_key(keys: Sequence[str], headers: Mapping[str, str]) -> None:
    """Raise ProblemError unless `Authorization: Bearer KEY` or `X-API-Key: KEY` holds one of `keys` (their SHA-256)."""
    if not keys:
        return
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not is_key(keys, given):
        raise ProblemError(
            401,
            "key",
            "An API key is needed",
            "send it as `Authorization: Bearer KEY`" if not given else "the API key is none that is known here",
            {"WWW-Authenticate": "Bearer"},
        )


def is_key(keys: Sequence[str], given: str) -> bool:
    """Whether `given` is one of the keys; takes as long whichever it is, and whether it is one."""
    digest = hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()
    found = False
    for key in keys:  # all of them: no early end
        found |= hmac.compare_digest(digest, key)
    return found


def check_host(bound: str, keys: Sequence[str], headers: Mapping[str, str]) -> None:
    """Refuse what a page of another site has a browser send here.

    Without keys a service on the loopback address trusts this machine, and every page that its users visit can send
    requests to it: under a name of its own, which then stands in Host, or with its own Origin.
    """
    host = _name(headers.get("host", ""))
    if bound in LOOPBACK and not keys and host not in LOOPBACK:
        raise ProblemError(
            403, "host", "This host is not served", f"the service answers for this machine, not for {host:.80}"
        )
    origin = headers.get("origin")
    if origin and origin != "null" and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        raise ProblemError(403, "origin", "Other sites may not ask here", f"the page that asks is of {origin:.80}")


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


class Turnstile:
    """How many requests are at work; more than allowed are turned away at once, before their bodies are read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.inside = 0
        self.leaving = False  # requests are still taken, and others should be asked
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return not (self.leaving or self.draining)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """A place for the time of the block; raises ProblemError where there is none."""
        if self.draining:
            raise ending()
        if self.inside >= self._most:
            raise busy(f"{self.inside} requests are at work already")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def empty(self, within_s: float) -> bool:
        """Wait until nobody is inside; whether that came to be in time."""
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(within_s):
                while self.inside:
                    await asyncio.sleep(0.02)
        return not self.inside


@asynccontextmanager
async def body_file(request: Request, limits: Limits) -> AsyncIterator[str]:
    """The request's body in a temporary file, whose name is given; raises ProblemError where it is too long or slow."""
    claimed = request.headers.get("content-length", "0")
    if claimed.isdigit() and int(claimed) > limits.max_bytes:
        raise _too_long(limits)
    handle, name = tempfile.mkstemp(prefix="voxport-")
    try:
        with os.fdopen(handle, "wb") as file:
            size = 0
            try:
                async with asyncio.timeout(limits.body_s):
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size > limits.max_bytes:
                            raise _too_long(limits)
                        file.write(chunk)
            except TimeoutError:
                raise ProblemError(
                    408, "slow", "The body came too slowly", f"it must be here within {limits.body_s:g} s"
                ) from None
        if not size:
            raise ProblemError(422, "sound", "The sound cannot be used", "the body is empty; send a sound file")
        yield name
    finally:
        with suppress(OSError):
            os.unlink(name)


def _too_long(limits: Limits) -> ProblemError:
    return ProblemError(413, "size", "The body is too long", f"at most {limits.max_bytes:,} bytes are taken")
