"""What the table of formats gets from OpenVINO's engine: how an ONNX model is loaded in it."""

import os

from voxport.runtime.backends.onnxrt.file import contract_of, read_onnx
from voxport.runtime.backends.options import BackendOptions, Loaded, Path
from voxport.runtime.backends.ov.session import Computed
from voxport.runtime.contract import METADATA_KEY, Precision
from voxport.runtime.errors import BackendError


def load(path: Path, options: BackendOptions, verify: bool) -> Loaded:
    """On the CPU. A file that is wrong is reported before a missing package."""
    from voxport.runtime.backends.ov.model import OpenVinoModel
    from voxport.runtime.backends.ov.session import OpenVinoOptions

    computed = _computed(contract_of(read_onnx(path, METADATA_KEY), path).precision, options.precision, os.fspath(path))
    chosen = OpenVinoOptions(options.threads, options.streams, computed, options.cache)
    return Loaded(OpenVinoModel.load(path, chosen, verify=verify), "runtime 'openvino' was asked for")


def _computed(own: Precision, wanted: str | None, where: str) -> Computed:
    """What float32 in the file is computed in. Raises BackendError where that is not what `wanted` asks for."""
    if wanted in (None, own):
        return "fp32"
    if wanted == "bf16" or (own, wanted) == ("fp32", "fp16"):
        return "bf16" if wanted == "bf16" else "fp16"
    raise BackendError(f"{where}: precision {wanted} was asked for, the model is {own}; export it in {wanted}")
