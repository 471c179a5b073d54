"""What the parser says, made readable, and a way out of each refusal."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from onnx import ModelProto

from voxport.export.targets.rtx.report import RefusedNode

_STATIC = (
    "TensorRT takes int8 with signed, symmetric scales that were calibrated beforehand; "
    "of a voxport model: voxport export onnx … --precision int8 --quantize static"
)
_ELSEWHERE = "or run the file in ONNX Runtime"
_REPAIR = "repair the file: onnx.checker.check_model tells more"
_OPERATORS = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"
_DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")
# Said of every failure on a machine without a driver, and about none of them.
_NO_DRIVER = re.compile(r"[^\n]*CUDA driver version is insufficient[^\n]*\n?")
_MEANT = {
    "UNSUPPORTED_NODE": "the parser does not know this operator",
    "UNSUPPORTED_NODE_ATTR": "the parser does not take this operator with these attributes",
    "UNSUPPORTED_NODE_INPUT": "the parser does not take this operator with these inputs",
    "UNSUPPORTED_NODE_DATATYPE": "the parser does not take this operator for this type",
    "UNSUPPORTED_NODE_SHAPE": "the parser does not take this operator for this shape",
    "UNSUPPORTED_NODE_DYNAMIC": "the parser does not take this operator with free dimensions",
}
# «Assertion failed: condition: why» and «condition && "why"»: what a reader wants is the last part.
_CONDITION = re.compile(r"^Assertion failed: .*?: (?=[A-Z])|^Assertion failed: ")
_PLACE = re.compile(r"^(WARNING )?(\w+\.(cpp|hpp):\d+: )?")
_QUOTED = re.compile(r"""^.* && "([^"]+)"$""")
_LONGEST = 400
# What tensorrt_rtx 1.7 says where GPUs of one compute capability lack an operation, or a type (b16 is bfloat16).
_NO_OPERATION = re.compile(r"Cannot compile operation '([^']+)' for \w+ \(SM(\d+)(\d)\): (.+?)\. In ")
_NO_TYPE = re.compile(r"Cannot compile for target\(s\) sm(\d+)(\d),.* datatypes: (\w+)\. In ")
_NUMBERED = re.compile(r"_U\d+$")  # the builder numbers its operations


def refused_nodes(errors: Iterable[Mapping[str, Any]], domains: Mapping[str, str]) -> tuple[RefusedNode, ...]:
    """The parser's errors, each once. `domains` is the domain of each operator that is no standard one."""
    found: dict[RefusedNode, None] = {}
    for error in errors:
        operator, code = str(error["operator"]), str(error["code"])
        node = str(error["node"]) or (f"node {error['index']}" if int(error["index"]) >= 0 else "")
        reason = readable(str(error["reason"]))
        if reason in ("", "false"):  # an assertion's text, which is all that some checks give
            reason = _MEANT.get(code, code)
        way_out = _REPAIR if code == "INVALID_GRAPH" else _way_out(operator, reason, domains)
        found[RefusedNode(node, operator, code, reason, way_out)] = None
    return tuple(found)


def foreign_operators(model: ModelProto) -> dict[str, str]:
    """Operators that are not ONNX's own, each with its domain, unless the file defines them itself."""
    own = {(function.domain, function.name) for function in model.functions}
    standard = ("", "ai.onnx")
    nodes = (node for node in model.graph.node if node.domain not in standard)
    return {node.op_type: node.domain for node in nodes if (node.domain, node.op_type) not in own}


def gpu_lacks(text: str, capabilities: Iterable[str], ours: bool) -> str | None:
    """What to tell of a builder's message `text` that GPUs of one compute capability lack something; None for others.

    `capabilities` are those that can be built for; `ours` says whether voxport wrote the graph.
    """
    ways = []
    if found := _NO_TYPE.search(text):
        older, kind = f"{found[1]}.{found[2]}", "bfloat16" if found[3] == "b16" else found[3]
        reason = f"for compute capability {older} TensorRT has no {kind}"
    elif found := _NO_OPERATION.search(text):
        older, operation = f"{found[2]}.{found[3]}", _NUMBERED.sub("", found[1])
        reason = f"for compute capability {older} TensorRT does not have what {operation!r} computes ({found[4]})"
        if "FP32 GEMM" in found[4]:
            reason = f"for compute capability {older} TensorRT has no float32 matrix products, and {operation!r} is one"
            if ours:
                reason += "; each file of voxport's has some, also in fp16 and int8"
            else:
                ways = ["write each product in half"]
    else:
        return None
    newer = [each for each in capabilities if tuple(map(int, each.split("."))) > tuple(map(int, older.split(".")))]
    if newer:
        ways.append(f"build for one of {', '.join(newer)}")
    ways.append(f"run the ONNX file in ONNX Runtime on such a GPU{', with --device cuda' if ours else ''}")
    return f"{reason}: {', or '.join(ways)}"


def readable(text: str) -> str:
    """A message of the library on one line, without what a missing driver adds to it."""
    kept = " ".join(_NO_DRIVER.sub("", text).split())
    kept = _PLACE.sub("", kept)
    kept = _QUOTED.sub(r"\1", _CONDITION.sub("", kept))
    return kept if len(kept) <= _LONGEST else kept[: _LONGEST - 1] + "…"


def _way_out(operator: str, reason: str, domains: Mapping[str, str]) -> str:
    if operator in domains:
        return (
            f"{operator} of {domains[operator]} is no standard operator: write the graph with ONNX's own, "
            f"{_ELSEWHERE} with the library that has it"
        )
    if operator in _DYNAMIC or "zero point" in reason or "zero_point" in reason or "UINT8" in reason:
        return _STATIC
    if "must have same input types" in reason:
        return "put a Cast before the operand of the other type: TensorRT converts nothing by itself"
    if "Sequence" in operator:
        return f"write it without sequences, with Split and Concat, {_ELSEWHERE}"
    if "data type" in reason or "date type" in reason:
        return f"keep values of this type (text, for example) outside the graph, {_ELSEWHERE}"
    if operator == "NonZero" or "plugin" in reason.lower():
        return f"write it with operators whose result has a known shape (Where, Mul with a mask), {_ELSEWHERE}"
    if operator:
        return f"write it with operators of {_OPERATORS}, {_ELSEWHERE}"
    return _REPAIR
