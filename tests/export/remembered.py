"""Captures that tests share. torch takes eight seconds or more for one, and most tests need what follows it.

What was captured is known by everything that the capture depends on: weights, structure, plain attributes, the code
of every `forward`, examples, names, opset. The same bytes come out for the same of these, which
`test_same_checkpoint_gives_the_same_bytes` holds on captures that are not shared.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
from onnx import ModelProto
from torch import Tensor, nn

from voxport.export.graph.capture import GraphInput, to_onnx

ToOnnx = Callable[[nn.Module, Mapping[str, GraphInput], tuple[str, ...], int], ModelProto]


def remembered(folder: Path) -> ToOnnx:
    """`to_onnx` with a memory in `folder`, which all processes of a run of tests may share."""

    @functools.wraps(to_onnx)
    def capture(
        module: nn.Module, inputs: Mapping[str, GraphInput], outputs: tuple[str, ...], opset: int
    ) -> ModelProto:
        key = fingerprint(module, *(each.example for each in inputs.values()))
        names = repr(([(name, each.dims) for name, each in inputs.items()], outputs, opset))
        path = folder / f"{key}-{hashlib.sha256(names.encode()).hexdigest()[:16]}.onnx"
        if not path.is_file():
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(to_onnx(module, inputs, outputs, opset).SerializeToString())
            part.rename(path)
        return onnx.load(path)

    return capture


def fingerprint(module: nn.Module, *examples: Tensor) -> str:
    """A hash of all that a capture of `module` with `examples` depends on.

    An attribute whose repr names its address gives another hash each time: such a module is captured anew.
    """
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        own = {key: value for key, value in vars(part).items() if not key.startswith("_") and key != "training"}
        code = type(part).forward.__code__
        digest.update(repr((name, type(part).__qualname__, part.training, own, code.co_code, code.co_consts)).encode())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in [*tensors.items(), *((str(i), example) for i, example in enumerate(examples))]:
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
