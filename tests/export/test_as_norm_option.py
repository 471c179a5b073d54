"""`--as-norm K`: every target's contract may carry the network's own speakers, and what cannot be is refused first."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tests.export.conftest import Exported
from tests.export.test_outputs import plain, sounds
from tests.export.tiny import LABELS, OPTIONS, make_checkpoint, write_checkpoint
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.network.cohort import as_norm_of
from voxport.export.targets import TARGETS, onnx_graph
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx, preview_onnx
from voxport.export.targets.pytorch.export import TorchExportOptions
from voxport.export.targets.triton.config import TritonOptions
from voxport.export.targets.triton.export import preview_triton
from voxport.export.verification.check import check
from voxport.export.verification.gate import Evidence, contract_checks
from voxport.runtime import Gallery, GalleryError, SpeakerIdentifier, read_contract
from voxport.runtime.contract import AsNorm


@pytest.fixture(scope="module")
def normalizing(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("as_norm") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "capture", lambda *_: plain(exported))
        options = ExportOptions(as_norm=3, min_frames=20, max_frames=24, real=RealOptions(0))
        export_onnx(exported.checkpoint_path, path, options)
    return path


def test_the_contract_carries_the_network_s_own_speakers_and_nothing_else_changes(
    exported: Exported, normalizing: Path
) -> None:
    contract, usual = read_contract(normalizing), read_contract(exported.model)
    lengths = {name: getattr(usual, name) for name in ("min_frames", "max_frames", "windowing", "golden", "parity")}
    assert contract.replace(as_norm=None, **lengths) == usual
    assert onnx.load(normalizing).graph == onnx.load(exported.model).graph
    assert contract.as_norm is not None
    assert (contract.as_norm.top, contract.as_norm.shape) == (3, (len(LABELS), usual.embedding_size))
    assert contract.as_norm == as_norm_of(exported.checkpoint, 3)
    identifier = SpeakerIdentifier.load(exported.model)
    scores = identifier.scores_batch(sounds(), 16000) / contract.score_scale
    embeddings = identifier.embed_batch(sounds(), 16000)
    np.testing.assert_allclose(embeddings @ contract.as_norm.speakers.T, scores, rtol=0, atol=1e-3)
    own = np.sort(scores.astype(np.float64), axis=1)[:, -3:]
    np.testing.assert_allclose(
        contract.as_norm.moments(embeddings), np.stack([own.mean(1), own.std(1)], axis=1), rtol=0, atol=1e-3
    )


def test_a_gallery_of_it_normalises_and_is_not_for_the_usual_file(exported: Exported, normalizing: Path) -> None:
    identifier, gallery = SpeakerIdentifier.load(exported.model), Gallery(read_contract(normalizing))
    gallery.enroll("Ada", identifier.embed(sounds()[0], 16000))
    assert gallery.verify("Ada", identifier.embed(sounds()[1], 16000)).normalized is not None
    with pytest.raises(GalleryError, match="voxport gallery convert"):
        gallery.check_model(read_contract(exported.model))


def test_the_gate_holds_it_against_the_checkpoint(exported: Exported, normalizing: Path, evidence: Evidence) -> None:
    contract, rule = read_contract(normalizing), read_contract(normalizing).as_norm
    assert rule is not None
    checks = {each.name: each for each in contract_checks(contract, evidence)}
    assert checks["normalisation"].passed
    assert "the 3 nearest of 7" in checks["normalisation"].detail
    # The speakers in another order: vectors of unit length, but not those of the labels.
    forged = contract.replace(as_norm=AsNorm.kept(3, rule.stored[::-1]))
    assert [each.name for each in contract_checks(forged, evidence) if not each.passed] == ["normalisation"]
    pair = check(normalizing, exported.model)
    assert [failure.split(":")[0] for failure in pair.failures] == ["normalisation"]


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"triton"}))
def test_every_target_has_the_option_and_refuses_what_cannot_be(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TARGETS[name]
    command = cli.get_command(None, "export").get_command(None, str(target).split()[0])  # type: ignore[arg-type, union-attr]
    assert "--as-norm" in {text for parameter in command.params for text in parameter.opts}
    checkpoint = write_checkpoint(tmp_path / "model.pt", make_checkpoint(OPTIONS, "nemo_mel40"))
    suffix = {"torchscript": ".ts", "pt2": ".pt2", "tensorrt": ".plan", "rtx": ".rtx"}.get(name, ".onnx")
    options = target.load("options")(as_norm=len(LABELS) + 1)
    with pytest.raises(ExportError, match=r"--as-norm 8: must be 2 to 7, the number of speakers"):
        target.load("preview")(checkpoint, tmp_path / f"new{suffix}", options)


def test_triton_s_export_has_it_too(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    assert preview_triton(checkpoint, tmp_path, TritonOptions(name="who"), ExportOptions(as_norm=3))
    with pytest.raises(ExportError, match="--as-norm 8"):
        preview_triton(checkpoint, tmp_path, TritonOptions(name="who"), ExportOptions(as_norm=8))


def test_what_compares_no_voices_or_has_no_cosines_is_refused(tmp_path: Path) -> None:
    for options in (ExportOptions, TorchExportOptions):
        with pytest.raises(ExportError, match="give --output both or embedding"):
            options(outputs=("scores",), as_norm=3)
        assert options(outputs=("embedding",), as_norm=3).as_norm == 3
    other = make_checkpoint(dataclasses.replace(OPTIONS, head="mlp"))
    checkpoint = write_checkpoint(tmp_path / "model.pt", other)
    with pytest.raises(ExportError, match=r"needs an AM-Softmax head.*'mlp'; leave the option out"):
        preview_onnx(checkpoint, tmp_path / "new.onnx", ExportOptions(as_norm=3))


def test_a_dry_run_says_it(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    arguments = ["export", "onnx", str(checkpoint), "-o", str(tmp_path / "new.onnx"), "--as-norm", "4", "--dry-run"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "by the 4 nearest of 7 training speakers" in " ".join(result.stdout.split())
