#!/bin/sh
# torchaudio 2.11.1 does not load beside torch 2.11.0, though torchaudio's releases were always numbered after the torch
# that they were built for, and its metadata asks for torch>=2.11. It loads beside torch 2.14.1.
#
# Expected: what fits a package's own requirements, and has its minor version too, loads.
# Seen:     pip installs both without a word; `import torchaudio` raises OSError.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip="$work/venv/bin/python -m pip --disable-pip-version-check --quiet"
$pip install "torch==2.11.0" "torchaudio==2.11.1" numpy

"$work/venv/bin/python" - <<'CHECK'
import importlib.metadata
import sys

print("torch", importlib.metadata.version("torch"), "torchaudio", importlib.metadata.version("torchaudio"))
asked = importlib.metadata.requires("torchaudio") or []
print("torchaudio's metadata asks for:", ", ".join(asked) or "nothing")
try:
    import torchaudio  # noqa: F401
except OSError as problem:
    print("import torchaudio raises OSError:", str(problem).splitlines()[0].split(":")[0])
    print("because of:", str(problem.__cause__).split(": ", 1)[-1][:160])
    seen = "torch>=2.11" in asked
else:
    print("import torchaudio works")
    seen = False
sys.exit(0 if seen else "changed: this pair loads, is refused, or fails in another way")
CHECK
