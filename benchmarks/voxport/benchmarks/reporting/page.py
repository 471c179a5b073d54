"""A report before it is HTML or Markdown: sections of texts, tables and charts, all plain data.

Texts may come from a file that anybody wrote. They stay plain text here; who writes a format escapes them.
"""

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["good", "bad", "neutral", "unsure", "base"]


@dataclass(frozen=True)
class Chip:
    """A word that carries a judgement."""

    text: str
    tone: Tone


Entry = str | Chip


@dataclass(frozen=True)
class Table:
    """Rows of entries; a column whose entries begin with a digit is aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Notes:
    """Short remarks, one a line."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """One row of an interval chart: a value, a thick span from it or around it, a thin one beyond, and a text."""

    label: str
    value: float
    low: float
    high: float
    far: float | None = None
    text: str = ""
    colour: int = 0  # -1: the baseline's grey, -2: the control's
    hollow: bool = False
    chip: Chip | None = None


@dataclass(frozen=True)
class MarkGroup:
    """Rows under a common heading."""

    title: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class IntervalChart:
    """Values with intervals on a common axis, logarithmic where they span much. `line` and `band` mark a reference."""

    title: str
    groups: tuple[MarkGroup, ...]
    unit: str
    line: float | None = None
    band: tuple[float, float] | None = None
    legend: str = ""


@dataclass(frozen=True)
class Dot:
    """A point of a scatter chart."""

    label: str
    x: float
    y: float
    colour: int = 0
    hollow: bool = False


@dataclass(frozen=True)
class ScatterChart:
    """Points in a plane; `best` says which corner is best."""

    title: str
    x: str
    y: str
    dots: tuple[Dot, ...]
    log_x: bool = True
    log_y: bool = False
    frontier: bool = True
    legend: str = ""


@dataclass(frozen=True)
class Bar:
    """One stacked bar: parts in the order of the chart's names."""

    label: str
    parts: tuple[float, ...]
    text: str = ""


@dataclass(frozen=True)
class BarChart:
    """Stacked bars on a common axis from zero."""

    title: str
    names: tuple[str, ...]
    bars: tuple[Bar, ...]
    unit: str
    legend: str = ""


@dataclass(frozen=True)
class Line:
    """One curve; `dashed` where it is not measured itself."""

    label: str
    points: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool = False
    text: str = ""


@dataclass(frozen=True)
class LineChart:
    """Curves on two logarithmic axes."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    legend: str = ""


Chart = IntervalChart | ScatterChart | BarChart | LineChart
Block = Table | Facts | Text | Notes | Chart


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. `folded` sections open on a click; in print they are open."""

    title: str
    blocks: tuple[Block, ...]
    folded: bool = False


@dataclass(frozen=True)
class Tile:
    """One figure that a reader should remember."""

    value: str
    label: str
    detail: str = ""
    tone: Tone = "neutral"


@dataclass(frozen=True)
class Part:
    """One document: what it says in a sentence, its main figures, and its sections."""

    kicker: str
    headline: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    parts: tuple[Part, ...]
    footer: str = ""
    sources: tuple[str, ...] = field(default_factory=tuple)
