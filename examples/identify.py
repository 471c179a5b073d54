"""The smallest program around a model: who is speaking in these files?

pip install "voxport[audio,cpu]"
python examples/identify.py model.onnx one.wav two.flac
"""

import sys

from voxport.runtime import SpeakerIdentifier, VoxportError


def main() -> int:
    """Name the speaker of each file; a bad file is reported, and the others are still answered."""
    if len(sys.argv) < 3:
        sys.stderr.write(__doc__ or "")
        return 2
    try:
        identifier = SpeakerIdentifier.load(sys.argv[1])
    except VoxportError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 1
    failed = 0
    for path in sys.argv[2:]:
        try:
            answer = identifier.identify(path)
            who = "nobody known" if answer.speaker is None else f"{answer.speaker} ({answer.best.probability:.0%})"
            sys.stdout.write(f"{path}: {who}\n")
        except VoxportError as problem:
            sys.stderr.write(f"error: {problem}\n")
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
