"""What nvidia-smi is asked and how its words are read, with a script in its place."""

import os
from pathlib import Path

import pytest

from voxport.benchmarks.system.gpu_state import first_gpu, gpu_memory_used, gpu_states

SCRIPT = """#!/bin/sh
case "$1" in
  *clocks_event_reasons*) echo 'Field "clocks_event_reasons.active" is not a valid field'; exit 2;;
  *memory.used*) case "$3" in --id=0) echo '1536';; --id=GPU-7*) echo '77';; *) exit 6;; esac;;
  *) echo '1980 MHz, 2619 MHz, 412.10 W, 61, 97 %, 0x0000000000000004';;
esac
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "nvidia-smi"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


@pytest.mark.skipif(os.name == "nt", reason="the script in nvidia-smi's place is for a POSIX shell")
def test_clocks_power_and_memory_are_read(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state,) = gpu_states()
    facts = {fact.name: fact.value for fact in state.facts}
    assert facts["clocks.sm"] == "1980 MHz"
    assert facts["power.draw"] == "412.10 W"
    assert facts["clocks_throttle_reasons.active"] == "0x0000000000000004"  # the older name, which this driver knows
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_memory_used() == 1536 << 20


@pytest.mark.skipif(os.name == "nt", reason="the script in nvidia-smi's place is for a POSIX shell")
def test_the_gpu_asked_is_the_one_that_is_visible(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES renumbers GPUs for CUDA, and not for nvidia-smi."""
    for value, index in (("", "0"), ("3,1", "3"), ("GPU-7f,GPU-1", "GPU-7f"), ("-1", "0"), ("none", "0")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert first_gpu() == index
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7f")
    assert gpu_memory_used() == 77 << 20


@pytest.mark.skipif(os.name == "nt", reason="the script in nvidia-smi's place is for a POSIX shell")
def test_a_driver_that_does_not_run_tells_nothing(tool: Path) -> None:
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert gpu_states() == ()
    assert gpu_memory_used() is None


def test_no_tool_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_states() == ()
    assert gpu_memory_used() is None
