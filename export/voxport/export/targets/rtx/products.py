"""Matrix products and convolutions: what each computes in, and why some are not in half."""

from collections.abc import Iterable, Mapping
from typing import Any

from voxport.export.targets.rtx.report import Product
from voxport.runtime.contract import Contract

_NAMES = {"HALF": "half", "FLOAT": "float", "BF16": "bfloat16"}
_WHY = {
    "frontend": "the frontend stays in float: its power spectrum leaves the range of half",
    "pooling": "pooling stays in float: it adds many values up",
    "": "the last product stays in float: its result is the scores",
}


def products_of(told: Iterable[Mapping[str, Any]], contract: Contract | None) -> tuple[Product, ...]:
    """The products that the parser made; `contract` is None for a file that is not ours."""
    listed = list(told)
    kinds = [_kind(each["reads"]) for each in listed]
    lower = any(kind != "float" for kind in kinds)
    return tuple(
        Product(
            each["node"] or each["layer"],
            "convolution" if "CONVOLUTION" in each["kind"] else "matrix product",
            kind,
            _why(each, kinds, contract) if kind == "float" and lower else "",
        )
        for each, kind in zip(listed, kinds, strict=True)
    )


def _kind(reads: list[str]) -> str:
    """One type for all operands; where they differ, both names."""
    return " × ".join(dict.fromkeys(_NAMES.get(name, name.lower()) for name in reads)) or "unknown"


def _why(product: Mapping[str, Any], kinds: list[str], contract: Contract | None) -> str:
    if contract is not None:
        scope = str(product["node"]).rpartition("/")[0].split(".")
        part = scope[1] if scope[0] == "network" and len(scope) > 1 else "" if scope[0] == "network" else scope[0]
        if part in _WHY:
            return _WHY[part]
        if contract.precision == "int8":
            return "int8 is for matrix products with weights: this is none, or its layer was kept in float"
    operands = " and ".join(product["operands"])
    return f"the file says so: {operands} {'are' if len(product['operands']) > 1 else 'is'} float32"
