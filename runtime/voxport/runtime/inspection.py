"""Everything that a model file says about itself, in one value: what `voxport inspect` shows."""

import os
from dataclasses import dataclass

from voxport.runtime.backends.base import check_tensors
from voxport.runtime.backends.formats import check_digest, describe
from voxport.runtime.backends.golden import GoldenCheck, replay_golden
from voxport.runtime.backends.load import load_reference
from voxport.runtime.backends.options import ModelFile
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.length_range import LengthRange
from voxport.runtime.storage.atomic import file_sha256


@dataclass(frozen=True)
class Inspection:
    """One model file. `golden` is None where the golden vector was not, or could not be, replayed.

    `problem` says what is wrong with the file, or why the replay could not be done; None where all is well.
    """

    path: str
    bytes: int
    sha256: str
    file: ModelFile
    golden: GoldenCheck | None
    problem: str | None

    @property
    def contract(self) -> Contract:
        """What the file says about its model."""
        return self.file.contract

    @property
    def seconds(self) -> tuple[float, float]:
        """The shortest and the longest sound that the model takes."""
        allowed = LengthRange.of_sound(self.contract)
        return allowed.seconds(allowed.shortest), allowed.seconds(allowed.longest)


def inspect_model(path: str | os.PathLike[str], *, verify: bool = True) -> Inspection:
    """Read a model file; with `verify` also check its digest and replay its golden vector, which needs what runs it.

    Raises:
        ContractError: the file is missing, damaged, or has no contract that can be read.
    """
    file, where = describe(path), os.fspath(path)
    golden, problem = None, None
    try:
        check_tensors(file.contract, file.inputs, file.outputs, where)
        if verify or file.two_files:
            check_digest(path)
        if verify:
            golden = replay_golden(load_reference(path), where)
            problem = None if golden.passed else f"{where}: {golden.complaint}"
    except BackendError as caught:
        problem = f"the golden vector was not replayed: {caught}; or leave the check out with --no-verify"
    except VoxportError as caught:  # the rest is shown all the same
        problem = str(caught)
    return Inspection(where, os.stat(path).st_size, file_sha256(path), file, golden, problem)
