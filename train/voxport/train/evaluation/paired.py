"""Whether one model is right less often than another on the same utterances, or only seems to be.

Answers near a tie fall to either side by chance, as many won as lost. So a drop over the allowed one fails
where chance does not explain it (McNemar's test of the utterances that only one of the two has right), and in
any case where it is `FAR` times the allowed one. In between the set is too small to tell, and the verdict says so.
"""

import math
from typing import Literal

Verdict = Literal["passed", "undecided", "failed"]
FAR = 5  # times the allowed drop: what no smallness of a set excuses
CHANCE = 0.05  # probability below which a loss is not laid on chance


def verdict_on(drop: float, max_drop: float, chance: float) -> Verdict:
    """The verdict on a drop in points; see the module. A drop that is exactly at a limit is within it."""
    if drop <= max_drop + 1e-9:
        return "passed"
    return "undecided" if chance > CHANCE and drop <= FAR * max_drop + 1e-9 else "failed"


def chance_of_loss(lost: int, gained: int) -> float:
    """The probability of `lost` or more among `lost + gained`, where either is as likely: McNemar's exact test.

    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 1947,
    with the binomial distribution in place of its approximation, one-sided.
    """
    both = lost + gained
    return sum(math.comb(both, count) for count in range(lost, both + 1)) / (1 << both)
