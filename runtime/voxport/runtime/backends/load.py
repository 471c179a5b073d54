"""Load a model file with the engine of its format, on the device that was requested."""

import dataclasses
import os

from voxport.runtime.backends.formats import Format, OtherEngine, describe, format_of
from voxport.runtime.backends.options import BackendOptions, Loaded, LoadedBackend
from voxport.runtime.backends.tuned import resolve_tuned
from voxport.runtime.errors import BackendError


def load_backend(
    path: str | os.PathLike[str], options: BackendOptions | None = None, *, verify: bool = True
) -> LoadedBackend:
    """Load the model file `path`: ONNX, TorchScript, .pt2, a TensorRT plan or an RTX engine with its JSON file.

    A folder that `voxport tune` wrote is loaded as it was tuned, but for what `options` say.

    `verify` replays the golden vector.

    Raises:
        ContractError: the file is missing, damaged, of a kind that is not supported, or no longer true.
        BackendError: the device, a package or the precision that was asked for is not there.
    """
    return load_explained(path, options, verify=verify).backend


def load_explained(
    path: str | os.PathLike[str], options: BackendOptions | None = None, *, verify: bool = True
) -> Loaded:
    """Like `load_backend`, with the reason for the device."""
    chosen = options or BackendOptions()
    if os.path.isdir(path):
        model, chosen, why = resolve_tuned(path, chosen, verify)
        return dataclasses.replace(load_explained(model, chosen, verify=verify), why=why)
    found = format_of(path)
    engine: Format | OtherEngine = found
    if chosen.runtime not in (None, found.modules[0]):
        others = [each for each in found.others if each.runtime == chosen.runtime]
        if not others:
            raise BackendError(
                f"{os.fspath(path)}: {found.title} does not run in {chosen.runtime}; leave the runtime out, or load "
                "the ONNX model"
            )
        engine = others[0]
    if chosen.device not in ("auto", *engine.devices):
        runs = ", ".join(repr(device) for device in engine.devices)
        which = f"{found.title} in {engine.title}" if isinstance(engine, OtherEngine) else found.title
        raise BackendError(
            f"{os.fspath(path)}: {which} cannot run on device {chosen.device!r}; ask for {runs} or 'auto'"
            + ("" if found.name == "onnx" else ", or load the ONNX model")
        )
    return engine.entry.load(path, chosen, verify)


def load_reference(path: str | os.PathLike[str]) -> LoadedBackend:
    """Load a model file where its proof holds for certain: on the CPU, unless it was compiled for another device.

    Its golden vector is not replayed. Raises as `load_backend` does.
    """
    return load_backend(path, BackendOptions("auto" if describe(path).one_device else "cpu"), verify=False)
