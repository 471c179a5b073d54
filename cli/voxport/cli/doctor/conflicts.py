"""Which installed packages do not go together, and the command that mends it."""

from collections.abc import Iterator
from dataclasses import dataclass

from voxport.cli.doctor.environment import TENSORRTS, Environment
from voxport.cli.doctor.probes import CPU, TENSORRT
from voxport.cli.doctor.requirements import needs_of, release

UNINSTALL = "pip uninstall -y"
TORCH = 'pip install "torch>=2.9,<2.16"'
_REINSTALL = 'pip install --upgrade --force-reinstall "voxport[{}]"'
# The oldest driver of each CUDA: NVIDIA, "CUDA Compatibility", minor version compatibility, table 1.
_DRIVERS = {11: 450, 12: 525, 13: 580}
_ORT_TENSORRT = 10  # the major version that onnxruntime-gpu's provider is linked against since 1.18
_PLAN_TENSORRT = (8, 10, 11)


@dataclass(frozen=True)
class Clash:
    """Packages that do not go together here, or one that is broken; `mend` is what to type."""

    between: tuple[str, ...]
    problem: str
    mend: str


def find_clashes(environment: Environment) -> tuple[Clash, ...]:
    """Everything that is installed and cannot work as it is. What is not installed is no clash."""
    rules = (_onnxruntimes, _tensorrt, _pins, _driver, _broken)
    return tuple(clash for rule in rules for clash in rule(environment))


def onnxruntime_extra(environment: Environment) -> str:
    """Which of the extras `cpu` and `gpu` suits this machine."""
    return "gpu" if environment.gpus else "cpu"


def _onnxruntimes(environment: Environment) -> Iterator[Clash]:
    names = environment.onnxruntimes()
    if len(names) > 1:
        probe = environment.probes.get(CPU)
        winner = probe.facts.get("package") if probe is not None else None
        yield Clash(
            names,
            "they overwrite each other's files" + (f"; at present {winner} answers" if winner else ""),
            f'{UNINSTALL} {" ".join(names)} && pip install "voxport[{onnxruntime_extra(environment)}]"',
        )


def _tensorrt(environment: Environment) -> Iterator[Clash]:
    name, version = next(
        ((n, environment.packages[n].version) for n in TENSORRTS if n in environment.packages), ("", "")
    )
    if not name or not release(version):
        return
    major = release(version)[0]
    probe = environment.probes.get(TENSORRT)
    starts = probe is not None and probe.ok
    if "onnxruntime-gpu" in environment.packages and major != _ORT_TENSORRT and not starts:
        yield Clash(
            ("onnxruntime-gpu", name),
            f"ONNX Runtime's TensorRT provider needs TensorRT {_ORT_TENSORRT}, {version} is installed: ONNX models do "
            "not run on device 'tensorrt'. Plans and device 'cuda' are not concerned",
            'pip install "tensorrt>=10,<11"',
        )
    if major not in _PLAN_TENSORRT or release(version)[:2] < (8, 6):
        yield Clash(
            ("voxport", name),
            f"plans run on TensorRT 8.6, 10 and 11, not on {version}",
            'pip install "tensorrt>=10,<12"',
        )


def _pins(environment: Environment) -> Iterator[Clash]:
    """What an installed package requires of another one that is installed in another version."""
    seen = set()
    for owner in environment.packages.values():
        for extra in _extras(owner.name):
            for need in needs_of(owner, extra, environment):
                if need.installed is None or need.met or (owner.name, need.text) in seen:
                    continue
                seen.add((owner.name, need.text))
                part = f"{owner.name}[{extra}]" if extra else owner.name
                problem = f"{part} {owner.version} requires {need.text}, {need.installed} is installed"
                yield Clash((owner.name, need.name), problem, _mend_pin(owner.name, need.text))


def _extras(owner: str) -> tuple[str, ...]:
    if owner == "voxport":  # neither `dev`, nor `tensorrt`: plans run on older releases than pip should choose
        return ("", "audio", "cpu", "gpu", "train", "export", "bench", "demo")
    return ("", "onnx") if owner == "nvidia-modelopt" else ("",)


