"""What a TorchScript file is allowed to hold, checked before torch sees it.

TorchScript has loops, and operators that read and write files; its code runs when it is loaded and when
it is called. voxport's own files hold one function of straight arithmetic, and that is what is let through.
The check is a second line of defence: torch's own reader of these files is a large piece of C++.
"""

import ast
import io
import pickletools
import re
from collections.abc import Iterator

from voxport.runtime.backends.pytorch.file import MAX_TEXT, Archive
from voxport.runtime.backends.pytorch.operators import SAFE_OPERATORS
from voxport.runtime.errors import ContractError

_MEMBERS = re.compile(
    r"(data|constants)\.pkl|(data|constants)/\d{1,6}|code/__torch__/[\w./]{1,200}\.py|version|byteorder"
    r"|\.data/(version|serialization_id)|extra/[\w.]{1,60}"
)
_CLASS = re.compile(r"__torch__(\.\w{1,60}){1,12}")
_GLOBALS = re.compile(
    r"torch\._utils _rebuild_tensor_v2|collections OrderedDict|torch (Float|Half|Long|Int|Double|Bool|BFloat16)Storage"
    r"|torch\.jit\._pickle build_\w{1,20}"
)
_PRIMITIVES = frozenset({"NumToTensor", "device", "dtype", "min", "max", "TupleIndex", "unchecked_cast"})
_FUNCTIONS = frozenset({"int", "float", "bool", "annotate"})
_STATEMENTS = (ast.Assign, ast.AnnAssign, ast.Return, ast.Pass, ast.FunctionDef, ast.ClassDef, ast.arguments, ast.arg)
_EXPRESSIONS = (
    *(ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Subscript, ast.UnaryOp),
    *(ast.USub, ast.Load, ast.Store, ast.Module, ast.Index, ast.Not),
)


def check_script(archive: Archive) -> None:
    """Raise ContractError unless everything in the archive is what `voxport export torchscript` writes."""
    budget = MAX_TEXT
    for name in archive.names:
        if not _MEMBERS.fullmatch(name):
            raise _strange(archive, f"the member {name[:80]}")
        if name.endswith(".pkl"):
            _check_pickle(archive, name)
        elif name.startswith("code/"):
            text = archive.read(name, budget)
            budget -= len(text)
            _check_code(archive, name, text)


def _check_pickle(archive: Archive, name: str) -> None:
    """Let through tensors and TorchScript classes, all that torch's own unpickler of these files is meant for."""
    content = archive.read(name, MAX_TEXT)
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
                raise _strange(archive, f"the pickle code {opcode.name} in {name}")
            if opcode.name == "GLOBAL" and not _known_global(str(argument)):
                raise _strange(archive, f"the name {str(argument)[:80]!r} in {name}")
    except ContractError:
        raise
    except Exception as problem:  # its errors have no common base
        raise archive.error(f"its {name} is no pickle") from problem


def _known_global(name: str) -> bool:
    return bool(_GLOBALS.fullmatch(name) or _CLASS.fullmatch(name.replace(" ", ".")))


def _check_code(archive: Archive, name: str, text: bytes) -> None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise archive.error(f"its {name} cannot be read as code") from problem
    for node in ast.walk(tree):
        for what in _complaints(node):
            raise _strange(archive, f"{what} in {name}")


def _complaints(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, (*_STATEMENTS, *_EXPRESSIONS)):
        yield f"the code {type(node).__name__}"
    elif isinstance(node, ast.FunctionDef):
        if node.name != "forward" or node.decorator_list:
            yield f"the function {node.name[:60]}"
    elif isinstance(node, ast.Call):
        callee = _dotted(node.func)
        if not _is_safe(callee):
            yield f"a call of {callee[:60] or 'something computed'}"


def _is_safe(callee: str) -> bool:
    if callee.startswith("torch."):
        return callee.removeprefix("torch.") in SAFE_OPERATORS
    if callee.startswith("ops.prim."):
        return callee.removeprefix("ops.prim.") in _PRIMITIVES
    return callee in _FUNCTIONS


def _dotted(node: ast.expr) -> str:
    """`torch.matmul` of such an expression; nothing where it is more than names and dots."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _strange(archive: Archive, what: str) -> ContractError:
    return ContractError(
        f"{archive.where}: holds {what}, which no TorchScript model of voxport has, so it is not loaded; "
        "export the model again with the voxport that is installed here"
    )
