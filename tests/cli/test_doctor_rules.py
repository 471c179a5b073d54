"""Doctor judges what it is told about an environment; here it is told of every one that goes wrong."""

import builtins
import dataclasses
import re
from typing import Any

import pytest

from tests.cli.doctor_environments import GOOD, STARTED, VOXPORT, made, with_gpu
from tests.test_packaging import EXTRAS, reached
from voxport.cli.doctor.capabilities import Ability, find_abilities
from voxport.cli.doctor.conflicts import Clash, find_clashes
from voxport.cli.doctor.environment import WATCHED, Environment, Package, normal
from voxport.cli.doctor.probes import CPU, CUDA, Probe
from voxport.cli.doctor.requirements import needs_of, release
from voxport.runtime.errors import VoxportError


def the_clash(environment: Environment) -> Clash:
    (clash,) = find_clashes(environment)
    return clash


def ability(environment: Environment, name: str) -> Ability:
    return next(found for found in find_abilities(environment) if found.name == name)


# Clashes


def test_working_environments_have_no_clash() -> None:
    assert find_clashes(made()) == ()
    assert find_clashes(with_gpu()) == ()
    assert find_clashes(made(dict.fromkeys((*GOOD, "onnxruntime")), dict.fromkeys(STARTED))) == ()


@pytest.mark.parametrize(("driver", "extra"), [(None, "cpu"), ("580.65.06", "gpu")])
def test_two_onnxruntimes_clash_and_the_machine_decides_which_one_stays(driver: str | None, extra: str) -> None:
    clash = the_clash(made({"onnxruntime-gpu": "1.31.1"}, driver=driver))
    assert clash.between == ("onnxruntime", "onnxruntime-gpu")
    assert "onnxruntime answers" in clash.problem
    assert clash.mend == f'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "voxport[{extra}]"'


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu13"])
def test_onnxruntimes_tensorrt_provider_clashes_with_tensorrt_11(name: str) -> None:
    packages: dict[str, str | Package | None] = {"onnxruntime": None, "onnxruntime-gpu": "1.31.1", name: "11.4.0.106"}
    clash = the_clash(made(packages))
    assert clash.between == ("onnxruntime-gpu", name)
    assert "11.4.0.106" in clash.problem
    assert clash.mend == 'pip install "tensorrt>=10,<11"'
    assert find_clashes(made({name: "11.4.0.106"})) == (), "without onnxruntime-gpu there is nothing to clash with"


def test_a_tensorrt_provider_that_was_seen_to_start_is_believed() -> None:
    """One built from source may be linked against TensorRT 11."""
    assert find_clashes(with_gpu({"tensorrt": "11.4.0.106"})) == ()


@pytest.mark.parametrize("version", ["12.0.0", "8.5.3", "9.3.0"])
def test_a_tensorrt_that_plans_do_not_know(version: str) -> None:
    clash = the_clash(made({"tensorrt": version}))
    assert clash.between == ("voxport", "tensorrt")
    assert clash.mend == 'pip install "tensorrt>=10,<12"'
    assert find_clashes(made({"tensorrt": "8.6.1"})) == ()


def test_a_torch_outside_the_range_that_was_run() -> None:
    clash = the_clash(made({"torch": "2.8.0+cu128"}))
    assert clash.between == ("voxport", "torch")
    assert clash.mend == 'pip install "torch<2.16,>=2.9"'


def test_torch_and_torchaudio_are_judged_by_what_happened_and_not_by_their_numbers() -> None:
    assert find_clashes(made({"torch": "2.14.1", "torchaudio": "2.11.1"})) == ()
    failed = Probe(
        False,
        problem="2.11.1 does not load beside torch 2.11.0 (undefined symbol: x)",
        between=("torchaudio", "torch"),
        mend="pip uninstall -y torchaudio",
    )
    environment = made({"torchaudio": "2.11.1"}, {"torchaudio": failed})
    clash = the_clash(environment)
    assert clash.between == ("torchaudio", "torch")
    assert clash.problem == "torchaudio 2.11.1 does not load beside torch 2.11.0 (undefined symbol: x)"
    assert clash.mend == "pip uninstall -y torchaudio"
    assert ability(environment, "train").ready, "training has a Conformer of its own"


