"""Memory stays flat: two thousand questions of mixed lengths, of every kind, galleries and streams among them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.tiny_models import TinyModel

CALLS = 2000
# After the warm-up nothing may accumulate. Keeping one sound's features (4 to 10 kB) for each call would be 8 to
# 20 MiB, and 2 kB for each call 4 MiB; a healthy process moves by what malloc's arenas happen to hold.
BOUND_MIB = 4.0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_memory_stays_flat_over_mixed_lengths(either: TinyModel) -> None:
    script = Path(__file__).with_name("soak.py")
    command = [sys.executable, str(script), str(either.path), "--calls", str(CALLS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=environment)
    assert result.returncode == 0, result.stderr
    sizes = json.loads(result.stdout)["resident_mib"]
    assert len(sizes) == 21
    assert max(sizes) - sizes[0] < BOUND_MIB, sizes
