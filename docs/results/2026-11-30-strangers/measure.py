"""Strangers under eleven conditions: equal error rates of models and of Resemblyzer on the very same sounds.

python measure.py CORPUS MODEL.onnx [MODEL.onnx ...] [--resemblyzer]

CORPUS holds sounds of speakers that no model knows. Every recording is enrolled clean and tested changed, over all
pairs but a recording with itself. Sounds and seed are those of `voxport bench conditions --seed 1`. Resemblyzer 0.1.4
(PyPI, with webrtcvad, librosa and setuptools<80) hears each sound as its README does, with its own weights:
`embed_utterance(preprocess_wav(sound))`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.conditions.measure import CorpusSurroundings, read_files
from voxport.benchmarks.conditions.runner import CONDITIONS
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.options import BackendOptions
from voxport.runtime.windowing.hearing import hear, open_sound
from voxport.train.evaluation.conditions import between

SEED = 1
ELEVEN = (
    *(f"white noise, {snr} dB" for snr in (20, 10, 5)),
    *(f"babble, {snr} dB" for snr in (20, 10, 5)),
    "T60 0.3 s",
    "T60 0.8 s",
    "telephone (8 kHz, µ-law)",
    "MP3, lowest rate",
    "Opus, lowest rate",
)

Samples = npt.NDArray[np.float32]
Embed = Callable[[Samples], npt.NDArray[np.float32]]


def exported(path: Path) -> Embed:
    """The embedding of a model that `voxport export` wrote, on one thread."""
    backend = load_backend(path, BackendOptions("cpu", 1))
    contract = backend.contract
    return lambda sound: np.asarray(
        hear(backend, open_sound(contract, sound, contract.frontend.sample_rate, "sound")).answer.embedding[0]
    )


def resemblyzer() -> Embed:
    """Resemblyzer as its README uses it."""
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)
    return lambda sound: np.asarray(encoder.embed_utterance(preprocess_wav(sound, source_sr=16_000)))


def main() -> None:
    """Print a line a condition, a column a model, and each model's mean over the eleven."""
    arguments = [each for each in sys.argv[1:] if each != "--resemblyzer"]
    models = {path: exported(Path(path)) for path in arguments[1:]}
    if "--resemblyzer" in sys.argv:
        models["Resemblyzer 0.1.4"] = resemblyzer()
    files = read_files(Path(arguments[0]), 16_000, None)
    speakers = np.unique(files.speakers, return_inverse=True)[1]
    around = CorpusSurroundings(files, 16_000, SEED)
    clean: dict[str, npt.NDArray[np.float32]] = {}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for condition in CONDITIONS:
        if condition.name != "clean" and condition.name not in ELEVEN:
            continue
        sounds = list(around.changed(condition))
        line = f"{condition.name:26}"
        for name, embed in models.items():
            voices = np.stack([embed(np.asarray(sound, np.float32)) for sound in sounds])
            clean.setdefault(name, voices)
            rate = between(clean[name], voices, speakers)
            assert rate is not None
            rates[name].append(100 * rate)
            line += f"{rates[name][-1]:8.2f}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    for name, found in rates.items():
        mean = float(np.mean(found[1:]))
        sys.stdout.write(f"{name}: clean {found[0]:.2f} %, eleven {mean:.2f} %, {mean - found[0]:+.2f} points\n")


if __name__ == "__main__":
    main()
