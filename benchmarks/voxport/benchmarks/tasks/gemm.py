"""Matrix products in the libraries at hand, to find the machine's ceiling with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxport.benchmarks.core.records import Product
from voxport.runtime.backends.onnxrt.session import import_onnxruntime
from voxport.runtime.errors import BackendError

BURST = 20  # products between two waits for a GPU, so that their launches hide behind them

Runner = Callable[[], object]


@dataclass(frozen=True)
class Prepared:
    """A call that computes a product `times` times."""

    run: Runner
    times: int = 1


Tool = tuple[str, Callable[[Product], Prepared | None]]  # a name, and None for what the library cannot multiply


def _arrays(product: Product) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((product.batch, product.m, product.k), dtype=np.float32)
    right = rng.standard_normal((product.batch, product.k, product.n), dtype=np.float32)
    return (left[0], right[0]) if product.batch == 1 else (left, right)


def cpu_tools(threads: int) -> Iterator[Tool]:
    """NumPy, and PyTorch and ONNX Runtime where they are installed."""
    yield f"NumPy {np.__version__}", _numpy_product
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(threads)
        yield f"PyTorch {torch.__version__}", lambda product: _torch_product(product, "cpu")
    try:
        import onnx  # noqa: F401 - only to know whether it is there

        onnxruntime = import_onnxruntime("cpu")
    except (ImportError, BackendError):
        return
    yield f"ONNX Runtime {onnxruntime.__version__}", lambda product: _onnx_product(product, threads)


def cuda_tools() -> Iterator[Tool]:
    """PyTorch, in full float32."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    yield f"PyTorch {torch.__version__}", lambda product: _torch_product(product, "cuda")


def _numpy_product(product: Product) -> Prepared | None:
    if product.dtype != "float32":
        return None
    left, right = _arrays(product)
    out = np.empty((*left.shape[:-1], right.shape[-1]), dtype=np.float32)
    return Prepared(lambda: np.matmul(left, right, out=out))


def _torch_product(product: Product, device: str) -> Prepared | None:
    import torch

    # Half precision on a processor is emulated in many places, and no back end here computes in it there.
    if product.dtype not in ("float32", "float16") or (product.dtype == "float16" and device == "cpu"):
        return None
    dtype = getattr(torch, product.dtype)
    left, right = (torch.from_numpy(item).to(device, dtype) for item in _arrays(product))
    out = torch.empty((*left.shape[:-1], right.shape[-1]), dtype=dtype, device=device)

    def run() -> None:
        torch.matmul(left, right, out=out)

    if device == "cpu":
        return Prepared(run)

    def many() -> None:
        for _ in range(BURST):
            run()
        torch.cuda.synchronize()

    return Prepared(many, BURST)


def _onnx_product(product: Product, threads: int) -> Prepared | None:
    from onnx import TensorProto, helper, numpy_helper

    if product.dtype not in ("float32", "int8") or (product.dtype == "int8" and product.batch > 1):
        return None
    left, right = _arrays(product)
    integer = product.dtype == "int8"
    if integer:
        left, right = (left * 40 + 128).clip(0, 255).astype(np.uint8), (right * 40).clip(-127, 127).astype(np.int8)
    kinds = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    node = helper.make_node("MatMulInteger" if integer else "MatMul", ["x", "w"], ["y"])
    # The weight is a constant, as it is in the model, so that it may be packed beforehand.
    constants = [numpy_helper.from_array(right, "w")]
    out = (*left.shape[:-1], right.shape[-1])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", kinds[0], left.shape)],
        [helper.make_tensor_value_info("y", kinds[1], out)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnxruntime = import_onnxruntime("cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Prepared(lambda: session.run(None, {"x": left}))
