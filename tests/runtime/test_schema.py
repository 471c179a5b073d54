"""The strict schema: what goes out comes back, and nothing else is let in."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxport.runtime.contract import Contract
from voxport.runtime.errors import ContractError, VoxportError
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.storage.serialization import decode, encode

T = TypeVar("T")


@dataclass(frozen=True)
class Leaf:
    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Tree:
    name: str
    kind: Literal["oak", "elm"]
    alive: bool
    leaf: Leaf
    leaves: tuple[Leaf, ...]
    rings: tuple[int, ...] = ()
    height: float | None = None
    fallen: Leaf | None = None


leaf = st.builds(Leaf, st.integers(), st.floats(allow_nan=False, allow_infinity=False))
tree = st.builds(
    Tree,
    st.text(),
    st.sampled_from(["oak", "elm"]),
    st.booleans(),
    leaf,
    st.lists(leaf, max_size=3).map(tuple),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | leaf,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

GOOD = {"name": "a", "kind": "oak", "alive": True, "leaf": {"size": 3}, "leaves": []}


def outcome(call: Callable[[], T]) -> tuple[T | None, str]:
    """What `call` returns, or the message of its ContractError; any other exception fails the test."""
    try:
        return call(), ""
    except ContractError as problem:
        return None, str(problem)


@given(tree)
def test_what_goes_out_comes_back_equal(value: Tree) -> None:
    assert decode(Tree, json.loads(json.dumps(encode(value))), "file") == value


def test_defaults_fill_what_is_left_out() -> None:
    assert decode(Tree, GOOD, "file") == Tree("a", "oak", True, Leaf(3, 0.5), ())


@given(json_values)
def test_any_json_gives_a_value_or_an_error_of_ours(data: Any) -> None:
    for cls in (Tree, Frontend, Contract):
        with pytest.raises(ContractError):
            decode(cls, data, "file", ContractError)


@given(st.sampled_from(sorted(GOOD)), json_values)
def test_any_value_in_any_place_gives_a_value_or_an_error_of_ours(name: str, value: Any) -> None:
    made, message = outcome(lambda: decode(Tree, GOOD | {name: value}, "file", ContractError))
    if made is None:
        assert message.startswith("file: " + name)
    else:
        assert encode(made)[name] == value or name in ("leaf", "leaves")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "file: unknown key colour; known keys are name"),
        ({"kind": "ash"}, "file: kind: must be one of oak, elm, found 'ash'"),
        ({"kind": ["oak"]}, "file: kind: must be one of"),
        ({"alive": 1}, "file: alive: expected bool, found int 1"),
        ({"leaf": {"size": True}}, "file: leaf: size: expected int, found bool"),
        ({"leaf": {"size": 1.0}}, "file: leaf: size: expected int, found float"),
        ({"leaf": {"size": 1, "share": "x"}}, "file: leaf: share: expected float, found str"),
        ({"leaf": {"size": 1, "share": True}}, "expected float, found bool"),
        ({"leaf": {"size": 1, "share": math.nan}}, "expected a finite number"),
        ({"leaf": {"size": 1, "share": 10**400}}, "expected a finite number"),
        ({"leaf": {}}, "file: leaf: missing key size"),
        ({"leaf": None}, "file: leaf: expected a table of Leaf values, found null"),
        ({"leaves": {}}, r"file: leaves: expected a list"),
        ({"leaves": "ab"}, "file: leaves: expected a list, found str"),
        ({"leaves": [{"size": 1}, {"size": None}]}, r"file: leaves\[1\]: size: expected int, found null"),
        ({"rings": [1, "2"]}, r"file: rings\[1\]: expected int"),
        ({"name": None}, "file: name: expected str, found null"),
    ],
)
def test_errors_name_the_key_and_what_was_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(VoxportError, match=message):
        decode(Tree, GOOD | change, "file")


def test_an_integer_is_taken_where_a_float_is_expected() -> None:
    made = decode(Leaf, {"size": 1, "share": 2}, "file")
    assert type(made.share) is float


def test_a_value_that_the_class_itself_refuses_is_named() -> None:
    from voxport.runtime.frontend.presets import profile

    data = encode(profile("kaldi_fbank80")) | {"win_length": 1000}
    with pytest.raises(ContractError, match="x: win_length 1000 must be positive and at most n_fft 512"):
        decode(Frontend, data, "x", ContractError)


def test_every_profile_comes_back_equal() -> None:
    from voxport.runtime.frontend.presets import PROFILES

    for frontend in PROFILES.values():
        assert decode(Frontend, json.loads(json.dumps(encode(frontend))), "x") == frontend
        assert frontend.digest != dataclasses.replace(frontend, floor=frontend.floor * 2).digest
