"""`voxport tune`: what takes part, what is done again and what is not, and the folder that it leaves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.test_tune_ranking import CELLS, blocks
from tests.runtime.tiny_models import make_tiny
from voxport.cli.tune import work
from voxport.cli.tune.candidates import CANDIDATES, DYNAMIC, STATIC, settings_of
from voxport.cli.tune.command import tune
from voxport.cli.tune.report import Machine, Proof, read_tune
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
        self.milliseconds = {each.name: 3.0 for each in settings_of(CANDIDATES, (1, 2))}
        self.done: list[str] = []
        self.threads: tuple[int, ...] = (1,)
        patch.setattr(work, "make_form", self.make_form)
        patch.setattr(work, "_proof", self.prove)
        patch.setattr(work, "this_machine", lambda: Machine("Alpha", (), 2.0, ()))
        patch.setattr("voxport.export.verification.several.Judge", lambda *rest: None)
        patch.setattr(Tuning, "_measure", self.measure)
        patch.setattr(
            "voxport.benchmarks.latency.pareto.draw_pareto", lambda report, path, clock: path.write_bytes(b"png")
        )

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
        settings = settings_of(passed, self.threads)
        times = {"eager": 9.0, **{each.name: self.milliseconds[each.name] for each in settings}}
        return SimpleNamespace(created="now", blocks=blocks(times, 0.01), cells=CELLS)

    def tune(self, **changes: Any) -> Any:
        self.done.clear()
        self.threads = changes.get("threads", (1,))
        options = TuneOptions(model=self.model, checkpoint=self.checkpoint, folder=self.folder, **changes)
        return Tuning(options, lambda done, total, what: None).run()


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_the_fastest_of_the_proven_becomes_a_model(workshop: Workshop) -> None:
    workshop.milliseconds[f"{STATIC}, 1 thread"] = 1.0
    workshop.milliseconds["fp32.onnx (openvino_bf16), 1 thread"] = 0.5
    workshop.wrong = {"fp32.onnx (openvino_bf16)"}
    report = workshop.tune()
    assert report.chosen == f"{STATIC}, 1 thread", "what is not proven takes no part, however fast it is"
    problems = {proof.name: proof.problem for proof in report.proofs if not proof.passed}
    assert problems == {"fp32.onnx (openvino_bf16)": "answers differ", DYNAMIC: "it is not equal"}
    told = SpeakerIdentifier.load(workshop.folder).explain()
    assert told.backend == "ONNX Runtime"
    assert told.why.startswith(f"{STATIC}, 1 thread, is the fastest, ")
    assert "eager PyTorch's speed with 1 thread, in wall-clock time" in told.why
    assert read_tune(workshop.folder / "tune.json") == report
    assert not [each for each in workshop.folder.rglob("*") if each.suffix == ".part"]


def test_what_was_done_is_not_done_again(workshop: Workshop) -> None:
    first = workshop.tune()
    assert len(workshop.done) == 2 + 6
    second = workshop.tune()
    assert workshop.done == [DYNAMIC], "an export that failed is tried again"
    assert second.changed == ()
    assert (second.chosen, second.proofs) == (first.chosen, first.proofs)
    workshop.milliseconds[f"{STATIC}, 1 thread"] = 1.0
    third = workshop.tune(again=True)
    assert len(workshop.done) == 1 + 6
    assert f"chosen: fp32.onnx, 1 thread → {STATIC}, 1 thread" in third.changed


def test_a_form_of_other_options_is_made_again(workshop: Workshop, tmp_path: Path) -> None:
    workshop.tune()
    workshop.tune(calibration=tmp_path)
    assert workshop.done[0] == STATIC
    make_tiny(workshop.model, max_frames=40)
    workshop.tune(calibration=tmp_path)
    assert workshop.done[0] == STATIC, "forms take the same lengths as the model"
    workshop.tune(calibration=tmp_path)
    assert workshop.done == [DYNAMIC]
    (workshop.folder / "forms" / STATIC).write_bytes(b"half a file")
    workshop.tune(calibration=tmp_path)
    assert workshop.done[0] == STATIC


def test_a_proof_of_other_options_is_made_again(workshop: Workshop) -> None:
    workshop.tune()
    for changes in ({"max_drop": 1.0}, {"real": 3}, {"accuracy_limit": 9}, {"threads": (2,)}):
        workshop.tune(**changes)
        assert len(workshop.done) == 1 + 6, changes
    workshop.tune(threads=(1, 2))
    assert workshop.done == [DYNAMIC], "with the most threads they were proven before"


def test_the_number_of_threads_is_tuned_too(workshop: Workshop) -> None:
    workshop.milliseconds[f"{STATIC}, 2 threads"] = 1.0
    report = workshop.tune(threads=(2, 1, 2))
    assert (report.threads, report.chosen) == ((1, 2), f"{STATIC}, 2 threads")
    assert [place.name for place in report.places].count(f"{STATIC}, 1 thread") == 1
    assert SpeakerIdentifier.load(workshop.folder).explain().threads == 2
    assert SpeakerIdentifier.load(workshop.folder, threads=1).explain().threads == 1
    with pytest.raises(VoxportError, match=r"--clock cpu: processor time adds up over threads"):
        workshop.tune(threads=(1, 2), clock="cpu")
    with pytest.raises(VoxportError, match=r"--threads 1,4096: this process may use 2 cores"):
        workshop.tune(threads=(1, 4096))
    assert workshop.tune(threads=(1,), clock="cpu").finding.count("in processor time") == 1


def test_numbers_of_threads_are_read_from_a_list(tmp_path: Path) -> None:
    for wrong in ("", "1,", "0", "two", "-1", "²"):
        told = CliRunner().invoke(tune, ["m.onnx", "--against", "m.pt", "-o", str(tmp_path), "--threads", wrong])
        assert told.exit_code == 2
        assert "give numbers of threads from 1 on, such as 1,2" in told.output


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
