#!/bin/sh
# onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0 on Linux x86-64: its import changes the installation and the environment.
#
# Held here: `import onnxruntime_ep_nv_tensorrt_rtx` makes four symbolic links in the package's own folder, which pip does
# not know, and puts that folder into LD_LIBRARY_PATH of the process, which its children inherit. On a machine without an
# NVIDIA driver the plugin cannot be registered at all: it is linked against libcuda.so.1, so one learns nothing of
# devices. One would expect an import to leave files and environment alone, the wheel to bring what it needs (a read-only
# installation gets only a warning), and a plugin without a driver to offer no devices.
# Usage: sh findings/onnxruntime-rtx-plugin-writes-into-its-own-package.sh    (PIP names another installer)
# Exits with 0 where all is as described, with 1 where this release behaves otherwise. Needs no GPU, and no driver.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PIP:-python3 -m pip} install --quiet --target "$folder/packages" \
    onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 onnxruntime==1.32.0

cat > "$folder/import.py" <<'END'
import os
import sys
from pathlib import Path

import onnxruntime

before = os.environ.get("LD_LIBRARY_PATH", "")
folder = Path(onnxruntime.__file__).parent.parent / "onnxruntime_ep_nv_tensorrt_rtx"
links = sorted(each.name for each in folder.iterdir() if each.is_symlink())
import onnxruntime_ep_nv_tensorrt_rtx as plugin  # noqa: E402

made = sorted(each.name for each in folder.iterdir() if each.is_symlink())
path = os.environ.get("LD_LIBRARY_PATH", "")
print("onnxruntime", onnxruntime.__version__, "plugin", plugin.__version__)
print("links before the import:", links)
print("links after it:", made)
print("LD_LIBRARY_PATH changed:", path != before and str(folder) in path)
try:
    onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    said = ""
except Exception as problem:
    said = str(problem).splitlines()[0]
print("registered:", said or "yes")
without_driver = "libcuda.so.1: cannot open shared object file" in said or not said
sys.exit(0 if not links and len(made) == 4 and path != before and without_driver else 1)
END
PYTHONPATH="$folder/packages" PYTHONDONTWRITEBYTECODE=1 python3 "$folder/import.py"