@pytest.mark.parametrize(
    ("driver", "mend"),
    [
        ("570.133.20", 'pip install "onnxruntime-gpu[cuda,cudnn]<1.27"'),
        ("470.57.02", "install NVIDIA driver 580 or newer from https://www.nvidia.com/drivers"),
    ],
)
def test_onnxruntimes_cuda_against_the_driver(driver: str, mend: str) -> None:
    clashes = {clash.between: clash for clash in find_clashes(with_gpu(driver=driver))}
    assert set(clashes) == {("onnxruntime-gpu", "NVIDIA driver"), ("torch", "NVIDIA driver")}
    clash = clashes["onnxruntime-gpu", "NVIDIA driver"]
    assert clash.mend == mend
    assert "CUDA 13, which needs driver 580" in clash.problem
    other = clashes["torch", "NVIDIA driver"].mend
    assert ("--force-reinstall" in other and "whl/cu128" in other) or other == mend, "pip keeps a torch of one version"
    assert driver in clash.problem


def test_onnxruntimes_cuda_is_known_from_its_metadata_where_it_does_not_say() -> None:
    silent = {CPU: Probe(True, {"package": "onnxruntime-gpu", "cuda": ""}), "torch": Probe(True, {"cuda": ""})}
    for requirement, clashes in (("nvidia-cuda-runtime-cu12~=12.0", 0), ("nvidia-cuda-runtime~=13.0", 1)):
        package = Package("onnxruntime-gpu", "1.26.0", (f'{requirement}; extra == "cuda"',))
        environment = made({"onnxruntime": None, "onnxruntime-gpu": package}, silent, "550.54.14")
        assert len(find_clashes(environment)) == clashes, requirement


def test_tensorrts_cuda_against_the_driver() -> None:
    silent = {"torch": Probe(True, {"cuda": ""})}
    clash = the_clash(made({"tensorrt-cu13": "11.4.0"}, silent, "550.54.14"))
    assert clash.between == ("tensorrt-cu13", "NVIDIA driver")
    assert clash.mend == 'pip uninstall -y tensorrt-cu13 && pip install "tensorrt-cu12>=10,<12"'


def test_modelopts_pins() -> None:
    requires = (
        "numpy",
        "torch>=2.8",
        'onnx~=1.21.0; extra == "onnx"',
        'onnxruntime-gpu~=1.24.2; (python_version > "3.9" and sys_platform != "none") and extra == "onnx"',
        'onnxruntime-gpu==1.22.0; sys_platform == "none" and extra == "onnx"',
        'rich<2; extra == "hf"',
    )
    modelopt = Package("nvidia-modelopt", "0.47.0", requires)
    clashes = find_clashes(made({"nvidia-modelopt": modelopt, "onnxruntime": None, "onnxruntime-gpu": "1.31.1"}))
    assert [clash.between for clash in clashes] == [("nvidia-modelopt", "onnx"), ("nvidia-modelopt", "onnxruntime-gpu")]
    assert "requires onnx~=1.21.0, 1.23.2 is installed" in clashes[0].problem
    assert "onnxruntime-gpu~=1.24.2" in clashes[1].problem
    assert clashes[0].mend == clashes[1].mend
    assert clashes[0].mend.startswith("pip uninstall -y nvidia-modelopt && python -m venv ")
    assert clashes[0].mend.endswith('/bin/pip install "nvidia-modelopt[onnx]"')
    assert find_clashes(made({"nvidia-modelopt": modelopt, "onnx": "1.21.3"})) == ()


