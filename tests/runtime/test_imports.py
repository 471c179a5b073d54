"""Which package an import failed for, and the command that mends it; tried on packages that are made to fail."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from voxport.cli.root import cli
from voxport.runtime.imports import ImportFailure, explain_import, state_of

Installer = Callable[..., None]

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the partner, PyTorch, is not installed")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """Put a package with this code and this version in front of those that are installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, code: str, version: str = "1.2.3") -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(name)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install


def failure_of(name: str) -> ImportFailure | None:
    try:
        importlib.import_module(name)
    except Exception as problem:
        return explain_import(problem)
    raise AssertionError(f"{name} was imported")


def test_a_package_that_is_not_installed() -> None:
    failure = failure_of("no_such_package")
    assert failure is not None
    assert failure.is_missing
    assert str(failure) == 'the package no-such-package is not installed: pip install "no-such-package"'


@needs_torch
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise OSError('undefined symbol: aoti_torch')", "undefined symbol: aoti_torch"),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13: cannot open"),
        ("import numpy\nnumpy.a_name_that_numpy_2_took_away", "has no attribute"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "nms does not exist"),
    ],
)
def test_a_package_that_does_not_load_is_named_with_its_partner(install: Installer, code: str, reason: str) -> None:
    from importlib.metadata import version

    install("torchmetrics", code)
    failure = failure_of("torchmetrics")
    assert failure is not None
    assert (failure.package, failure.version) == ("torchmetrics", "1.2.3")
    assert failure.partner == ("torch", version("torch"))
    assert reason in str(failure)
    assert f"torchmetrics 1.2.3 does not load beside torch {version('torch')} (" in str(failure)
    assert 'pip install --upgrade --force-reinstall "torchmetrics>=1.4" "torch<2.16,>=2.9"' in str(failure)


def test_torchaudio_is_taken_away_since_nothing_needs_it(install: Installer) -> None:
    install("torchaudio", "raise OSError('undefined symbol')", "2.11.1")
    failure = failure_of("torchaudio")
    assert failure is not None
    assert failure.command == "pip uninstall -y torchaudio"


def test_the_name_that_an_import_lacked_is_the_partner(install: Installer) -> None:
    from importlib.metadata import version

    install("onnxscript", "from numpy import a_name_that_is_gone")
    failure = failure_of("onnxscript")
    assert failure is not None
    assert failure.partner == ("numpy", version("numpy"))


def test_errors_of_the_user_and_of_ours_are_not_the_installations() -> None:
    for problem in (FileNotFoundError(2, "No such file", "a.wav"), ValueError("no"), KeyError("x")):
        assert explain_import(problem) is None
    assert failure_of("voxport.no_such_module") is None
    code = compile("import voxport.runtime as runtime\nruntime.nothing", "ours", "exec")
    with pytest.raises(AttributeError) as caught:
        exec(code, {"__name__": "voxport.x"})  # noqa: S102 - a module of ours that is at fault itself
    assert explain_import(caught.value) is None


def test_what_follows_the_name_of_a_package(install: Installer) -> None:
    install("onnxruntime", "raise ImportError('DLL load failed')", "9.9")
    with pytest.raises(ImportError) as caught:
        importlib.import_module("onnxruntime")
    assert state_of(caught.value, "onnxruntime").startswith("9.9 does not load beside numpy ")
    assert state_of(ModuleNotFoundError("no", name="torch"), "torch") == "is not installed"


@needs_torch
def test_a_command_says_it_in_one_line(install: Installer, tmp_path: Path) -> None:
    install("pytorch_lightning", "raise OSError('undefined symbol: wrong_build')", "2.6.6")
    (tmp_path / "corpus").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from voxport.cli.root import main\n"
        f"folder = {str(tmp_path)!r}\n"
        "sys.argv = ['voxport', 'train', 'fit', '--data', folder + '/corpus', '--out', folder + '/o']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: pytorch-lightning 2.6.6 does not load beside torch ")
    assert "undefined symbol: wrong_build" in line
    assert "pip install --upgrade --force-reinstall" in line
    assert not (tmp_path / "o").exists()


def test_help_needs_none_of_it(install: Installer) -> None:
    install("torchmetrics", "raise OSError('undefined symbol')")
    assert CliRunner().invoke(cli, ["train", "fit", "--help"]).exit_code == 0


def test_a_package_that_lacks_a_part_of_itself(install: Installer) -> None:
    install("half", "import half.gone", "3.1")
    failure = failure_of("half")
    assert failure is not None
    assert str(failure).startswith("half 3.1 does not load (No module named 'half.gone')")
