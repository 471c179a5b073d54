"""Two artefacts of one checkpoint against each other: equal ones pass, whatever differs is found or refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tests.export.conftest import Exported
from tests.export.test_artefact import no_convolution_mask, one_weight, tampered
from tests.export.tiny import write_checkpoint
from voxport.cli.root import cli
from voxport.export import AccuracyOptions, CheckOptions, RealOptions, check
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import keep_outputs
from voxport.export.graph.fp16 import to_half
from voxport.export.targets.pytorch.export import TorchExportOptions, export_torchscript
from voxport.export.verification.pairs import check_pair
from voxport.runtime.backends.formats import is_checkpoint, read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.contract import METADATA_KEY, Array
from voxport.runtime.errors import ContractError


def written(source: Path, path: Path, graph: onnx.ModelProto, **changes: object) -> Path:
    """`graph` as an artefact with the contract of `source` but for `changes`."""
    contract = read_contract(source).replace(**changes)
    del graph.metadata_props[:]
    graph.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    path.write_bytes(graph.SerializeToString())
    return path


@pytest.fixture(scope="module")
def script(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "model.ts"
    export_torchscript(exported.checkpoint_path, path, TorchExportOptions(min_frames=9, max_frames=70))
    return path


def test_onnx_equals_torchscript_over_the_lengths_of_both(exported: Exported, script: Path) -> None:
    report = check_pair(exported.model, script)
    assert report.passed, report.failures
    assert report.other == str(script)
    assert report.agreement is not None
    assert 0 < report.agreement.max_abs_score <= report.tolerance.score
    carried = [read_contract(path).golden.tolerance for path in (exported.model, script)]
    assert report.tolerance.score == max(carried)
    lengths = {row.frames for case in report.cases for row in case.rows}
    assert (min(lengths), max(lengths)) == (9, 70)  # what both promise
    sides = {case.kind.split(":")[0] for case in report.cases if case.batch > 1}
    assert sides == {"model.onnx", "model.ts"}  # the batches of both are held against the other


@pytest.mark.parametrize("swapped", [False, True])
def test_faults_are_found_on_either_side(exported: Exported, tmp_path: Path, swapped: bool) -> None:
    for change, garbage in ((one_weight, "none"), (no_convolution_mask, "NaN")):
        wrong = tampered(exported, tmp_path / f"{change.__name__}.onnx", change)
        pair = (exported.model, wrong) if swapped else (wrong, exported.model)
        report = check_pair(*pair)
        assert not report.passed
        assert [check.name for check in report.checks if not check.passed][-1] == f"digest of {wrong}"
        bound = report.tolerance.score
        over = {case.garbage for case in report.cases if any(not row.max_abs_score <= bound for row in case.rows)}
        assert garbage in over
        assert ("none" in over) == (change is one_weight)  # a missing mask shows in padding alone


def test_half_against_full_takes_the_tolerance_of_half(exported: Exported, tmp_path: Path) -> None:
    golden = read_contract(exported.model).golden
    loose = type(golden)(golden.input, golden.scores, golden.tolerance * 1e4, None)
    half = to_half(onnx.load(exported.model))
    path = written(exported.model, tmp_path / "half.onnx", half, precision="fp16", golden=loose)
    report = check_pair(exported.model, path)
    assert report.passed, report.failures
    assert report.tolerance.score == loose.tolerance
    assert report.precision == "fp32 and fp16"
    assert report.agreement is not None
    assert report.agreement.max_abs_score > golden.tolerance  # half is visible, and allowed


def test_sound_against_features(exported_sound: Exported, tmp_path: Path) -> None:
    path = tmp_path / "features.ts"
    export_torchscript(exported_sound.checkpoint_path, path, TorchExportOptions(min_frames=5, max_frames=40))
    report = check_pair(exported_sound.model, path)
    assert report.passed, report.failures
    swapped = check_pair(path, exported_sound.model)
    assert swapped.passed, swapped.failures


def test_outputs_in_common(exported: Exported, tmp_path: Path) -> None:
    model = OnnxModel.load(exported.model)
    golden = model.contract.golden
    source = golden.input.values
    embedding = model.run(source[None], np.array([len(source)])).embedding[0]
    voiced = type(golden)(golden.input, golden.scores, 1e-5, Array.of(embedding))
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    voices = written(
        exported.model,
        tmp_path / "voices.onnx",
        keep_outputs(graph, ("embedding",)),
        outputs=("embedding",),
        golden=voiced,
    )
    scores = written(exported.model, tmp_path / "scores.onnx", keep_outputs(graph, ("scores",)), outputs=("scores",))
    for one, two in ((voices, exported.model), (exported.model, voices), (scores, exported.model)):
        report = check_pair(one, two)
        assert report.passed, report.failures
        assert report.agreement is not None
        assert (report.agreement.max_embedding_distance is None) == (one == scores)
    wrong = onnx.load(voices)
    one_weight(wrong)
    spoilt = tmp_path / "spoilt.onnx"
    spoilt.write_bytes(wrong.SerializeToString())
    assert not check_pair(spoilt, exported.model).passed
    with pytest.raises(ExportError, match="nothing can be compared"):
        check_pair(voices, scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_sha256": "0" * 64}, "differ in checkpoint sha256"),
        ({"score_scale": 29.0}, r"differ in score scale \(30.0 and 29.0\)"),
        ({"labels": tuple("ABCDEFG")}, "differ in labels"),
        ({"min_frames": 151, "max_frames": 160}, "no length is promised by both"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    exported: Exported, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    other = written(exported.model, tmp_path / "other.onnx", onnx.load(exported.model), **changes)
    with pytest.raises(ExportError, match=message):
        check_pair(exported.model, other)


def test_other_frontend_and_missing_contract(exported: Exported, exported_sound: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differ in checkpoint sha256"):
        check_pair(exported.model, exported_sound.model)
    bare = onnx.load(exported.model)
    del bare.metadata_props[:]
    path = tmp_path / "bare.onnx"
    path.write_bytes(bare.SerializeToString())
    with pytest.raises(ContractError, match="no voxport contract"):
        check_pair(exported.model, path)


def test_sides_are_told_by_content(exported: Exported, script: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "model.pt"
    renamed.write_bytes(script.read_bytes())
    disguised = write_checkpoint(tmp_path / "best.bin", exported.checkpoint)
    assert not is_checkpoint(renamed)
    assert is_checkpoint(disguised)
    assert is_checkpoint(exported.checkpoint_path.parent)
    assert not is_checkpoint(exported.model)
    assert is_checkpoint(tmp_path / "missing.pt")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["export", "check", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def test_command(exported: Exported, script: Path, tmp_path: Path) -> None:
    code, out, _ = run(exported.model, script, "--report", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["other"] == str(script)
    page = (tmp_path / "model.parity.md").read_text("utf-8")
    assert f"| reference | {script}, each utterance alone; and the other way round |" in page
    code, out, _ = run(exported.checkpoint_path, script, "--real", 0)  # either order, any artefact
    assert code == 0
    assert "eager PyTorch in float32, each utterance alone" in out
    code, _, error = run(exported.checkpoint_path, exported.checkpoint_path)
    assert code == 1
    assert "are both checkpoints" in error
    code, _, error = run(exported.model, script, "--accuracy-data", tmp_path)
    assert code == 2
    assert "--accuracy-data needs the checkpoint" in error
    code, _, error = run(exported.model, script, "--real", 3)
    assert code == 2
    assert "--real needs the checkpoint" in error


def test_the_same_call_takes_a_checkpoint_in_either_place_and_two_files(exported: Exported, script: Path) -> None:
    quick = CheckOptions(real=RealOptions(0))
    reports = [
        check(str(exported.model), str(exported.checkpoint_path), quick),
        check(str(exported.checkpoint_path), str(exported.model), quick),
        check(str(exported.model), str(script)),
    ]
    assert all(report.passed for report in reports)
    assert [report.other for report in reports] == [None, None, str(script)]
    assert reports[0].model == reports[1].model == str(exported.model)
    assert reports[0].agreement == reports[1].agreement


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (CheckOptions(bisect=True), "bisect"),
        (CheckOptions(real=RealOptions(3)), "real"),
        (CheckOptions(accuracy=AccuracyOptions(Path("held-out"))), "accuracy"),
    ],
)
def test_two_files_are_not_asked_what_only_a_checkpoint_knows(
    exported: Exported, script: Path, options: CheckOptions, named: str
) -> None:
    with pytest.raises(ExportError, match=f"both artefacts, and {named} needs the checkpoint"):
        check(exported.model, script, options)


def test_two_checkpoints_are_refused(exported: Exported) -> None:
    with pytest.raises(ExportError, match="are both checkpoints; export one"):
        check(exported.checkpoint_path, exported.checkpoint_path)
