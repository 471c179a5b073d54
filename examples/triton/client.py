"""Who is speaking, asked of a Triton server: sounds are read here, and the network runs there.

pip install "voxport[audio]" "tritonclient[http,grpc]"
voxport export triton model.onnx -o models/ --name speakers
python client.py models/speakers one.wav two.flac
python client.py models/speakers one.wav --url triton.example:8001 --protocol grpc

From the folder that `voxport export triton` wrote it reads `contract.json` alone: the frontend, the lengths, the
speakers and their threshold. Sounds of any length are answered, in windows, and silence is nobody's, as
`SpeakerIdentifier` does with a model of its own.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from voxport.runtime import Answer, BackendError, Contract, ContractError, SpeakerIdentifier, VoxportError

Protocol = Literal["http", "grpc"]
PORTS = {"http": 8000, "grpc": 8001}


class TritonBackend:
    """A model on a Triton server, in the place of one that is loaded here.

    `name` is the model's on the server, and `max_batch` the most rows of one request. tritonclient's connections are
    not for several threads at once: make one of these for each.
    """

    def __init__(
        self, contract: Contract, url: str, name: str, *, protocol: Protocol = "http", max_batch: int = 16
    ) -> None:
        """Connect, and have the server answer what the contract recorded.

        Raises:
            BackendError: the server does not answer, or does not serve the model.
            ContractError: it serves another model than that of the contract.
        """
        self._contract, self._name, self._max_batch = contract, name, max_batch
        self._where = f"{name} at {url}"
        if protocol == "grpc":
            import tritonclient.grpc as triton
        else:
            import tritonclient.http as triton
        self._triton: Any = triton
        self._client = triton.InferenceServerClient(url)
        try:
            if not self._client.is_model_ready(name):
                raise BackendError(f"{self._where}: the model is not ready")
            metadata = self._client.get_model_metadata(name, **({"as_json": True} if protocol == "grpc" else {}))
        except (InferenceServerException, OSError) as problem:
            raise BackendError(f"{self._where}: the server does not answer ({problem})") from problem
        self._inputs = {each["name"]: each for each in metadata["inputs"]}
        missing = {contract.input_kind, "lengths"} - set(self._inputs)
        if missing:
            takes, wanted = ", ".join(self._inputs), ", ".join(sorted(missing))
            raise ContractError(f"{self._where}: takes {takes}, and not {wanted}; is it the model of contract.json?")
        self._check()

    @property
    def contract(self) -> Contract:
        """What the model says about itself."""
        return self._contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """The answer to a padded batch.

        Args:
            inputs: float32, (batch, frames, n_mels) features or (batch, samples) of sound, as the contract says.
            lengths: int64 (batch,), the true frames or samples of each row.

        Raises:
            BackendError: the server fails.
        """
        batch, counts = np.asarray(inputs, np.float32), np.asarray(lengths, np.int64)
        pieces = [slice(at, at + self._max_batch) for at in range(0, len(batch), self._max_batch)]
        return Answer.joined([self._ask(batch[piece], counts[piece]) for piece in pieces])

    def _ask(self, batch: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> Answer:
        told = self._inputs["lengths"]
        # With Triton's batching there is one number a row, (batch, 1) on the wire; without it they are (batch,).
        shape = (len(counts), 1) if len(told["shape"]) == 2 else (len(counts),)
        kind = np.int32 if told["datatype"] == "INT32" else np.int64
        tensors = {self._contract.input_kind: batch, "lengths": counts.astype(kind).reshape(shape)}
        asked = []
        for name, values in tensors.items():
            asked.append(self._triton.InferInput(name, values.shape, self._inputs[name]["datatype"]))
            asked[-1].set_data_from_numpy(np.ascontiguousarray(values))
        wanted = [self._triton.InferRequestedOutput(each) for each in self._contract.outputs]
        try:
            found = self._client.infer(self._name, asked, outputs=wanted)
        except (InferenceServerException, OSError) as problem:
            raise BackendError(f"{self._where}: {problem}") from problem
        return Answer.of({each: found.as_numpy(each) for each in self._contract.outputs})

    def _check(self) -> None:
        """Raise ContractError unless the server gives the answer that the export recorded."""
        golden = self._contract.golden
        values = golden.input.values.astype(np.float32)
        answer = self._ask(values[None], np.array([len(values)]))
        if "scores" in self._contract.outputs:
            off = float(np.abs(answer.scores[0] - golden.scores.values).max())
        elif golden.embedding is not None:
            off = float(np.linalg.norm(answer.embedding[0] - golden.embedding.values))
        else:
            return
        if not off <= golden.tolerance:
            raise ContractError(
                f"{self._where}: is another model than that of contract.json: its recorded answer is off by {off:.2g}, "
                f"where {golden.tolerance:.2g} is allowed"
            )


def connect(folder: Path, url: str | None, name: str | None, protocol: Protocol) -> SpeakerIdentifier:
    """An identifier whose network runs on a server; raises as TritonBackend does, and OSError without a contract."""
    path = folder / "contract.json"
    contract = Contract.from_json(path.read_text(encoding="utf-8"), str(path))
    where = url or f"localhost:{PORTS[protocol]}"
    return SpeakerIdentifier(TritonBackend(contract, where, name or folder.name, protocol=protocol))


def main() -> int:
    """Name the speaker of each file; a bad file is reported, and the others are still answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `voxport export triton` wrote, such as models/speakers")
    parser.add_argument("sounds", nargs="+")
    parser.add_argument("--url", help="host:port, without a scheme  [default: localhost, port 8000 or 8001]")
    parser.add_argument("--name", help="the model's on the server  [default: the folder's]")
    parser.add_argument("--protocol", choices=list(PORTS), default="http")
    options = parser.parse_args()
    try:
        identifier = connect(options.folder, options.url, options.name, options.protocol)
    except (VoxportError, OSError) as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 1
    failed = 0
    for path in options.sounds:
        try:
            answer = identifier.identify(path)
            who = "nobody known" if answer.speaker is None else f"{answer.speaker} ({answer.best.probability:.0%})"
            sys.stdout.write(f"{path}: {who}\n")
        except VoxportError as problem:
            sys.stderr.write(f"error: {problem}\n")
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
