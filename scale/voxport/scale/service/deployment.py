"""Where a service runs: in this process, or as replicas of Ray Serve."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from voxport.runtime.backends.formats import read_contract
from voxport.scale.cluster import ClusterOptions, import_ray, ray_cluster
from voxport.scale.errors import ScaleError
from voxport.scale.service import proxy
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


class ServiceServer(uvicorn.Server):
    """A server that takes no new work once it is to end, and ends when what it has is answered."""

    def __init__(self, config: uvicorn.Config, service: Service, told: Told) -> None:
        super().__init__(config)
        self._service, self._told = service, told
        self._rpc: Any = None  # a server of gRPC, where one is asked for
        self.problem: ScaleError | None = None

    async def startup(self, sockets: Any = None) -> None:
        options = self._service.options
        if options.grpc_port is not None:
            from voxport.scale.service.kserve import rpc

            try:
                self._rpc = await rpc.start(self._service, options)
            except ScaleError as problem:
                self.problem, self.should_exit = problem, True
                await self._service.close()
                return
        await super().startup(sockets)
        if self.started:
            self._told(_where(options))

    async def shutdown(self, sockets: Any = None) -> None:
        if self._rpc is not None:
            await self._rpc.stop(self._service.options.drain_s)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        turnstile = self._service.turnstile
        if not turnstile.ready:  # asked twice
            self.force_exit = True
            self.should_exit = True
            return
        turnstile.leaving = True
        self._told(_ending(self._service.options))
        asyncio.get_running_loop().create_task(self._leave()) if _in_loop() else self._end()

    async def _leave(self) -> None:
        options, turnstile = self._service.options, self._service.turnstile
        await asyncio.sleep(options.shutdown_delay_s)
        turnstile.draining = True
        await turnstile.empty(options.drain_s)
        self._end()

    def _end(self) -> None:
        self.should_exit = True


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def make_server(options: ServiceOptions, told: Told = lambda line: None) -> ServiceServer:
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
    return ServiceServer(config, service, told)


def _serve_here(options: ServiceOptions, told: Told) -> None:
    server = make_server(options, told)
    server.run()
    if server.problem is not None:
        raise server.problem
    if not server.started:
        raise ScaleError(f"{options.host}:{options.port} cannot be listened on; is another service there? --port N")


# --- Ray Serve ----------------------------------------------------------------------------------------


def _serve_on_ray(options: ServiceOptions, told: Told) -> None:
    cluster = ClusterOptions(options.address, options.replicas * options.threads + 1)
    os.environ.setdefault(proxy.VARIABLE, proxy.IMPORT_PATH)  # which Ray's processes of this machine inherit
    import_ray(cluster)
    from ray import serve as ray_serve

    from voxport.scale.service.replicas import application, grpc_options

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with ray_cluster(cluster):
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options={"host": options.host, "port": options.port, "request_timeout_s": None},
            grpc_options=grpc_options(options.grpc_port),
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        ray_serve.run(application(options), name="voxport", route_prefix="/", logging_config={"log_level": "ERROR"})
        told(_where(options))
        _until_told()
        told(_ending(options))
        time.sleep(options.shutdown_delay_s)  # the proxy takes requests as before
        ray_serve.delete("voxport")
        ray_serve.shutdown()  # type: ignore[no-untyped-call]


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


def _ending(options: ServiceOptions) -> str:
    still = f"requests are taken for {options.shutdown_delay_s:g} s more, then " if options.shutdown_delay_s else ""
    return f"ending: {still}what is at work is answered first"


def _where(options: ServiceOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"ready: http://{host}:{options.port}"
