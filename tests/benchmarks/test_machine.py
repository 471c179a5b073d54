"""What is read from /proc and /sys, with files of a machine that the test makes up."""

import os
import subprocess
from pathlib import Path

import pytest

from voxport.benchmarks.system.machine import describe_machine


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_made_up_machine(tmp_path: Path) -> None:
    machine = describe_machine(
        write(
            tmp_path,
            {
                "proc/cpuinfo": "processor\t: 0\nmodel name\t: Abacus 9000\nflags\t\t: fpu avx2 hypervisor\n\n"
                "processor\t: 1\nmodel name\t: Other\n",
                "proc/meminfo": "MemTotal:       16384 kB\nMemAvailable:    8192 kB\n",
                "proc/self/cgroup": "0::/user.slice/job\n",
                "sys/fs/cgroup/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/user.slice/job/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/user.slice/memory.max": "1048576\n",
                "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
                "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
            },
        )
    )
    assert machine.cpu == "Abacus 9000"
    assert machine.virtual is True
    assert (machine.memory, machine.memory_available) == (16384 * 1024, 8192 * 1024)
    assert machine.cpu_quota == 1.5  # the tightest of those above it
    assert machine.memory_limit == 1048576
    assert machine.governor == "powersave"
    assert machine.turbo is False
    assert machine.usable_cores == min(1.5, machine.cores_allowed)


def test_old_cgroups_and_amd_boost(tmp_path: Path) -> None:
    machine = describe_machine(
        write(
            tmp_path,
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/devices/system/cpu/cpufreq/boost": "1",
            },
        )
    )
    assert machine.cpu_quota == 0.5
    assert machine.turbo is True


def test_what_is_not_there_is_unknown(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path)
    assert machine.cpu
    assert [machine.cpu_quota, machine.governor, machine.turbo, machine.virtual, machine.memory] == [None] * 5
    assert machine.usable_cores == machine.cores_allowed


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no CPU affinity")
def test_affinity_of_this_machine() -> None:
    assert describe_machine().cores_allowed == len(os.sched_getaffinity(0))


def test_gpus_are_asked_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Tesla X, 600.1, 16384 MiB, 1500 MHz, 1900 MHz, 5000 MHz, 70.5 W, 300 W, 41'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (gpu,) = describe_machine().gpus
    facts = {fact.name: fact.value for fact in gpu.facts}
    assert facts["name"] == "Tesla X"
    assert facts["driver_version"] == "600.1"
    assert facts["temperature.gpu"] == "41"
    tool.write_text("#!/bin/sh\necho 'no driver' >&2; exit 9\n")
    assert subprocess.run([tool], check=False, capture_output=True).returncode == 9
    assert describe_machine().gpus == ()
