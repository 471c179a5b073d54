"""Building the distribution, and a bare environment to install it in."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ROOMS = {room: room for room in ("cli", "train", "export", "corpora", "scale", "runtime", "benchmarks")}


def build(kind: str, target: Path, source: Path = ROOT) -> Path:
    """Build `kind` (wheel or sdist) from `source` with the back end that pyproject.toml names."""
    code = f"import sys, hatchling.build as b; print(b.build_{kind}(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=source, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return target / result.stdout.split()[-1]


def required(extras: set[str]) -> set[str]:
    """The packages that voxport with these extras brings, and all that those bring, by their canonical names."""
    found: set[tuple[str, str]] = set()  # (package, its extra)
    waiting = {("voxport", extra) for extra in {"", *extras}}
    while waiting:
        name, wanted = waiting.pop()
        found.add((name, wanted))
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                brought = canonicalize_name(requirement.name)
                waiting |= {(brought, extra) for extra in {"", *requirement.extras}} - found
    return {name for name, _ in found} - {"voxport"}


def bare_environment(path: Path, wheel: Path, *extras: str) -> Path:
    """Make a virtual environment with voxport's wheel and what it requires, nothing else; returns its bin folder.

    The requirements are links to the packages of the running environment, so that no index is needed.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True, timeout=120)
    scripts = path / ("Scripts" if sys.platform == "win32" else "bin")
    command = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet"]
    result = subprocess.run(
        [*command, "--no-index", "--no-deps", str(wheel)], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    (packages,) = path.glob("lib/python*/site-packages") if sys.platform != "win32" else [path / "Lib/site-packages"]
    for name in sorted(required(set(extras))):
        distribution = importlib.metadata.distribution(name)
        roots = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for root in sorted(roots - {"__pycache__"}):
            if not (packages / root).exists():  # `google` holds several packages
                (packages / root).symlink_to(str(distribution.locate_file(root)))
    return scripts