def test_torch_tensorrts_pins() -> None:
    package = Package("torch-tensorrt", "2.11.0", ("torch<2.12.0,>=2.11.0", "tensorrt<10.16.0,>=10.15.1"))
    clash = the_clash(made({"torch-tensorrt": package, "tensorrt": "11.4.0"}))
    assert clash.between == ("torch-tensorrt", "tensorrt")
    assert clash.mend == "pip uninstall -y torch-tensorrt"


def test_a_package_that_is_older_than_voxport_needs() -> None:
    environment = made({"onnx": "1.14.0"})
    clash = the_clash(environment)
    assert clash.between == ("voxport", "onnx")
    assert clash.mend == 'pip install "onnx>=1.17"'
    assert "onnx>=1.17 (1.14.0 is installed)" in ability(environment, "export onnx").missing


@pytest.mark.parametrize(
    ("probe", "between", "mend"),
    [
        (CPU, ("onnxruntime",), 'pip uninstall -y onnxruntime && pip install "voxport[cpu]"'),
        ("torch", ("torch",), 'pip install "torch>=2.9,<2.16" --force-reinstall'),
        (
            "training",
            ("pytorch-lightning", "torchmetrics", "scikit-learn", "matplotlib"),
            'pip install --upgrade --force-reinstall "voxport[train]"',
        ),
        ("onnx", ("onnx", "onnxscript"), 'pip install --upgrade --force-reinstall "voxport[export]"'),
        ("sound", ("soundfile", "soxr"), "pip install --force-reinstall soundfile soxr"),
        ("media", ("av",), "pip install --force-reinstall av"),
    ],
)
def test_a_library_that_does_not_start(probe: str, between: tuple[str, ...], mend: str) -> None:
    environment = made(probes={probe: Probe(False, problem="it crashed (SIGSEGV)")})
    clash = the_clash(environment)
    assert (clash.between, clash.mend) == (between, mend)
    assert "it crashed (SIGSEGV)" in clash.problem
    lame = [found for found in find_abilities(environment) if any("SIGSEGV" in text for text in found.missing)]
    assert lame
    assert {found.mend for found in lame} <= {"see the clashes", "use a machine with an NVIDIA GPU and its driver"}


def test_a_library_that_did_not_answer_is_given_longer_before_it_is_installed_again() -> None:
    slow = Probe(False, problem="it did not answer within 30 seconds", mend="voxport doctor --timeout 120")
    assert the_clash(made(probes={"onnx": slow})).mend == "voxport doctor --timeout 120"


def test_a_torchaudio_that_fails_with_torch_is_one_clash() -> None:
    lame = Probe(False, problem="no libtorch.so")
    assert the_clash(made(probes={"torch": lame, "torchaudio": lame})).between == ("torch",)


# Abilities


def test_a_cpu_does_all_but_what_needs_a_gpu() -> None:
    lacking = {found.name for found in find_abilities(made()) if not found.ready}
    on_gpu = {"train on cuda", "run ONNX on cuda", "run ONNX on tensorrt", "run TensorRT plans"}
    on_rtx = {"run ONNX on rtx", "run RTX engines"}
    assert lacking == {*on_gpu, *on_rtx, "export pt2 --aoti for cuda", "export tensorrt"}
    for name in lacking:
        assert "an NVIDIA GPU (nvidia-smi shows none)" in ability(made(), name).missing


def test_a_gpu_does_all() -> None:
    assert [found.missing for found in find_abilities(with_gpu()) if not found.ready] == []


def test_the_base_install_names_the_extra_for_each() -> None:
    environment = made({"onnxruntime": None}, dict.fromkeys(STARTED), base={"numpy": "2.4.6", "click": "8.5.1"})
    assert [found.name for found in find_abilities(environment) if found.ready] == ["inspect a contract"]
    mends = {found.name: found.mend for found in find_abilities(environment)}
    assert mends["read sound files"] == 'pip install "voxport[audio]"'
    assert mends["read m4a, WebM, AMR"] == 'pip install "voxport[media]"'
    assert mends["train"] == 'pip install "voxport[train]"'
    assert mends["export onnx"] == 'pip install "voxport[export,cpu]"'
    assert mends["run ONNX on cpu"] == 'pip install "voxport[cpu]"'
    assert mends["bench"] == 'pip install "voxport[bench,train,cpu]"'
    assert mends["demo"] == 'pip install "voxport[demo,cpu]"'
    assert ability(environment, "read sound files").missing == ("soundfile", "soxr")


