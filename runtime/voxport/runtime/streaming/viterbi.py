"""The most plausible sequence of speakers behind a sequence of scored windows (Viterbi), in constant memory.

A path gains, in each window, how near its speaker comes to that window's best (a difference of cosines,
at most 0), and pays `penalty` for each change. No window takes more than `penalty` from a path: so a
single odd window never makes two changes, while a real turn of a few windows does. A penalty of 0
takes every window for itself.

Changes cost the same between all speakers (the Potts model), which makes a step linear in their number:
Felzenszwalb and Huttenlocher, "Efficient Belief Propagation for Early Vision", IJCV 70, 2006.
"""

import numpy as np
import numpy.typing as npt

Cosines = npt.NDArray[np.float64]

# Windows that a decision waits for at most. Paths grow together within a few windows: at this distance
# the bounded memory costs nothing that could be seen.
LAG = 128


class PathSmoother:
    """Finds the best path; `push` and `finish` return each window's speaker, in order."""

    def __init__(self, penalty: float) -> None:
        """`penalty` is the cost of a change, a difference of cosines."""
        self._penalty = penalty
        self._most = penalty if penalty > 0 else np.inf
        self._gain: Cosines | None = None
        self._back: list[npt.NDArray[np.int32]] = []  # where the best path to each speaker came from

    def push(self, cosines: Cosines) -> list[int]:
        """Take one window's cosines (speakers,); the speakers of windows that are now decided, if any."""
        reward = np.maximum(cosines - cosines.max(), -self._most)
        stay = np.arange(len(cosines), dtype=np.int32)
        if self._gain is None:
            self._gain = reward
            self._back.append(stay)
            return []
        best = int(np.argmax(self._gain))
        change = self._gain[best] - self._penalty
        changed = self._gain < change
        self._back.append(np.where(changed, np.int32(best), stay))
        self._gain = np.maximum(self._gain, change) + reward
        self._gain -= self._gain.max()  # only differences matter; sums over hours would lose digits
        return self._take(LAG) if len(self._back) >= 2 * LAG else []

    def finish(self) -> list[int]:
        """The speakers of all windows that are left; the next window begins a new path."""
        decided = self._take(len(self._back)) if self._back else []
        self._gain = None
        return decided

    def _take(self, count: int) -> list[int]:
        """Trace back from the best end, and give the first `count` windows away."""
        assert self._gain is not None
        speaker = int(np.argmax(self._gain))
        path = [speaker]
        for back in reversed(self._back[1:]):
            speaker = int(back[speaker])
            path.append(speaker)
        path.reverse()
        del self._back[:count]
        return path[:count]
