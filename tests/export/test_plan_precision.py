"""The proof of a plan's precision: what the inspector of each version says, and the arithmetic."""

import json
from typing import Any

import pytest

from voxport.export.errors import ExportError
from voxport.export.targets.trt.precision_check import half_weights, precision_proof
from voxport.runtime.contract import Precision

LINEAR = "Row major linear FP16 format"


def tensor(text: str, dims: Any = (2, 5), field: str = "Format/Datatype") -> dict[str, Any]:
    return {"Name": "x", "Dimensions": list(dims), field: text}


def layer(kind: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"Name": kind, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, **more}


def told(*layers: Any) -> str:
    return json.dumps({"Layers": layers})


def test_layers_and_bytes_are_counted_by_what_they_read_write_and_hold() -> None:
    proof = precision_proof(
        [
            told(
                layer("gemm", [tensor("Half")], [tensor("Half", (2, 10))]),  # 20 + 40 bytes in half
                layer("kgen", [tensor("Half", (1,))], [tensor("Float", (3,))]),  # 2 of 14
                layer("CaskConvolution", [tensor("Float")], [tensor("Float")], Weights={"Type": "Float", "Count": 6}),
                layer("Reformat", [tensor("Float", (99,))], [tensor("Half", (99,))]),  # computes nothing
                layer("kgen", [tensor("Int64")], [tensor("Bool")]),  # lengths
            )
        ],
        plan_bytes=0,
        weights=0,
    )
    assert (proof.products, proof.half_products) == (2, 1)
    assert (proof.layers, proof.half_layers, proof.untold) == (3, 1, 0)
    assert (proof.bytes, proof.half_bytes) == (60 + 14 + 80 + 24, 62)
    assert "1 of 2 matrix products, 1 of 3 layers (33%) and 35% of their bytes in half" in str(proof)


@pytest.mark.parametrize(
    ("field", "text", "half"),
    [
        ("Format/Datatype", "Half", True),
        ("Format/Datatype", LINEAR, True),
        ("Format/Datatype", "Two wide channel vectorized row major FP16 format", True),
        ("Format/Datatype", "Row major linear FP32", False),
        ("Format/Datatype", "BFloat16", False),
        ("Format/Datatype", "Float", False),
        ("DataType", "Half", True),
        ("Datatype", "Float", False),
        ("Format", "Row major linear FP16 format (kLINEAR)", True),
    ],
)
def test_each_versions_spelling_is_read(field: str, text: str, half: bool) -> None:
    proof = precision_proof([told(layer("gemm", [tensor(text, field=field)], [tensor(text, field=field)]))], 0, 0)
    assert (proof.layers, proof.half_layers, proof.half_products) == (1, half, half)


def test_a_format_beside_a_type_does_not_decide() -> None:
    both = {"Dimensions": [4], "Format": "Row major linear FP32 format", "DataType": "Half"}
    assert precision_proof([told(layer("gemm", [both], [both]))], 0, 0).half_products == 1


def test_a_product_is_in_half_where_its_operands_are() -> None:
    """A residual in float may be added to it, and its result may be float."""
    mixed = layer("kgen", [tensor("Half"), tensor("Float", (9, 9))], [tensor("Float")], TacticName="sm80_xmma_gemm_f16")
    weights = layer("CaskConvolution", [tensor("N/A due to dynamic shapes")], [], Weights={"Type": "Half", "Count": 8})
    proof = precision_proof([told(mixed, weights)], 0, 0)
    assert (proof.products, proof.half_products, proof.half_layers, proof.untold) == (2, 2, 1, 0)


def test_profiles_are_added_up() -> None:
    gemm = layer("gemm", [tensor("Half")], [tensor("Half")])
    proof = precision_proof([told(gemm), told(gemm, layer("gemm", [tensor("Float")], [tensor("Float")]))], 0, 0)
    assert (proof.products, proof.half_products) == (3, 2)
    assert proof.half_share == pytest.approx(2 / 3)


@pytest.mark.parametrize("untold", ["N/A due to dynamic shapes", "", "Row major linear"])
def test_layers_without_a_type_are_untold_and_the_plans_size_decides(untold: str) -> None:
    layers = told("a name alone", layer("gemm", [tensor(untold)], [tensor("Half")]))
    large, small = (precision_proof([layers], size, 1000) for size in (3900, 2100))
    assert (large.layers, large.untold) == (0, 2)
    assert small.half_share == pytest.approx(0.95)
    small.check("fp16")
    with pytest.raises(ExportError, match=r"2 layers untold; by the plan's size at least 5% of the weights in half"):
        large.check("fp16")


@pytest.mark.parametrize(
    ("size", "weights", "share"), [(4000, 1000, 0), (2000, 1000, 1), (3000, 1000, 0.5), (9000, 1000, 0), (1, 0, 0)]
)
def test_the_bound_by_size_is_the_least_that_must_be_in_half(size: int, weights: int, share: float) -> None:
    assert half_weights(size, weights) == pytest.approx(share)


def test_the_bound_by_size_never_claims_too_much() -> None:
    """For every share in half and any size of code beside the weights."""
    for half in range(0, 101, 5):
        for code in (0, 10, 5000):
            assert half_weights(half * 20 + (100 - half) * 40 + code, 1000) <= half / 100 + 1e-9


@pytest.mark.parametrize(
    ("precision", "text", "fine"),
    [
        ("fp16", "Half", True), ("fp16", "Float", False), ("fp16", "Int8", False),
        ("int8", "Int8", True), ("int8", "Half", False), ("fp32", "Float", True), ("fp32", "Half", True),
    ],
)  # fmt: skip
def test_what_is_refused(precision: Precision, text: str, fine: bool) -> None:
    proof = precision_proof([told(layer("gemm", [tensor(text)], [tensor(text)]))], 4000, 1000)
    if fine:
        proof.check(precision)
        return
    with pytest.raises(ExportError, match=r"asked for in .* matrix products, .* nothing was written"):
        proof.check(precision)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": []}', '{"Layers": 3}'])
def test_an_inspector_that_says_nothing_proves_nothing(text: str) -> None:
    with pytest.raises(ExportError, match=r"inspector .*cannot be proven"):
        precision_proof([text], 0, 0)