@pytest.mark.parametrize(
    "name",
    ["read sound files", "train", "export onnx", "export sherpa", "export triton", "run ONNX on cpu", "bench", "demo"],
)
def test_the_command_that_is_named_brings_what_is_missing(name: str) -> None:
    found = ability(made({"onnxruntime": None}, dict.fromkeys(STARTED), base={}), name)
    match = re.search(r'pip install "voxport\[([a-z,]+)\]"', found.mend)
    assert match
    brought = {requirement.name for extra in match[1].split(",") for requirement in reached(extra)}
    assert {"onnxruntime" if text == "ONNX Runtime" else text for text in found.missing} <= brought


def test_a_gpu_without_its_packages() -> None:
    bare: dict[str, str | Package | None] = {"tensorrt": None, "cuda-bindings": None}
    environment = made(bare, {"torch": Probe(True, {"cuda": ""})}, "580.65.06")
    assert ability(environment, "run ONNX on cuda").mend == 'pip uninstall -y onnxruntime && pip install "voxport[gpu]"'
    assert ability(environment, "run TensorRT plans").missing == ("tensorrt", "cuda-python")
    assert ability(environment, "run TensorRT plans").mend == 'pip install "voxport[tensorrt]"'
    assert ability(environment, "train on cuda").missing == ("a torch that is built for CUDA",)


def test_plans_are_built_where_an_export_and_a_plan_can_run() -> None:
    assert ability(with_gpu(), "export tensorrt").ready
    found = ability(made({"tensorrt": None, "cuda-bindings": None}, {}, "580.65.06"), "export tensorrt")
    assert found.missing == ("tensorrt", "cuda-python")
    assert found.mend == 'pip install "voxport[tensorrt]"'
    found = ability(made({"onnx": "1.14.0"}), "export tensorrt")
    assert {"onnx>=1.17 (1.14.0 is installed)", "tensorrt"} <= set(found.missing)
    assert found.mend == "use a machine with an NVIDIA GPU and its driver"


def test_rtx_engines_are_built_without_a_gpu() -> None:
    for name in ("export tensorrt --for rtx", "export check --tensorrt"):
        assert ability(made(), name).ready
        found = ability(made({"tensorrt-rtx-cu13": None}), name)
        assert (found.missing, found.mend) == (("tensorrt-rtx-cu13",), 'pip install "voxport[export,rtx]"')
        lame = Probe(False, problem="libtensorrt_rtx.so.1: cannot open shared object file")
        assert "libtensorrt_rtx.so.1" in ability(made(probes={"rtx-builder": lame}), name).missing[0]


def test_a_gpu_that_rtx_does_not_take_and_packages_that_are_missing_are_told() -> None:
    environment = with_gpu()
    refused = Probe(False, problem="TensorRT for RTX does not take this GPU, NVIDIA H200 (compute capability 9.0)")
    probes = {**environment.probes, "rtx": refused, "rtx-provider": Probe(False, problem="no GPU that it takes")}
    environment = dataclasses.replace(environment, probes=probes)
    found = ability(environment, "run RTX engines")
    assert "does not take this GPU, NVIDIA H200" in found.missing[0]
    assert found.mend == "run the ONNX model on cuda, or build a plan"
    assert "no GPU that it takes" in ability(environment, "run ONNX on rtx").missing[0]
    bare = with_gpu({"onnxruntime-ep-nv-tensorrt-rtx": None, "tensorrt-rtx-cu13": None})
    assert ability(bare, "run ONNX on rtx").mend == 'pip install "voxport[rtx-provider]"'
    assert ability(bare, "run RTX engines").mend == 'pip install "voxport[rtx]"'


