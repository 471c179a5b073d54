"""Small corpora that tests make: features whose speakers can be told apart, in the homework's layout."""

import json
from pathlib import Path

import numpy as np
import torch

RECIPE = """\
summary = "for tests"
frontend = "homework_mel40"

[model]
num_layers = 1
d_model = 16
num_heads = 2
ffn_dim = 16
kernel_size = 5
dropout = 0.1

[train]
steps = 24
batch_size = 8
crop_frames = 32
learning_rate = 1e-2
warmup_steps = 4
valid_fraction = 0.2
validate_every = 8
save_every = 4
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def write_homework(folder: Path, speakers: int = 4, utterances: int = 6, test: int = 5, seed: int = 0) -> Path:
    """Each speaker's frames scatter around a mean of their own, within the homework's range of values."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    means = random.normal(-4, 3, size=(speakers, 40))
    names = [f"id{i:05}" for i in range(speakers)]

    def save(name: str, speaker: int) -> dict[str, object]:
        frames = int(random.integers(28, 70))
        features = random.normal(means[speaker], 1.0, size=(frames, 40)).astype(np.float32)
        torch.save(torch.from_numpy(np.maximum(features, np.log(np.float32(1e-9)))), folder / name)
        return {"feature_path": name, "mel_len": frames}

    entries = {names[s]: [save(f"uttr-{s:016x}{u:016x}.pt", s) for u in range(utterances)] for s in range(speakers)}
    tests = [save(f"uttr-{'f' * 16}{t:016x}.pt", t % speakers) for t in range(test)]
    mapping = {
        "speaker2id": {n: i for i, n in enumerate(names)},
        "id2speaker": {str(i): n for i, n in enumerate(names)},
    }
    (folder / "metadata.json").write_text(json.dumps({"n_mels": 40, "speakers": entries}))
    (folder / "mapping.json").write_text(json.dumps(mapping))
    (folder / "testdata.json").write_text(json.dumps({"n_mels": 40, "utterances": tests}))
    return folder
