"""The versions that the Makefile installs: each exact, within pyproject.toml's ranges, from no particular index."""

import importlib.metadata
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging_tools import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

pytestmark = pytest.mark.skipif(not (ROOT / "requirements").is_dir(), reason="an installed copy has no lock files")


def lock(kind: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def asked(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for with these extras, through the extras of ours that they name."""
    found: list[Requirement] = [Requirement(text) for text in PROJECT["dependencies"]]
    waiting, seen = list(extras), set[str]()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for text in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == "voxport":
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def environment(python: str, system: str, machine: str) -> dict[str, str]:
    known = {key: str(value) for key, value in default_environment().items()}
    names = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
    return known | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_machine": machine,
        "platform_system": names[system],
        "os_name": "nt" if system == "win32" else "posix",
        "extra": "",
    }


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_version_is_exact_and_no_index_is_named(kind: str) -> None:
    text = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", text, re.MULTILINE), "an option of pip's"
    for requirement in lock(kind):
        assert requirement.url is None
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert "*" not in specifier.version


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_markers_choose_one_version_that_pyproject_allows(kind: str, python: str, system: str, machine: str) -> None:
    here = environment(python, system, machine)
    chosen: dict[str, str] = {}
    for requirement in lock(kind):
        if requirement.marker is None or requirement.marker.evaluate(here):
            name = canonicalize_name(requirement.name)
            assert name not in chosen, f"{name} twice"
            chosen[name] = next(iter(requirement.specifier)).version
    for requirement in asked("dev", kind):
        if requirement.marker is None or requirement.marker.evaluate(here):
            version = chosen.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is missing: run `make lock`"
            assert requirement.specifier.contains(version), f"{requirement} against {version}: run `make lock`"


def test_an_environment_of_the_lock_has_nothing_missing() -> None:
    """Transitive requirements as well: pip judges the running environment, where the lock made it."""
    here = environment(".".join(map(str, sys.version_info[:2])), sys.platform, platform.machine())
    for requirement in lock("cpu"):
        if requirement.marker is None or requirement.marker.evaluate(here):
            try:
                installed = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                pytest.skip(f"another environment: {requirement.name} is not installed")
            if not requirement.specifier.contains(installed):
                pytest.skip(f"another environment: {requirement.name} {installed}, the lock has {requirement}")
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--python", sys.executable, "check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "No module named pip" in result.stderr:
        pytest.skip("pip is not installed")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("arguments", [(), ("TORCH_INDEX=https://index.invalid/cpu",), ("ONNXRUNTIME=gpu",)])
def test_make_installs_the_lock_and_resolves_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = subprocess.run(
        ["make", "--dry-run", "setup", f"VENV={tmp_path / 'venv'}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    installs = [line for line in result.stdout.splitlines() if " install " in line and "-m pip --python" not in line]
    kind = "gpu" if "ONNXRUNTIME=gpu" in arguments else "cpu"
    assert len(installs) == (4 if "TORCH" in "".join(arguments) else 3)
    assert all("--no-deps" in line for line in installs)
    assert f"requirements/{kind}.txt" in result.stdout


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_torch_from_elsewhere_replaces_what_the_lock_has_of_it(kind: str) -> None:
    """The pattern of the Makefile leaves torch and its own libraries out, and nothing else."""
    shown = subprocess.run(
        ["make", "--dry-run", "setup", "VENV=nowhere", "TORCH_INDEX=https://index.invalid/cpu", f"ONNXRUNTIME={kind}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    (pattern,) = re.findall(r"grep -vE '(.*)' requirements", shown)
    dropped = {requirement.name for requirement in lock(kind) if re.match(pattern, f"{requirement.name}==")}
    assert {"torch", "torchaudio", "triton"} <= dropped
    rest = dropped - {"torch", "torchaudio", "triton"}
    assert all(name.startswith(("nvidia-", "cuda-")) for name in rest)
    assert bool(rest) == (kind == "cpu"), "ONNX Runtime for GPUs needs NVIDIA's libraries whatever PyTorch brings"
