"""What `voxport doctor` looks at: packages by their metadata, the machine, and libraries in processes of their own."""

import importlib.util
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from voxport.cli.doctor.places import Place, find_places
from voxport.cli.doctor.probes import BUILT_IN, CPU, PROBES, Probe, run_probe
from voxport.runtime.backends.formats import FORMATS

# Two of these in one environment overwrite each other's files: all of them are the module `onnxruntime`.
ONNXRUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-training",
)
# `tensorrt` alone is a package that chooses one of the others.
TENSORRTS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
RTX = "tensorrt-rtx-cu13"
RTX_PROVIDERS = (
    "onnxruntime-ep-nv-tensorrt-rtx",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    "onnxruntime-ep-nv-tensorrt-rtx-cu12",
)
WATCHED = (
    *("voxport", "numpy", "click", "packaging"),
    *("torch", "torchaudio", "pytorch-lightning", "torchmetrics", "scikit-learn", "matplotlib", "tensorboard", "tomli"),
    *("pyarrow", "pyroomacoustics", "scipy"),
    *("onnx", "onnxscript", "onnx-ir", "protobuf", "nvidia-modelopt", "torch-tensorrt"),
    *ONNXRUNTIMES,
    *TENSORRTS,
    RTX,
    *RTX_PROVIDERS,
    *("cuda-python", "cuda-bindings", "nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
    *("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
    *("soundfile", "soxr", "av", "rich", "psutil", "espeakng-loader"),
    *("ray", "uvicorn", "websockets", "psycopg", "grpcio"),
    *(module for kind in FORMATS for each in kind.others for module in each.modules),
    *(engine.modules[0] for engine in FORMATS if engine.modules[0] not in ("onnxruntime", "tensorrt", "torch")),
)
# Those that decide how fast float32, half and int8 products are, as Linux names them.
CPU_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Package:
    """An installed distribution: its name in normal form (PEP 503), its version, and what it requires."""

    name: str
    version: str
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    """Everything that doctor judges by. `driver` is None where nvidia-smi shows no GPU."""

    python: str
    os: str
    cpu: str
    cores: float
    cpu_features: tuple[str, ...]
    gpus: tuple[str, ...]
    driver: str | None
    nvidia_smi: bool
    packages: Mapping[str, Package]
    probes: Mapping[str, Probe]
    compiler: str | None = None  # where the C++ compiler is
    get_compiler: str = ""
    places: tuple[Place, ...] = ()  # that are written to

    def version(self, *names: str) -> str | None:
        """Of the first of `names` that is installed."""
        return next((self.packages[name].version for name in names if name in self.packages), None)

    def onnxruntimes(self) -> tuple[str, ...]:
        """The packages that bring the module `onnxruntime`; more than one is a clash."""
        return tuple(name for name in ONNXRUNTIMES if name in self.packages)


def look(root: Path = Path("/"), timeout: float = 120.0) -> Environment:
    """Look at this environment and this machine. Each library has `timeout` seconds to start."""
    from voxport.benchmarks.system.machine import describe_machine  # it needs nothing but Python
    from voxport.export.targets.pytorch.compiler import find_compiler  # nor does this

    compiler = find_compiler()
    machine = describe_machine(root)
    gpus = [{fact.name: fact.value for fact in gpu.facts} for gpu in machine.gpus]
    return Environment(
        python=machine.python,
        os=machine.os,
        cpu=machine.cpu,
        cores=machine.usable_cores,
        cpu_features=cpu_features(root),
        gpus=tuple(gpu.get("name", "GPU") for gpu in gpus),
        driver=gpus[0].get("driver_version") if gpus else None,
        nvidia_smi=shutil.which("nvidia-smi") is not None,
        packages=installed_packages(),
        probes=probe_all(bool(gpus), timeout),
        compiler=compiler.path,
        get_compiler=compiler.get,
        places=find_places(),
    )


def cpu_features(root: Path = Path("/")) -> tuple[str, ...]:
    """Which of `CPU_FEATURES` the first core has; empty where there is no /proc/cpuinfo, as on macOS."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    has = set(found[1].split()) if found else set()
    return tuple(name for name in CPU_FEATURES if name in has)


def normal(name: str) -> str:
    """A distribution's name in normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages() -> dict[str, Package]:
    """Those of `WATCHED` that are installed. Nothing is imported."""
    found = {}
    for name in WATCHED:
        try:
            distribution = metadata.distribution(name)
            version = distribution.metadata["Version"]
        except (metadata.PackageNotFoundError, KeyError):
            continue
        # None is what a half-removed package leaves
        found[name] = Package(name, version or "unknown", tuple(distribution.requires or ()))
    return found


def probe_all(gpu: bool, timeout: float) -> dict[str, Probe]:
    """Start each library that is there, two at a time. ONNX Runtime's GPU providers are tried where there is a GPU."""
    wanted = [name for name, probe in PROBES.items() if all(map(_is_there, probe.modules)) and not probe.gpu]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(wanted, pool.map(lambda name: run_probe(name, timeout), wanted), strict=True))
        offered = found[CPU].facts.get("providers", "") if CPU in found else ""
        here = [name for name, probe in PROBES.items() if gpu and probe.gpu and all(map(_is_there, probe.modules))]
        later = [name for name in here if name in offered or name not in BUILT_IN]
        found |= zip(later, pool.map(lambda name: run_probe(name, timeout), later), strict=True)
    return found


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
