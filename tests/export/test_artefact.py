"""Exports from end to end: what is written, what is refused, and what a failure leaves behind."""

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from tests.export.conftest import LIMITS, Exported
from tests.export.tiny import LABELS, OPTIONS, make_checkpoint, write_checkpoint
from voxport.export import pipeline as proven
from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.inputs.corpus_samples import RealOptions, real_utterances
from voxport.export.targets import onnx_graph
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx
from voxport.export.verification import tolerance as tolerances
from voxport.export.verification.check import check
from voxport.export.verification.report import ParityError
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.contract import METADATA_KEY, Contract
from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.storage.seal import SEAL_KEY, SUMS_KEY
from voxport.train.checkpoint import checkpoint_sha256
from voxport.train.data import Split

OPTIONS_HERE = ExportOptions(min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames)
Floats = npt.NDArray[np.float32]


def eager(exported: Exported, features: Floats) -> Floats:
    with torch.inference_mode():
        scores: Floats = exported.checkpoint.network()(torch.from_numpy(features)[None])[0].numpy()
    return scores


def test_contract_says_what_the_checkpoint_says(exported: Exported) -> None:
    contract, checkpoint = read_contract(exported.model), exported.checkpoint
    assert contract.labels == LABELS
    assert contract.frontend == checkpoint.frontend
    assert (contract.input_kind, contract.precision, contract.recipe) == ("features", "fp32", "tiny")
    assert (contract.min_frames, contract.max_frames) == (5, 150)
    assert (contract.embedding_size, contract.score_scale, contract.rejection) == (16, 30.0, None)
    assert contract.checkpoint_sha256 == checkpoint_sha256(exported.checkpoint_path)
    golden = contract.golden
    np.testing.assert_allclose(eager(exported, golden.input.values.copy()), golden.scores.values, rtol=0, atol=1e-5)
    assert golden.tolerance == exported.report.tolerance.score
    assert contract.parity == exported.report.summary()
    assert contract.parity is not None
    assert contract.parity.top1_agreement == 1.0
    assert 0 < contract.parity.max_abs_score <= contract.parity.tolerance


def test_model_answers_as_the_network_does(exported: Exported, exported_sound: Exported) -> None:
    rng = np.random.default_rng(8)
    model = OnnxModel.load(exported.model)
    features = rng.normal(size=(77, 40)).astype(np.float32)
    batch = np.full((2, 90, 40), np.nan, np.float32)
    batch[0, :77], batch[1, :33] = features, features[:33]
    answer = model.run(batch, [77, 33])
    np.testing.assert_allclose(answer.scores[0], eager(exported, features), rtol=0, atol=1e-4)
    np.testing.assert_allclose(answer.scores[1], eager(exported, features[:33]), rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(answer.embedding, axis=1), 1, atol=1e-6)
    sound = OnnxModel.load(exported_sound.model)
    samples = (0.1 * rng.normal(size=12345)).astype(np.float32)
    wanted = eager(exported_sound, compute_features(samples, sound.contract.frontend).astype(np.float32))
    np.testing.assert_allclose(sound.run(samples[None], [12345]).scores[0], wanted, rtol=0, atol=1e-3)


