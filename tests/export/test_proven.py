"""Prove, then name, for artefacts of every shape: one file, files beside it, a folder. No graph is captured here."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.export.conftest import SMALL
from tests.export.tiny import TorchBackend, make_checkpoint, write_checkpoint
from voxport.export import pipeline as proven
from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.network.inference_net import deployable_net
from voxport.export.pipeline import Target, prove_and_name
from voxport.export.staging import Staging
from voxport.export.verification.gate import Evidence, GateOptions, Named, gather, named
from voxport.export.verification.report import ParityError
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Contract
from voxport.train.checkpoint import CheckpointError, load_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Named:
    return named(write_checkpoint(tmp_path_factory.mktemp("source") / "model.pt", make_checkpoint(SMALL)))


@pytest.fixture(scope="module")
def little_evidence(source: Named) -> Evidence:
    """A few cases: what the gate finds is other tests' matter."""
    found = gather(source, "features", LengthLimits(6, 9), "fp32", RealOptions(0))
    return dataclasses.replace(found, cases=found.cases[:3])


@pytest.fixture(autouse=True)
def quick_gate(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "source" in request.fixturenames:
        evidence = request.getfixturevalue("little_evidence")
        monkeypatch.setattr(proven, "gather", lambda *_: evidence)
        monkeypatch.setattr(proven, "write_report", lambda *_: ())


class Closing(TorchBackend):
    """Counts how often it is closed; with `factor` its answers are off."""

    closed = 0
    factor = 1.0

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        found = super().run(inputs, lengths)
        return Answer(np.asarray(found.scores * self.factor, np.float32), found.embedding)

    def close(self) -> None:
        Closing.closed += 1


def target(source: Named, factor: float = 1.0, **changes: Any) -> Target:
    """Writes the contract at the path, or in the folder, and once more beside it."""
    written: list[Contract] = []
    network = deployable_net(source.checkpoint).float()
    folder = changes.get("folder", False)

    def write(path: Path, contract: Contract) -> None:
        assert not path.exists()
        written.append(contract)
        if folder:
            (path / "1").mkdir(parents=True)
            (path / "config").write_text("settings")
        (path / "1" / "model" if folder else path).write_text(contract.to_json())
        for suffix in changes.get("beside", ()):
            Path(f"{path}{suffix}").write_text(str(len(written)))

    def load(path: Path) -> Closing:
        backend = Closing(network, written[-1])
        backend.factor = factor
        return backend

    return Target(write=write, load=load, **changes)


def files(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def export(source: Named, output: Path, to: Target, **changes: Any) -> None:
    options = GateOptions(min_frames=6, max_frames=9, real=RealOptions(0), **changes)
    prove_and_name(source, output, to, "features", "fp32", options)


def test_files_beside_an_artefact_move_with_it(source: Named, tmp_path: Path) -> None:
    Closing.closed = 0
    export(source, tmp_path / "model.plan", target(source, beside=(".json", ".log")))
    found = files(tmp_path)
    assert set(found) == {"model.plan", "model.plan.json", "model.plan.log"}
    assert found["model.plan.json"] == "2"  # the second writing, which knows the proof
    assert Contract.from_json(found["model.plan"], "test").parity is not None
    assert Closing.closed == 1
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_folder_appears_whole(source: Named, tmp_path: Path) -> None:
    export(source, tmp_path / "voices", target(source, folder=True))
    assert set(files(tmp_path)) == {"voices/config", "voices/1/model"}
    with pytest.raises(ExportError, match=r"voices: exists; give another name, or --force"):
        export(source, tmp_path / "voices", target(source, folder=True))
    (tmp_path / "voices" / "1" / "model").write_text("old")
    export(source, tmp_path / "voices", target(source, folder=True), force=True)
    assert files(tmp_path)["voices/1/model"] != "old"
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_dir()) == ["voices"]


def test_folder_of_somebody_else_is_not_replaced(source: Named, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    with pytest.raises(ExportError, match=r"home: holds thesis\.tex, which no export wrote there"):
        export(source, tmp_path / "home", target(source, folder=True), force=True)
    assert files(tmp_path) == {"home/thesis.tex": "precious"}


def test_file_where_a_folder_is_to_be_written(source: Named, tmp_path: Path) -> None:
    (tmp_path / "voices").write_text("precious")
    with pytest.raises(ExportError, match="voices: is a file, and a folder is to be written"):
        export(source, tmp_path / "voices", target(source, folder=True), force=True)
    assert files(tmp_path) == {"voices": "precious"}


@pytest.mark.parametrize("shape", [{"beside": (".json",)}, {"folder": True}, {}])
def test_what_fails_leaves_the_old_one(source: Named, tmp_path: Path, shape: dict[str, Any]) -> None:
    output = tmp_path / "model.plan"
    export(source, output, target(source, **shape))
    before = files(tmp_path)
    with pytest.raises(ParityError, match="nothing was written"):
        export(source, output, target(source, factor=1.01, **shape), force=True)
    assert files(tmp_path) == before
    with pytest.raises(ParityError, match=r"it was kept as .*model\.failed\.plan"):
        export(source, output, target(source, factor=1.01, **shape), force=True, keep_failed=True)
    kept = {name.replace(".failed", ""): name for name in files(tmp_path) if ".failed" in name}
    assert set(kept) == set(before)
    assert {name: text for name, text in files(tmp_path).items() if ".failed" not in name} == before


def interrupt(_: Path) -> None:
    raise KeyboardInterrupt


def refuse(path: Path) -> None:
    raise ExportError(f"{path.name}: nobody could use it")


@pytest.mark.parametrize(("accept", "error"), [(interrupt, KeyboardInterrupt), (refuse, ExportError)])
def test_last_look_comes_before_the_name(
    source: Named, tmp_path: Path, accept: Callable[[Path], None], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        export(source, tmp_path / "model.plan", target(source, beside=(".json",), accept=accept))
    assert files(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_a_clear_error(source: Named, tmp_path: Path) -> None:
    made = target(source)

    def write(path: Path, contract: Contract) -> None:
        raise OSError(28, "No space left on device")

    full = Target(write=write, load=made.load)
    with pytest.raises(
        ExportError, match=r"model\.plan: cannot be written \(No space left on device\); choose another"
    ):
        export(source, tmp_path / "model.plan", full)
    assert files(tmp_path) == {}


def test_folder_comes_back_where_the_move_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "voices"
    old.mkdir()
    (old / "model").write_text("old")
    with Staging(old, folder=True) as staging:
        staging.artefact.mkdir()
        (staging.artefact / "model").write_text("new")
        genuine = os.replace

        def failing(this: Any, that: Any) -> None:
            if Path(this) == staging.artefact:
                raise OSError(5, "Input/output error")
            genuine(this, that)

        monkeypatch.setattr("voxport.export.staging.os.replace", failing)
        with pytest.raises(OSError, match="Input/output"):
            staging.name()
    assert files(tmp_path) == {"voices/model": "old"}


# Checkpoints that nobody should take


def spoilt(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    write_checkpoint(path, make_checkpoint(SMALL))
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


class Hostile:
    """Would run its author's code in an unpickler that trusts it."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(voxport_checkpoint=99), "checkpoint version 99, this voxport reads 1"),
        (lambda content: content.update(surprise=1), "unknown key surprise"),
        (lambda content: content.pop("state"), "weights or metrics are missing"),
        (lambda content: content["recipe"]["model"].update(encoder="mamba"), "must be one of"),
        (lambda content: content["state"].popitem(), "the weights do not fit recipe tiny"),
        (lambda content: content["recipe"].update(name=Hostile()), "not a readable checkpoint"),
    ],
)
def test_checkpoint_that_is_of_another_kind_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = spoilt(tmp_path / "model.pt", change)
    with pytest.raises(CheckpointError, match=message):
        deployable_net(load_checkpoint(path))
