"""A manifest: a CSV or JSONL file with the columns `path` and `speaker`, one utterance per line."""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxport.train.data.entries import FEATURE_SUFFIXES, SOUND_SUFFIXES, Entry, Listing
from voxport.train.data.problems import CorpusError, Problem

COLUMNS = ("path", "speaker")
MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl"})


def list_manifest(path: Path) -> Listing:
    """List the utterances of the manifest `path`.

    `path` in a line is relative to the manifest's folder, or absolute, and names features (.pt or
    .npy) or a sound file. Other columns are passed over.

    Raises:
        CorpusError: not readable, empty, or without one of the columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise CorpusError(f"{path}: not a readable manifest; expected a text file in UTF-8 ({problem})") from problem
    lines = _csv_lines(path, text) if path.suffix.lower() == ".csv" else _jsonl_lines(path, text)
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, line in lines:
        entry = _entry(path, line)
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            problems.append(Problem(f"line {number}", "malformed", entry))
    if not entries and not problems:
        raise CorpusError(f"{path}: the manifest lists no utterance")
    labels = tuple(sorted({entry.speaker for entry in entries if entry.speaker is not None}))
    return Listing("manifest", path, labels, tuple(entries), tuple(problems))


def _entry(manifest: Path, line: dict[str, Any] | str) -> Entry | str:
    """The entry of one line, or what is wrong with it."""
    if isinstance(line, str):
        return line
    name, speaker = line["path"], line["speaker"]
    if type(speaker) is int:  # JSONL's speaker: 7
        speaker = str(speaker)
    if not isinstance(name, str) or not name.strip() or not isinstance(speaker, str) or not speaker.strip():
        return f"path and speaker must be filled in, found {name!r:.60} and {speaker!r:.60}"
    suffix = posixpath.splitext(name.strip())[1].lower()
    if suffix not in FEATURE_SUFFIXES | SOUND_SUFFIXES:
        known = ", ".join(sorted(FEATURE_SUFFIXES | SOUND_SUFFIXES))
        return f"{name}: a path must end in one of {known}"
    return Entry(posixpath.normpath(name.strip()), manifest.parent / name.strip(), speaker.strip())


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(path, list(reader.fieldnames or ()))
        for line in reader:
            yield reader.line_num, line
    except csv.Error as problem:
        raise CorpusError(f"{path}: line {reader.line_num}: not CSV ({problem})") from problem


def _jsonl_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    first = True
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as problem:
            yield number, f"not JSON ({problem})"
            continue
        if first and isinstance(content, dict):
            # A key that the first object lacks is the manifest's fault, one that a later lacks the line's.
            _check_columns(path, list(content))
            first = False
        missing = [key for key in COLUMNS if not isinstance(content, dict) or key not in content]
        yield number, f"no {' and no '.join(missing)}" if missing else content


def _check_columns(path: Path, found: list[str]) -> None:
    missing = [column for column in COLUMNS if column not in found]
    if missing:
        raise CorpusError(
            f"{path}: no column {' and no column '.join(missing)}; a manifest has the columns path and speaker, "
            f"this one has {', '.join(found) or 'none'}"
        )
