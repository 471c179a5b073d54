"""Start a library in a process of its own: where it crashes or hangs, only that process does."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from voxport.runtime.backends.formats import FORMATS

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
BUILT_IN = (CPU, CUDA, TENSORRT)  # of ONNX Runtime, which says whether it has them

# An ONNX model, y = |x|, of one float: small enough to be written here, and enough to make a provider start.
MODEL = (
    "08073a320a0b0a017812017922034162731201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a"
    "00100d"
)
# With -c the working folder is on the path, and a torch.py in it would pass for the library.
_START = "import json, sys\nsys.path[:] = [entry for entry in sys.path if entry]\n"
_ONNXRUNTIME = f"""
from voxport.runtime.privacy import keep_private
keep_private()
import numpy, onnxruntime
provider = sys.argv[1]
try:
    from onnxruntime.capi import build_and_package_info as build
except ImportError:
    build = None
if provider != "{CPU}":
    getattr(onnxruntime, "preload_dlls", lambda: None)()
if provider == "{TENSORRT}":
    try:
        import tensorrt
    except ImportError:
        pass
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(bytes.fromhex("{MODEL}"), options, providers=[provider], enable_fallback=0)
if session.get_providers()[0] != provider:
    sys.exit(provider + " does not start, its session runs on " + session.get_providers()[0])
(answer,) = session.run(None, {{"x": numpy.float32([-2])}})
if answer.tolist() != [2.0]:
    sys.exit("it computes |-2| = " + str(answer.tolist()))
print(json.dumps({{
    "version": onnxruntime.__version__,
    "package": str(getattr(build, "package_name", "")),
    "cuda": str(getattr(build, "cuda_version", "") or ""),
    "providers": ", ".join(onnxruntime.get_available_providers()),
}}))
"""
_TORCH = """
import torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda or "", "devices": ""}
if torch.version.cuda:
    facts["cudnn"] = str(torch.backends.cudnn.version() or "")
    if torch.cuda.is_available():
        facts["devices"] = ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
print(json.dumps(facts))
"""
# Whether packages go together is tried, not read from their numbers. A failure is explained where it happens.
_IMPORTS = """
import importlib
from voxport.runtime.imports import explain_import
from voxport.runtime.privacy import import_openvino
facts = {}
for name in NAMES:
    try:
        module = import_openvino() if name == "openvino" else importlib.import_module(name)
    except Exception as problem:
        failure = explain_import(problem)
        if failure is None or failure.is_missing:
            raise
        between = [failure.package, *(failure.partner[:1] if failure.partner else [])]
        print(json.dumps({"between": between, "problem": failure.state, "mend": failure.command}))
        sys.exit(FAILED)
    facts[name] = str(getattr(module, "__version__", ""))
print(json.dumps(facts))
"""
_SOUND = """
import numpy, soundfile, soxr
soxr.resample(numpy.zeros(800, numpy.float32), 8000, 16000)
print(json.dumps({"libsndfile": soundfile.__libsndfile_version__}))
"""
_PLAN = """
import tensorrt
from voxport.runtime.backends.cuda import Cuda, cuda_module
Cuda(cuda_module()).close()
if tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)) is None:
    sys.exit("TensorRT gives no runtime")
print(json.dumps({"version": tensorrt.__version__}))
"""


_RTX_BUILDER = """
import tensorrt_rtx
if tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)) is None:
    sys.exit("TensorRT for RTX gives no builder")
print(json.dumps({"version": tensorrt_rtx.__version__}))
"""
_RTX = """
import tensorrt_rtx
from voxport.runtime.backends.rtx.library import PORTABLE
from voxport.runtime.backends.rtx.model import check_gpu
from voxport.runtime.errors import BackendError
try:
    check_gpu(PORTABLE)
except BackendError as problem:
    sys.exit(str(problem))
if tensorrt_rtx.Runtime(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)) is None:
    sys.exit("TensorRT for RTX gives no runtime")
print(json.dumps({"version": tensorrt_rtx.__version__}))
"""
_RTX_PROVIDER = f"""
from voxport.runtime.privacy import keep_private
keep_private()
import numpy, onnxruntime
from voxport.runtime.backends.onnxrt.rtx_provider import RTX, rtx_devices, rtx_version
from voxport.runtime.errors import BackendError
options = onnxruntime.SessionOptions()
try:
    options.add_provider_for_devices(rtx_devices(onnxruntime)[:1], {{}})
