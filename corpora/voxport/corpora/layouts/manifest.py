"""Tables of utterances: our own manifest, and those of SpeechBrain, NeMo, Common Voice and Hugging Face's audiofolder.

Columns and units are those of the formats' documentation: SpeechBrain's `start` and `stop` count samples, NeMo's
`offset` and `duration` are seconds, Common Voice's paths lie in `clips/`.
"""

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import (
    FEATURE_SUFFIXES,
    SOUND_SUFFIXES,
    Entry,
    LayoutOptions,
    Listing,
    Span,
    labels_of,
    piece_key,
)
from voxport.corpora.layouts.members import parquet_file
from voxport.corpora.layouts.text import Table, read_table

_PLAIN = frozenset("string large_string string_view int8 int16 int32 int64 uint8 uint16 uint32 float double".split())
SPEAKER_COLUMNS = ("speaker", "speaker_id", "spk_id", "client_id", "label")


@dataclass(frozen=True)
class _Times:
    """Columns of a piece's start and its end (or its length, with `length`), either of which may be absent."""

    start: str
    end: str
    unit: Literal["s", "samples"] = "s"
    length: bool = False


_SECONDS = (
    _Times("start", "end"),
    _Times("start_time", "end_time"),
    _Times("start_s", "end_s"),
    _Times("start_sample", "end_sample", "samples"),
    _Times("start", "duration", length=True),
    _Times("offset", "duration", length=True),
)


@dataclass(frozen=True)
class Dialect:
    """One kind of table. `usual` columns are the format's own, and passed over without a word."""

    name: str
    title: str
    path: str
    speakers: tuple[str, ...]
    times: tuple[_Times, ...] = ()
    usual: frozenset[str] = frozenset()
    folder: str = ""  # of the sounds, beside the table
    lone_length: bool = False  # whether a length without a start is the piece from 0 on

    def fits(self, columns: Sequence[str], labelled: bool = True) -> bool:
        return self.path in columns and (not labelled or any(each in columns for each in self.speakers))


DIALECTS = (
    Dialect(
        "speechbrain",
        "a SpeechBrain CSV",
        "wav",
        ("spk_id",),
        (_Times("start", "stop", "samples"),),
        frozenset({"ID", "duration", "wav_format", "spk_id_format", "wav_opts", "spk_id_opts"}),
    ),
    Dialect(
        "nemo",
        "a NeMo manifest",
        "audio_filepath",
        ("label", "speaker", "speaker_id"),
        (_Times("offset", "duration", length=True),),
        frozenset({"text", "duration", "offset"}),
        lone_length=True,
    ),
    Dialect(
        "common-voice",
        "a Common Voice table",
        "path",
        ("client_id",),
        usual=frozenset(
            {
                *("sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender", "accents"),
                *("accent", "variant", "locale", "segment"),
            }
        ),
        folder="clips",
    ),
    Dialect("audiofolder", "an audiofolder's metadata", "file_name", SPEAKER_COLUMNS, _SECONDS),
    Dialect("manifest", "a manifest", "path", ("speaker",), _SECONDS),
)


def list_manifest(
    path: Path, options: LayoutOptions, dialect: Dialect | None = None, prefix: str = "", *, labelled: bool = True
) -> Listing:
    """List the utterances of the table `path`, which is of `dialect`, or of the one that its columns tell.

    A path in it is relative to its folder, or absolute, and names features (.pt or .npy) or a sound file. Paths with
    backslashes work where no file is called so. `prefix` stands before the keys. Where it need not be `labelled`,
    the table may do without speakers, and a row without one.

    Raises:
        CorpusError: not readable, empty, of no known dialect or of two, or its speakers are told twice and differently.
    """
    if path.suffix.lower() == ".parquet":
        table = _parquet_table(path)
    else:
        table = read_table(path, options.encoding, lambda columns: _is_known(columns, options, labelled))
    if not table.rows and (path.suffix.lower() == ".jsonl" or _is_known(table.columns, options, labelled)):
        raise CorpusError(f"{path}: the manifest lists no utterance")
    dialect = dialect or _dialect(path, table, options, labelled)
    speaker = _speaker_column(path, table, dialect, options, labelled)
    times = _times(path, table.columns, dialect)
    folder = path.parent / dialect.folder if dialect.folder and (path.parent / dialect.folder).is_dir() else path.parent
    within = posixpath.join(prefix, dialect.folder) if folder != path.parent else prefix
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, row in table.rows:
        entry = _entry(folder, within, row, dialect.path, speaker, times, labelled)
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            where = f"line {number}" if not prefix else f"{prefix}/{path.name}: line {number}"
            problems.append(Problem(where, "malformed", entry))
    if not entries and not problems:
        raise CorpusError(f"{path}: the manifest lists no utterance")
    used = {dialect.path, speaker, *dialect.usual, *((times.start, times.end) if times else ())}
    unused = [column for column in table.columns if column not in used]
    notes = (f"columns passed over: {', '.join(unused)}",) if unused else ()
    return Listing(
        "manifest", path, labels_of(entries), tuple(entries), tuple(problems), layout=dialect.name, notes=notes
    )


