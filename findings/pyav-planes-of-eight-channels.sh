#!/bin/sh
# PyAV finds more planes in a planar audio frame than it has, where it has eight channels or more: it counts pointers until
# one is null, and FFmpeg ends the list with its length alone. What stands behind the list is taken for a plane, so that
# AudioFrame.from_ndarray refuses eight channels, and AudioFrame.to_ndarray, on a frame that was decoded from 7.1 sound
# (AAC in MP4, Opus in WebM), reads memory that is not the frame's and may end the process. The way around is to take
# frame.planes[:channels] and numpy.frombuffer. This script reads no such memory.
#
# Expected: eight planes of eight channels.
# Seen:     PyAV 14.0.0 and 18.1.0: nine; and IndexError by from_ndarray.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 14.0.0 18.1.0; do
    "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet install "av==$version" "numpy==2.3.5"
    "$work/venv/bin/python" - <<'CHECK'
import sys

import av
import numpy

found = {}
for layout, channels in (("stereo", 2), ("5.1", 6), ("7.1", 8)):
    found[channels] = len(av.AudioFrame("fltp", layout, 1024).planes)
    try:
        av.AudioFrame.from_ndarray(numpy.zeros((channels, 1024), numpy.float32), "fltp", layout)
        made = "from_ndarray takes them"
    except Exception as problem:
        made = f"from_ndarray: {type(problem).__name__}: {problem}"
    print(f"PyAV {av.__version__}: {channels} channels, {found[channels]} planes; {made}")
sys.exit(0 if found == {2: 2, 6: 6, 8: 9} else f"changed: {found}")
CHECK
done
