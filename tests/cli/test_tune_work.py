"""`voxport tune`: what takes part, what is done again and what is not, and the folder that it leaves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.test_tune_ranking import CELLS, blocks
from tests.runtime.tiny_models import make_tiny
from voxport.cli.tune import work
from voxport.cli.tune.candidates import CANDIDATES, DYNAMIC, STATIC
from voxport.cli.tune.report import Proof, read_tune
from voxport.cli.tune.work import TuneOptions, Tuning
from voxport.runtime import SpeakerIdentifier, VoxportError
from voxport.runtime.storage.seal import seal_onnx


class Workshop:
    """A tiny model, with the slow steps replaced: exports, proofs and measurements are counted."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.model, self.folder = folder / "model.onnx", folder / "tuned"
        make_tiny(self.model)
        self.checkpoint = folder / "model.pt"
        self.checkpoint.write_bytes(b"tiny")  # whose SHA-256 the tiny models name
        self.wrong: set[str] = set()
        self.milliseconds = {each.name: 3.0 for each in CANDIDATES}
        self.done: list[str] = []
        patch.setattr(work, "make_form", self.make_form)
        patch.setattr(work, "_proof", self.prove)
        patch.setattr("voxport.export.verification.several.Judge", lambda *rest: None)
        patch.setattr(Tuning, "_measure", self.measure)
        patch.setattr("voxport.benchmarks.latency.pareto.draw_pareto", lambda report, path: path.write_bytes(b"png"))

    def make_form(self, form: str, checkpoint: Path, contract: Any, output: Path, calibration: Any) -> None:
        self.done.append(form)
        if form == DYNAMIC:
            raise VoxportError("it is not equal")
        make_tiny(output, seed=1)
        output.write_bytes(seal_onnx(output.read_bytes()))  # as an export does

    def prove(self, judge: Any, each: Any, forms: Path, threads: int) -> Proof:
        self.done.append(f"proof of {each.name}")
        passed = each.name not in self.wrong
        return Proof(each.name, passed, 1e-5, 1e-4, None, None, None if passed else "answers differ")

    def measure(self, passed: Any) -> Any:
        times = {"eager": 9.0, **{each.name: self.milliseconds[each.name] for each in passed}}
        return SimpleNamespace(created="now", blocks=blocks(times, 0.01), cells=CELLS)

    def tune(self, **changes: Any) -> Any:
        self.done.clear()
        options = TuneOptions(model=self.model, checkpoint=self.checkpoint, folder=self.folder, **changes)
        return Tuning(options, lambda done, total, what: None).run()


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_the_fastest_of_the_proven_becomes_a_model(workshop: Workshop) -> None:
    workshop.milliseconds[STATIC] = 1.0
    workshop.milliseconds["fp32.onnx (openvino_bf16)"] = 0.5
    workshop.wrong = {"fp32.onnx (openvino_bf16)"}
    report = workshop.tune()
    assert report.chosen == STATIC, "what is not proven takes no part, however fast it is"
    problems = {proof.name: proof.problem for proof in report.proofs if not proof.passed}
    assert problems == {"fp32.onnx (openvino_bf16)": "answers differ", DYNAMIC: "it is not equal"}
    told = SpeakerIdentifier.load(workshop.folder).explain()
    assert told.backend == "ONNX Runtime"
    assert told.why.startswith(f"{STATIC} is the fastest, ")
    assert read_tune(workshop.folder / "tune.json") == report
    assert not [each for each in workshop.folder.rglob("*") if each.suffix == ".part"]


def test_what_was_done_is_not_done_again(workshop: Workshop) -> None:
    first = workshop.tune()
    assert len(workshop.done) == 2 + 6
    second = workshop.tune()
    assert workshop.done == [DYNAMIC], "an export that failed is tried again"
    assert second.changed == ()
    assert (second.chosen, second.proofs) == (first.chosen, first.proofs)
    workshop.milliseconds[STATIC] = 1.0
    third = workshop.tune(again=True)
    assert len(workshop.done) == 1 + 6
    assert f"chosen: fp32.onnx → {STATIC}" in third.changed


def test_what_cannot_be_tuned_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    workshop.wrong = {each.name for each in CANDIDATES}
    with pytest.raises(VoxportError, match=r"no form of .* is proven here: fp32.onnx: answers differ"):
        workshop.tune()
    workshop.checkpoint.write_bytes(b"another")
    with pytest.raises(VoxportError, match="was not exported from"):
        workshop.tune()
    make_tiny(workshop.model, precision="int8")
    with pytest.raises(VoxportError, match="give the ONNX model in fp32"):
        workshop.tune()