def _mend_pin(owner: str, wanted: str) -> str:
    if owner == "nvidia-modelopt":  # its ONNX part is tied to older releases than ours; it can live elsewhere
        return f'{UNINSTALL} {owner} && python -m venv modelopt && modelopt/bin/pip install "{owner}[onnx]"'
    if owner == "torch-tensorrt":  # voxport does not use it
        return f"{UNINSTALL} {owner}"
    return f'pip install "{wanted}"'


def _driver(environment: Environment) -> Iterator[Clash]:
    """CUDA of another major version than the driver can run."""
    driver = release(environment.driver or "")
    if not driver:
        return
    for name, cuda in _cuda_majors(environment).items():
        oldest = _DRIVERS.get(cuda)
        if oldest is not None and driver[0] < oldest:
            older = max((major for major, least in _DRIVERS.items() if least <= driver[0]), default=None)
            yield Clash(
                (name, "NVIDIA driver"),
                f"{name} is built for CUDA {cuda}, which needs driver {oldest} or newer, not {environment.driver}",
                _mend_driver(name, oldest, older),
            )


def _cuda_majors(environment: Environment) -> dict[str, int]:
    """The major version of CUDA that each package is built for, as far as it can be told."""
    found = {}
    if "onnxruntime-gpu" in environment.packages:
        probe = environment.probes.get(CPU)
        told = release(probe.facts.get("cuda", "")) if probe is not None else ()
        names = [text.partition(";")[0].strip() for text in environment.packages["onnxruntime-gpu"].requires]
        if told:
            found["onnxruntime-gpu"] = told[0]
        elif any(name.startswith("nvidia-cuda-runtime-cu12") for name in names):
            found["onnxruntime-gpu"] = 12
        elif any(name.startswith("nvidia-cuda-runtime~=13") for name in names):
            found["onnxruntime-gpu"] = 13
    if "torch" in environment.packages and "torch" in environment.probes:
        told = release(environment.probes["torch"].facts.get("cuda", ""))
        if told:
            found["torch"] = told[0]
    found |= {name: int(name[-2:]) for name in TENSORRTS if "-cu" in name and name in environment.packages}
    return found


def _mend_driver(name: str, oldest: int, older: int | None) -> str:
    if older == 12 and name == "onnxruntime-gpu":  # 1.26 is built for CUDA 12, later ones for CUDA 13
        return 'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"'
    if older == 12 and name == "torch":
        # without --force-reinstall the CUDA 13 build of the same version would do for pip
        return f"{TORCH} --force-reinstall --index-url https://download.pytorch.org/whl/cu128"
    if older == 12 and name.startswith("tensorrt"):
        return f'{UNINSTALL} {name} && pip install "tensorrt-cu12>=10,<12"'
    return f"install NVIDIA driver {oldest} or newer from https://www.nvidia.com/drivers"


def _broken(environment: Environment) -> Iterator[Clash]:
    """Libraries that are there and do not start. What only a GPU's provider lacks is told with the devices."""
    both = len(environment.onnxruntimes()) > 1
    names = environment.onnxruntimes() or ("onnxruntime", "onnxruntime-gpu")
    extra = onnxruntime_extra(environment)
    mends = {
        CPU: (names, f'{UNINSTALL} {" ".join(names)} && pip install "voxport[{extra}]"'),
        "torch": (("torch",), f"{TORCH} --force-reinstall"),
        "torchaudio": (("torchaudio",), "pip uninstall -y torchaudio"),  # voxport then uses its own Conformer
        "training": (("pytorch-lightning", "torchmetrics", "scikit-learn", "matplotlib"), _REINSTALL.format("train")),
        "onnx": (("onnx", "onnxscript"), _REINSTALL.format("export")),
        "sound": (("soundfile", "soxr"), "pip install --force-reinstall soundfile soxr"),
        "media": (("av",), "pip install --force-reinstall av"),
    }
    for key, (packages, mend) in mends.items():
        probe = environment.probes.get(key)
        if probe is None or probe.ok or (key == CPU and both):
            continue
        if key in ("torchaudio", "training") and "torch" in environment.probes and not environment.probes["torch"].ok:
            continue  # torch has said it already
        if probe.between:
            yield Clash(probe.between, f"{probe.between[0]} {probe.problem}", probe.mend)
        else:
            problem = f"{' and '.join(packages)}: installed, but no start ({probe.problem})"
            yield Clash(packages, problem, probe.mend or mend)
