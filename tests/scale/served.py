"""A service in a thread of the test's own process, and how it is asked."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.scale.service.deployment import make_server
from voxport.scale.service.options import ServiceOptions


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    """Ask a service of this machine; `_` in a header's name is `-`."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())


@dataclass
class Served:
    """A service that runs."""

    port: int
    server: Any
    options: ServiceOptions

    @property
    def service(self) -> Any:
        return self.server.config.app.state.service

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        return ask(self.port, method, path, body, **headers)

    def post(self, path: str, sound: Path, **headers: str) -> Any:
        reply = self.ask("POST", path, sound.read_bytes(), **headers)
        assert reply.status == 200, reply.body
        return reply.document


@contextlib.contextmanager
def running(options: ServiceOptions) -> Iterator[Served]:
    """Serve until the block ends; what is at work is answered."""
    server = make_server(options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield Served(server.servers[0].sockets[0].getsockname()[1], server, options)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
