"""The process that gives TensorRT a file: `python -m voxport.export.targets.rtx.worker`, a request on stdin.

A file from a stranger may crash a parser written in C++. So this process does nothing else, and what it found goes
to the caller as JSON; the library's own prints go nowhere. Source of the calls: the docstrings of tensorrt_rtx 1.7.
"""

import json
import os
import sys
from typing import Any

from voxport.export.targets.rtx.network import describe, error_facts
from voxport.runtime.backends.rtx.library import capability_names

_TROUBLE = ("WARNING", "ERROR", "INTERNAL_ERROR")


def main() -> None:
    """Answer the one request: `path`, `capability` or null for no build, and `profiles`."""
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # the parser prints to the C library's stdout
    request = json.loads(sys.stdin.buffer.read())
    _limit(request["memory"])
    told = json.dumps(examine(request["path"], request["capability"], request["profiles"]))
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(told.encode())


def _limit(memory: int) -> None:
    """Take at most `memory` bytes besides the library's own, so that a hostile file cannot take all; not on Windows."""
    import tensorrt_rtx  # noqa: F401, its hundreds of megabytes are mapped before they would count

    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))


def examine(path: str, capability: str | None, profiles: list[dict[str, Any]]) -> dict[str, Any]:
    """Parse the file, describe the network, and build it for `capability` with `profiles` unless that is None.

    Each profile has for each input its smallest, tuned and largest shape; for a shape tensor, its values.
    """
    import tensorrt_rtx as trt

    messages: list[tuple[str, str]] = []

    class Log(trt.ILogger):  # type: ignore[misc] # the package has no annotations
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in _TROUBLE:
                messages.append((severity.name, str(message).strip()))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = bool(parser.parse_from_file(path))
    found: dict[str, Any] = {
        "version": str(trt.__version__),
        "parsed": parsed,
        "errors": [error_facts(parser.get_error(index)) for index in range(parser.num_errors)],
        "parser_messages": list(messages),
        "built": None,
        "engine_bytes": None,
        "builder_messages": [],
    }
    if not parsed:
        return {**found, **_nothing()}
    found |= describe(network)
    if capability is not None and network.num_outputs:
        messages.clear()
        engine = _build(builder, network, getattr(trt.ComputeCapability, capability_names()[capability]), profiles)
        found |= {
            "built": engine is not None,
            "engine_bytes": engine.nbytes if engine is not None else None,
            "builder_messages": messages,
        }
    return found


def _nothing() -> dict[str, Any]:
    return {"layers": 0, "products": [], "inputs": [], "outputs": []}


def _build(builder: Any, network: Any, capability: Any, profiles: list[dict[str, Any]]) -> Any:
    """The engine's bytes, or None; the log tells why."""
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capability, 0):
        return None
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name, spans in shapes.items():
            tensor = inputs.get(name)
            if tensor is None:
                continue
            if tensor.is_shape_tensor:
                profile.set_shape_input(name, *map(list, spans))
            elif -1 in tuple(tensor.shape):
                profile.set_shape(name, *map(tuple, spans))
        if not profile or config.add_optimization_profile(profile) < 0:
            return None
    engine = builder.build_serialized_network(network, config)
    return None if engine is None else memoryview(engine)


if __name__ == "__main__":
    main()
