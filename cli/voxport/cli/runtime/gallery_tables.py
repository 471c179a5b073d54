"""What commands about galleries share: its speakers and its thresholds as text, voices of strangers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxport.cli.common import show_table

if TYPE_CHECKING:
    from voxport.runtime import Gallery, Match, Strangers, Thresholds, Verification


def likeness_columns(found: "Sequence[Match | Verification]") -> tuple[str, ...]:
    """Titles of the columns of `likeness_cells`."""
    return ("cosine", "normalised") if any(each.normalized is not None for each in found) else ("cosine",)


def likeness_cells(found: "Match | Verification") -> list[str]:
    """The cosine, and the normalised score where there is one; empty for a sound without speech."""
    values = [found.cosine] if found.normalized is None else [found.cosine, found.normalized]
    return ["" if math.isnan(value) else f"{value:.4f}" for value in values]


def show_speakers(path: str, gallery: "Gallery") -> None:
    """A table of everybody."""
    rows = [(entry.speaker, entry.utterances) for entry in gallery.speakers]
    show_table(f"{path}: speakers", ("speaker", "utterances"), rows)


def threshold_lines(gallery: "Gallery") -> list[str]:
    """What a gallery accepts from which score on, and what speaks against it."""
    from voxport.runtime.contract import rule_text

    thresholds = gallery.thresholds
    rule = [] if gallery.as_norm is None else [f"voices are compared {rule_text(gallery.as_norm)}"]
    return [*rule, *_set_lines(gallery, thresholds)]


def _set_lines(gallery: "Gallery", thresholds: "Thresholds") -> list[str]:
    if thresholds.verify is None and thresholds.identify is None:
        return ["thresholds: none; set them with: voxport gallery calibrate"]
    rate = thresholds.false_accept_rate
    what = "a cosine" if thresholds.as_norm is None else "a normalised score"
    lines = [
        f"{task}: " + ("no threshold" if value is None else f"accepted from {what} of {value:.4f} on")
        for task, value in (("verify", thresholds.verify), ("identify", thresholds.identify))
    ]
    if rate is None:
        return lines
    for short in thresholds.by_length:
        both = (("verify", short.verify), ("identify", short.identify))
        parts = [f"{name} {value:.4f}" for name, value in both if value is not None]
        those = "sounds with less than {:g} s of speech" if thresholds.length_of == "speech" else "sounds below {:g} s"
        lines.append(f"{those.format(short.below_s)}: {', '.join(parts)}")
    lines.append(f"calibrated for a false-accept rate of {rate:g} among {thresholds.speakers} speakers")
    if thresholds.identify is None:
        lines.append(
            f"a threshold for identify needs {1 / rate:,.0f} utterances to compare; enroll more, or give --strangers"
        )
    if thresholds.speakers != len(gallery):
        lines.append(f"now there are {len(gallery)}: calibrate again")
    lines += [f"note: {note}" for note in thresholds.notes]
    return lines


def read_voices(gallery: "Gallery", path: str | None) -> "Strangers | None":
    """Voices of strangers from a file that `voxport embed -o` wrote; None for no file."""
    if path is None:
        return None
    from voxport.runtime.gallery.embeddings import read_strangers

    return read_strangers(Path(path), gallery.checkpoint_sha256, gallery.embedding_size)
