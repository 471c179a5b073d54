"""`voxport export sherpa`: the file gives sherpa-onnx our embeddings, and nothing wrong gets a name."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from tests.export.conftest import LIMITS, SMALL
from tests.export.sherpa_tools import Float32, sherpa_embeddings
from tests.export.tiny import LABELS, make_checkpoint, write_checkpoint
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.inputs.cases import voice_like
from voxport.export.targets.sherpa import export as sherpa
from voxport.export.targets.sherpa.export import SherpaOptions, export_sherpa
from voxport.export.targets.sherpa.metadata import framework_of, sherpa_metadata
from voxport.export.targets.sherpa.model import SherpaModel
from voxport.export.targets.sherpa.validate import check_sherpa
from voxport.export.verification.reference import eager_answer
from voxport.export.verification.report import ParityError, ParityReport
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import Checkpoint, load_checkpoint
from voxport.train.recipe import ModelOptions

DATA = Path(os.environ.get("VOXPORT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SPEECH = DATA / "librispeech10"
CHOICES = {  # both encoders too; a Transformer is captured faster
    "wespeaker": ("kaldi_fbank80", dataclasses.replace(SMALL, encoder="transformer")),
    "nemo": ("nemo_mel40", SMALL),
}
OPTIONS = SherpaOptions(language="English", min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames)


class Made:
    """A checkpoint, its model for sherpa-onnx, and what the gate said."""

    def __init__(self, folder: Path, frontend: str, options: ModelOptions) -> None:
        checkpoint = spread_out(make_checkpoint(options, frontend))
        self.checkpoint = write_checkpoint(folder / "model.pt", checkpoint)
        self.model = folder / "model.onnx"
        self.report: ParityReport = export_sherpa(self.checkpoint, self.model, OPTIONS)


def spread_out(checkpoint: Checkpoint) -> Checkpoint:
    """With the last norm's statistics as training leaves them: without, all voices of a random network are alike."""
    network, rng = checkpoint.network(), np.random.default_rng(5)
    assert isinstance(network.norm, nn.BatchNorm1d)
    seen: list[torch.Tensor] = []
    network.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(16):
        eager_answer(network, checkpoint.frontend, voice_like(24000, 16000, rng))
    pooled = torch.cat(seen)
    statistics = {"norm.running_mean": pooled.mean(0), "norm.running_var": pooled.var(0)}
    return dataclasses.replace(checkpoint, state={**checkpoint.state, **statistics})


