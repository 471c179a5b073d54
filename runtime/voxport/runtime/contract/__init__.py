"""The contract: everything about a model that its user must know, carried by the model itself."""

from voxport.runtime.contract.as_norm import AsNorm, rule_text
from voxport.runtime.contract.contract import CONTRACT_VERSION, METADATA_KEY, Contract
from voxport.runtime.contract.limits import UNPRINTABLE, check_contract, printable
from voxport.runtime.contract.parts import (
    OUTPUTS,
    Array,
    ConditionLine,
    Dim,
    Golden,
    InputKind,
    LengthTemperature,
    Output,
    Parity,
    Precision,
    Rejection,
    Rounding,
    TensorSpec,
    Windowing,
)

__all__ = [
    "CONTRACT_VERSION",
    "METADATA_KEY",
    "OUTPUTS",
    "UNPRINTABLE",
    "Array",
    "AsNorm",
    "ConditionLine",
    "Contract",
    "Dim",
    "Golden",
    "InputKind",
    "LengthTemperature",
    "Output",
    "Parity",
    "Precision",
    "Rejection",
    "Rounding",
    "TensorSpec",
    "Windowing",
    "check_contract",
    "printable",
    "rule_text",
]
