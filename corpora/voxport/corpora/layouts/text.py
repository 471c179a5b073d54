"""Text files that people hand over: their encoding, their delimiter, one row a line.

What is certain from the content is taken (UTF-8, UTF-16, a delimiter that makes a known header); where two readings
are possible the file is refused, since a wrongly read name is a wrong speaker.
"""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.corpora.errors import CorpusError

Row = tuple[int, dict[str, Any] | str]  # the line's number, and its values or what is wrong with it

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LIKELY = ("cp1252", "cp949", "shift_jis", "gb18030", "cp1251")


@dataclass(frozen=True)
class Table:
    """The columns of a text table (those of the first object, where the lines are JSON), and its rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_text(path: Path, encoding: str | None) -> str:
    """The text of `path`, in `encoding` where it is given.

    Raises:
        CorpusError: not readable, or in an encoding that the content does not tell for certain.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise CorpusError(f"{path}: not a readable manifest ({problem.strerror or problem})") from problem
    certain = encoding or _certain_encoding(content)
    try:
        return content.decode(certain).removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        if encoding is not None or certain != "utf-8":
            raise CorpusError(
                f"{path}: not a readable manifest; expected a text file in UTF-8, and it is none in {certain} "
                f"either ({problem})"
            ) from problem
        raise CorpusError(_unknown_encoding(path, content, problem)) from problem


def read_table(path: Path, encoding: str | None, is_known: Callable[[Sequence[str]], bool]) -> Table:
    """Read lines of JSON objects, or a table with a header; `is_known` says whether a header is one to expect.

    Lines of JSON are told by the first letter, whatever the file is called. Of the delimiters the one is taken that
    makes a known header; tables divided by tabs have no quotation marks, as Common Voice writes them.

    Raises:
        CorpusError: not readable, no table, or two delimiters make a known header.
    """
    text = read_text(path, encoding)
    if path.suffix.lower() == ".jsonl" or text.lstrip()[:1] in ("{", "["):
        return _json_lines(path, text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    headers = {mark: next(csv.reader([first], delimiter=mark), []) for mark in _DELIMITERS}
    known = [mark for mark, header in headers.items() if is_known([column.strip() for column in header])]
    if len(known) > 1 and len(headers[known[0]]) > 1:  # one column alone is not divided at all
        raise CorpusError(
            f"{path}: its header can be divided by {' and by '.join(_DELIMITERS[mark] for mark in known)}"
        )
    mark = known[0] if known else max(headers, key=lambda each: len(headers[each]))
    lines = io.StringIO(text, newline="")
    reader = (
        csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE)
        if mark == "\t"
        else csv.reader(lines, delimiter=mark, strict=True)
    )
    try:
        return _table(reader)
    except csv.Error as problem:
        raise CorpusError(f"{path}: line {reader.line_num}: not CSV ({problem})") from problem


def _table(reader: Any) -> Table:
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    for values in reader:
        if not any(value.strip() for value in values):
            continue
        if not columns:
            columns = tuple(value.strip() for value in values)
        elif len(values) > len(columns):
            rows.append((reader.line_num, f"{len(values)} fields, and the header has {len(columns)}"))
        else:
            rows.append((reader.line_num, dict(zip(columns, [*values, *[""] * len(columns)], strict=False))))
    return Table(columns, tuple(rows))


def _json_lines(path: Path, text: str) -> Table:
    if text.lstrip()[:1] == "[":
        raise CorpusError(f"{path}: one JSON document; a manifest has one JSON object a line")
    rows = tuple(_parsed(text))
    objects = [row for _, row in rows if isinstance(row, dict)]
    if rows and not objects:
        raise CorpusError(f"{path}: line {rows[0][0]}: {rows[0][1]}; a manifest has one JSON object a line")
    return Table(tuple(objects[0]) if objects else (), rows)


def _parsed(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as problem:
            yield number, f"not JSON ({problem})"
            continue
        yield number, content if isinstance(content, dict) else "no JSON object"


def _certain_encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = content[:200]
    if len(head) >= 4 and head.count(0) > len(head) // 3:  # a header's letters are ASCII: every second byte is 0
        return "utf-16-le" if head[1] == 0 else "utf-16-be"
    return "utf-8"


def _unknown_encoding(path: Path, content: bytes, problem: UnicodeDecodeError) -> str:
    line = content[: problem.start].count(b"\n") + 1
    raw = content.split(b"\n")[line - 1].strip()
    readings = []
    for name in _LIKELY:
        try:
            content.decode(name)
            readings.append(f"{raw.decode(name)!r:.60} in {name}")
        except UnicodeDecodeError:
            continue
    return (
        f"{path}: not a readable manifest; expected a text file in UTF-8, but line {line} is none"
        + (f"; it could be {', or '.join(readings)}" if readings else "")
        + "; name the right one with --encoding, or save the file as UTF-8"
    )