def test_report_beside_the_model(exported: Exported) -> None:
    stem = exported.model.parent / "model.parity"
    written = json.loads(Path(f"{stem}.json").read_text())
    assert written["passed"] is True
    assert exported.report.agreement is not None
    assert written["agreement"]["max_abs_score"] == exported.report.agreement.max_abs_score
    assert written["tolerance"]["reason"].startswith("10 × the network's own rounding on that input")
    assert written["real_utterances"] == "none, because the checkpoint does not say what it was trained on"
    assert len(written["cases"]) == len(exported.report.cases)
    assert sum(len(case["rows"]) for case in written["cases"]) == written["agreement"]["comparisons"]
    page = Path(f"{stem}.md").read_text()
    assert page.startswith("# Parity: passed")
    assert "eager PyTorch in float32, each utterance alone" in page
    assert Path(f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    # The batch sizes, the ends of the range, an odd length and a prime one.
    assert {case["batch"] for case in written["cases"]} == {1, 2, 7, 32}
    alone = {row["frames"] for case in written["cases"] if case["batch"] == 1 for row in case["rows"]}
    assert {5, 6, 7, 31, 64, 97, 128, 150} <= alone
    assert {case["garbage"] for case in written["cases"]} == {"none", "zeros", "large", "NaN", "infinity"}


def test_check_passes_what_was_exported(exported: Exported) -> None:
    report = check(exported.model, exported.checkpoint_path)
    assert report.passed
    assert report.agreement == exported.report.agreement


def tampered(exported: Exported, path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(exported.model)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def with_contract(change: Callable[[Contract], Contract]) -> Callable[[onnx.ModelProto], None]:
    def apply(model: onnx.ModelProto) -> None:
        contract = Contract.from_json(model.metadata_props[0].value, "test")
        model.metadata_props[0].value = change(contract).to_json()

    return apply


def one_weight(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if each.name == "layers.0.convolution.value.weight")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[2, 3] += 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def no_convolution_mask(model: onnx.ModelProto) -> None:
    """The depthwise convolution sees the padding: its masking product becomes the product before it."""
    masking = next(node for node in model.graph.node if node.name == "layers.0.convolution/Mul_1")
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == masking.output[0]:
                node.input[i] = masking.input[0]


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (one_weight, "max |Δscore| is"),
        (no_convolution_mask, "max |Δscore| is"),
        (
            with_contract(lambda contract: contract.replace(labels=("Bora", "Anna", *LABELS[2:]))),
            "labels: column 0 is 'Bora' in the artefact, 'Anna' in the checkpoint",
        ),
    ],
)
def test_check_finds_what_was_tampered_with(
    exported: Exported, tmp_path: Path, change: Callable[[onnx.ModelProto], None], failure: str
) -> None:
    report = check(tampered(exported, tmp_path / "model.onnx", change), exported.checkpoint_path)
    assert not report.passed
    assert any(failure in each for each in report.failures), report.failures


def test_check_refuses_a_fixed_batch(exported: Exported, tmp_path: Path) -> None:
    def fix(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    path = tampered(exported, tmp_path / "model.onnx", fix)
    with pytest.raises(ContractError, match=r"the contract promises the input features.*export the model again"):
        check(path, exported.checkpoint_path)


def test_check_against_another_checkpoint(exported: Exported, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, num_layers=1)
    other = dataclasses.replace(make_checkpoint(options), step=2)
    report = check(exported.model, write_checkpoint(tmp_path / "other.pt", other))
    assert [failure.split(":")[0] for failure in report.failures] == ["checkpoint hash"]


def test_force_replaces_and_makes_folders(exported: Exported, tmp_path: Path, no_capture: Callable[[], None]) -> None:
    no_capture()
    path = tmp_path / "deep" / "er" / "model.onnx"
    export_onnx(exported.checkpoint_path, path, OPTIONS_HERE)
    path.write_bytes(b"old")
    export_onnx(exported.checkpoint_path, path, dataclasses.replace(OPTIONS_HERE, force=True))
    assert path.read_bytes() == exported.model.read_bytes()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "model.onnx",
        "model.parity.json",
        "model.parity.md",
        "model.parity.png",
    ]
    assert (os.stat(path).st_mode & 0o777) == (os.stat(exported.checkpoint_path).st_mode & 0o777)


@pytest.fixture
def spoilt_capture(monkeypatch: pytest.MonkeyPatch, exported: Exported) -> None:
    """A capture that gets one weight wrong."""
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    one_weight(graph)
    monkeypatch.setattr(onnx_graph, "capture", lambda *_: graph)


@pytest.mark.usefixtures("spoilt_capture")
def test_failing_file_is_not_left(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older model")
    with pytest.raises(
        ParityError, match=r"parity failed: (golden vector|max).*see .*model\.parity\.md; nothing was written; --keep-f"
    ):
        export_onnx(exported.checkpoint_path, path, dataclasses.replace(OPTIONS_HERE, force=True))
    assert path.read_bytes() == b"an older model"
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"model.onnx", "model.parity.json", "model.parity.md", "model.parity.png"}
    assert json.loads((tmp_path / "model.parity.json").read_text())["passed"] is False
    assert "# Parity: FAILED" in (tmp_path / "model.parity.md").read_text()


