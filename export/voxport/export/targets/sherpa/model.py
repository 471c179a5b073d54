"""The deployable graph with the inputs and outputs that sherpa-onnx expects, and a way to run it.

Letters in shapes: B utterances, T frames each, F mel bands, E embedding width, S speakers.
"""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto
from torch import Tensor, nn

from voxport.export.dry_run import Tensors
from voxport.export.graph.capture import GraphInput, to_onnx
from voxport.export.network.inference_net import DeployableNet
from voxport.export.targets.sherpa.metadata import EMBEDDING, SCORES, Framework, feed_of, framework_of
from voxport.runtime.backends.base import Answer, Float32, check_batch
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session
from voxport.runtime.contract import Contract, TensorSpec
from voxport.runtime.errors import BackendError
from voxport.runtime.length_range import LengthRange

OPSET = 18  # the oldest that torch writes: phones run older ONNX Runtimes than servers
_IR_VERSION = 8  # came with opset 18; a newer number alone makes an older ONNX Runtime refuse the file
_EXAMPLE_FRAMES = 53  # of the capture; no other size of a network is likely to equal it


class WespeakerNet(nn.Module):
    """feats (B, T, F), all of one length → embs (B, E), logits (B, S). sherpa-onnx reads the first alone."""

    def __init__(self, network: DeployableNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and scores."""
        B, T, _ = features_BTF.shape
        lengths_B = torch.full((B,), T, dtype=torch.int64)  # torch 2.9 writes a float where no type is named
        scores_BS, embedding_BE = self.network(features_BTF, lengths_B)
        return embedding_BE, scores_BS


class NemoNet(nn.Module):
    """audio_signal (B, F, T), length (B,) in frames → logits (B, S), embs (B, E). sherpa-onnx reads the second."""

    def __init__(self, network: DeployableNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features_BFT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embeddings."""
        scores_BS, embedding_BE = self.network(features_BFT.transpose(1, 2), lengths_B)
        return scores_BS, embedding_BE


def capture_sherpa(network: DeployableNet, framework: Framework, n_mels: int) -> ModelProto:
    """The ONNX graph of `network` (float32) with the tensors of `framework`, without any metadata."""
    module: nn.Module
    if framework == "wespeaker":
        module, outputs = WespeakerNet(network), (EMBEDDING, SCORES)
        inputs = {"feats": GraphInput(torch.zeros(2, _EXAMPLE_FRAMES, n_mels), ("batch", "frames", None))}
    else:
        module, outputs = NemoNet(network), (SCORES, EMBEDDING)
        inputs = {
            "audio_signal": GraphInput(torch.zeros(2, n_mels, _EXAMPLE_FRAMES), ("batch", None, "frames")),
            "length": GraphInput(torch.full((2,), _EXAMPLE_FRAMES), ("batch",)),
        }
    graph = to_onnx(module.eval(), inputs, outputs, OPSET)
    graph.ir_version = _IR_VERSION
    return graph


def sherpa_tensors(framework: Framework, n_mels: int, speakers: int, embedding_size: int) -> Tensors:
    """The tensors of the graph that `capture_sherpa` gives."""
    embedding = TensorSpec(EMBEDDING, "float32", ("batch", embedding_size))
    scores = TensorSpec(SCORES, "float32", ("batch", speakers))
    if framework == "wespeaker":
        return Tensors((TensorSpec("feats", "float32", ("batch", "frames", n_mels)),), (embedding, scores))
    signal = TensorSpec("audio_signal", "float32", ("batch", n_mels, "frames"))
    return Tensors((signal, TensorSpec("length", "int64", ("batch",))), (scores, embedding))


class SherpaModel:
    """A model for sherpa-onnx behind the interface of every other artefact, run as sherpa-onnx runs it.

    That is one utterance after the other, cut to its length. With it around, `SpeakerIdentifier` works too.
    """

    def __init__(self, contract: Contract, session: Any) -> None:
        self._contract = contract
        self._session = session
        self._framework = framework_of(contract.frontend)
        self._allowed = LengthRange.of_input(contract)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SherpaModel":
        """Load a model that `voxport export sherpa` wrote.

        Raises:
            ContractError: the file is missing or damaged, or has no contract.
            BackendError: onnxruntime is missing.
        """
        return cls(read_contract(path), start_session(path, OnnxOptions()))

    @property
    def contract(self) -> Contract:
        """What the model's file says about it."""
        return self._contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer features (batch, frames, n_mels) of `lengths` (batch,) frames; raises as OnnxModel.run does."""
        batch, counts = check_batch(self._contract, self._allowed, inputs, lengths)
        rows = [self._answer(features[:count]) for features, count in zip(batch, counts, strict=True)]
        return Answer(np.concatenate([row.scores for row in rows]), np.concatenate([row.embedding for row in rows]))

    def _answer(self, features_TF: Float32) -> Answer:
        feed = feed_of(self._framework, [tensor.name for tensor in self._session.get_inputs()], features_TF)
        try:
            scores, embedding = self._session.run((SCORES, EMBEDDING), feed)
        except Exception as problem:  # onnxruntime's errors have no common base of their own
            raise BackendError(f"onnxruntime failed on {len(features_TF)} frames: {problem}") from problem
        return Answer(scores, embedding)
