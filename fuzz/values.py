"""Right JSON with wrong values in it: what a mutation of bytes seldom comes to."""

import copy
import struct
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, 0, 2, 5, -1, 1 << 63, 10**30, 10**400, 0.5, -1e300, 1e-300, "", " ", "x", "s0", "scores"),
    *("a" * 300, "\x1b[2J", "\ud800", [], {}, [[]], [None], [1], ["a"], {"a": 1}),
)
_EDIT = struct.Struct("<HB")
Path = tuple[str | int, ...]


def paths(document: Any, start: Path = ()) -> Iterator[Path]:
    """Every place in a JSON document, the whole of it first."""
    yield start
    entries = document.items() if isinstance(document, dict) else enumerate(document if type(document) is list else ())
    for key, value in entries:
        yield from paths(value, (*start, key))


def put(document: Any, path: Path, value: Any) -> Any:
    """A copy of the document with `value` in that place."""
    if not path:
        return value
    result = copy.deepcopy(document)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


def edited(document: Any, data: bytes) -> Any:
    """The document after up to four edits, of three bytes each: where, and which value."""
    for start in range(0, min(len(data), 4 * _EDIT.size) - _EDIT.size + 1, _EDIT.size):
        where, which = _EDIT.unpack_from(data, start)
        places = list(paths(document))
        document = put(document, places[where % len(places)], VALUES[which % len(VALUES)])
    return document


def edits() -> list[bytes]:
    """Seeds: one edit, and four."""
    return [_EDIT.pack(3, 2), b"".join(_EDIT.pack(7 * i, i) for i in range(4))]
