"""Bounds that keep a hostile or damaged contract from costing memory, steering a terminal or proving nothing."""

import re

from voxport.runtime.contract.contract import Contract
from voxport.runtime.errors import ContractError

# Sizes that no speaker model has. They keep a hostile file from asking for gigabytes of frontend tables.
_MOST_OF_FRONTEND = {"n_fft": 1 << 14, "n_mels": 1 << 9, "sample_rate": 1 << 20, "hop_length": 1 << 20}
# Least and most of the frontend's other numbers; all of them are beyond what anybody uses.
_FRONTEND_RANGES = {
    "sample_rate": (1000, 1 << 20),
    "floor": (1e-30, 1e6),
    "sample_scale": (1e-6, 1e9),
    "preemphasis": (0, 1),
    "power": (0.1, 4),
    "spectrum_scale": (1e-12, 1e12),
    "level": (1e-12, 1e15),
    "quietest": (1e-30, 1e15),
}
_MODEL_RANGES = {"max_frames": (1, 1 << 24), "embedding_size": (1, 1 << 16), "score_scale": (1e-3, 1e4)}  # frames: 46 h
_MOST_OF_NAME = 1000  # characters
_MOST_LINES = 100  # of conditions
_MOST_DISTANCE = 0.5  # that a tolerance may allow, between cosines and between unit vectors
# Names are printed, one to a line: controls, line separators, direction overrides and lone surrogates
# must not steer a terminal. Joiners stay: Persian, Hindi and emoji are written with them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def check_contract(contract: Contract, where: str) -> Contract:
    """Return `contract`, or raise ContractError where it is out of bounds. `where` names the file."""
    for name, limit in _MOST_OF_FRONTEND.items():
        value = getattr(contract.frontend, name)
        if value > limit:
            raise ContractError(f"{where}: frontend {name} is {value}, at most {limit} is possible; export it again")
    for part, holder, ranges in (("frontend ", contract.frontend, _FRONTEND_RANGES), ("", contract, _MODEL_RANGES)):
        for name, (least, most) in ranges.items():
            value = getattr(holder, name)
            if value is not None and not least <= value <= most:
                raise ContractError(
                    f"{where}: {part}{name} is {value!s:.20}, only {least:g} to {most:g} is possible; export it again"
                )
    _check_tolerances(contract, where)
    _check_cohort(contract, where)
    lines = [text for line in contract.conditions for text in (line.kind, line.measured_on)]
    if len(lines) > 2 * _MOST_LINES:
        raise ContractError(
            f"{where}: {len(lines) // 2} conditions, at most {_MOST_LINES} are possible; export it again"
        )
    for text in (contract.recipe, contract.checkpoint_sha256, contract.frontend.name, *contract.labels, *lines):
        if len(text) > _MOST_OF_NAME:
            raise ContractError(f"{where}: the name {text!r:.60} has more than {_MOST_OF_NAME} characters; rename it")
        if UNPRINTABLE.search(text):
            raise ContractError(
                f"{where}: the name {text!r:.60} has unprintable characters; rename it and export again"
            )
    for label in contract.labels:
        if not label.strip():
            raise ContractError(f"{where}: a label is empty; name that speaker and export it again")
    return contract


def _check_cohort(contract: Contract, where: str) -> None:
    """The vectors that scores are normalised by are read here, not in the middle of an answer."""
    if contract.as_norm is not None:
        try:
            _ = contract.as_norm.speakers
        except ContractError as problem:
            raise ContractError(f"{where}: {problem}") from problem


def _check_tolerances(contract: Contract, where: str) -> None:
    """A golden vector or a proof that allows any answer proves nothing."""
    most_of_score = _MOST_DISTANCE * contract.score_scale
    golden = most_of_score if "scores" in contract.outputs else _MOST_DISTANCE
    own = (contract.golden.tolerance, contract.golden.tolerance_bf16, contract.golden.tolerance_fp16)
    found = [("golden", tolerance, golden) for tolerance in own if tolerance is not None]
    if contract.parity is not None:
        found.append(("parity", contract.parity.tolerance, most_of_score))
    for part, tolerance, most in found:
        if tolerance > most:
            raise ContractError(
                f"{where}: the {part} tolerance is {tolerance:g}, above {most:g} it proves nothing; export it again"
            )


def printable(text: str, limit: int = 200) -> str:
    """`text` without what could steer a terminal, cut to `limit` characters."""
    return UNPRINTABLE.sub("", text[:limit])
