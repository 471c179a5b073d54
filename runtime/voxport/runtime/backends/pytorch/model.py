"""A TorchScript or .pt2 artefact run by PyTorch."""

import contextlib
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.backends.base import Answer, Explanation, Float32, Int64, check_batch, cpu_name
from voxport.runtime.backends.golden import check_golden, check_title
from voxport.runtime.backends.origin import Origin, reduced
from voxport.runtime.backends.pytorch.file import TorchFile, TorchKind, read_torch
from voxport.runtime.backends.pytorch.session import (
    Network,
    TorchOptions,
    choose_device,
    first_line,
    import_torch,
    limited_threads,
    load_network,
)
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.forks import refuse_after_fork
from voxport.runtime.length_range import LengthRange
from voxport.runtime.storage.seal import check_seal

NAMES: dict[TorchKind, str] = {
    "torchscript": "TorchScript",
    "program": ".pt2 program",
    "package": ".pt2 package compiled by AOTInductor",
}


class TorchModel:
    """A loaded TorchScript or .pt2 file: padded batches in, scores and embeddings out.

    Any number of threads may share one. Runs of a compiled package follow one another. It cannot be used after a
    fork, since torch's threads do not come along, and is pickled as its path and its options.
    """

    def __init__(self, file: TorchFile, network: Network, device: str, why: str, options: TorchOptions) -> None:
        """Use `TorchModel.load`, which checks that contract and network belong together."""
        self._file = file
        self._network = network
        self._device = device
        self._why = why
        self._options = options
        self._allowed = LengthRange.of_input(file.contract)
        self._torch = import_torch()
        self._process = os.getpid()
        self._origin: Origin | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, self._origin)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], options: TorchOptions | None = None, *, verify: bool = True
    ) -> "TorchModel":
        """Load a file that `voxport export torchscript` or `voxport export pt2` wrote.

        Before torch reads it, it is checked to hold nothing but a contract, weights and plain arithmetic.
        That cannot be said of a compiled package, which holds native code. `verify` compares the file's
        bytes with the digest at its end, and replays the golden vector.

        Raises:
            ContractError: the file is missing, damaged, holds anything else, or no longer gives its answer.
            BackendError: torch, the device or the precision is not there, or a package was compiled for
                another machine.
        """
        where, chosen = os.fspath(path), options or TorchOptions()
        file = read_torch(path)
        if verify:
            check_seal(path)
            check_title(file.contract, file.made_for, where)
        if chosen.precision not in (None, file.contract.precision):
            raise BackendError(
                f"{where}: precision {chosen.precision} was asked for, the model is {file.contract.precision}"
            )
        torch = import_torch()
        device, why = choose_device(torch, chosen.device, file, where)
        model = cls(file, load_network(torch, path, file, device), device, why, chosen)
        if verify:
            try:
                check_golden(model, where)
            except ContractError as problem:
                text = str(problem)
                raise ContractError(text if text.startswith(where) else f"{where}: {text}") from problem
        model._origin = Origin.of(model, where, chosen, verify)
        return model

    @property
    def contract(self) -> Contract:
        """What the model's file says about it."""
        return self._file.contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a batch; see `OnnxModel.run` for shapes and errors.

        Raises:
            BackendError: torch failed, for want of memory for example.
            ContractError: its answers do not have the shapes that the contract promises.
        """
        refuse_after_fork(self._process, "PyTorch")
        batch, counts = check_batch(self.contract, self._allowed, inputs, lengths)
        # Padding beyond the longest length that was proven is cut: a program refuses it, and it changes nothing.
        if batch.shape[1] > self._allowed.longest:
            batch = np.ascontiguousarray(batch[:, : self._allowed.longest])
        found = self._run(batch, counts)
        self._check_outputs(found, len(counts))
        return Answer.of(dict(zip(self.contract.outputs, found, strict=True)))

    def explain(self) -> Explanation:
        """What runs where."""
        torch, on_cpu = self._torch, self._device == "cpu"
        versions = [("torch", str(torch.__version__))]
        if not on_cpu:
            versions += [("cuda", str(torch.version.cuda)), ("cudnn", str(torch.backends.cudnn.version()))]
        notes = []
        if self._file.kind == "torchscript":
            notes.append("TorchScript is deprecated by PyTorch; .pt2 is its successor")
        if on_cpu:
            notes.append(
                "threads are torch's setting for the whole process"
                if self._options.threads is None
                else "threads are set in torch around every run"
            )
        return Explanation(
            backend=f"PyTorch, {NAMES[self._file.kind]}",
            device=self._device,
            device_name=cpu_name() if on_cpu else str(torch.cuda.get_device_name()),
            why=self._why,
            precision=self.contract.precision,
            threads=(self._options.threads or int(torch.get_num_threads())) if on_cpu else None,
            versions=tuple(versions),
            notes=tuple(notes),
        )

    def _run(self, batch: Float32, counts: Int64) -> list[Any]:
        torch = self._torch
        try:
            with torch.inference_mode(), limited_threads(torch, self._options.threads), self._full_float32():
                outputs = self._network(self._tensor(batch), self._tensor(counts))
                return [each.to("cpu").numpy() for each in outputs]
        except Exception as problem:  # torch's errors have no common base
            raise BackendError(f"PyTorch failed on an input of shape {batch.shape}: {first_line(problem)}") from problem

    def _full_float32(self) -> contextlib.AbstractContextManager[object]:
        """On the GPU: without TF32, to which torch rounds convolutions unless it is told otherwise."""
        if self._device == "cpu":
            return contextlib.nullcontext()
        flags: contextlib.AbstractContextManager[object] = self._torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=False, allow_tf32=False
        )
        return flags

    def _tensor(self, values: npt.NDArray[Any]) -> Any:
        if not values.flags.writeable:  # torch warns that it could be written to, and copies nothing
            values = values.copy()
        return self._torch.from_numpy(values).to(self._device)

    def _check_outputs(self, found: list[Any], rows: int) -> None:
        """Raise ContractError unless the model gave what its contract promises."""
        contract = self.contract
        widths = {"scores": len(contract.labels), "embedding": contract.embedding_size}
        wanted = [f"{name}: float32 ({rows}, {widths[name]})" for name in contract.outputs]
        given = [
            f"{name}: {each.dtype} ({', '.join(map(str, each.shape))})"
            for name, each in zip((*contract.outputs, *["?"] * len(found)), found, strict=False)
        ]
        if given != wanted:
            raise ContractError(
                f"the contract promises the outputs {', '.join(wanted)}, the model gives {', '.join(given)}; "
                "export the model again"
            )
