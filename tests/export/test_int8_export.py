"""Int8 from the command to the runtime: what is written, what the report says, and how a broken one is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from tests.export.conftest import Exported
from tests.export.test_quantize import LAYERS
from tests.train.corpora import write_homework
from voxport.cli.root import cli
from voxport.export.quantization import qdq as quantize
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.backends.formats import read_contract

LENGTHS = ("--min-frames", "5", "--max-frames", "150")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


@pytest.fixture(params=["dynamic", "static"])
def small(
    request: pytest.FixtureRequest, exported: Exported, no_capture: Callable[[], None], tmp_path: Path
) -> tuple[Path, Result]:
    """An int8 file, written by the command."""
    no_capture()
    path = tmp_path / "small.onnx"
    corpus = write_homework(tmp_path / "corpus")
    choices = ("--precision", "int8", "--quantize", request.param, "--calibration", corpus, "--json")
    return path, run("onnx", exported.checkpoint_path, "-o", path, *LENGTHS, *choices)


def test_an_int8_file_is_used_like_any_other(exported: Exported, small: tuple[Path, Result]) -> None:
    path, result = small
    assert result.exit_code == 0, result.output
    contract = read_contract(path)
    assert contract.precision == "int8"
    assert contract.parity is not None
    assert contract.parity.max_abs_score <= contract.golden.tolerance
    identifier, original = SpeakerIdentifier.load(path), SpeakerIdentifier.load(exported.model)
    assert identifier.explain().precision == "int8"
    features = np.random.default_rng(9).normal(-4, 3, size=(80, 40)).astype(np.float32)
    difference = np.abs(identifier.scores_features(features) - original.scores_features(features)).max()
    assert 0 < difference < contract.golden.tolerance
    assert identifier.identify_features(features).ranked[0].speaker in contract.labels

    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert report["accuracy"] is None
    assert [each["layer"] for each in report["quantization"]["layers"]] == list(LAYERS)
    assert report["quantization"]["cost"]["mean_error"] <= 1e-3
    page = path.with_name("small.parity.md").read_text()
    assert "NOT gated: no labelled set was given" in page
    assert "## Int8, layer by layer" in page
    assert all(f"| {layer} |" in page for layer in LAYERS)

    again = run("check", path, exported.checkpoint_path)
    assert again.exit_code == 0, again.output
    assert "int8: 3 × what rounding to int8 does on these inputs" in " ".join(again.stdout.split())


def test_a_broken_quantisation_is_refused_by_name(
    exported: Exported, no_capture: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = quantize.quantize_weight

    def scales_of_the_wrong_column(
        weight: npt.NDArray[np.floating],
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        integers, scale = right(weight)
        return integers, np.roll(scale, 1)

    no_capture()
    monkeypatch.setattr(quantize, "quantize_weight", scales_of_the_wrong_column)
    path = tmp_path / "broken.onnx"
    result = run("onnx", exported.checkpoint_path, "-o", path, *LENGTHS, "--precision", "int8", "--keep-float", "1")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    for said in ("parity failed", "max |Δscore| is", "tolerance", "the layers in int8 that cost most", "layers.0."):
        assert said in result.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        f"broken.parity.{kind}" for kind in ("json", "md", "png")
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--quantize", "static"), "--quantize: of --precision int8 alone"),
        (("--precision", "fp16", "--keep-float", "2"), "--keep-float: of --precision int8 alone"),
        (("--precision", "int8", "--keep-float", "some"), "'some' is neither a number of layers nor auto"),
        (("--precision", "int8", "--calibration-method", "entropy"), "chooses ranges for --quantize static"),
        (("--accuracy-limit", "5"), "--accuracy-limit: about a labelled set, and there is none; give --accuracy-data"),
        (("--max-drop", "1"), "--max-drop: about a labelled set"),
    ],
)
def test_options_that_do_nothing_are_refused(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    result = run("onnx", tmp_path / "model.pt", "-o", tmp_path / "model.onnx", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--sensitivity-budget", "0"), "sensitivity budget is 0.0"),
        (("--quantize", "static"), "no utterance to calibrate with"),
        (("--calibration", "nowhere"), "no such directory or manifest"),
    ],
)
def test_what_cannot_be_calibrated_is_one_clear_error(
    exported: Exported, no_capture: Callable[[], None], tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    no_capture()
    path = tmp_path / "model.onnx"
    result = run("onnx", exported.checkpoint_path, "-o", path, *LENGTHS, "--precision", "int8", *arguments)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())