def test_a_provider_that_does_not_start_says_why() -> None:
    environment = with_gpu()
    probes = {**environment.probes, CUDA: Probe(False, problem="libcudnn.so.9: cannot open shared object file")}
    found = ability(dataclasses.replace(environment, probes=probes), "run ONNX on cuda")
    assert "libcudnn.so.9" in found.missing[0]
    assert found.mend == 'pip install "voxport[gpu]"'


def test_an_onnxruntime_that_does_not_start_is_not_taken_for_one_without_a_gpu() -> None:
    environment = made(probes={CPU: Probe(False, problem="no libstdc++")}, driver="580.65.06")
    found = ability(environment, "run ONNX on cuda")
    assert "no libstdc++" in found.missing[0]
    assert found.mend == "see the clashes"


def test_without_its_own_metadata_it_says_so() -> None:
    environment = dataclasses.replace(made(), packages={})
    with pytest.raises(VoxportError, match="pip install"):
        find_abilities(environment)


# Requirements


@pytest.fixture
def without_packaging(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name == "packaging":
            raise ModuleNotFoundError(name)
        return genuine(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("without_packaging")
def test_without_packaging_extras_and_series_are_still_read() -> None:
    environment = made({"torch": "2.9.0"})
    by_name = {need.name: need for need in needs_of(VOXPORT, "train", environment)}
    expected = {normal(r.name) for r in reached("train") if r.marker is None}
    assert set(by_name) == expected
    assert by_name["torch"].met, "only a series, ==X.Y.*, is compared without packaging"
    assert {need.name for need in needs_of(VOXPORT, "", environment)} == {"numpy", "click"}


def test_everything_that_voxport_requires_is_looked_at() -> None:
    """A package that is not watched would count as missing for ever."""
    asked = {extra: [normal(r.name) for r in reached(extra)] for extra in EXTRAS if extra != "dev"}
    assert {name for names in asked.values() for name in names} <= set(WATCHED)


@pytest.mark.parametrize(
    ("version", "numbers"), [("2.11.0+cu130", (2, 11, 0)), ("580.65.06", (580, 65, 6)), ("1.2rc1", (1, 2)), ("", ())]
)
def test_release(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers


# TorchScript and .pt2


def test_native_code_needs_a_compiler() -> None:
    assert ability(made(), "export pt2 --aoti for cpu").ready
    without = dataclasses.replace(made(), compiler=None)
    found = ability(without, "export pt2 --aoti for cpu")
    assert (found.missing, found.mend) == (("a C++ compiler",), "apt-get install g++")
    assert ability(without, "export torchscript").ready
    bare = dataclasses.replace(made({"onnx": None}), compiler=None)
    found = ability(bare, "export pt2 --aoti for cpu")
    assert found.missing == ("onnx", "a C++ compiler")
    assert found.mend == 'pip install "voxport[export]", and apt-get install g++'


def test_native_code_for_the_gpu_needs_one() -> None:
    name = "export pt2 --aoti for cuda"
    assert ability(with_gpu(), name).ready
    assert "an NVIDIA GPU (nvidia-smi shows none)" in ability(made(), name).missing
    found = ability(dataclasses.replace(with_gpu(), compiler=None), name)
    assert (found.missing, found.mend) == (("a C++ compiler",), "apt-get install g++")


def test_torch_files_need_torch_alone() -> None:
    server = made({name: None for name in GOOD if name not in ("numpy", "click", "torch")}, dict.fromkeys(STARTED))
    assert ability(server, "run TorchScript and .pt2").ready
    without = made({"torch": None}, {"torch": None})
    found = ability(without, "run TorchScript and .pt2")
    assert (found.missing, found.mend) == (("torch",), 'pip install "voxport[torch]"')
