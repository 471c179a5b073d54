"""Counters of energy and memory, read from folders that the test made, and from this process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from voxport.benchmarks.system.resources import NoMeter, memory_now, open_meter


@pytest.fixture
def zones(tmp_path: Path) -> list[Path]:
    """Two processor packages, and a part of one that must not be counted twice."""
    found = []
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone = tmp_path / name
        zone.mkdir()
        (zone / "name").write_text("core\n" if name.count(":") > 1 else f"package-{name[-1]}\n")
        (zone / "max_energy_range_uj").write_text("1000000\n")
        (zone / "energy_uj").write_text("900000\n")
        found.append(zone)
    return found


def test_joules_of_all_packages_across_the_counters_end(zones: list[Path], tmp_path: Path) -> None:
    meter = open_meter("cpu", tmp_path)
    meter.start()
    (zones[0] / "energy_uj").write_text("950000\n")
    (zones[1] / "energy_uj").write_text("100000\n")  # it began again at 0
    (zones[2] / "energy_uj").write_text("999999\n")
    found = meter.stop()
    assert found.joules == pytest.approx((50_000 + 200_000) / 1e6)
    assert found.source.startswith("RAPL, 2 processor package")


def test_the_platform_is_not_counted_beside_its_packages(zones: list[Path], tmp_path: Path) -> None:
    """Laptops have a zone `psys`, which holds the packages and all else on the board."""
    (zones[1] / "name").write_text("psys\n")
    meter = open_meter("cpu", tmp_path)
    meter.start()
    for zone in zones:
        (zone / "energy_uj").write_text("950000\n")
    found = meter.stop()
    assert found.joules == pytest.approx(50_000 / 1e6)
    assert found.source.startswith("RAPL, 1 processor package")


def test_no_counter_says_why(zones: list[Path], tmp_path: Path) -> None:
    for folder, reason in ((tmp_path / "none", "has no processor package"), (tmp_path, "cannot be read")):
        (zones[0] / "energy_uj").write_text("not a number")
        meter = open_meter("cpu", folder)
        meter.start()
        found = meter.stop()
        assert found.joules is None
        assert reason in found.source
    assert isinstance(open_meter("cpu", tmp_path / "none"), NoMeter)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells PSS")
def test_memory_grows_with_what_is_held() -> None:
    """In a process of its own: one that ran other tests may have that much memory to spare."""
    script = (
        "import json\n"
        "import numpy as np\n"
        "from voxport.benchmarks.system.resources import memory_now\n"
        "before = memory_now()\n"
        "held = np.ones(40_000_000, dtype=np.uint8)\n"
        "after = memory_now()\n"
        "grown = [getattr(after, name) - getattr(before, name) for name in ('resident', 'proportional')]\n"
        "print(json.dumps([int(held[0]), grown, after.device]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    held, grown, device = json.loads(done.stdout)
    assert held == 1
    assert all(35_000_000 < each < 60_000_000 for each in grown)
    assert device is None


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    found = memory_now(process=tmp_path)
    assert (found.resident, found.proportional) == (None, None)
