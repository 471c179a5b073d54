"""Where a service runs: in this process, or as replicas of Ray Serve."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from voxport.runtime.backends.formats import read_contract
from voxport.scale.cluster import ClusterOptions, import_ray, ray_cluster
from voxport.scale.errors import ScaleError
from voxport.scale.service.answers import Service
from voxport.scale.service.app import create_app
from voxport.scale.service.options import ServiceOptions

Told = Callable[[str], None]


def serve(options: ServiceOptions, told: Told) -> None:
    """Serve until SIGINT or SIGTERM comes; what is at work then is answered first. `told` hears when it is ready.

    Raises:
        ScaleError: the port is taken, Ray does not start, or the store does not answer.
        ContractError, BackendError: the model cannot be loaded.
    """
    read_contract(options.model)
    if options.engine == "local":
        _serve_here(options, told)
    else:
        _serve_on_ray(options, told)


# --- one process --------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """A server that takes no new work once it is to end, and ends when what it has is answered."""

    def __init__(self, config: uvicorn.Config, service: Service, told: Told) -> None:
        super().__init__(config)
        self._service, self._told = service, told

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._told(_where(self._service.options))

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._service.turnstile.draining:  # asked twice
            self.force_exit = True
            self.should_exit = True
            return
        self._service.turnstile.draining = True
        self._told("ending: what is at work is answered first")
        asyncio.get_running_loop().create_task(self._drain()) if _in_loop() else self._end()

    async def _drain(self) -> None:
        await self._service.turnstile.empty(self._service.options.drain_s)
        self._end()

    def _end(self) -> None:
        self.should_exit = True


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def make_server(options: ServiceOptions, told: Told = lambda line: None) -> uvicorn.Server:
    """A server of one process, with its model loaded; `run` it. Raises as loading does."""
    service = Service(options)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        service.loop = asyncio.get_running_loop()
        yield
        await service.close()

    config = uvicorn.Config(
        create_app(service, life),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(options.drain_s) + 1,
        limit_concurrency=None,
        ws="websockets-sansio",  # what older releases choose by themselves, websockets has given up
        ws_max_size=1 << 20,
        h11_max_incomplete_event_size=1 << 16,
    )
    return _Server(config, service, told)


def _serve_here(options: ServiceOptions, told: Told) -> None:
    server = make_server(options, told)
    server.run()
    if not server.started:
        raise ScaleError(f"{options.host}:{options.port} cannot be listened on; is another service there? --port N")


# --- Ray Serve ----------------------------------------------------------------------------------------


def _serve_on_ray(options: ServiceOptions, told: Told) -> None:
    cluster = ClusterOptions(options.address, options.replicas * options.threads + 1)
    import_ray(cluster)
    from ray import serve as ray_serve

    on_gpu = options.device in ("cuda", "tensorrt")
    absolute = Path(os.path.abspath(options.model))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with ray_cluster(cluster):
        replica = _replica_class(ray_serve, _moved(options, absolute))
        deployment = ray_serve.deployment(
            name="voxport",
            num_replicas=options.replicas,
            # The replica turns away what is too much, in a problem document; Ray's own limits lie above.
            max_ongoing_requests=2 * options.limits.queue,
            graceful_shutdown_timeout_s=options.drain_s,
            graceful_shutdown_wait_loop_s=0.1,
            health_check_period_s=5,
            ray_actor_options={"num_cpus": options.threads, "num_gpus": int(on_gpu)},
        )(replica)
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options={"host": options.host, "port": options.port, "request_timeout_s": None},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        ray_serve.run(deployment.bind(), name="voxport", route_prefix="/", logging_config={"log_level": "ERROR"})
        told(_where(options))
        _until_told()
        told("ending: what is at work is answered first")
        ray_serve.delete("voxport")
        ray_serve.shutdown()  # type: ignore[no-untyped-call]


def _moved(options: ServiceOptions, model: Path) -> ServiceOptions:
    import dataclasses

    store = options.store
    if store is not None and not store.startswith(("postgresql://", "postgres://")):
        store = os.path.abspath(store.removeprefix("sqlite:///"))
    return dataclasses.replace(options, model=model, store=store)


def _replica_class(ray_serve: Any, options: ServiceOptions) -> Any:
    app = create_app()

    @ray_serve.ingress(app)
    class Replica:
        """A process with a model, which answers what the proxy passes on."""

        def __init__(self) -> None:
            self._service = Service(options)
            Service.of_process = self._service

        def check_health(self) -> None:
            if self._service.turnstile.draining:
                raise RuntimeError("the replica ends")

        async def __del__(self) -> None:
            await self._service.close()

    return Replica


def _until_told() -> None:
    """Wait for SIGINT or SIGTERM."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stop.wait(1.0):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _where(options: ServiceOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"ready: http://{host}:{options.port}"
