"""Enroll people from a few recordings, then say who is speaking. Nothing is trained.

python examples/gallery.py model.onnx people.gallery add Ada ada1.wav ada2.wav ada3.wav
python examples/gallery.py model.onnx people.gallery who door.wav
"""

import sys

from voxport.runtime import Gallery, SpeakerIdentifier, VoxportError

THRESHOLD = 0.5  # a guess, used until the gallery has one: voxport gallery calibrate people.gallery 0.05


def main(model: str, path: str, task: str, *rest: str) -> None:
    """Add a speaker to the gallery, or say who is speaking in each file."""
    identifier = SpeakerIdentifier.load(model)
    if task == "add":
        name, *files = rest
        with Gallery.edit(path, identifier.contract) as gallery:
            print(gallery.enroll(name, [identifier.voice(file) for file in files]))
        return
    gallery = Gallery.load(path, identifier.contract)
    threshold = THRESHOLD if gallery.thresholds.identify is None else None
    for file in rest:
        voice = identifier.voice(file)
        if voice.speech is not None and not voice.speech.found:
            print(f"{file}: nobody; it {voice.speech.text}")
            continue
        matches = gallery.identify(voice, threshold=threshold)
        print(f"{file}: {matches.speaker or 'a stranger'} ({matches.best.cosine:.3f})")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except VoxportError as problem:
        sys.exit(f"error: {problem}")
