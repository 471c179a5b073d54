"""What the operator of a service decides."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxport.scale.errors import ScaleError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")


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
    processes with a model each, of `threads` threads; a batch waits `max_wait_ms` for company. `grpc_port` is that of
    KServe's protocol over gRPC; None: only HTTP. When the service is told to end, it goes on taking requests for
    `shutdown_delay_s`, in which it says that it is not ready, and then answers what is at work for at most `drain_s`.
    """

    model: Path
    store: str | None = None
    keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    engine: Literal["ray", "local"] = "ray"
    address: str | None = None
    replicas: int = 1
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "cpu"
    threads: int = 1
    max_batch: int = 16
    max_wait_ms: float = 5.0
    shutdown_delay_s: float = 0.0
    drain_s: float = 30.0
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.threads < 1:
            raise ScaleError("replicas and threads must be at least 1")
        if self.replicas > 1 and self.engine == "local":
            raise ScaleError("several replicas need engine ray: engine local is one process")
        if self.replicas > 1 and self.store is None:
            raise ScaleError("several replicas need a store that they share: a SQLite file, or postgresql://…")
        if self.grpc_port is not None and self.engine == "ray" and self.host not in EVERYWHERE:
            raise ScaleError(
                f"with engine ray gRPC is listened for on all addresses of the machine, not on {self.host} alone: "
                "say so with --host 0.0.0.0, or take --engine local"
            )

    @staticmethod
    def chosen(model: Path, *, keys: Path | None = None, **choices: Any) -> "ServiceOptions":
        """The options by the names that `voxport serve` has for them, `_` in place of `-`.

        Raises:
            ScaleError: a name or value that there is not, or a file of keys that cannot be read.
        """
        limits = {}
        try:
            for name, field in (("max_seconds", "max_seconds"), ("timeout", "answer_s"), ("queue", "queue")):
                if name in choices:
                    limits[field] = choices.pop(name)
            if "max_mb" in choices:
                limits["max_bytes"] = round(choices.pop("max_mb") * 1_000_000)
            for name in ("drain", "shutdown_delay"):
                if name in choices:
                    choices[f"{name}_s"] = choices.pop(name)
            return ServiceOptions(Path(model), keys=read_keys(keys), limits=Limits(**limits), **choices)
        except TypeError as problem:
            raise ScaleError(f"not options of the service: {problem}") from problem


def read_keys(path: Path | None) -> tuple[str, ...]:
    """SHA-256 of each key in a file; the keys themselves are not kept. Raises ScaleError."""
    if path is None:
        return ()
    try:
        found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise ScaleError(f"{path}: no readable file of keys ({problem})") from problem
    keys = [line for line in found if line and not line.startswith("#")]
    if not keys:
        raise ScaleError(f"{path}: holds no key; write one a line")
    if any(len(key) < 16 for key in keys):
        raise ScaleError(f"{path}: a key is shorter than 16 characters; make them with: openssl rand -hex 32")
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)
