"""Everything that a model file says about itself, in one value: what `voxport inspect` shows."""

import os
from dataclasses import dataclass

from voxport.runtime.backends.base import Backend, check_tensors
from voxport.runtime.backends.formats import check_digest, is_plan, is_torch_file
from voxport.runtime.backends.golden import GoldenCheck, replay_golden
from voxport.runtime.backends.onnxrt.file import OnnxFile, contract_of, read_onnx
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.pytorch.file import TorchFile, read_torch
from voxport.runtime.backends.trt.file import PlanFile, read_plan, read_sidecar
from voxport.runtime.contract import METADATA_KEY, Contract
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
    file: OnnxFile | TorchFile | PlanFile
    contract: Contract
    golden: GoldenCheck | None
    problem: str | None

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
    file: OnnxFile | TorchFile | PlanFile
    if is_plan(path):
        file = read_sidecar(path)
        contract = file.contract
    elif is_torch_file(path):
        file = read_torch(path)
        contract = file.contract
    else:
        file = read_onnx(path, METADATA_KEY, graph=True)
        contract = contract_of(file, path)
    golden, problem = None, None
    try:
        if isinstance(file, OnnxFile):
            check_tensors(contract, file.inputs, file.outputs, os.fspath(path))
        elif isinstance(file, PlanFile):
            read_plan(path, file)  # the one that was described?
        if verify:
            check_digest(path)
            golden = replay_golden(_load(path, file), os.fspath(path))
            problem = None if golden.passed else f"{os.fspath(path)}: {golden.complaint}"
    except BackendError as caught:
        problem = f"the golden vector was not replayed: {caught}; or leave the check out with --no-verify"
    except VoxportError as caught:  # the rest is shown all the same
        problem = str(caught)
    size = os.stat(path).st_size
    return Inspection(os.fspath(path), size, file_sha256(path), file, contract, golden, problem)


def _load(path: str | os.PathLike[str], file: OnnxFile | TorchFile | PlanFile) -> Backend:
    """The model, where its proof holds for certain: on the CPU, unless it was compiled for another device."""
    if isinstance(file, OnnxFile):
        return OnnxModel.load(path, verify=False)
    if isinstance(file, PlanFile):
        from voxport.runtime.backends.trt.model import PlanModel

        return PlanModel.load(path, verify=False)
    from voxport.runtime.backends.pytorch.model import TorchModel
    from voxport.runtime.backends.pytorch.session import TorchOptions

    return TorchModel.load(path, TorchOptions("auto" if file.kind == "package" else "cpu"), verify=False)
