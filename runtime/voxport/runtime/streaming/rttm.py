"""RTTM, the format in which speaker diarisation is exchanged and scored.

NIST, "The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan", appendix A: one line of
ten fields for each turn, separated by white space, `<NA>` where there is nothing to say.
"""

from collections.abc import Sequence

from voxport.runtime.streaming.segments import Segment

UNKNOWN_NAME = "unknown"


def rttm_lines(segments: Sequence[Segment], recording: str) -> list[str]:
    """`SPEAKER recording channel start duration <NA> <NA> name <NA> <NA>` for each segment, seconds to the ms.

    The channel is 1 where a segment has none.

    White space in a name becomes `_`, since it would separate fields. Names that are then the same get a
    number; a voice that nobody knows is `unknown`.
    """
    names = safe_names([segment.speaker for segment in segments])
    return [
        f"SPEAKER {_safe(recording)} {segment.channel or 1} {segment.start_s:.3f} {segment.duration_s:.3f} "
        f"<NA> <NA> {names[segment.speaker]} <NA> <NA>"
        for segment in segments
    ]


def safe_names(speakers: Sequence[str | None]) -> dict[str | None, str]:
    """A name without white space for each speaker, no two the same; a real name is kept before others."""
    names: dict[str | None, str] = {}
    taken: set[str] = set()
    # Names that need no change first: theirs are not given to others.
    for speaker in sorted(set(speakers), key=lambda name: (name is None, name != _safe(name or ""), name or "")):
        wanted = UNKNOWN_NAME if speaker is None else _safe(speaker)
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        names[speaker] = name
        taken.add(name)
    return names


def _safe(name: str) -> str:
    return "_".join(name.split()) or "_"
