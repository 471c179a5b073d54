"""What voxport can do in an environment, and what is missing for the rest."""

from collections.abc import Iterable
from dataclasses import dataclass

from voxport.cli.doctor.conflicts import TORCH, onnxruntime_extra
from voxport.cli.doctor.environment import RTX, RTX_PROVIDERS, TENSORRTS, Environment
from voxport.cli.doctor.probes import CPU, CUDA, TENSORRT
from voxport.cli.doctor.requirements import needs_of
from voxport.export.targets import TARGETS
from voxport.runtime.backends.formats import FORMATS, Format, format_named
from voxport.runtime.errors import VoxportError

ORT_TENSORRT = 'pip install "voxport[gpu]" "tensorrt>=10,<11"'
_NO_GPU = "an NVIDIA GPU (nvidia-smi shows none)"
_NO_COMMAND = "use a machine with an NVIDIA GPU and its driver"


@dataclass(frozen=True)
class Ability:
    """Something that voxport does. It is `ready` where nothing is `missing`; `mend` is what to type."""

    name: str
    missing: tuple[str, ...] = ()
    mend: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be done here."""
        return not self.missing


def find_abilities(environment: Environment) -> tuple[Ability, ...]:
    """All of them, in the order of the way from training to answers.

    Raises:
        VoxportError: voxport is not installed as a package, so that its extras are not known.
    """
    if "voxport" not in environment.packages:
        raise VoxportError(
            "voxport's own metadata is not found, so its extras are not known; install it: pip install ."
        )
    cpu = _onnxruntime(environment)
    return (
        Ability("inspect a contract"),
        _extras(environment, "read sound files", ("audio",), _starts(environment, "sound")),
        _extras(environment, "read m4a, WebM, AMR", ("media",), _starts(environment, "media")),
        _extras(environment, "train", ("train",), _torch(environment)),
        _train_cuda(environment),
        *(ability for each in TARGETS.values() for ability in _export(environment, str(each), each.extras)),
        *_export(environment, "check", ("export", "cpu")),
        _extras(environment, "export check --tensorrt", ("export", "rtx"), _rtx_builds(environment)),
        *(ability for each in FORMATS for ability in _run(environment, each)),
        _extras(environment, "score", ("scale",), [*_starts(environment, "sound"), *cpu]),
        _extras(environment, "serve", ("serve",), [*_starts(environment, "sound"), *cpu]),
        _extras(environment, "bench", ("bench", "train"), [*_torch(environment), *cpu]),
        _extras(environment, "demo", ("demo",), [*_torch(environment), *cpu]),
    )


def _export(environment: Environment, command: str, extras: tuple[str, ...]) -> tuple[Ability, ...]:
    """A command of `voxport export`, which needs `extras`; `cpu` stands for any ONNX Runtime."""
    name = f"export {command}"
    if command == "tensorrt":
        return (_export_plans(environment),)
    more = _rtx_builds(environment) if "rtx" in extras else []
    graphs = [*_starts(environment, "onnx"), *_onnxruntime(environment)] if "cpu" in extras else []
    wanted = tuple(extra for extra in extras if extra != "cpu")
    first = _extras(environment, name, wanted, [*_torch(environment), *graphs, *more])
    native = (_aoti(environment, f"{name} --aoti for cpu"), _aoti_cuda(environment)) if command == "pt2" else ()
    return (first, *native)


def _run(environment: Environment, kind: Format) -> tuple[Ability, ...]:
    """Running the files of a format: on each device where the devices need packages of their own."""
    name = f"run {kind.plural}"
    if kind.name == "onnx":
        return (
            _extras(environment, f"{name} on cpu", (), _onnxruntime(environment)),
            _provider(environment, f"{name} on cuda", CUDA, 'pip install "voxport[gpu]"'),
            _provider(environment, f"{name} on tensorrt", TENSORRT, ORT_TENSORRT),
            _rtx_provider(environment, f"{name} on rtx"),
            *(
                _extras(environment, f"{name} in {each.title}", (each.extra,), _starts(environment, each.runtime))
                for each in kind.others
            ),
        )
    if kind.name == "plan":
        return (_plans(environment),)
    if kind.name == "rtx":
        return (_rtx_engines(environment, name),)
    return (_extras(environment, name, (kind.extra,), _starts(environment, kind.name)),)


def _extras(environment: Environment, name: str, extras: tuple[str, ...], more: Iterable[str]) -> Ability:
    """An ability that needs `extras`, and for which `more` is missing."""
    lacking = [need for extra in extras for need in needs_of(environment.packages["voxport"], extra, environment)]
    missing = [
        need.name if need.installed is None else f"{need.text} ({need.installed} is installed)"
        for need in lacking
        if not need.met
    ]
    missing += more
    wanted = list(extras)
    if "ONNX Runtime" in missing:
        wanted.append(onnxruntime_extra(environment))
    # What is there and does not start is a clash, with a command of its own.
    broken = any("does not start" in text for text in more)
    mend = "see the clashes" if broken else f'pip install "voxport[{",".join(wanted)}]"'
    return Ability(name, tuple(dict.fromkeys(missing)), mend if missing else "")


def _starts(environment: Environment, probe: str) -> list[str]:
    found = environment.probes.get(probe)
    if found is None or found.ok:
        return []
    name = found.between[0] if found.between else probe
    return [f"{name} does not start ({found.problem})"]


def _torch(environment: Environment) -> list[str]:
    """What keeps PyTorch, or what trains in it, from starting. torchaudio may be missing: see `models.conformer`."""
    return _starts(environment, "torch") or _starts(environment, "training")


def _onnxruntime(environment: Environment) -> list[str]:
    found = environment.probes.get(CPU)
    if found is None:
        return ["ONNX Runtime"]
    return [] if found.ok else [f"ONNX Runtime does not start ({found.problem})"]


def _train_cuda(environment: Environment) -> Ability:
    name = "train on cuda"
    base = _extras(environment, name, ("train",), _torch(environment))
    if not environment.gpus:
        return Ability(name, (*base.missing, _NO_GPU), _NO_COMMAND)
    if not base.ready:
        return base
    facts = environment.probes["torch"].facts if "torch" in environment.probes else {}
    if facts.get("devices"):
        return base
    if not facts.get("cuda"):
        index = "https://download.pytorch.org/whl/cu128"
        return Ability(name, ("a torch that is built for CUDA",), f"{TORCH} --force-reinstall --index-url {index}")
    return Ability(name, ("a driver that torch's CUDA can use",), "see the clashes, and nvidia-smi")


def _aoti(environment: Environment, name: str) -> Ability:
    """Compiling a program to native code, for the CPU."""
    base = _extras(environment, name, ("export",), _torch(environment))
    if environment.compiler is not None:
        return base
    missing = (*base.missing, "a C++ compiler")
    return Ability(
        name, missing, environment.get_compiler if base.ready else f"{base.mend}, and {environment.get_compiler}"
    )


def _aoti_cuda(environment: Environment) -> Ability:
    """The same for the GPU: what training on it needs, and the compiler."""
    name, on_gpu = "export pt2 --aoti for cuda", _train_cuda(environment)
    if not on_gpu.ready:
        return Ability(name, on_gpu.missing, on_gpu.mend)
    return _aoti(environment, name)


def _provider(environment: Environment, name: str, provider: str, mend: str) -> Ability:
    """A provider of ONNX Runtime: it is ready where a session on it has run."""
    if not environment.gpus:
        return Ability(name, (_NO_GPU,), _NO_COMMAND)
    if broken := _starts(environment, CPU):
        return Ability(name, tuple(broken), "see the clashes")
    probe = environment.probes.get(provider)
    if probe is not None:
        missing = () if probe.ok else (f"{provider} does not start ({probe.problem})",)
        return Ability(name, missing, "" if probe.ok else mend)
    names = environment.onnxruntimes()
    if not names:
        return Ability(name, ("onnxruntime-gpu",), mend)
    return Ability(name, (f"an ONNX Runtime with {provider}",), f"pip uninstall -y {' '.join(names)} && {mend}")


def _export_plans(environment: Environment) -> Ability:
    """Building plans: what an export needs, and what running the finished plan does."""
    name, run = "export tensorrt", _plans(environment)
    base = _extras(environment, name, ("export",), [*_torch(environment), *_onnxruntime(environment)])
    mend = run.mend if base.ready or not environment.gpus else base.mend
    return Ability(name, (*base.missing, *run.missing), mend)


def _rtx_builds(environment: Environment) -> list[str]:
    """What keeps TensorRT for RTX from building, for which it needs no GPU."""
    if environment.version(RTX) is None:
        return [RTX]
    return _starts(environment, "rtx-builder")


def _rtx_engines(environment: Environment, name: str) -> Ability:
    base = _extras(environment, name, ("rtx",), [])
    if not environment.gpus:
        return Ability(name, (*base.missing, _NO_GPU), _NO_COMMAND)
    if not base.ready or environment.version(RTX) is None:
        return Ability(name, base.missing or (RTX,), base.mend or 'pip install "voxport[rtx]"')
    probe = environment.probes.get("rtx")
    if probe is None or not probe.ok:
        why = probe.problem if probe is not None else "its module is not found"
        return Ability(
            name, (f"TensorRT for RTX does not start ({why})",), "run the ONNX model on cuda, or build a plan"
        )
    return Ability(name)


def _rtx_provider(environment: Environment, name: str) -> Ability:
    """NVIDIA's plugin for ONNX Runtime; ready where a session on it has run."""
    if not environment.gpus:
        return Ability(name, (_NO_GPU,), _NO_COMMAND)
    if broken := _starts(environment, CPU):
        return Ability(name, tuple(broken), "see the clashes")
    if environment.version(*RTX_PROVIDERS) is None:
        return Ability(name, (RTX_PROVIDERS[0],), 'pip install "voxport[rtx-provider]"')
    probe = environment.probes.get("rtx-provider")
    if probe is None or not probe.ok:
        why = probe.problem if probe is not None else "its module is not found"
        return Ability(name, (f"NVIDIA's plugin does not start ({why})",), "run it on cuda, or build a plan")
    return Ability(name)


def _plans(environment: Environment) -> Ability:
    kind = format_named("plan")
    name, mend = f"run {kind.plural}", f'pip install "voxport[{kind.extra}]"'
    missing = [] if environment.version(*TENSORRTS) else ["tensorrt"]
    if environment.version("cuda-python", "cuda-bindings") is None:
        missing.append("cuda-python")
    if not environment.gpus:
        return Ability(name, (*missing, _NO_GPU), _NO_COMMAND)
    if missing:
        return Ability(name, tuple(missing), mend)
    probe = environment.probes.get("plan")
    if probe is None or not probe.ok:
        why = probe.problem if probe is not None else "its module is not found"
        return Ability(name, (f"TensorRT does not start ({why})",), mend)
    return Ability(name)
