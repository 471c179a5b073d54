"""Operation counts against arithmetic by hand, floors against theirs, and products that really run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.tiny_models import FRONTEND, make_tiny
from voxport.benchmarks.core.protocol import Count, Limit
from voxport.benchmarks.core.records import Product, Work
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec
from voxport.benchmarks.tasks.flops import count, product_of, work_of
from voxport.benchmarks.tasks.gemm import cpu_tools
from voxport.benchmarks.tasks.roofline import floor_of, limit

CELL = Cell(2, 50)


@pytest.mark.parametrize(
    ("op", "sources", "result", "expected"),
    [
        ("MatMul", [(200, 40), (40, 256)], (200, 256), Product(1, 200, 40, 256, 1)),
        ("MatMul", [(2, 100, 40), (40, 256)], (2, 100, 256), Product(1, 200, 40, 256, 1)),
        ("MatMul", [(2, 4, 100, 64), (2, 4, 64, 100)], (2, 4, 100, 100), Product(8, 100, 64, 100, 1)),
        ("Gemm", [(7, 5), (9, 5)], (7, 9), Product(1, 7, 5, 9, 1)),
        ("Conv", [(2, 16, 50), (8, 16, 3)], (2, 8, 50), Product(1, 100, 48, 8, 1)),
        ("Conv", [(2, 16, 1, 50), (16, 1, 1, 31)], (2, 16, 1, 50), None),  # depthwise
        ("Add", [(2, 3), (3,)], (2, 3), None),
    ],
)
def test_the_product_behind_a_node(op: str, sources: list[Any], result: Any, expected: Product | None) -> None:
    typed = [("float", shape) for shape in sources]
    assert product_of(op, typed, [("float", result)]) == expected


def test_eight_bit_products_are_told_apart() -> None:
    found = product_of("MatMulInteger", [("uint8", (10, 4)), ("int8", (4, 6))], [("int32", (10, 6))])
    assert found == Product(1, 10, 4, 6, 1, "int8")


def node(op: str, sources: list[Any], result: Any, parameters: int) -> dict[str, Any]:
    told: dict[str, Any] = {"op_name": op, "parameter_size": str(parameters)}
    told["input_type_shape"] = [{"float": list(shape)} for shape in sources]
    told["output_type_shape"] = [{"float": list(result)}]
    return {"args": told}


def test_products_between_dequantised_tensors_are_of_eight_bits() -> None:
    nodes = [
        node("DequantizeLinear", [(4, 6)], (4, 6), 24),
        node("MatMul", [(10, 4), (4, 6)], (10, 6), 0),
        node("MatMul", [(2, 3, 5), (2, 5, 3)], (2, 3, 3), 0),  # of attention: no weight, so in float
    ]
    work = work_of("m", CELL, nodes, io_bytes=0)
    assert [(product.k, product.dtype) for product in work.products] == [(4, "int8"), (5, "float32")]


def test_operations_and_bytes_add_up() -> None:
    nodes = [
        node("MatMul", [(10, 4), (4, 6)], (10, 6), 96),
        node("MatMul", [(10, 4), (4, 6)], (10, 6), 96),
        node("Conv", [(1, 6, 10), (6, 1, 3)], (1, 6, 10), 72),
        node("Add", [(10, 6), (6,)], (10, 6), 24),
        node("Reshape", [(10, 6)], (60,), 0),
    ]
    work = work_of("m", CELL, nodes, io_bytes=1000)
    assert work.products == (Product(1, 10, 4, 6, 2),)
    assert work.product_flops == 2 * (2 * 10 * 4 * 6)
    assert work.other_flops == 2 * 60 * 3 + 60
    assert work.parameter_bytes == 96 + 96 + 72 + 24
    assert work.activation_bytes == 5 * 240
    assert work.io_bytes == 1000 + 240


def test_the_floor_is_the_longer_of_products_and_memory() -> None:
    fast, slow = Product(1, 100, 100, 100, 3, gflops=10.0), Product(1, 10, 100, 100, 5, gflops=1.0)
    small = Product(1, 10, 10, 10, 1)  # not measured: taken at the mean rate of the others
    work = Work("m", CELL, (fast, slow, small), 0, 4_000_000, 0, 0)
    floor = floor_of(work, copy_gb_s=8.0)
    assert floor is not None
    seconds = 6e6 / 1e10 + 1e6 / 1e9
    rate = 7e6 / seconds
    assert floor.product_ms == pytest.approx(1e3 * (7e6 + 2000) / rate)
    assert floor.gflops == pytest.approx(rate / 1e9)
    assert floor.memory_ms == pytest.approx(0.5)
    assert floor.floor_ms == floor.product_ms
    assert floor.covered == pytest.approx(7e6 / (7e6 + 2000))
    starved = floor_of(work, copy_gb_s=0.1)
    assert starved is not None
    assert starved.floor_ms == pytest.approx(40.0)
    assert floor_of(Work("m", CELL, (small,), 0, 1, 0, 0), 8.0) is None


def test_a_real_graph_is_counted_from_what_is_executed(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "m.onnx")
    spec = BackendSpec("m", "onnx", str(tiny.path), "candidate", "features", "cpu", 1)
    (work,) = count(Count(spec, InputSpec(FRONTEND, seed=1), (CELL,))).works
    width, classes = tiny.project.shape[1], tiny.classes.shape[1]
    shapes = {(product.m * product.batch, product.k, product.n) for product in work.products}
    assert (2, width, classes) in shapes  # the last product: one row for each utterance
    assert all(product.dtype == "float32" for product in work.products)
    assert work.parameter_bytes >= 4 * (tiny.project.size + tiny.classes.size)
    assert work.io_bytes >= 4 * 2 * 50 * FRONTEND.n_mels


@pytest.mark.parametrize("product", [Product(1, 8, 16, 4, 1), Product(3, 5, 6, 7, 1), Product(1, 8, 16, 4, 1, "int8")])
def test_every_library_multiplies_what_it_says(product: Product) -> None:
    seen = 0
    for name, prepare in cpu_tools(1):
        prepared = prepare(product)
        if prepared is not None:
            prepared.run()
            seen += 1
            assert product.dtype == "float32" or name.startswith("ONNX Runtime")
    assert seen >= (1 if product.dtype == "int8" and product.batch == 1 else 2)


def test_ceilings_of_this_machine() -> None:
    work = Work("m", CELL, (Product(1, 64, 64, 64, 1), Product(1, 4, 4, 4, 1)), 0, 1000, 0, 0)
    found = limit(Limit((work,), "cpu", 1)).limits
    large, small = found.works[0].products
    assert large.gflops is not None
    assert large.gflops > 0.01
    assert large.tool
    assert small.gflops is None  # beyond 97 % of the operations
    assert found.copy_gb_s is not None
    assert found.copy_gb_s > 0.01
    assert found.launch_us is None  # there is no kernel to launch on a processor
    (floor,) = found.floors
    assert floor.product_ms == pytest.approx(np.float64(work.product_flops) / 1e6 / large.gflops)
