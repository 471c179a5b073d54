"""What ends a run before its end: wherever it is, the run goes on to the same result, and the user is told how."""

import dataclasses
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.corpora import RECIPE, write_recipe
from tests.train.runs import equal, options, same_run, state, train
from voxport.runtime.frontend.presets import profile
from voxport.train.data import CorpusError, CorpusOptions
from voxport.train.plots import read_log
from voxport.train.recipe import Recipe
from voxport.train.training.checkpoint_callback import RunSaver
from voxport.train.training.fit import FitOptions, fit, fitting_batch
from voxport.train.training.lightning_module import SpeakerModule, TrainingError
from voxport.train.training.run_dir import RunFolder


def history(folder: RunFolder) -> list[dict[str, float]]:
    (saver,) = (content for content in state(folder)["callbacks"].values() if "history" in content)
    rows: list[dict[str, float]] = saver["history"]
    return rows


def stop_in(owner: type, name: str, step: int, after: bool = False) -> Any:
    """The method `name`, which stops the run at optimiser step `step`: before its work, or after it."""
    original = getattr(owner, name)

    def method(self: Any, *args: Any) -> Any:
        module = next(thing for thing in (self, *args) if isinstance(thing, SpeakerModule))
        if module.global_step == step and not after:
            raise RuntimeError("stopped here")
        answer = original(self, *args)
        if module.global_step == step:
            raise RuntimeError("stopped here")
        return answer

    return method


