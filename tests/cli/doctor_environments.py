"""Environments for doctor to judge: one that works, and whatever is changed in it."""

from collections.abc import Mapping

from packaging.requirements import Requirement

from tests.test_packaging import EXTRAS, PROJECT, reached
from voxport.cli.doctor.environment import Environment, Package
from voxport.cli.doctor.probes import CPU, CUDA, TENSORRT, Probe


def _line(requirement: Requirement, extra: str) -> str:
    marker = f"({requirement.marker}) and " if requirement.marker else ""
    return f"{requirement.name}{requirement.specifier}; {marker}extra == '{extra}'"


# As hatchling writes them into a wheel: extras of ours resolved, one line for each extra.
VOXPORT = Package(
    "voxport",
    PROJECT["project"]["version"],
    (*PROJECT["project"]["dependencies"], *(_line(needed, extra) for extra in EXTRAS for needed in reached(extra))),
)
GOOD = {
    "numpy": "2.4.6",
    "click": "8.5.1",
    "torch": "2.11.0",
    "torchaudio": "2.11.0",
    "pytorch-lightning": "2.6.6",
    "torchmetrics": "1.9.0",
    "scikit-learn": "1.9.1",
    "matplotlib": "3.11.2",
    "tensorboard": "2.21.0",
    "tomli": "2.2.1",
    "rich": "15.0.0",
    "psutil": "7.2.2",
    "openvino": "2026.4.1",
    "soundfile": "0.14.0",
    "soxr": "1.1.0",
    "av": "18.1.0",
    "onnx": "1.23.2",
    "onnxscript": "0.7.2",
    "espeakng-loader": "0.2.4",
    "pyroomacoustics": "0.10.1",
    "scipy": "1.17.1",
    "tensorrt-rtx-cu13": "1.7.1.116",
    "cuda-bindings": "13.5.0",
    "pyarrow": "26.0.1",
    "ray": "2.60.0",
    "uvicorn": "0.54.0",
    "grpcio": "1.85.3",
    "protobuf": "7.36.2",
    "websockets": "17.4",
    "psycopg": "3.3.9",
}
STARTED = {
    "torch": Probe(True, {"version": "2.11.0+cu130", "cuda": "13.0", "devices": ""}),
    "torchaudio": Probe(True, {"torch": "2.11.0", "torchaudio": "2.11.0"}),
    CPU: Probe(True, {"version": "1.31.1", "package": "onnxruntime", "cuda": "", "providers": CPU}),
    "sound": Probe(True),
    "media": Probe(True),
    "rtx-builder": Probe(True),
}
ON_GPU = Probe(
    True,
    {"version": "1.31.1", "package": "onnxruntime-gpu", "cuda": "13.0", "providers": f"{TENSORRT}, {CUDA}, {CPU}"},
)


def made(
    packages: Mapping[str, str | Package | None] | None = None,
    probes: Mapping[str, Probe | None] | None = None,
    driver: str | None = None,
    base: Mapping[str, str] = GOOD,
) -> Environment:
    """A working environment on a CPU with these changes; None takes a package or a probe away."""
    named = {**base, "onnxruntime": "1.31.1", **(packages or {})}
    found = {n: p if isinstance(p, Package) else Package(n, p) for n, p in named.items() if p is not None}
    started = {name: probe for name, probe in {**STARTED, **(probes or {})}.items() if probe is not None}
    gpus = ("NVIDIA H200",) if driver else ()
    return Environment(
        "CPython 3.11.9",
        "Linux",
        "a CPU",
        2,
        ("avx2",),
        gpus,
        driver,
        bool(driver),
        {"voxport": VOXPORT, **found},
        started,
        "/usr/bin/g++",
        "apt-get install g++",
    )


def with_gpu(packages: Mapping[str, str | Package | None] | None = None, driver: str = "580.65.06") -> Environment:
    """The same on a GPU, with onnxruntime-gpu, TensorRT 10 and all that plans need."""
    probes = {
        "torch": Probe(True, {"version": "2.11.0", "cuda": "13.0", "devices": "NVIDIA H200"}),
        **dict.fromkeys((CPU, CUDA, TENSORRT), ON_GPU),
        **dict.fromkeys(("plan", "rtx", "rtx-provider"), Probe(True)),
    }
    gpu = {
        "onnxruntime-ep-nv-tensorrt-rtx": "0.5.0",
        "onnxruntime": None,
        "onnxruntime-gpu": "1.31.1",
        "tensorrt": "10.16.1.11",
        "cuda-python": "13.5.0",
    }
    return made({**gpu, **(packages or {})}, probes, driver)
