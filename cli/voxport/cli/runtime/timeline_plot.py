"""The picture of `voxport timeline`: coloured bars for each speaker along time."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxport.cli.common import needs
from voxport.cli.runtime.shared import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from voxport.runtime import Segment

# Okabe and Ito's palette, told apart by colour-blind people too; grey is nobody's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
UNKNOWN_COLOUR, INK, GRID = "#9a9a9a", "#222222", "#ececec"
UNKNOWN_LABEL = "(unknown)"

_MOST_ROWS = 40  # speakers that a picture can hold; the others share one row
_STEPS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds between marks
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")


@needs("bench")
def picture_kind(path: Path) -> str:
    """The format that the ending of `path` names; without one, png.

    Raises:
        BackendError: matplotlib is not installed. VoxportError: it does not know the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from voxport.runtime import VoxportError

    kind = path.suffix.lower().lstrip(".") or "png"
    kinds = FigureCanvasAgg.get_supported_filetypes()
    if kind not in kinds:
        raise VoxportError(f"{path}: pictures end in {', '.join(sorted(kinds))}; for example timeline.png")
    return kind


@needs("bench")
def draw_timeline(segments: Sequence["Segment"], seconds: float, title: str, path: Path) -> None:
    """Write the picture of a recording of `seconds` to `path`, in the format that its ending names.

    Raises:
        VoxportError: as `picture_kind`, or the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(segments)
    with warnings.catch_warnings(), rc_context({"font.family": _fonts()}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box in place of a letter is said enough
        figure = Figure(figsize=(12, 1.5 + 0.36 * max(1, len(rows))), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        _draw_bars(axes, segments, rows, seconds)
        axes.set_title(_shortened(title, 90), loc="left", fontsize=12, color=INK, fontweight="bold")
        _save(figure, path)


def _rows(segments: Sequence["Segment"]) -> dict[str | None, int]:
    """The row of each speaker: in the order in which they first speak, the unknown last."""
    order = list(dict.fromkeys(segment.speaker for segment in segments if segment.speaker is not None))
    rows: dict[str | None, int] = {speaker: min(row, _MOST_ROWS - 1) for row, speaker in enumerate(order)}
    if any(segment.speaker is None for segment in segments):
        rows[None] = len(set(rows.values()))
    return rows


def _draw_bars(axes: "Axes", segments: Sequence["Segment"], rows: dict[str | None, int], seconds: float) -> None:
    talked = dict.fromkeys(rows, 0.0)
    for segment in segments:
        talked[segment.speaker] += segment.duration_s
    names: dict[int, str] = {}
    for speaker, row in rows.items():
        bars = [(s.start_s, s.duration_s) for s in segments if s.speaker == speaker]
        colour = UNKNOWN_COLOUR if speaker is None else COLOURS[row % len(COLOURS)]
        axes.broken_barh(bars, (row - 0.36, 0.72), facecolors=colour, edgecolor="white", linewidth=0.5)
        shown = UNKNOWN_LABEL if speaker is None else _shortened(speaker, 28)
        names[row] = "others" if row in names else f"{shown}  {_clock(talked[speaker])}"
    axes.set_yticks(list(names), list(names.values()), fontsize=10, color=INK)
    axes.set_ylim(max(names, default=0) + 0.6, -0.6)
    _draw_time(axes, max(seconds, 1e-3))
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if not segments:
        axes.text(0.5, 0.5, "nobody speaks", transform=axes.transAxes, ha="center", va="center", color=UNKNOWN_COLOUR)


def _draw_time(axes: "Axes", seconds: float) -> None:
    """The axis of time: at most fifteen round steps; seconds, or from two minutes on m:ss."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.set_xlim(0, seconds)
    axes.set_xlabel("time in seconds" if seconds < 120 else "time", color=INK)
    axes.xaxis.set_major_locator(MultipleLocator(next((s for s in _STEPS if seconds <= 15 * s), seconds / 10)))
    if seconds >= 120:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{round(at) // 60}:{round(at) % 60:02d}"))


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{seconds:.1f} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def _shortened(text: str, most: int) -> str:
    # matplotlib reads text between two dollars as a formula.
    text = text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"
    return text.replace("$", r"\$")


def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    known = set(fontManager.get_font_names())
    return [font for font in _FONTS if font in known] or ["sans-serif"]


def _save(figure: "Figure", path: Path) -> None:
    with written_whole(path) as part:
        figure.savefig(part, format=picture_kind(path), dpi=150)