except BackendError as problem:
    sys.exit(str(problem))
session = onnxruntime.InferenceSession(bytes.fromhex("{MODEL}"), options)
if session.get_providers()[0] != RTX:
    sys.exit(RTX + " does not start, its session runs on " + session.get_providers()[0])
(answer,) = session.run(None, {{"x": numpy.float32([-2])}})
if answer.tolist() != [2.0]:
    sys.exit("it computes |-2| = " + str(answer.tolist()))
print(json.dumps({{"version": rtx_version()}}))
"""


_FAILED = 86  # the exit code of a script that has printed why


def _imports(*names: str) -> str:
    return f"NAMES, FAILED = {names!r}, {_FAILED}\n{_IMPORTS}"


@dataclass(frozen=True)
class Script:
    """What a probe runs, which modules must be there for it, and whether only a GPU makes it worth trying."""

    code: str
    modules: tuple[str, ...]
    gpu: bool = False


PROBES: dict[str, Script] = {
    "torch": Script(_TORCH, ("torch",)),
    "torchaudio": Script(_imports("torch", "torchaudio"), ("torch", "torchaudio")),
    "training": Script(
        _imports("torch", "torchmetrics", "pytorch_lightning", "sklearn.metrics", "matplotlib.pyplot"),
        ("torch", "torchmetrics", "pytorch_lightning", "sklearn", "matplotlib"),
    ),
    "onnx": Script(_imports("onnx", "onnxscript"), ("onnx", "onnxscript")),
    CPU: Script(_ONNXRUNTIME, ("onnxruntime",)),
    CUDA: Script(_ONNXRUNTIME, ("onnxruntime",), gpu=True),
    TENSORRT: Script(_ONNXRUNTIME, ("onnxruntime",), gpu=True),
    "sound": Script(_SOUND, ("soundfile", "soxr")),
    "media": Script(_imports("av"), ("av",)),
    "plan": Script(_PLAN, ("tensorrt", "cuda")),
    "rtx-builder": Script(_RTX_BUILDER, ("tensorrt_rtx",)),
    "rtx": Script(_RTX, ("tensorrt_rtx", "cuda"), gpu=True),
    "rtx-provider": Script(_RTX_PROVIDER, ("onnxruntime", "onnxruntime_ep_nv_tensorrt_rtx"), gpu=True),
}
# Of a format that has no script of its own it is tried whether its engine's packages load.
PROBES |= {each.name: Script(_imports(*each.modules), each.modules) for each in FORMATS if each.name not in PROBES}
PROBES |= {each.runtime: Script(_imports(*each.modules), each.modules) for kind in FORMATS for each in kind.others}


@dataclass(frozen=True)
class Probe:
    """Whether a library started, what it says of itself, and why it did not.

    Where it is known, `between` names the packages that do not go together, and `mend` is what to type.
    """

    ok: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    between: tuple[str, ...] = ()
    mend: str = ""


def run_probe(name: str, timeout: float) -> Probe:
    """Run the script `name` of `PROBES` in a process that may take `timeout` seconds."""
    command = [sys.executable, "-c", _START + PROBES[name].code, name]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        # A busy machine is likelier than a library that hangs, and to install it again takes longer than to wait.
        longer = f"voxport doctor --timeout {4 * timeout:g}"
        return Probe(False, problem=f"it did not answer within {timeout:g} seconds", mend=longer)
    except OSError as problem:
        return Probe(False, problem=f"Python could not be started ({problem})")
    if done.returncode in (0, _FAILED):
        try:
            answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return Probe(False, problem="it ended without an answer")
        if done.returncode == 0:
            return Probe(True, answer)
        return Probe(False, problem=answer["problem"], between=tuple(answer["between"]), mend=answer["mend"])
    return Probe(False, problem=_why(done.returncode, done.stderr))


def _why(code: int, said: str) -> str:
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"it crashed ({names.get(-code, f'signal {-code}')})"
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines() if line.strip()]
    # What onnxruntime logs as an error says more than the end that follows from it.
    logged = [line for line in lines if "[E:onnxruntime" in line]
    return (logged[-1] if logged else lines[-1] if lines else f"it ended with code {code}")[:400]
