"""sherpa-onnx itself, in a process of its own since it crashes on wrong files, and tiny graphs to give it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

Float32 = npt.NDArray[np.float32]

WESPEAKER = {
    "framework": "wespeaker",
    "language": "English",
    "output_dim": "6",
    "sample_rate": "16000",
    "normalize_samples": "0",
    "feature_normalize_type": "global-mean",
}
NEMO = {
    "framework": "nemo",
    "language": "English",
    "output_dim": "6",
    "sample_rate": "16000",
    "feat_dim": "40",
    "window_size_ms": "25",
    "window_stride_ms": "10",
    "feature_normalize_type": "per_feature",
    "window_type": "hann",
}

_PROGRAM = """
import json, sys
import numpy as np
import sherpa_onnx
model, sounds, output = sys.argv[1:]
config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=model, num_threads=1)
extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)
rows = []
for samples in np.load(sounds).values():
    stream = extractor.create_stream()
    stream.accept_waveform(sample_rate=16000, waveform=samples)
    stream.input_finished()
    assert extractor.is_ready(stream)
    rows.append(list(extractor.compute(stream)))
json.dump({"dim": extractor.dim, "rows": rows}, open(output, "w"))
"""


def sherpa_process(model: Path, sounds: list[Float32], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run sherpa-onnx on 16 kHz sounds; `folder`/answer.json holds its answer where it survives."""
    if importlib.util.find_spec("sherpa_onnx") is None:
        pytest.skip("sherpa-onnx is not installed: pip install sherpa-onnx")
    np.savez(folder / "sounds.npz", *sounds)
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(model), str(folder / "sounds.npz"), str(folder / "answer.json")],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )


def sherpa_embeddings(model: Path, sounds: list[Float32], folder: Path) -> tuple[int, npt.NDArray[np.float64]]:
    """The size that sherpa-onnx reports, and its embeddings (sounds, size)."""
    done = sherpa_process(model, sounds, folder)
    assert done.returncode == 0, done.stderr
    answer = json.loads((folder / "answer.json").read_text())
    return answer["dim"], np.array(answer["rows"])


def write_model(
    path: Path,
    metadata: dict[str, str],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[list[Any]],
    kind: int = TensorProto.FLOAT,
) -> Path:
    """A graph whose outputs are its first input's time average, the first six bands of it.

    `inputs` are (name, element type, shape), `outputs` the shapes that the graph declares.
    """
    name, _, shape = inputs[0]
    axis = 2 if shape[2] in ("frames", 200) and shape[1] != "frames" else 1
    nodes = [
        helper.make_node("ReduceMean", [name, "axes"], ["mean"], keepdims=0),
        helper.make_node("Slice", ["mean", "zero", "six", "last"], ["vector"]),
    ]
    nodes += [helper.make_node("Cast", ["vector"], [f"out{i}"], to=kind) for i in range(len(outputs))]
    constants = {"axes": axis, "zero": 0, "six": 6, "last": 1}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(f"out{i}", kind, each) for i, each in enumerate(outputs)],
        [onnx.numpy_helper.from_array(np.array([value], np.int64), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def wespeaker_model(path: Path, metadata: dict[str, str] | None = None, frames: Any = "frames", mels: int = 80) -> Path:
    inputs = [("feats", int(TensorProto.FLOAT), [1, frames, mels])]
    return write_model(path, WESPEAKER if metadata is None else metadata, inputs, [[1, 6]])


def nemo_model(path: Path, metadata: dict[str, str] | None = None, outputs: int = 2, mels: int = 40) -> Path:
    inputs: list[tuple[str, int, list[Any]]] = [
        ("audio_signal", int(TensorProto.FLOAT), [1, mels, "frames"]),
        ("length", int(TensorProto.INT64), [1]),
    ]
    return write_model(path, NEMO if metadata is None else metadata, inputs, [[1, 6]] * outputs)
