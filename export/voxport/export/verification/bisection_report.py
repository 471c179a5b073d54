"""What a comparison part by part found, for programs and people."""

from dataclasses import dataclass

_BLAMED = 3
COLUMNS = ("part", "size", "max abs Δ", "noise", "bound", "growth", "", "worst on")


@dataclass(frozen=True)
class Part:
    """One part of the network. `difference`, `noise` and `bound` are max |Δ| over `size`, its largest value.

    `growth` is how many times the difference of the part before it, None where that was none. `worst` says on
    which input. A difference that is no number is infinite.
    """

    name: str
    value: str
    size: float
    difference: float
    noise: float
    bound: float
    growth: float | None
    worst: str

    @property
    def parts(self) -> bool:
        """Whether it is further off than rounding explains."""
        return not self.difference <= self.bound


@dataclass(frozen=True)
class Bisection:
    """All parts in the order in which they are computed. `first` is the first that parts, None where none does.

    `rebuilt` is max |Δscore| between the deployable network and the eager one, and its bound. `unmatched` are
    parts that the graph shows no value of.
    """

    parts: tuple[Part, ...]
    first: str | None
    verdict: str
    rebuilt: tuple[float, float]
    inputs: tuple[str, ...]
    unmatched: tuple[str, ...]

    @property
    def blame(self) -> str:
        """The verdict in words, and where no part is at fault, those that are furthest off."""
        if self.first is not None or not self.parts:
            return self.verdict
        worst = sorted(self.parts, key=lambda each: -each.difference)[:_BLAMED]
        named = ", ".join(f"{each.name} ({each.difference:.2g} of its size)" for each in worst)
        return f"{self.verdict}; furthest off are {named}"


def bisection_section(found: Bisection | None) -> list[str]:
    """Lines of Markdown: every part of the network. Empty where none was looked at."""
    if found is None:
        return []
    lines = ["", "## Part by part", "", f"{found.verdict[0].upper()}{found.verdict[1:]}.", ""]
    lines += [
        "Against the deployable network in float64; Δ, noise and bound are shares of the part's largest value.",
        "",
    ]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---|--:|--:|--:|--:|--:|---|---|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in bisection_rows(found))]


def bisection_rows(found: Bisection) -> list[tuple[str, ...]]:
    """The table's cells: part, size, difference, noise, bound, growth, verdict, input."""
    rows = []
    for each in found.parts:
        growth = "" if each.growth is None else f"{each.growth:.2g}"
        verdict = "FIRST" if each.name == found.first else "parts" if each.parts else ""
        figures = (f"{value:.2g}" for value in (each.size, each.difference, each.noise, each.bound))
        rows.append((each.name, *figures, growth, verdict, each.worst))
    return rows