def _parquet_table(path: Path) -> Table:
    """A Parquet file's columns of text and numbers, a row each as in a text table. Raises CorpusError where damaged."""
    try:
        file = parquet_file(path)
        names = [field.name for field in file.schema_arrow if str(field.type) in _PLAIN]
        rows = tuple(enumerate(file.read(columns=names).to_pylist()))
    except (OSError, ValueError) as problem:
        raise CorpusError(f"{path}: not a readable Parquet file ({problem!s:.200})") from problem
    return Table(tuple(names), rows)


def _is_known(columns: Sequence[str], options: LayoutOptions, labelled: bool) -> bool:
    by_option = options.speaker_column in columns and any(each.path in columns for each in DIALECTS)
    return by_option or any(each.fits(columns, labelled) for each in DIALECTS)


def _dialect(path: Path, table: Table, options: LayoutOptions, labelled: bool) -> Dialect:
    columns = table.columns
    if options.layout is not None:
        return next(each for each in DIALECTS if each.name == options.layout)
    fitting = [each for each in DIALECTS if each.fits(columns)]
    if not fitting and options.speaker_column in columns:
        fitting = [each for each in DIALECTS if each.path in columns and each.name != "common-voice"]
    if not fitting and not labelled:  # two dialects call their column `path`; the last is the plain one
        fitting = [each for each in DIALECTS if each.path in columns][-1:]
    if len(fitting) > 1:
        raise CorpusError(
            f"{path}: its columns are those of {' and of '.join(each.title for each in fitting)}; choose with "
            f"{' or '.join(f'--layout {each.name}' for each in fitting)}"
        )
    if fitting:
        return fitting[0]
    half = next((each for each in DIALECTS if each.path in columns and each.name != "common-voice"), None)
    if half is not None and (half.name != "manifest" or len(columns) > 1):
        raise CorpusError(
            f"{path}: no column {' or '.join(half.speakers)} for the speaker; it has {', '.join(columns)}; "
            "name the right one with --speaker-column"
        )
    missing = [column for column in ("path", "speaker") if column not in columns]
    raise CorpusError(
        f"{path}: no column {' and no column '.join(missing)}; a manifest has the columns path and speaker, "
        f"this one has {', '.join(columns) or 'none'}"
    )


def _speaker_column(path: Path, table: Table, dialect: Dialect, options: LayoutOptions, labelled: bool) -> str | None:
    """The column that holds the speaker; None where there need not be one, and none is.

    Raises:
        CorpusError: there is none, or there are two that differ.
    """
    if options.speaker_column is not None:
        if options.speaker_column not in table.columns:
            raise CorpusError(f"{path}: no column {options.speaker_column}; it has {', '.join(table.columns)}")
        return options.speaker_column
    rows = [row for _, row in table.rows if isinstance(row, dict)]
    found = [each for each in dialect.speakers if each in table.columns]
    return choose_speaker(path, found, rows, table.columns) if found or labelled else None


