"""An ONNX artefact run by ONNX Runtime."""

import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.backends.base import (
    Answer,
    Explanation,
    Float32,
    Int64,
    check_batch,
    check_tensors,
    cpu_name,
)
from voxport.runtime.backends.golden import check_golden, check_title
from voxport.runtime.backends.onnxrt.file import contract_of, read_onnx
from voxport.runtime.backends.onnxrt.session import OnnxOptions, give_back, import_onnxruntime, start_session, versions
from voxport.runtime.backends.onnxrt.tensorrt_provider import nodes_by_provider
from voxport.runtime.backends.origin import Origin, reduced
from voxport.runtime.contract import METADATA_KEY, Contract, TensorSpec
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.forks import keep_for_ever, refuse_after_fork, tell_of_forks
from voxport.runtime.length_range import LengthRange
from voxport.runtime.storage.seal import SEAL_KEY, check_seal, rewritten

_BOUND = "inputs and outputs are bound to the GPU's memory"
_KEPT_SECONDS = 12.0  # of sound in a batch, whose working memory is kept for the next run; see `_run`


class OnnxModel:
    """A loaded ONNX model: padded batches in, scores and embeddings out.

    It keeps no state between calls, so any number of threads may share one. After a fork it opens its file
    again when it is first used in the child, on the CPU; on a GPU it says that it cannot. It is pickled as its
    path and its options: whoever unpickles it loads the file, which must still be the same model.
    """

    def __init__(self, contract: Contract, session: Any, options: OnnxOptions | None = None) -> None:
        """Use `OnnxModel.load`, which checks that contract and session belong together."""
        self._contract = contract
        self._session = session
        self._process, self._lock = os.getpid(), threading.Lock()
        self._options = options or OnnxOptions()
        # Both build an engine for a profile, and anew or not at all for a shape beyond it; other providers take any.
        self._most_rows = self._options.max_batch if self._options.device in ("tensorrt", "rtx") else None
        self._source, self._outputs = contract.input_kind, contract.outputs
        self._allowed = LengthRange.of_input(contract)
        step = contract.frontend.hop_length if contract.input_kind == "features" else 1
        self._kept = int(_KEPT_SECONDS * contract.frontend.sample_rate / step)
        self._give_back = give_back(import_onnxruntime("cpu")) if self._options.device == "cpu" else None
        self._origin: Origin | None = None
        tell_of_forks(self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], options: OnnxOptions | None = None, *, verify: bool = True
    ) -> "OnnxModel":
        """Load a model that `voxport export onnx` wrote, and check that it still is what it says.

        Checked are the contract, its version, and the graph's tensors against it. `verify` also compares the
        file's bytes with the checksum at its end, and replays the golden vector, which costs one short run;
        leave it out only where the same file was verified on the same machine before and the start must be fast.

        Raises:
            ContractError: any of these checks fails, or the file is missing or damaged.
            BackendError: onnxruntime or the device is not there.
        """
        where = os.fspath(path)
        file = read_onnx(path, METADATA_KEY)
        sealed = verify and check_seal(path, fast=True)
        contract = contract_of(file, path)
        chosen = options or OnnxOptions()
        chosen.precision_for(contract)
        session = start_session(path, chosen, contract)
        facts = session.get_modelmeta()
        metadata = facts.custom_metadata_map
        if verify:
            check_title(contract, getattr(facts, "graph_name", ""), where)
        if verify and not sealed and SEAL_KEY in metadata:
            raise rewritten(where)
        if metadata.get(METADATA_KEY) != file.contract:
            raise ContractError(f"{where}: the file changed while it was being loaded; load it again")
        check_tensors(contract, _tensors(session.get_inputs()), _tensors(session.get_outputs()), where)
        model = cls(contract, session, chosen)
        if verify:
            check_golden(model, where)
        model._origin = Origin.of(model, where, chosen, verify)
        return model

    def after_fork(self) -> None:
        """In a forked child: the session is the parent's, whose threads are not here; see `forks`."""
        keep_for_ever(self._session)
        self._session = None
        self._lock = threading.Lock()  # the old one may be held by a thread of the parent

    def _running(self) -> Any:
        """The session; in a forked child one of its own, made when it is first needed."""
        session = self._session
        if session is not None:
            return session
        origin = self._origin
        if origin is None or self._options.device != "cpu":
            refuse_after_fork(self._process, "a session that voxport did not open" if origin is None else "CUDA")
        assert origin is not None  # a session is missing after a fork alone
        with self._lock:
            if self._session is None:
                self._session = origin.load()._session
            return self._session

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, self._origin)

    @property
    def contract(self) -> Contract:
        """What the model's file says about it."""
        return self._contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a batch.

        Args:
            inputs: float32 (batch, frames, n_mels), or (batch, samples) at the frontend's sample rate
                where the contract's input kind is `waveform`. What lies beyond a row's length is not used.
            lengths: int64 (batch,), frames or samples of each row.

        Raises:
            LengthError: a length outside the contract's range.
            VoxportError: a wrong type or shape.
            BackendError: onnxruntime failed, for want of memory for example.
        """
        batch, counts = check_batch(self._contract, self._allowed, inputs, lengths)
        if self._most_rows is None:
            return self._run(batch, counts)
        parts = []
        for start in range(0, len(counts), self._most_rows):
            rows = counts[start : start + self._most_rows]
            parts.append(self._run(np.ascontiguousarray(batch[start : start + len(rows), : int(rows.max())]), rows))
        return Answer.joined(parts)

    def explain(self) -> Explanation:
        """What runs where, as ONNX Runtime says it."""
        session = self._running()
        options, providers = self._options, tuple(session.get_providers())
        threads = session.get_session_options().intra_op_num_threads
        nodes = nodes_by_provider(session)
        shared = ", ".join(f"{name} runs {count} nodes" for name, count in nodes.items())
        return Explanation(
            backend="ONNX Runtime",
            device=options.device,
            device_name=cpu_name() if options.device == "cpu" else _gpu_name(),
            why=f"device {options.device!r} was asked for",
            precision=options.precision_for(self._contract),
            providers=providers,
            threads=threads,
            versions=versions(options.device),
            notes=(*((shared,) if shared else ()), *((_BOUND,) if options.device not in ("cpu", "rtx") else ())),
        )

    def _run(self, batch: Float32, counts: Int64) -> Answer:
        # Attention's memory grows with the square of the length: one sound of 30 s would leave the
        # process with 500 MB for good. Such runs give theirs back, for a tenth to a sixth of their time.
        options = self._give_back if batch.shape[0] * batch.shape[1] > self._kept else None
        feeds: dict[str, npt.NDArray[Any]] = {self._source: batch, "lengths": counts}
        session = self._running()
        try:
            if self._options.device in ("cpu", "rtx"):  # of a plugin's memory a binding knows nothing
                found = session.run(self._outputs, feeds, options)
            else:
                found = self._run_bound(session, feeds)
        except Exception as problem:  # its errors have no common base of their own
            raise BackendError(f"onnxruntime failed on an input of shape {batch.shape}: {problem}") from problem
        return Answer.of(dict(zip(self._outputs, found, strict=True)))

    def _run_bound(self, session: Any, feeds: dict[str, npt.NDArray[Any]]) -> list[Float32]:
        """A run on the GPU whose copies are ours: each input goes to where its first operator is, once, before the run.

        The binding is made for this run alone, so that threads may share the session. Outputs stay on the GPU until
        the run is done, and then come together. Source: ONNX Runtime, "I/O Binding"; without `synchronize_inputs` a
        copy may still be under way when the run begins (its C API, SynchronizeBoundInputs).
        """
        binding = session.io_binding()
        for name, values in feeds.items():
            binding.bind_cpu_input(name, values)
        for name in self._outputs:
            binding.bind_output(name, "cuda", 0)  # as large as it turns out to be
        binding.synchronize_inputs()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        found: list[Float32] = binding.copy_outputs_to_cpu()
        return found


def _tensors(found: Any) -> tuple[TensorSpec, ...]:
    """Tensors of an onnxruntime session as ours; its type names look like `tensor(float)`."""
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    return tuple(
        TensorSpec(node.name, names.get(node.type, node.type.removeprefix("tensor(").rstrip(")")), tuple(node.shape))
        for node in found
    )


def _gpu_name() -> str:
    from voxport.runtime.backends.cuda import gpu_name  # a start on the CPU does without it

    return gpu_name()
