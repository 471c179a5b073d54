#!/bin/sh
# tensorrt-rtx-cu13 1.7.1.116 on Linux x86-64: its ONNX parser takes bytes that are no ONNX, and float64 for float32.
#
# Held here: b"hello world" and an empty file parse without an error, as a network without outputs; a product of two
# float64 matrices parses as one of float32, without a warning; opset 99 is taken. One would expect an error each time.
# Usage: sh findings/tensorrt-rtx-parses-what-is-no-onnx.sh    (PIP names another installer, such as PIP="uv pip")
# Exits with 0 where all is as described, with 1 where this release behaves otherwise. Needs no GPU.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PIP:-python3 -m pip} install --quiet --target "$folder/packages" tensorrt-rtx-cu13==1.7.1.116 onnx==1.23.2

cat > "$folder/parse.py" <<'END'
import sys

import tensorrt_rtx as trt
from onnx import TensorProto, helper

said = []


class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)

    def log(self, severity, text):
        if severity.name in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            said.append(text)


def model(operator, inputs, kind, opset):
    values = [helper.make_tensor_value_info(name, kind, [4, 4]) for name in inputs]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"])], "g", values, [helper.make_tensor_value_info("y", kind, [4, 4])]
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


log = Log()
builder = trt.Builder(log)
print("tensorrt_rtx", trt.__version__)


def parse(what, content, expected):
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    said.clear()
    parsed = trt.OnnxParser(network, log).parse(content)
    kinds = [network.get_output(index).dtype.name for index in range(network.num_outputs)]
    found = (parsed, kinds, list(said))
    print(f"{what}: parsed {parsed}, outputs {kinds}, messages {said}")
    return found == expected


as_described = [
    parse("hello world", b"hello world", (True, [], [])),
    parse("an empty file", b"", (True, [], [])),
    parse("float64 @ float64", model("MatMul", ["a", "b"], TensorProto.DOUBLE, 20), (True, ["FLOAT"], [])),
    parse("opset 99", model("Relu", ["a"], TensorProto.FLOAT, 99), (True, ["FLOAT"], [])),
]
sys.exit(0 if all(as_described) else 1)
END
PYTHONPATH="$folder/packages" python3 "$folder/parse.py"
