"""The lengths that a model was proven for, in frames, samples and seconds."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Contract
from voxport.runtime.errors import LengthError, TooLongError
from voxport.runtime.frontend.log_mel import min_samples, num_frames
from voxport.runtime.frontend.spec import Frontend

Unit = Literal["frames", "samples"]


@dataclass(frozen=True)
class LengthRange:
    """Shortest and longest input, both allowed, counted in `unit`.

    A model with feature input counts frames, one with waveform input samples; see `of_input`.
    """

    unit: Unit
    shortest: int
    longest: int
    frontend: Frontend

    @classmethod
    def of_features(cls, contract: Contract) -> "LengthRange":
        """The range in frames, as the contract states it."""
        return cls("frames", contract.min_frames, contract.max_frames, contract.frontend)

    @classmethod
    def of_sound(cls, contract: Contract) -> "LengthRange":
        """The same range in samples at the frontend's rate: exactly those that give so many frames."""
        shortest = min_samples(contract.frontend, contract.min_frames)
        longest = min_samples(contract.frontend, contract.max_frames + 1) - 1
        return cls("samples", shortest, longest, contract.frontend)

    @classmethod
    def of_windows(cls, contract: Contract) -> "LengthRange":
        """The lengths in samples of the windows in which longer sound is heard."""
        longest = min_samples(contract.frontend, contract.window_frames + 1) - 1
        return cls("samples", cls.of_sound(contract).shortest, longest, contract.frontend)

    @classmethod
    def of_input(cls, contract: Contract) -> "LengthRange":
        """The range in the unit of the graph's `lengths` input."""
        return cls.of_features(contract) if contract.input_kind == "features" else cls.of_sound(contract)

    def check(self, lengths: npt.NDArray[np.int64], names: tuple[str, ...] = ()) -> None:
        """Raise LengthError, naming the first offender, unless every length (any shape) is in range."""
        wrong = np.flatnonzero((lengths < self.shortest) | (lengths > self.longest))
        if wrong.size == 0:
            return
        first = int(wrong[0])
        length = int(lengths.flat[first])
        name = names[first] if names else f"item {first} of the batch" if lengths.size > 1 else "the input"
        short = length < self.shortest
        raise (LengthError if short else TooLongError)(
            f"{name}: {self.describe(length)} is too {'short' if short else 'long'} for this model, which takes "
            f"{self.describe(self.shortest)} to {self.describe(self.longest)}; "
            + ("give a longer piece of sound" if short else "cut it into shorter pieces")
        )

    def describe(self, length: int) -> str:
        """A length in frames and seconds, such as `50 frames (0.49 s)`."""
        frames = length if self.unit == "frames" else num_frames(self.frontend, length) if length > 0 else 0
        return f"{frames} frames ({self.seconds(length):.2f} s)"

    def seconds(self, length: int) -> float:
        """Seconds of sound. Of frames: of the shortest sound that gives so many."""
        samples = length if self.unit == "samples" else min_samples(self.frontend, length) if length > 0 else 0
        return samples / self.frontend.sample_rate
