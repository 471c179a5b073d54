"""The demo's corpus: a folder per speaker of short sound files, in a training and a held-out part."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from voxport.cli.demo.espeak import Speech, Voice, sentences, speak_all
from voxport.runtime.errors import VoxportError

SPEAKERS = {
    "andrew": Voice("en-gb-scotland", "m2", pitch=38),
    "beatrice": Voice("en-gb-x-rp", "f2", pitch=62),
    "carlos": Voice("es", "m4", pitch=45),
    "delphine": Voice("fr", "f3", pitch=55),
    "edgar": Voice("en-us", "m7", pitch=30, rate=150),
    "frieda": Voice("de", "f1", pitch=58),
    "giulia": Voice("it", "f4", pitch=66, rate=180),
    "harold": Voice("en-us-nyc", "m3", pitch=42, rate=180),
    "ingrid": Voice("sv", "f5", pitch=52),
    "jerome": Voice("en-029", "m1", pitch=50),
    "katarzyna": Voice("pl", "f2", pitch=48, rate=155),
    "lars": Voice("nl", "m6", pitch=35),
    "margaret": Voice("en-gb-x-gbclan", "f1", pitch=44, rate=150),
    "nigel": Voice("en-gb-x-gbcwmd", "m8", pitch=40),
    "olivia": Voice("en-us", "f3", pitch=70, rate=175),
    "pedro": Voice("pt-br", "m5", pitch=48, rate=170),
}
_PANGRAM = "Quick foxes jump over the lazy brown dog, and nobody knows why they would."
# Mean difference of log-mel bands. The pitches and rates of one speaker's sentences move it by 0.25 at most, the
# nearest two speakers are 0.42 apart (both measured with espeak-ng 1.52).
_LEAST_DISTANCE = 0.3


@dataclass(frozen=True)
class CorpusPlan:
    """How much speech: sentences per speaker in either part. Every sentence is spoken once in the corpus."""

    train: int
    held_out: int
    seed: int


@dataclass(frozen=True)
class DemoCorpus:
    """Where the corpus is. Files lie at `train/SPEAKER/NN.ogg` and `held-out/SPEAKER/NN.ogg`."""

    path: Path
    speakers: tuple[str, ...]

    @property
    def train(self) -> Path:
        return self.path / "train"

    @property
    def held_out(self) -> Path:
        return self.path / "held-out"

    def held_out_files(self) -> list[tuple[str, Path]]:
        """(speaker, sound file) for every held-out file, in order."""
        return [(name, file) for name in self.speakers for file in sorted((self.held_out / name).glob("*.ogg"))]


def make_corpus(path: Path, plan: CorpusPlan, done: Callable[[], None] = lambda: None) -> DemoCorpus:
    """Write the corpus below `path`; `done` is called after every file, `count_files(plan)` times in all.

    Raises:
        VoxportError: espeak-ng lacks a voice, or two speakers sound the same.
    """
    speeches = [Speech(voice, _PANGRAM, path / "voices" / f"{name}.ogg") for name, voice in SPEAKERS.items()]
    speak_all(speeches + _utterances(path, plan), done)
    check_distinct({speech.path.stem: speech.path for speech in speeches})
    return DemoCorpus(path, tuple(SPEAKERS))


def count_files(plan: CorpusPlan) -> int:
    """Number of sound files that `make_corpus` writes."""
    return len(SPEAKERS) * (1 + plan.train + plan.held_out)


def _utterances(path: Path, plan: CorpusPlan) -> list[Speech]:
    texts = sentences(plan.seed)
    # People do not speak at one pitch and one speed; without this a single number would give each away.
    random = np.random.default_rng([plan.seed, 1])
    speeches = []
    for name, voice in SPEAKERS.items():
        for number in range(plan.train + plan.held_out):
            part = "train" if number < plan.train else "held-out"
            pitch, rate = (int(value) for value in random.integers((-5, -12), (6, 13)))
            moved = replace(voice, pitch=voice.pitch + pitch, rate=voice.rate + rate)
            speeches.append(Speech(moved, next(texts), path / part / name / f"{number:02d}.ogg"))
    return speeches


def check_distinct(files: dict[str, Path]) -> None:
    """Raise VoxportError where two speakers sound the same in `files`, which hold one sentence each."""
    from voxport.runtime.audio.decode import read_audio
    from voxport.runtime.frontend.log_mel import compute_features
    from voxport.runtime.frontend.presets import profile

    frontend = profile("homework_mel40")
    prints = {}
    for name, file in files.items():
        features = compute_features(read_audio(file, frontend.sample_rate), frontend)
        loud = features[features.mean(axis=1) > np.median(features.mean(axis=1))]  # speech, not pauses
        prints[name] = loud.mean(axis=0)
    names = list(prints)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            distance = float(np.abs(prints[one] - prints[other]).mean())
            if distance < _LEAST_DISTANCE:
                raise VoxportError(
                    f"{files[one]} and {files[other]} sound the same (log-mel distance {distance:.3f}, at least "
                    f"{_LEAST_DISTANCE} is expected): this espeakng-loader does not have the voices of the demo"
                )
