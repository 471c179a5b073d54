#!/bin/sh
# tensorrt-rtx-cu13 1.7.1.116 on Linux x86-64: of the compute capabilities that it names, 7.5 has no float32 products.
#
# Held here: set_compute_capability takes 7.5, and a float16 matrix product is built for it; a float32 one is refused in the
# builder, though it is built for 8.9, and for 7.5 and 8.9 together it is refused too. NVIDIA's support matrix says "Yes"
# for float32 on 7.5, with a footnote. And hardware_compatibility_level = AMPERE_PLUS, an error or a feature elsewhere, is a
# warning, and the engine is built as if it had not been set. One would expect set_compute_capability, or the parser, to
# say what a GPU has not, and a setting that is not there to be refused.
# Usage: sh findings/tensorrt-rtx-turing-has-no-float32-products.sh    (PIP names another installer, such as PIP="uv pip")
# Exits with 0 where all is as described, with 1 where this release behaves otherwise. Needs no GPU.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PIP:-python3 -m pip} install --quiet --target "$folder/packages" tensorrt-rtx-cu13==1.7.1.116 onnx==1.23.2

cat > "$folder/build.py" <<'END'
import sys

import numpy as np
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper

said = []


class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)

    def log(self, severity, text):
        if severity.name in ("WARNING", "ERROR", "INTERNAL_ERROR"):
            said.append(text)


log = Log()
builder = trt.Builder(log)
print("tensorrt_rtx", trt.__version__)


def product(dtype, kind):
    weight = numpy_helper.from_array(np.ones((64, 64), dtype), "w")
    values = [helper.make_tensor_value_info(name, kind, [8, 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def build(what, content, capabilities, expected, level=None):
    said.clear()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(content)
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    assert all([config.set_compute_capability(each, at) for at, each in enumerate(capabilities)])
    if level is not None:
        config.hardware_compatibility_level = level
    built = builder.build_serialized_network(network, config) is not None
    told = "; ".join(text for text in said if "Int64" not in text)
    print(f"{what}: built {built} {told[:160]}")
    return built == expected[0] and expected[1] in told


single, half = product(np.float32, TensorProto.FLOAT), product(np.float16, TensorProto.FLOAT16)
turing, ada = trt.ComputeCapability.SM75, trt.ComputeCapability.SM89
refusal = "FP32 GEMM is not supported"
as_described = [
    build("float16 for 7.5", half, [turing], (True, "")),
    build("float32 for 7.5", single, [turing], (False, refusal)),
    build("float32 for 8.9", single, [ada], (True, "")),
    build("float32 for 7.5 and 8.9", single, [turing, ada], (False, refusal)),
    build("AMPERE_PLUS", single, [ada], (True, "unsupported"), trt.HardwareCompatibilityLevel.AMPERE_PLUS),
]
sys.exit(0 if all(as_described) else 1)
END
PYTHONPATH="$folder/packages" python3 "$folder/build.py"