Maker = Callable[[str], Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Each framework's export, made once: a capture takes seconds."""
    return functools.cache(lambda framework: Made(tmp_path_factory.mktemp(framework), *CHOICES[framework]))


@pytest.fixture(params=list(CHOICES))
def made(request: pytest.FixtureRequest, make: Maker) -> Made:
    return make(request.param)


def recorded() -> list[Float32]:
    files = sorted(SPEECH.glob("*/*-0000.flac"))[:6]
    if not files:
        pytest.skip(f"no recorded speech at {SPEECH}; set VOXPORT_TEST_DATA to the folder of librispeech10")
    return [read_audio(file, 16000) for file in files]


def synthetic() -> list[Float32]:
    rng = np.random.default_rng(11)
    # Ends inside a hop, on a hop, and short enough that edges matter.
    return [voice_like(samples, 16000, rng) for samples in (48000, 16001, 20555, 64079, 8000)]


@pytest.mark.parametrize("sounds", [recorded, synthetic])
def test_sherpa_gives_our_embeddings(made: Made, sounds: Callable[[], list[Float32]], tmp_path: Path) -> None:
    """Ours: the NumPy frontend and the eager network of the checkpoint, without any exported file."""
    samples = sounds()
    checkpoint = load_checkpoint(made.checkpoint)
    network = checkpoint.network()
    ours = np.stack([eager_answer(network, checkpoint.frontend, each)[1].numpy() for each in samples])
    dim, theirs = sherpa_embeddings(made.model, samples, tmp_path)
    assert dim == ours.shape[1]
    cosines = ours @ (theirs / np.linalg.norm(theirs, axis=1, keepdims=True)).T
    same, other = np.diag(cosines), cosines[~np.eye(len(samples), dtype=bool)]
    assert same.min() >= 0.999
    assert other.max() < 0.99, "the sounds are too alike for this test to fail"


def test_the_file_in_our_own_runtime_gives_the_same(made: Made) -> None:
    checkpoint = load_checkpoint(made.checkpoint)
    identifier = SpeakerIdentifier(SherpaModel.load(made.model))
    sound = synthetic()[1]
    scores, embedding = eager_answer(checkpoint.network(), checkpoint.frontend, sound)
    assert np.allclose(identifier.embed(sound, 16000), embedding.numpy(), atol=made.report.tolerance.embedding)
    assert np.allclose(identifier.scores(sound, 16000), scores.numpy(), atol=made.report.tolerance.score)
    assert identifier.contract.labels == LABELS


def test_the_gate_saw_every_utterance_alone(made: Made) -> None:
    report = made.report
    assert report.passed
    assert report.agreement is not None
    assert report.agreement.min_cosine is not None
    assert report.agreement.min_cosine > 0.9999
    assert {(case.batch, case.garbage) for case in report.cases} == {(1, "none")}
    frames = {row.frames for case in report.cases for row in case.rows}
    assert {LIMITS.min_frames, LIMITS.max_frames} < frames
    assert json.loads(made.model.with_suffix(".parity.json").read_text())["passed"] is True
    contract = read_contract(made.model)
    assert contract.parity == report.summary()


def test_metadata_and_tensors(made: Made) -> None:
    model = onnx.load(made.model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert METADATA_KEY in metadata
    common = {"language": "English", "output_dim": "16", "sample_rate": "16000"}
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    if metadata["framework"] == "wespeaker":
        wanted = {**common, "normalize_samples": "0", "feature_normalize_type": "global-mean"}
        assert list(shapes.items()) == [
            ("feats", ["batch", "frames", 80]), ("embs", ["batch", 16]), ("logits", ["batch", 7])
        ]  # fmt: skip
    else:
        wanted = {**common, "feat_dim": "40", "window_size_ms": "25", "window_stride_ms": "10"}
        wanted |= {"window_type": "hann", "feature_normalize_type": "per_feature"}
        assert list(shapes.items()) == [
            ("audio_signal", ["batch", 40, "frames"]), ("length", ["batch"]),
            ("logits", ["batch", 7]), ("embs", ["batch", 16]),
        ]  # fmt: skip
    assert {key: metadata[key] for key in wanted} == wanted
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)


def test_the_validator_knows_the_frontend(made: Made, tmp_path: Path) -> None:
    found = check_sherpa(made.model)
    assert found.complaints == ()
    assert found.findings[-1].name == "voxport contract"
    model = onnx.load(made.model)
    for entry in model.metadata_props:
        if entry.key == "feature_normalize_type":
            entry.value = ""  # sherpa-onnx loads it and computes other features than the network was trained on
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(model.SerializeToString())
    (complaint,) = check_sherpa(wrong).complaints
    assert "voxport contract: for its frontend" in complaint
    assert "feature_normalize_type must be" in complaint


@pytest.mark.parametrize("frontend", ["homework_mel40", "psf_fbank40"])
def test_frontends_that_sherpa_cannot_compute(frontend: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt", make_checkpoint(SMALL, frontend))
    with pytest.raises(ExportError) as problem:
        export_sherpa(checkpoint, tmp_path / "model.onnx", OPTIONS)
    assert f"frontend {frontend}: sherpa-onnx computes features itself" in str(problem.value)
    window = {"homework_mel40": "mel_scale htk (it has slaney)", "psf_fbank40": "window rectangular (it has hann_per"}
    assert window[frontend] in str(problem.value)
    assert "--frontend nemo_mel40 (40 mels) or --frontend kaldi_fbank80" in str(problem.value)
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt"]


def test_metadata_follows_the_frontend_and_insists_on_a_language() -> None:
    plain = dataclasses.replace(profile("kaldi_fbank80"), name="mine", normalize="none")
    assert framework_of(plain) == "wespeaker"
    assert "feature_normalize_type" not in sherpa_metadata(plain, 6, "한국어", "")
    with pytest.raises(ExportError, match="the language is blank"):
        sherpa_metadata(plain, 6, " ", "")


def test_a_file_that_fails_the_gate_gets_no_name(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = stand_in(make("nemo"), monkeypatch)
    one_weight(graph)
    with pytest.raises(ParityError, match="parity failed"):
        export_sherpa(make("nemo").checkpoint, tmp_path / "model.onnx", OPTIONS)
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [".json", ".md", ".png"]


def stand_in(made: Made, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """The graph of `made` in place of a capture. That it is a faithful one, `test_command` shows."""
    graph = onnx.load(made.model)
    del graph.metadata_props[:]
    monkeypatch.setattr(sherpa, "capture_sherpa", lambda *_: graph)
    return graph


def one_weight(model: onnx.ModelProto) -> None:
    layer = "network.layers.0."
    tensor = next(each for each in model.graph.initializer if each.name.startswith(layer) and len(each.dims) == 2)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[2, 3] += 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", "sherpa", *map(str, arguments)])


def test_command(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = make("nemo"), tmp_path / "model.onnx"
    stand_in(made, monkeypatch)
    given = (made.checkpoint, "-o", path, "--min-frames", LIMITS.min_frames, "--max-frames", LIMITS.max_frames)
    result = run(*given, "--language", "English", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["passed"] is True
    assert path.read_bytes() == made.model.read_bytes()
    again = run(*given)
    assert again.exit_code == 1
    assert "exists; give another name, or --force to replace it" in again.stderr
    forced = run(*given, "--force")
    assert forced.exit_code == 0, forced.output
    assert "Parity: passed" in forced.stdout
    assert {each.key: each.value for each in onnx.load(path).metadata_props}["language"] == "unspecified"