@pytest.mark.parametrize(
    ("owner", "name", "after", "saved"),
    [
        (SpeakerModule, "validation_step", True, 4),  # within the validation
        (RunSaver, "_save_last", False, 4),  # model.pt is written, the state is not
        (RunSaver, "_save_last", True, 8),  # both are
        (SpeakerModule, "on_before_optimizer_step", False, 8),  # within the next step
    ],
)
def test_a_stop_around_a_validation_loses_nothing(
    data: Path,
    recipe: Recipe,
    whole: RunFolder,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    owner: type,
    name: str,
    after: bool,
    saved: int,
) -> None:
    folder = RunFolder(tmp_path / "stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stop_in(owner, name, 8, after))
        with pytest.raises((RuntimeError, TrainingError), match="stopped here"):
            train(data, recipe, folder.path)
    assert state(folder)["global_step"] == saved
    assert train(data, recipe, folder.path, resume=True).steps == 24
    assert not [told for told in recwarn if "resum" in str(told.message)], "no doubt is cast on an exact resumption"
    assert [row["step"] for row in history(folder)] == [8, 16, 24]
    assert history(folder) == history(whole)
    assert same_run(folder, whole)
    assert read_log(folder)["valid/accuracy_whole"] == read_log(whole)["valid/accuracy_whole"]
    assert read_log(folder)["train/learning_rate"][-1] == read_log(whole)["train/learning_rate"][-1]


@pytest.mark.parametrize(
    ("signal_number", "code", "message"),
    [(signal.SIGTERM, 1, r"stopped by SIGTERM.*--resume"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_the_run_with_a_word_and_no_success(
    data: Path, tmp_path: Path, signal_number: signal.Signals, code: int, message: str
) -> None:
    path = write_recipe(
        tmp_path, RECIPE.replace("steps = 24", "steps = 100000").replace("save_every = 4", "save_every = 1")
    )
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-m", "voxport.cli", "train", "fit", "--data", str(data), "--recipe", str(path)]
    command += ["--out", str(folder.path), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 600
    while not folder.last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, told = process.communicate(timeout=600)
    assert process.returncode == code, told
    assert re.search(message, told)
    assert "Traceback" not in told
    assert state(folder)["global_step"] >= 1


def heed() -> None:
    """A shell starts its background jobs deaf to SIGINT, and children inherit that: not so this one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_damaged_state_is_named(data: Path, recipe: Recipe, whole: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    content = whole.last.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"nonsense"):
        folder.last.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"last\.ckpt: cannot be read .*remove it"):
            train(data, recipe, folder.path, resume=True)
    folder.last.unlink()
    train(data, recipe, folder.path, resume=True)
    assert equal(state(folder)["state_dict"], state(whole)["state_dict"])


def test_a_batch_that_the_corpus_does_not_fill_leaves_no_run(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    large = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=100))
    with pytest.raises(CorpusError, match=r"19 training utterances do not fill one batch of 100"):
        train(data, large, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").facts.exists()


def test_it_is_said_before_a_file_is_read(
    data: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxport.train.data.builder._build", lambda *_: pytest.fail("read the corpus"))
    corpus = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "empty", progress=False)
    large = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=20))
    with pytest.raises(CorpusError, match="19 training utterances do not fill one batch of 20"):
        fit(data, large, FitOptions(tmp_path / "run", corpus, device="cpu", progress=False))


def test_a_default_batch_adapts_to_a_small_corpus_and_says_so(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    told: list[str] = []
    large = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=128, steps=4))
    chosen = options(data, tmp_path / "run", adapt_batch=True)
    chosen = dataclasses.replace(chosen, corpus=dataclasses.replace(chosen.corpus, announce=told.append))
    assert fit(data, large, chosen).batch_size == 16
    assert told.count("  batch: 16 in place of tiny's 128, for 19 utterances") == 1
    assert RunFolder(tmp_path / "run").read().recipe.train.batch_size == 16
    resumed = dataclasses.replace(chosen, resume=True, adapt_batch=False)
    assert fit(data, RunFolder(tmp_path / "run").read().recipe, resumed).batch_size == 16


@pytest.mark.parametrize(("devices", "accumulate", "size"), [(1, 1, 16), (3, 1, 12), (2, 2, 16), (5, 2, 128)])
def test_an_adapted_batch_divides_among_devices_and_pieces(
    recipe: Recipe, tmp_path: Path, devices: int, accumulate: int, size: int
) -> None:
    large = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=128))
    chosen = options(tmp_path / "corpus", tmp_path, devices=devices, accumulate=accumulate, adapt_batch=True)
    assert fitting_batch(large, 19, chosen).train.batch_size == size


@pytest.mark.parametrize(
    "method",
    ["pytorch_lightning.loggers.CSVLogger.save", "tensorboard.summary.writer.record_writer.RecordWriter.write"],
)
def test_a_log_that_cannot_be_written_is_told(
    data: Path, recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str], method: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = RunFolder(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest's own would take what is printed
        patch.setattr(method, full)
        with pytest.raises(TrainingError, match=r"run: cannot be written \(.*No space left.*intact.*--resume"):
            train(data, recipe, folder.path)
    assert "Traceback" not in capfd.readouterr().err
    assert train(data, recipe, folder.path, resume=True).steps == 24


def test_a_folder_that_cannot_be_written_is_told(
    data: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TrainingError, match=r"run\.json: cannot be written \(.*No space left"):
        train(data, recipe, tmp_path / "run")


def test_a_full_device_is_told(data: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore advice")

    monkeypatch.setattr(SpeakerModule, "training_step", full)
    with pytest.raises(TrainingError, match=r"memory is full \(CUDA out of memory.*2\.00 GiB\.\).*--accumulate"):
        train(data, recipe, tmp_path / "run")


def test_a_line_that_a_kill_cut_off_is_passed_over(whole: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    curves = read_log(whole)
    (log,) = folder.logs.glob("csv/*/metrics.csv")
    text = log.read_text()
    for end in range(len(text) - 1, len(text) - 30, -1):
        log.write_text(text[:end])
        for name, points in read_log(folder).items():
            assert points == curves[name][: len(points)]


def test_states_do_not_pass_through_the_temporary_folder(
    data: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # nothing can be written there
    train(data, recipe, tmp_path / "run")
    assert state(RunFolder(tmp_path / "run"))["global_step"] == 24
