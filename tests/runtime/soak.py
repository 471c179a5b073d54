"""Ask a model thousands of questions of mixed lengths and print, as JSON, what the process's memory did.

    python tests/runtime/soak.py model.onnx --calls 10000

Every kind of question takes part, errors too. Memory is the resident set, read from Linux's /proc.
"""

import argparse
import contextlib
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from voxport.runtime import (
    Batcher,
    BatcherOptions,
    Gallery,
    GalleryScorer,
    SpeakerIdentifier,
    Stream,
    Timeline,
    VoxportError,
)
from voxport.runtime.length_range import LengthRange


def resident_mib() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Soak:
    """Questions with seeded lengths between the model's shortest and longest (at most `longest` seconds)."""

    def __init__(self, model: str, folder: Path, longest: float) -> None:
        self.identifier = SpeakerIdentifier.load(model, threads=1)
        self.random = np.random.default_rng(0)
        allowed = LengthRange.of_sound(self.identifier.contract)
        self.rate = self.identifier.contract.frontend.sample_rate
        self.shortest, self.longest = allowed.shortest, min(allowed.longest, round(longest * self.rate))
        self.noise = self.random.uniform(-0.5, 0.5, self.longest).astype(np.float32)
        self.file = folder / "sound.flac"
        soundfile.write(self.file, self.noise[: (self.shortest + self.longest) // 2], self.rate)
        self.gallery = Gallery(self.identifier.contract)
        self.gallery.enroll("first", self.identifier.embed(self.noise, self.rate))
        self.gallery_file = folder / "people.gallery"
        self.stream = Stream(self.identifier, self.rate)  # one for the whole soak: live sound has no end
        self.streamed = 0

    def sound(self) -> Any:
        return self.noise[: int(self.random.integers(self.shortest, self.longest + 1))]

    def ask(self, batcher: Batcher, number: int) -> None:
        """One call; the kind goes by its number."""
        kind = number % 13
        if kind == 0:
            self.identifier.identify(self.file)
        elif kind == 1:
            self.identifier.identify_batch([self.sound() for _ in range(3)], self.rate)
        elif kind == 2:
            with contextlib.suppress(VoxportError):
                self.identifier.identify(self.noise[:10], self.rate)
        elif kind == 3:
            for future in [batcher.submit(self.sound(), self.rate) for _ in range(2)]:
                future.result()
        elif kind == 4:
            self.identifier.embed(self.sound(), self.rate)
        elif kind == 5:
            self.enroll()
        elif kind == 6:
            self.listen()
        elif kind == 7:
            scorer = GalleryScorer(self.identifier, self.gallery, threshold=0.5)
            Timeline(self.identifier, scorer=scorer).segments(iter([self.sound(), self.sound()]), self.rate)
        else:
            self.identifier.identify(self.sound(), self.rate)

    def enroll(self) -> None:
        """Somebody comes, is found, verified and written down, and goes."""
        voice = self.identifier.embed(self.sound(), self.rate)
        self.gallery.enroll("guest", voice)
        self.gallery.identify(voice)
        self.gallery.verify("guest", voice)
        self.gallery.save(self.gallery_file)
        Gallery.load(self.gallery_file, self.identifier.contract)
        self.gallery.remove("guest")
        with contextlib.suppress(VoxportError):
            self.gallery.verify("guest", voice)

    def listen(self) -> None:
        """Chunks of any size, now and then a bad one, and sometimes a new beginning."""
        chunk = self.sound()[: int(self.random.integers(1, self.rate))]
        self.stream.push(chunk)
        with contextlib.suppress(VoxportError):
            self.stream.push(chunk.astype(np.uint8))
        self.streamed += 1
        if self.streamed % 100 == 0:
            self.stream.close()
            self.stream.reset()


def main() -> None:
    """Warm up, soak, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=300)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds of the longest sound")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(options.model, Path(folder), options.longest)
        with Batcher(soak.identifier, BatcherOptions(max_wait_ms=0)) as batcher:
            for number in range(options.warm_up):
                soak.ask(batcher, number)
            soak.identifier.identify_batch([soak.noise] * 3, soak.rate)  # the largest that can come
            sizes = [resident_mib()]
            for number in range(options.calls):
                soak.ask(batcher, number)
                if (number + 1) % max(1, options.calls // 20) == 0:
                    sizes.append(resident_mib())
    print(json.dumps({"calls": options.calls, "resident_mib": [round(size, 2) for size in sizes]}))  # noqa: T201


if __name__ == "__main__":
    main()
