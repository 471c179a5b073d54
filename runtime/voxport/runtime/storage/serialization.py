"""Strict conversion between frozen dataclasses and the plain values of JSON or TOML.

Contracts and recipes come from files that anybody may have edited: an unknown key, a missing key or
a wrong type is an error that names the key, never a value silently taken or dropped.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union

from voxport.runtime.errors import VoxportError

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: Any) -> Any:
    """Return `value` (a dataclass, at any depth) as dicts, lists and scalars that JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(cls: type[T], data: Any, where: str, error: type[VoxportError] = VoxportError) -> T:
    """Build the dataclass `cls` from the mapping `data`; `where` names the source in messages.

    Raises:
        error: an unknown or missing key, a value of a wrong type, or one that `cls` itself refuses.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where}: expected a table of {cls.__name__} values, found {_kind(data)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise error(f"{where}: unknown key {_listed(unknown)}; known keys are {', '.join(fields)}")
    hints = _hints(typing.cast(type, cls))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}: {name}", error)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"{where}: missing key {name}")
    try:
        return cls(**values)
    except ValueError as problem:
        raise error(f"{where}: {problem}") from problem


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields; to find them takes longer than to check the values."""
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, where: str, error: type[VoxportError]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _convert(hint, value, where, error)
    if origin is Literal:
        if value in arguments:
            return value
        raise error(f"{where}: must be one of {', '.join(map(str, arguments))}, found {value!r:.60}")
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise error(f"{where}: expected a list, found {_kind(value)}")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]", error) for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, where, error)
    if hint is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            number = math.inf
        if not math.isfinite(number):
            raise error(f"{where}: expected a finite number, found {value!r:.60}")
        return number
    if hint in (int, str, bool) and type(value) is hint:
        return _writable(value, where, error)
    raise error(f"{where}: expected {getattr(hint, '__name__', hint)}, found {_kind(value)}")


def _writable(value: Any, where: str, error: type[VoxportError]) -> Any:
    """The value, unless it is text with half of a pair: JSON can name that, and no file can hold it."""
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise error(f"{where}: {value!r:.60} has half a character; such text cannot be written")
    return value


def _listed(keys: Sequence[Any]) -> str:
    """Keys that a stranger chose: a few, short, and without what could steer a terminal."""
    shown = [str(key) if str(key).isidentifier() and len(str(key)) <= 60 else f"{key!r:.60}" for key in keys[:5]]
    return ", ".join(shown) + (", …" if len(keys) > 5 else "")


def _kind(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {value!r:.60}"
