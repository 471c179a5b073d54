"""A TensorRT plan on disk: the plan itself, and `<plan>.json` beside it with the contract.

The plan is a plain TensorRT file that trtexec and C++ programs read too, so nothing can be put into it.
The sidecar holds the plan's SHA-256: TensorRT never sees a plan that is damaged or that belongs to
another sidecar.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxport.runtime.contract import METADATA_KEY, Contract, check_contract, printable
from voxport.runtime.errors import ContractError
from voxport.runtime.storage.atomic import write_text

VERSION_COMPATIBLE = "version compatible"  # the fact in `built_with` that is "yes" for a plan with native code in it
_PROOF = "parity_passed_by"
_CONTRACT_SHA256 = "contract_sha256"  # the plan's own digest does not cover the contract beside it
_MAX_SIDECAR = 16 << 20
_EXPORT = "build the plan again, it writes both files"


Proof = Literal["engine", "source"]


@dataclass(frozen=True)
class PlanFile:
    """A plan's sidecar. `built_with` says by what and for what it was built, such as tensorrt and gpu.

    `proof` says what passed the parity gate: the engine itself, or the ONNX graph that it was built from.
    """

    contract: Contract
    sha256: str
    built_with: tuple[tuple[str, str], ...]
    proof: Proof = "engine"


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """`model.plan` → `model.plan.json`."""
    return Path(f"{os.fspath(path)}.json")


def write_sidecar(
    path: str | os.PathLike[str],
    contract: Contract,
    built_with: Mapping[str, str],
    more: Mapping[str, object] | None = None,
    proof: Proof | None = None,
) -> Path:
    """Write the sidecar of the finished plan `path`, atomically, and return where.

    `built_with` are facts for a person who meets a plan that does not load: tensorrt, gpu, cuda. `more` are
    further keys, which `read_sidecar` leaves alone: profiles, reports. `proof` is as in `PlanFile`.
    """
    content = {
        **(more or {}),
        **({} if proof is None else {_PROOF: proof}),
        METADATA_KEY: json.loads(contract.to_json()),
        _CONTRACT_SHA256: hashlib.sha256(contract.to_json().encode()).hexdigest(),
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "built_with": dict(built_with),
    }
    target = sidecar_path(path)
    write_text(target, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return target


def read_sidecar(path: str | os.PathLike[str]) -> PlanFile:
    """Read the sidecar of the plan `path`. Keys that it does not know are left to others: reports, for example.

    Raises:
        ContractError: the sidecar is missing, no JSON, or has no valid contract.
    """
    where = os.fspath(sidecar_path(path))
    try:
        if not stat.S_ISREG(os.stat(where).st_mode):
            raise ContractError(f"{where}: not a file; {_EXPORT}")
        with open(where, "rb") as file:
            raw = file.read(_MAX_SIDECAR + 1)
    except OSError as problem:
        raise ContractError(
            f"{os.fspath(path)}: its contract {where} cannot be read ({problem.strerror or problem}); "
            f"keep both files together, or {_EXPORT}"
        ) from problem
    if len(raw) > _MAX_SIDECAR:
        raise ContractError(f"{where}: larger than {_MAX_SIDECAR} bytes, which no contract is; {_EXPORT}")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise ContractError(f"{where}: not JSON ({problem}); {_EXPORT}") from problem
    if not isinstance(data, dict) or not isinstance(data.get(METADATA_KEY), dict):
        raise ContractError(f"{where}: has no {METADATA_KEY}; {_EXPORT}")
    contract = check_contract(Contract.from_json(json.dumps(data[METADATA_KEY]), where), where)
    told = data.get(_CONTRACT_SHA256)  # sidecars of before have none
    if told is not None and told != hashlib.sha256(contract.to_json().encode()).hexdigest():
        raise ContractError(f"{where}: its contract is damaged or was changed (its SHA-256 differs); {_EXPORT}")
    proof: Proof = "source" if data.get(_PROOF) == "source" else "engine"  # plans do not say it
    return PlanFile(contract, _sha256(data.get("sha256"), where), _facts(data), proof)


def read_plan(path: str | os.PathLike[str], file: PlanFile) -> bytes:
    """The plan's bytes. Raises ContractError where it is missing or not the one that its sidecar describes."""
    where = os.fspath(path)
    try:
        plan = Path(path).read_bytes()
    except OSError as problem:
        raise ContractError(f"{where}: cannot be read ({problem.strerror or problem}); give a plan") from problem
    if hashlib.sha256(plan).hexdigest() != file.sha256:
        raise ContractError(
            f"{where}: is damaged or not the plan that {sidecar_path(path).name} describes "
            f"(its SHA-256 differs); copy both files again, or {_EXPORT}"
        )
    return plan


def _sha256(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) != 64:
        raise ContractError(
            f"{where}: sha256 must be the plan's SHA-256 in hexadecimal, found {value!r:.80}; {_EXPORT}"
        )
    return value.lower()


def _facts(data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = data.get("built_with")
    if not isinstance(facts, dict):
        return ()
    return tuple((printable(str(name), 80), printable(str(value))) for name, value in list(facts.items())[:20])
