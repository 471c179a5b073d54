"""What the operator of a service decides."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxport.scale.errors import ScaleError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """What one client may ask for. Whoever asks for more is told so in a problem document.

    `max_bytes` of a body, read within `body_s` seconds; `max_seconds` of sound; `answer_s` until the answer; `queue`
    requests at work at once in a replica, `timelines` of them timelines, which run one model call after another;
    `streams` open WebSockets, each closed after `stream_idle_s` without sound and `stream_seconds` of it.
    """

    max_bytes: int = 50_000_000
    max_seconds: float = 3600.0
    body_s: float = 60.0
    answer_s: float = 60.0
    queue: int = 128
    timelines: int = 2
    streams: int = 32
    stream_idle_s: float = 30.0
    stream_seconds: float = 14_400.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ScaleError(f"{name} must be above 0, found {value}")


@dataclass(frozen=True)
class ServiceOptions:
    """How a model is served.

    `store` is where voices are kept: the name of a SQLite file, `postgresql://…`, or None, which forgets them at the
    end and allows one replica. `keys` are SHA-256 of API keys in hexadecimal; none: everybody may ask. `replicas` are
    processes with a model each, of `threads` threads; a batch waits `max_wait_ms` for company.
    """

    model: Path
    store: str | None = None
    keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    engine: Literal["ray", "local"] = "ray"
    address: str | None = None
    replicas: int = 1
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "cpu"
    threads: int = 1
    max_batch: int = 16
    max_wait_ms: float = 5.0
    drain_s: float = 30.0
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.threads < 1:
            raise ScaleError("replicas and threads must be at least 1")
        if self.replicas > 1 and self.engine == "local":
            raise ScaleError("several replicas need engine ray: engine local is one process")
        if self.replicas > 1 and self.store is None:
            raise ScaleError("several replicas need a store that they share: a SQLite file, or postgresql://…")
