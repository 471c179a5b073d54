"""What the table of formats gets from ONNX Runtime's engine; see `options.Entry`."""

import os

from voxport.runtime.backends.onnxrt.file import contract_of, read_onnx
from voxport.runtime.backends.options import BackendOptions, Loaded, ModelFile, Path, own_precision
from voxport.runtime.contract import METADATA_KEY, Contract
from voxport.runtime.errors import BackendError
from voxport.runtime.storage.seal import SEAL_KEY, check_seal, rewritten


def contract(path: Path) -> Contract:
    """The contract among the file's metadata."""
    return contract_of(read_onnx(path, METADATA_KEY), path)


def describe(path: Path) -> ModelFile:
    """Metadata and tensors of the file."""
    file = read_onnx(path, METADATA_KEY, graph=True)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in file.opsets)
    details = {"ir_version": file.ir_version, "opsets": dict(file.opsets), "producer": file.producer}
    title = f"ONNX, IR version {file.ir_version}, opset {opsets}"
    rows = (("written by", file.producer or "not said"),)
    return ModelFile("onnx", title, contract_of(file, path), file.inputs, file.outputs, details, rows)


def check_digest(path: Path) -> bool:
    """Whether the file ends in its digest."""
    if check_seal(path):
        return True
    if read_onnx(path, SEAL_KEY).contract is not None:
        raise rewritten(os.fspath(path))
    return False


def load(path: Path, options: BackendOptions, verify: bool) -> Loaded:
    """On the requested device. "auto": on the GPU where that starts, else on the CPU.

    A file that is wrong is refused on the GPU and not tried again on the CPU.
    """
    from voxport.runtime.backends.onnxrt.model import OnnxModel
    from voxport.runtime.backends.onnxrt.session import Device, OnnxOptions, import_onnxruntime

    def on(device: Device, why: str) -> Loaded:
        onnx = OnnxOptions(device, options.threads, options.max_batch, own_precision(options), options.cache)
        return Loaded(OnnxModel.load(path, onnx, verify=verify), why)

    if options.device != "auto":
        return on(options.device, f"device {options.device!r} was asked for")
    try:
        runtime = import_onnxruntime("cpu")
    except BackendError:
        contract(path)  # a wrong file is reported before a missing package
        raise
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return on("cpu", "auto: this onnxruntime is built for the CPU alone")
    try:
        return on("cuda", "auto: onnxruntime starts on the GPU")
    except BackendError as problem:
        return on("cpu", f"auto: the GPU cannot be used ({problem})")
