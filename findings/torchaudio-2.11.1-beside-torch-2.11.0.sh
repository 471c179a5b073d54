#!/bin/sh
# torchaudio 2.11.1 does not load beside torch 2.11.0, though torchaudio's releases were always numbered after the torch
# that they were built for, and its metadata asks for no torch at all. It loads beside torch 2.14.1.
#
# Expected: two packages of one minor version load together, or pip refuses the pair.
# Seen:     pip installs both without a word; `import torchaudio` raises OSError over an undefined symbol.
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
print("torchaudio's metadata asks for:", asked or "nothing")
try:
    import torchaudio  # noqa: F401
except OSError as problem:
    print("import torchaudio raises OSError:", str(problem).splitlines()[0][-160:])
    seen = "undefined symbol" in str(problem) and not any(each.startswith("torch") for each in asked)
else:
    print("import torchaudio works")
    seen = False
sys.exit(0 if seen else "changed: this pair loads, is refused, or fails in another way")
CHECK