def choose_speaker(path: Path, found: Sequence[str], rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Which of the columns `found` holds the speaker. Raises CorpusError where none does, or two that differ."""
    if not found:
        raise CorpusError(
            f"{path}: no column for the speaker ({', '.join(SPEAKER_COLUMNS)}); it has {', '.join(columns)}; "
            "name the right one with --speaker-column"
        )
    for other in found[1:]:
        if any(str(row.get(found[0])) != str(row.get(other)) for row in rows):
            raise CorpusError(
                f"{path}: the columns {found[0]} and {other} differ, and either may be the speaker; "
                f"choose with --speaker-column {found[0]} or --speaker-column {other}"
            )
    return found[0]


def _times(path: Path, columns: Sequence[str], dialect: Dialect) -> _Times | None:
    """The columns of times, or None. Raises CorpusError where there are two starts, or two ends."""
    starting = [each for each in dialect.times if each.start in columns]
    both = [each for each in starting if each.end in columns]
    chosen = (both or starting or [each for each in dialect.times if each.end in columns and _ends(each, dialect)])[:1]
    other = [each for each in starting if chosen and each.start != chosen[0].start]
    if other:
        raise CorpusError(f"{path}: the columns {chosen[0].start} and {other[0].start} both say where a piece starts")
    return chosen[0] if chosen else None


def _ends(times: _Times, dialect: Dialect) -> bool:
    return not times.length or dialect.lone_length


def _entry(
    folder: Path,
    prefix: str,
    row: dict[str, Any] | str,
    path: str,
    column: str | None,
    times: _Times | None,
    labelled: bool,
) -> Entry | str:
    """The entry of one row, or what is wrong with it."""
    if isinstance(row, str):
        return row
    missing = [each for each in (path, column) if each is not None and each not in row]
    if missing and labelled:
        return f"no {' and no '.join(missing)}"
    name, speaker = row.get(path), None if column is None else row.get(column)
    if type(speaker) is int:  # JSON's speaker: 7
        speaker = str(speaker)
    if not isinstance(speaker, str) or not speaker.strip():
        if labelled:
            return f"{path} and {column} must be filled in, found {name!r:.60} and {speaker!r:.60}"
        speaker = None
    if not isinstance(name, str) or not name.strip():
        return f"{path} and {column} must be filled in, found {name!r:.60} and {speaker!r:.60}"
    name = _as_posix(folder, name.strip())
    suffix = posixpath.splitext(name)[1].lower()
    if suffix not in FEATURE_SUFFIXES | SOUND_SUFFIXES:
        return f"{name}: a path must end in one of {', '.join(sorted(FEATURE_SUFFIXES | SOUND_SUFFIXES))}"
    span = _span(row, times)
    if isinstance(span, str):
        return span
    if span is not None and suffix in FEATURE_SUFFIXES:
        return f"{name}: times cut sound files, and this one holds features"
    key = posixpath.normpath(posixpath.join(prefix, name))
    return Entry(piece_key(key, span), folder / name, None if speaker is None else speaker.strip(), span=span)


def _as_posix(folder: Path, name: str) -> str:
    """`name` with slashes, where it was written on Windows; here a backslash may be part of a name."""
    return name.replace("\\", "/") if "\\" in name and not (folder / name).exists() else name


def _span(row: dict[str, Any], times: _Times | None) -> Span | str | None:
    """The piece that the row names, None for the whole file, or what is wrong with its times."""
    if times is None:
        return None
    start, end = _number(row.get(times.start)), _number(row.get(times.end))
    if isinstance(start, str) or isinstance(end, str):
        return (
            f"{times.start} and {times.end} must be numbers, found {row.get(times.start)!r} and {row.get(times.end)!r}"
        )
    if start is None and end is None:
        return None
    start = start or 0.0
    if end is not None and times.length:
        end += start
    return make_span(start, end, times.unit)


def make_span(start: float, end: float | None, unit: Literal["s", "samples"]) -> Span | str:
    """The piece, or what is wrong with it."""
    if start < 0 or (end is not None and end <= start):
        return f"a piece from {start:g} to {'its end' if end is None else f'{end:g}'} is none"
    if unit == "samples" and (start != int(start) or (end is not None and end != int(end))):
        return f"samples are counted in whole numbers, found {start:g} to {end}"
    return Span(start, end, unit)


def _number(value: Any) -> float | str | None:
    """A number, None where the cell is empty, or the text that is no number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(value)
