"""What is sound and what is silence: an energy gate that follows the recording's own level.

Every frame of 20 ms has a level: the standard deviation of its samples in dB relative to full scale, so
that a DC offset counts for nothing. A running level follows it up by at most `ATTACK` dB per second,
so that a click hardly moves it, and down by `RELEASE` dB per second while the gate is open and by
`IDLE_RELEASE` while it is closed, so that a pause does not make the gate take noise for speech. The
gate is open in a frame that is no more than `range_db` below the running level, and not below
`floor_db`. The running level starts at `floor_db`: until it has risen, the floor alone decides.

The gate is causal: a frame's answer depends on that frame and those before it, never on how the samples
were cut into pieces.
"""

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02
ATTACK, RELEASE, IDLE_RELEASE = 20.0, 1.0, 0.1  # dB per second

_RISE, _FALL, _IDLE_FALL = (rate * FRAME_SECONDS for rate in (ATTACK, RELEASE, IDLE_RELEASE))  # dB per frame
_QUIETEST = 1e-12  # variance of -120 dB; digital silence has no logarithm


class EnergyGate:
    """Tells for each frame whether somebody may be speaking in it."""

    def __init__(self, floor_db: float, range_db: float) -> None:
        """A gate that has heard nothing yet; see this module for the two levels, in dB."""
        self._floor, self._range = floor_db, range_db
        self._level = floor_db

    def push(self, frames: npt.NDArray[np.float32]) -> list[bool]:
        """Open or closed, for each of `frames` (frames, samples): samples in [-1, 1]."""
        exact = frames.astype(np.float64)
        variance = np.square(exact).mean(axis=1) - np.square(exact.mean(axis=1))
        levels: list[float] = (10 * np.log10(np.maximum(variance, _QUIETEST))).tolist()
        running, floor, reach = self._level, self._floor, self._range
        answers = []
        for level in levels:  # plain comparisons: this loop runs 180,000 times for an hour of sound
            opened = level >= floor and level >= running - reach
            answers.append(opened)
            if level > running:
                running = level if level < running + _RISE else running + _RISE
            else:
                fall = _FALL if opened else _IDLE_FALL
                running = level if level > running - fall else running - fall
                running = running if running > floor else floor
        self._level = running
        return answers
