#!/bin/sh
# The release tensorboard 2.16.0 requires tf-keras-nightly, a nightly build, although tensorboard reads and writes its
# files without TensorFlow; 2.16.2 does not. A lower bound of 2.16 in a training package's extras works for everybody who
# takes the newest, and brings nightly builds to whoever tests the lowest.
#
# Expected: a released package requires released packages, and 2.16.0 what 2.16.2 requires.
# Seen:     "tf-keras-nightly" among the requirements of 2.16.0 alone.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 2.16.0 2.16.2; do
    "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-deps --target "$work/$version" \
        "tensorboard==$version"
done
"$work/venv/bin/python" - "$work" <<'CHECK'
import importlib.metadata
import pathlib
import sys

found = {}
for version in ("2.16.0", "2.16.2"):
    (distribution,) = importlib.metadata.distributions(name="tensorboard", path=[str(pathlib.Path(sys.argv[1]) / version)])
    found[version] = sorted(distribution.requires or [])
    print(f"tensorboard {distribution.version} requires:", ", ".join(found[version]))
nightly = {version: any("nightly" in each for each in asked) for version, asked in found.items()}
sys.exit(0 if nightly == {"2.16.0": True, "2.16.2": False} else f"changed: {nightly}")
CHECK
