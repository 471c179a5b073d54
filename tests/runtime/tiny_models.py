"""Tiny ONNX models, built node by node with onnx.helper, whose answers NumPy knows.

Each is a masked mean over time and two matrix products: nothing of voxport's own export is in them.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from voxport.runtime.backends.base import Backend
from voxport.runtime.contract import METADATA_KEY, Array, Contract, Golden, InputKind, Parity
from voxport.runtime.frontend.presets import profile

Floats = npt.NDArray[np.floating[Any]]

FRONTEND = profile("homework_mel40")
LABELS = ("Anna", "Bora", "Chén", "Дмитрий", "에리")
SIZE = 8
SCALE = 30.0
MIN_FRAMES, MAX_FRAMES = 5, 60


@dataclass(frozen=True, eq=False)
class TinyModel:
    """A model on disk and, in NumPy, the answers that it must give."""

    path: Path
    contract: Contract
    project: Floats  # (bands or moments, SIZE)
    classes: Floats  # (SIZE, speakers)

    def embedding(self, values: Floats) -> Floats:
        """The answer to one input (frames, n_mels) or (samples,), in float64."""
        return embedding_of(values, self.project)

    def scores(self, values: Floats) -> Floats:
        return SCALE * self.embedding(values) @ self.classes.astype(np.float64)


def embedding_of(values: Floats, project: Floats) -> Floats:
    values = values.astype(np.float64)
    if values.ndim == 1:
        values = np.stack([np.abs(values), values**2, np.cos(40 * values)], axis=1)
    vector = values.mean(axis=0) @ project.astype(np.float64)
    return np.asarray(vector / np.linalg.norm(vector))


def make_tiny(path: Path, kind: InputKind = "features", seed: int = 0, **changes: Any) -> TinyModel:
    """Write a right model; `changes` replace values of its contract."""
    generator = np.random.default_rng(seed)
    width = FRONTEND.n_mels if kind == "features" else 3
    project = generator.normal(size=(width, SIZE)).astype(np.float32)
    classes = generator.normal(size=(SIZE, len(LABELS))).astype(np.float32)
    classes /= np.linalg.norm(classes, axis=0)
    shape = (12, width) if kind == "features" else (16 * FRONTEND.hop_length,)
    source = generator.uniform(-0.5, 0.5, size=shape).astype(np.float32)
    contract = Contract(
        labels=LABELS,
        frontend=FRONTEND,
        input_kind=kind,
        min_frames=MIN_FRAMES,
        max_frames=MAX_FRAMES,
        precision="fp32",
        embedding_size=SIZE,
        score_scale=SCALE,
        recipe="tiny",
        checkpoint_sha256=hashlib.sha256(b"tiny").hexdigest(),
        golden=Golden(Array.of(source), Array.of(SCALE * embedding_of(source, project) @ classes), tolerance=1e-3),
        speech=None,  # random noise and tones are sounds like any other here
        parity=Parity(cases=12, max_abs_score=2e-5, min_cosine=0.9999999, top1_agreement=1.0, tolerance=1e-3),
    ).replace(**changes)
    save(path, tiny_graph(kind, project, classes), contract.to_json())
    return TinyModel(path, contract, project, classes)


def tiny_graph(kind: InputKind, project: Floats, classes: Floats) -> onnx.GraphProto:
    """The graph; NaN in the padding is masked out as well."""
    constants: dict[str, Any] = {
        "zero": np.int64(0), "one": np.int64(1), "axis_1": np.array([1]), "axis_2": np.array([2]),
        "nothing": np.float32(0), "forty": np.float32(40), "scale": np.float32(SCALE),
        "project": project, "classes": classes,
    }  # fmt: skip
    node = helper.make_node
    first = [node("Identity", ["features"], ["values"])]
    source = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "frames", FRONTEND.n_mels])
    if kind == "waveform":
        source = helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])
        first = [
            node("Unsqueeze", ["waveform", "axis_2"], ["wave"]),
            node("Abs", ["wave"], ["size"]),
            node("Mul", ["wave", "wave"], ["power"]),
            node("Mul", ["wave", "forty"], ["angle"]),
            node("Cos", ["angle"], ["cosine"]),
            node("Concat", ["size", "power", "cosine"], ["values"], axis=2),
        ]
    nodes = [
        *first,
        node("Shape", ["values"], ["longest"], start=1, end=2),
        node("Squeeze", ["longest"], ["stop"]),
        node("Range", ["zero", "stop", "one"], ["index"]),
        node("Unsqueeze", ["lengths", "axis_1"], ["column"]),
        node("Less", ["index", "column"], ["flat_mask"]),
        node("Unsqueeze", ["flat_mask", "axis_2"], ["mask"]),
        node("Where", ["mask", "values", "nothing"], ["masked"]),
        node("ReduceSum", ["masked", "axis_1"], ["total"], keepdims=0),
        node("Cast", ["column"], ["count"], to=TensorProto.FLOAT),
        node("Div", ["total", "count"], ["mean"]),
        node("MatMul", ["mean", "project"], ["vector"]),
        node("ReduceL2", ["vector", "axis_1"], ["norm"], keepdims=1),
        node("Div", ["vector", "norm"], ["embedding"]),
        node("MatMul", ["embedding", "classes"], ["cosines"]),
        node("Mul", ["cosines", "scale"], ["scores"]),
    ]
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"])
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes.shape[1]]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", classes.shape[0]]),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_graph(nodes, "tiny", [source, lengths], outputs, weights)


def save(path: Path, graph: onnx.GraphProto, *contracts: str, key: str = METADATA_KEY) -> None:
    """Write a model with these contracts; more than one cannot come from an honest writer."""
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="tests", producer_version="1"
    )
    onnx.checker.check_model(model)
    model.metadata_props.add(key="author", value="somebody")
    for text in contracts:
        model.metadata_props.add(key=key, value=text)
    path.write_bytes(model.SerializeToString())


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0, size: float = 0.5) -> npt.NDArray[np.float32]:
    """A sine, float32 (samples,)."""
    return (size * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def features(frames: Sequence[int] | int, seed: int = 1) -> Any:
    """Random features (frames, n_mels), or a list of such."""
    generator = np.random.default_rng(seed)
    if isinstance(frames, int):
        return generator.normal(size=(frames, FRONTEND.n_mels)).astype(np.float32)
    return [generator.normal(size=(count, FRONTEND.n_mels)).astype(np.float32) for count in frames]


def padded(rows: list[Any], garbage: float = math.nan) -> tuple[Any, Any]:
    """Rows of several lengths as a batch with three more places than the longest needs, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    batch = np.full((len(rows), lengths.max() + 3, *rows[0].shape[1:]), garbage, np.float32)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    return batch, lengths


def check_rows(model: Backend, tiny: TinyModel, rows: list[Any]) -> None:
    """Each row of a padded batch is answered as NumPy answers it alone."""
    answer = model.run(*padded(rows))
    assert answer.scores.shape == (len(rows), len(LABELS))
    for scores, embedding, row in zip(answer.scores, answer.embedding, rows, strict=True):
        np.testing.assert_allclose(scores, tiny.scores(row), atol=1e-4)
        np.testing.assert_allclose(embedding, tiny.embedding(row), atol=1e-5)
