#!/bin/sh
# onnxruntime 1.32.0 on Linux: loading a model writes a device identifier and a store of events into the home folder.
#
# Held here: which switches stop that. ORT_DISABLE_TELEMETRY=1 before the import does, and CI=true does, so that a
# continuous integration never sees it; disable_telemetry_events() and ORT_TELEMETRY_DISABLED=1 do not.
# Usage: sh findings/onnxruntime-telemetry.sh    (PIP names another installer, such as PIP="uv pip")
# Exits with 0 where all is as described, with 1 where this release behaves otherwise.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PIP:-python3 -m pip} install --quiet --target "$folder/packages" onnxruntime==1.32.0

# y = |x|, of one float
cat > "$folder/load.py" <<'END'
import sys
import onnxruntime
model = bytes.fromhex(
    "08073a320a0b0a017812017922034162731201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
if "disable" in sys.argv:
    onnxruntime.disable_telemetry_events()
onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
END

changed=0
try() {  # what, expected number of files, and what comes before `python3` and after the script
    what=$1 expected=$2 before=$3 after=$4
    home="$folder/home"
    rm -rf "$home"
    mkdir "$home"
    # shellcheck disable=SC2086 # several words on purpose
    env -u CI -u ORT_DISABLE_TELEMETRY HOME="$home" PYTHONPATH="$folder/packages" $before \
        python3 "$folder/load.py" $after
    found=$(find "$home" -type f | wc -l)
    echo "$what: $found files written below the home folder, expected $expected"
    find "$home" -type f | sed "s|$home|    ~|"
    [ "$found" -eq "$expected" ] || changed=1
}

PYTHONPATH="$folder/packages" ORT_DISABLE_TELEMETRY=1 python3 -c "import onnxruntime; print('onnxruntime', onnxruntime.__version__)"
try "nothing set" 2 "" ""
try "disable_telemetry_events()" 2 "" disable
try "ORT_TELEMETRY_DISABLED=1" 2 ORT_TELEMETRY_DISABLED=1 ""
try "ORT_DISABLE_TELEMETRY=1" 0 ORT_DISABLE_TELEMETRY=1 ""
try "CI=true" 0 CI=true ""
exit "$changed"
