"""Bounds for contracts that come from strangers: sizes that no model has, names that steer a terminal."""

import re

from voxport.runtime.contract import Contract
from voxport.runtime.errors import ContractError

# Sizes that no speaker model has. They keep a hostile file from asking for gigabytes of frontend tables.
_LIMITS = {"n_fft": 1 << 14, "n_mels": 1 << 9, "sample_rate": 1 << 20, "hop_length": 1 << 20}
_MAX_FRAMES = 1 << 24  # 46 hours at a hop of 10 ms
# Names are printed, one to a line: controls, line separators, direction overrides and lone surrogates
# must not steer a terminal. Joiners stay: Persian, Hindi and emoji are written with them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def check_contract(contract: Contract, where: str) -> Contract:
    """Return `contract`, or raise ContractError where it is out of bounds. `where` names the file."""
    for name, limit in _LIMITS.items():
        value = getattr(contract.frontend, name)
        if value > limit:
            raise ContractError(f"{where}: frontend {name} is {value}, at most {limit} is possible; export it again")
    if contract.max_frames > _MAX_FRAMES:
        raise ContractError(f"{where}: max_frames is {contract.max_frames}, at most {_MAX_FRAMES} is possible")
    for text in (contract.recipe, contract.checkpoint_sha256, contract.frontend.name, *contract.labels):
        if UNPRINTABLE.search(text):
            raise ContractError(
                f"{where}: the name {text!r:.60} has unprintable characters; rename it and export again"
            )
    return contract


def printable(text: str, limit: int = 200) -> str:
    """`text` without what could steer a terminal, cut to `limit` characters."""
    return UNPRINTABLE.sub("", text[:limit])
