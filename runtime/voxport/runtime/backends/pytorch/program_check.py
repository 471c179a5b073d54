"""What the .pt2 file of an exported program is allowed to hold, checked before torch sees it.

torch.export.load unpickles, evaluates the text of symbolic sizes (`sympy.sympify`) and compiles guards,
all of them taken from the file. So a program must come without any pickle and without guards, its sizes
must be plain arithmetic, and its nodes must call operators of the known list.
"""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from voxport.runtime.backends.pytorch.file import MAX_TEXT, Archive
from voxport.runtime.backends.pytorch.operators import SAFE_OPERATORS
from voxport.runtime.errors import ContractError

_MODEL = "models/model.json"
_SAMPLE = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MEMBERS = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|data/weights/(model_weights_config\.json|weight_\d{1,6})"
    r"|data/constants/(model_constants_config\.json|tensor_\d{1,6})|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)|extra/[\w.]{1,60}"
)
_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w{1,60})\.\w{1,60}")
_ON_SIZES = frozenset(
    [f"_operator.{name}" for name in "add sub mul pow floordiv mod neg eq ne lt le gt ge and_ or_ not_ getitem".split()]
    + [f"torch.sym_{name}" for name in "not max min int float sum".split()]
)
_SYMBOL = re.compile(r"[su]\d{1,6}", re.ASCII)
# No comments and no lines: another parser reads the same text after this one.
_ARITHMETIC = re.compile(r"[\w(), ='\"-]*", re.ASCII)
_TREE_TYPES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict"})
_MOST_EXPRESSION = 4000  # characters
_MOST_NESTED = 500  # brackets and signs of a size
_SMALL = 16  # the largest power: sympy would work out any other
_LARGEST = 1 << 63
_EXPRESSIONS = frozenset(
    "Integer Symbol Add Mul Pow Min Max FloorDiv CleanDiv CeilDiv Mod PythonMod ModularIndexing Equality Unequality "
    "Eq Ne Lt Le Gt Ge StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not Rational PowByNatural "
    "TruncToInt FloorToInt CeilToInt IntTrueDiv ToFloat Identity Where true false".split()
)


def check_program(archive: Archive) -> None:
    """Raise ContractError unless the archive holds what `voxport export pt2` writes, and no code."""
    for name in archive.names:
        _check_member(archive, name)
    for name in _CONFIGS:
        for key, value in _walk(_json(archive, name)):
            if key == "use_pickle" and value is not False:
                raise _strange(archive, f"a pickle, by its {name}")
    _check_model(archive, _json(archive, _MODEL))


def _check_model(archive: Archive, model: Any) -> None:
    if not isinstance(model, dict) or model.get("guards_code"):
        raise _strange(archive, "guards, which are code")
    ranges = model.get("range_constraints") or {}
    if not isinstance(ranges, dict):
        raise _strange(archive, "ranges that are no object")
    for name in ranges:
        if not _SYMBOL.fullmatch(name):
            raise _strange(archive, f"the symbol {name[:60]!r}")
    for key, value in _walk(model):
        if complaint := _complaint(key, value):
            raise _strange(archive, complaint)
    for key, value in _walk(model):
        if key == "nodes" and not (isinstance(value, list) and all(map(_has_small_power, value))):
            raise _strange(archive, "a large power of a size, or nodes that are none")


def _check_member(archive: Archive, name: str) -> None:
    if not _MEMBERS.fullmatch(name):
        raise _strange(archive, f"the member {name[:80]}")
    if name == _SAMPLE and archive.size(name):
        raise _strange(archive, f"a pickle, {name}")
    # In place of missing bytes torch would take zeros, of any size that is claimed.
    if name.startswith(("data/weights/weight_", "data/constants/tensor_")) and not archive.size(name):
        raise _strange(archive, f"the empty {name}")


def _complaint(key: str, value: Any) -> str:
    """What is wrong with an entry of the program's JSON; empty where nothing is."""
    if key == "target":
        if not isinstance(value, str) or not (value in _ON_SIZES or _is_safe_operator(value)):
            return f"the operator {value!s:.80}"
    elif key == "expr_str":
        if not is_plain_expression(value):
            return f"the size {value!s:.80}"
    elif key in ("as_graph", "as_custom_obj", "as_operator", "as_complex"):
        return f"an argument of the kind {key}"
    elif key in ("in_spec", "out_spec"):
        return "" if _is_plain_tree(value) else f"the {key} {value!s:.80}"
    elif key in ("metadata", "treespec_namedtuple_fields", "custom_obj_values") and value:
        return f"entries in {key}"
    return ""


def _is_safe_operator(name: str) -> bool:
    operator = _OPERATOR.fullmatch(name)
    return operator is not None and operator[1] in SAFE_OPERATORS


def _has_small_power(node: Any) -> bool:
    """Whether a node that raises a size to a power does so with a small number: it is worked out on loading."""
    if not isinstance(node, dict) or node.get("target") != "_operator.pow":
        return isinstance(node, dict)
    exponents = [value for key, value in _walk(node.get("inputs")) if key == "as_int"]
    return len(exponents) == 1 and isinstance(exponents[0], int) and 0 <= exponents[0] <= _SMALL


def is_plain_expression(text: object) -> bool:
    """Whether a symbolic size is arithmetic on numbers and symbols, small enough to be worked out at once."""
    if not isinstance(text, str) or len(text) > _MOST_EXPRESSION or not _ARITHMETIC.fullmatch(text):
        return False
    if text.count("(") + text.count("-") > _MOST_NESTED:  # Python's parser takes more than what works it out may
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_is_plain_node, ast.walk(tree)))


def _is_plain_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _EXPRESSIONS:
            return False
        return not node.func.id.startswith("Pow") or (len(node.args) == 2 and _is_small(node.args[1]))
    if isinstance(node, ast.Name):
        return node.id in _EXPRESSIONS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _SYMBOL.fullmatch(node.value) is not None
        return isinstance(node.value, bool) or (isinstance(node.value, int) and node.value < _LARGEST)
    return isinstance(node, (ast.Expression, ast.keyword, ast.Load, ast.UnaryOp, ast.USub))


def _is_small(node: ast.expr) -> bool:
    """Whether an exponent is a small number: 2 or Integer(2), and -1."""
    if isinstance(node, ast.Call) and len(node.args) == 1:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value <= _SMALL


def _is_plain_tree(spec: Any) -> bool:
    """Whether a tree of arguments is tuples, lists and dicts; torch would import modules for others."""
    if spec in ("", None):
        return True
    try:
        version_and_tree = json.loads(spec)
    except (TypeError, ValueError, RecursionError):
        return False
    entries = list(_walk(version_and_tree))
    types = [value for key, value in entries if key == "type"]
    return all(value is None or (isinstance(value, str) and value in _TREE_TYPES) for value in types) and not any(
        key in ("__enum__", "fqn", "default_factory_module") for key, _ in entries
    )


def _json(archive: Archive, name: str) -> Any:
    try:
        return json.loads(archive.read(name, MAX_TEXT))
    except (ValueError, RecursionError) as problem:
        raise archive.error(f"its {name} is no JSON") from problem


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object in a JSON document, with its value."""
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield from value.items()
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _strange(archive: Archive, what: str) -> ContractError:
    return ContractError(
        f"{archive.where}: holds {what}, which no .pt2 program of voxport has, so it is not loaded; "
        "export the model again with the voxport that is installed here"
    )