@pytest.mark.usefixtures("spoilt_capture")
def test_failing_file_is_kept_on_request(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ParityError, match=r"it was kept as .*model\.failed\.onnx"):
        export_onnx(exported.checkpoint_path, path, dataclasses.replace(OPTIONS_HERE, keep_failed=True))
    assert not path.exists()
    assert not check(tmp_path / "model.failed.onnx", exported.checkpoint_path).passed


def test_interruption_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_capture: Callable[[], None]
) -> None:
    no_capture()

    def interrupted(backend: Backend, *_: Any) -> None:
        assert [each.name[:12] for each in tmp_path.iterdir()] == [".model.onnx."]
        raise KeyboardInterrupt

    monkeypatch.setattr(proven, "prove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(exported.checkpoint_path, tmp_path / "model.onnx", OPTIONS_HERE)
    assert list(tmp_path.iterdir()) == []


def test_graph_that_is_not_what_was_asked_for_is_refused(
    exported: Exported, tmp_path: Path, no_capture: Callable[[], None]
) -> None:
    no_capture()
    with pytest.raises(ExportError, match=r"model\.onnx: asked for opset 21, the file says \{'': 20\}"):
        export_onnx(exported.checkpoint_path, tmp_path / "model.onnx", dataclasses.replace(OPTIONS_HERE, opset=21))
    assert list(tmp_path.iterdir()) == []


def test_unusable_output_names(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is a folder; name a file in it, such as .*model\.onnx"):
        export_onnx(exported.checkpoint_path, tmp_path, OPTIONS_HERE)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"cannot be written \(.*\); choose another place with -o"):
        export_onnx(exported.checkpoint_path, tmp_path / "file" / "model.onnx", OPTIONS_HERE)


def test_impossible_lengths() -> None:
    for low, high in ((0, 10), (11, 10), (20, 50_000)):
        with pytest.raises(ExportError, match=f"min_frames {low} and max_frames {high}: 1 ≤ min_frames ≤ max_frames"):
            ExportOptions(min_frames=low, max_frames=high)


def test_precision_without_a_tolerance(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = with_contract(lambda contract: contract.replace(precision="fp16"))
    path = tampered(exported, tmp_path / "model.onnx", change)
    monkeypatch.setattr(tolerances, "RULES", {"fp32": tolerances.RULES["fp32"]})
    with pytest.raises(ExportError, match="no tolerance is known for precision fp16; this voxport proves fp32"):
        check(path, exported.checkpoint_path)


def write_sounds(folder: Path, seconds: tuple[float, ...]) -> tuple[str, ...]:
    import soundfile

    keys = []
    rng = np.random.default_rng(4)
    for speaker in LABELS[:2]:
        (folder / speaker).mkdir(parents=True)
        for i, length in enumerate(seconds):
            keys.append(f"{speaker}/{i}.wav")
            soundfile.write(folder / keys[-1], 0.1 * rng.normal(size=round(16000 * length)), 16000)
    return tuple(keys)


def test_real_utterances_of_a_folder_of_sounds(tmp_path: Path) -> None:
    keys = write_sounds(tmp_path / "corpus", (0.5, 1.0, 2.5))
    checkpoint = make_checkpoint(data=str(tmp_path / "corpus"), split=Split(keys[:1], keys[1:]))
    limits = LengthLimits(60, 150)
    options = RealOptions(cache=tmp_path / "cache")
    for kind in ("features", "waveform"):
        found = real_utterances(checkpoint, kind, limits, options)
        # Half a second is too short for the range, two and a half are cut.
        assert [(each.name, each.frames) for each in found.utterances] == [
            (keys[1], 101), (keys[4], 101), (keys[2], 150), (keys[5], 150)
        ]  # fmt: skip
        assert all(each.real for each in found.utterances)
        assert found.note == f"4 of {tmp_path / 'corpus'}, validation part, 2 of them cut to 150 frames"
        assert {each.input.ndim for each in found.utterances} == ({2} if kind == "features" else {1})
    assert len(real_utterances(checkpoint, "features", limits, dataclasses.replace(options, count=2)).utterances) == 2


def test_absent_real_utterances_are_explained(tmp_path: Path) -> None:
    gone = make_checkpoint(data=str(tmp_path / "gone"))
    assert "gone: no such directory or manifest" in real_utterances(gone, "features", LIMITS, RealOptions()).note
    asked = real_utterances(gone, "features", LIMITS, RealOptions(count=0))
    assert asked.note == "none, because none were asked for"
    keys = write_sounds(tmp_path / "corpus", (0.5,))
    options = RealOptions(cache=tmp_path / "cache")
    short = make_checkpoint(data=str(tmp_path / "corpus"), split=Split((), keys))
    note = real_utterances(short, "features", LengthLimits(100, 150), options).note
    assert note == f"none, because {tmp_path / 'corpus'} has none of 100 frames or more"
    changed = dataclasses.replace(short, split=Split((), ("Anna/gone.wav",)))
    assert "are not in this corpus" in real_utterances(changed, "features", LIMITS, options).note


def test_real_features_are_no_sound(tmp_path: Path) -> None:
    lines = ["path,speaker"]
    rng = np.random.default_rng(0)
    for i, speaker in enumerate(("Anna", "Bora")):
        samples = 0.1 * rng.normal(size=16000)
        features = compute_features(samples, make_checkpoint().frontend).astype(np.float32)
        np.save(tmp_path / f"{i}.npy", features)
        lines.append(f"{i}.npy,{speaker}")
    (tmp_path / "corpus.csv").write_text("\n".join(lines))
    checkpoint = make_checkpoint(data=str(tmp_path / "corpus.csv"), split=Split((), ("0.npy", "1.npy")))
    options = RealOptions(cache=tmp_path / "cache")
    assert len(real_utterances(checkpoint, "features", LIMITS, options).utterances) == 2
    found = real_utterances(checkpoint, "waveform", LIMITS, options)
    assert found.utterances == ()
    assert found.note == f"none, because {tmp_path / 'corpus.csv'} holds features, and this model takes sound"


def test_real_utterances_are_compared(exported: Exported, tmp_path: Path, no_capture: Callable[[], None]) -> None:
    no_capture()
    keys = write_sounds(tmp_path / "corpus", (0.4, 0.7, 0.9, 1.2))
    checkpoint = dataclasses.replace(
        exported.checkpoint, data=str(tmp_path / "corpus"), split=Split(keys[:1], keys[1:])
    )
    path = write_checkpoint(tmp_path / "model.pt", checkpoint)
    options = dataclasses.replace(OPTIONS_HERE, real=RealOptions(cache=tmp_path / "cache"))
    report = export_onnx(path, tmp_path / "model.onnx", options)
    real = [(case.batch, row.utterance) for case in report.cases for row in case.rows if row.real]
    assert {name for size, name in real if size == 1} == set(keys[1:])
    assert {name for size, name in real if size > 1} == set(keys[1:])
    assert report.real_utterances == f"7 of {tmp_path / 'corpus'}, validation part"


def test_metadata_key(exported: Exported) -> None:
    model = copy.deepcopy(onnx.load(exported.model))
    assert {entry.key for entry in model.metadata_props} == {METADATA_KEY, SUMS_KEY, SEAL_KEY}


def test_a_contract_of_another_rate_or_scale_is_refused_even_without_a_digest(
    exported_sound: Exported, tmp_path: Path
) -> None:
    """The golden vector is as it was: samples and scores know nothing of a rate, or of the scale that is in them."""
    path, contract = tmp_path / "model.onnx", read_contract(exported_sound.model)
    faster = contract.replace(frontend=dataclasses.replace(contract.frontend, sample_rate=32000))
    scaled = contract.replace(score_scale=2 * contract.score_scale)

    def load(claimed: Contract, graph_name: str | None = None) -> None:
        model = onnx.load(exported_sound.model)
        del model.metadata_props[:]
        model.metadata_props.add(key=METADATA_KEY, value=claimed.to_json())
        model.graph.name = graph_name or model.graph.name
        onnx.save(model, path)
        SpeakerIdentifier.load(path)

    load(contract)
    with pytest.raises(ContractError, match=r"claims 32000 Hz, .* was made for 16000 Hz"):
        load(faster)
    with pytest.raises(ContractError, match=r"claims .*, scores times 60, .* was made for .*, scores times 30;"):
        load(scaled)
    older = contract.frontend.title  # which says nothing of the scale
    load(scaled, older)
    with pytest.raises(ContractError, match=r"claims 32000 Hz, .* was made for 16000 Hz"):
        load(faster, older)
