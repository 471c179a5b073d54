"""The service as an application of Ray Serve: for `voxport serve`, and for Serve's own configuration files."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from ray import serve as ray_serve
from ray.serve import config as ray_config

from voxport.runtime.backends.formats import read_contract
from voxport.scale.errors import ScaleError
from voxport.scale.service.answers import Service
from voxport.scale.service.app import create_app
from voxport.scale.service.options import ServiceOptions

_SERVICER = "voxport.scale.service.kserve.rpc.add_servicer"
# They belong to the proxy or the cluster; its configuration says them, not the application's arguments.
_NOT_OURS = ("engine", "address", "host", "port", "grpc_port", "replicas")


def build(choices: dict[str, Any]) -> Any:
    """The application for a configuration file of Ray Serve, with `args` named like options of `voxport serve`.

    `import_path: voxport.scale.service.replicas:build`, `args: {model: /models/model.onnx, store: postgresql://…}`.
    `model` and `store` are needed; every machine must see the model, and a file of `keys`, under the same path.

    Raises:
        ScaleError: an argument is missing or unknown, or a file cannot be read.
        ContractError: the model is none.
    """
    missing = [name for name in ("model", "store") if not choices.get(name)]
    if missing:
        raise ScaleError(f"args: {', '.join(missing)} must be given; replicas share a store: postgresql://…")
    theirs = [name for name in _NOT_OURS if name in choices]
    if theirs:
        raise ScaleError(f"args: {', '.join(theirs)} is said by the configuration of Ray Serve itself, not here")
    options = ServiceOptions.chosen(engine="ray", host="0.0.0.0", **choices)
    read_contract(options.model)
    return application(options)


def application(options: ServiceOptions) -> Any:
    """The service as a bound deployment of `options.replicas` replicas."""
    on_gpu = options.device in ("cuda", "tensorrt")
    deployment = ray_serve.deployment(
        name="voxport",
        num_replicas=options.replicas,
        # The replica turns away what is too much, in a problem document; Ray's own limits lie above.
        max_ongoing_requests=2 * options.limits.queue,
        graceful_shutdown_timeout_s=options.drain_s,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=5,
        ray_actor_options={"num_cpus": options.threads, "num_gpus": int(on_gpu)},
    )
    return deployment(_replica_class(_absolute(options))).bind()


def grpc_options(port: int | None) -> Any:
    """What Ray's proxy is told of gRPC; None: nothing."""
    return port and ray_config.gRPCOptions(port=port, grpc_servicer_functions=[_SERVICER])


def _absolute(options: ServiceOptions) -> ServiceOptions:
    store = options.store
    if store is not None and not store.startswith(("postgresql://", "postgres://")):
        store = os.path.abspath(store.removeprefix("sqlite:///"))
    return dataclasses.replace(options, model=Path(os.path.abspath(options.model)), store=store)


class _Bytes:
    """A message that is bytes already; Ray asks messages for them."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        return self._content


def _replica_class(options: ServiceOptions) -> Any:  # noqa: C901 - a method for each call, all alike
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

        # Ray calls the method that a gRPC call names.

        async def ServerLive(self, content: bytes, grpc_context: Any) -> _Bytes:  # noqa: N802
            return await self._rpc("ServerLive", content, grpc_context)

        async def ServerReady(self, content: bytes, grpc_context: Any) -> _Bytes:  # noqa: N802
            return await self._rpc("ServerReady", content, grpc_context)

        async def ServerMetadata(self, content: bytes, grpc_context: Any) -> _Bytes:  # noqa: N802
            return await self._rpc("ServerMetadata", content, grpc_context)

        async def ModelReady(self, content: bytes, grpc_context: Any) -> _Bytes:  # noqa: N802
            return await self._rpc("ModelReady", content, grpc_context)

        async def ModelMetadata(self, content: bytes, grpc_context: Any) -> _Bytes:  # noqa: N802
            return await self._rpc("ModelMetadata", content, grpc_context)

        async def ModelInfer(self, content: bytes, grpc_context: Any) -> _Bytes:  # noqa: N802
            return await self._rpc("ModelInfer", content, grpc_context)

        async def _rpc(self, method: str, content: bytes, context: Any) -> _Bytes:
            from voxport.scale.service.kserve import rpc

            headers = rpc.headers_of(context.invocation_metadata())
            found, code, detail = await rpc.answer(self._service, method, content, headers)
            if detail:
                context.set_code(code)
                context.set_details(detail)
            return _Bytes(found)

    return Replica
