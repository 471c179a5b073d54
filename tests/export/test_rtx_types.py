"""Our calls of TensorRT for RTX against the real package's own names and signatures.

The package has no annotations, but its docstrings state each signature; mypy's stubgen makes stubs of them. What runs
TensorRT and TensorRT for RTX is checked with these stubs in the place of both.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "runtime/voxport/runtime/backends/trt/library.py",
    "runtime/voxport/runtime/backends/trt/engine.py",
    "runtime/voxport/runtime/backends/rtx/engine.py",
    "export/voxport/export/targets/trt/builder.py",
)
NATIVE = "tensorrt_rtx_bindings.tensorrt_rtx"
# What passes only where nothing is checked: names of TensorRT 11.4 and 10 that RTX lacks, and a wrong signature.
WRONG = """
import tensorrt as trt

def missing(config: trt.IBuilderConfig, builder: trt.Builder) -> None:
    config.set_flag(trt.BuilderFlag.FP16)
    builder.build_engine_with_config(config)

def mistyped(config: trt.IRuntimeConfig) -> None:
    config.cuda_graph_strategy = 3
    config.set_compute_capability(trt.ComputeCapability.SM89)
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("tensorrt_rtx", "mypy"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("stubs")
    code = f"from mypy.stubgen import main; main(['-q', '-p', {NATIVE!r}, '-o', {str(folder / 'made')!r}])"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    native = valid((folder / "made" / f"{NATIVE.replace('.', '/')}.pyi").read_text())
    for name in ("tensorrt", "tensorrt_rtx"):
        (folder / f"{name}.pyi").write_text(native)
    return folder


def valid(stub: str) -> str:
    """The stub, with any arguments for the few functions whose docstring states a signature that is no Python."""
    lines = stub.splitlines()
    for _ in range(20):
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as problem:
            at = (problem.lineno or 1) - 1
            lines[at] = re.sub(r"def (\w+)\(.*", r"def \1(self, *args, **kwargs): ...", lines[at])
        else:
            return "\n".join(lines)
    raise AssertionError("stubgen's stubs are not Python")


def complaints(stubs: Path, *files: str) -> list[str]:
    """mypy's errors in `files`; what they import besides the library is taken as untyped."""
    options = ["--no-incremental", "--follow-imports=skip", "--check-untyped-defs", "--ignore-missing-imports"]
    listed = [*files, *(str(stubs / f"{name}.pyi") for name in ("tensorrt", "tensorrt_rtx"))]
    command = [sys.executable, "-m", "mypy", f"--config-file={stubs / 'none.ini'}", *options, *listed]
    (stubs / "none.ini").write_text("[mypy]\n")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line and ".pyi:" not in line]


def test_each_name_and_signature_exists_in_the_real_package(stubs: Path) -> None:
    wrong = stubs / "wrong.py"
    wrong.write_text(WRONG)
    found = complaints(stubs, *FILES, str(wrong))
    assert [line for line in found if "wrong.py" not in line] == []
    told = "\n".join(found)
    for each in (
        '"FP16"',
        '"build_engine_with_config"',
        '"int", variable has type "CudaGraphStrategy"',
        "IRuntimeConfig",
    ):
        assert each in told
