"""TorchScript and .pt2 files as a back end: right answers, honest devices, clear refusals."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.runtime.tiny_models import LABELS, MIN_FRAMES, features, tone
from tests.runtime.tiny_torch import FORMATS, TinyTorch, remembered_torch
from voxport.cli.root import cli
from voxport.runtime import BackendError, BackendOptions, SpeakerIdentifier, load_backend
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.pytorch.model import TorchModel
from voxport.runtime.backends.pytorch.session import (
    TorchOptions,
    check_machine,
    choose_device,
    cpu_features,
    limited_threads,
)
from voxport.runtime.contract import InputKind


@pytest.fixture(params=[(form, kind) for form in FORMATS for kind in ("features", "waveform")])
def any_torch(request: pytest.FixtureRequest) -> TinyTorch:
    form: str = request.param[0]
    kind: InputKind = request.param[1]
    return remembered_torch(form, kind)


@pytest.fixture(params=FORMATS)
def of_features(request: pytest.FixtureRequest) -> TinyTorch:
    return remembered_torch(request.param, "features")


@pytest.fixture
def script() -> TinyTorch:
    return remembered_torch("torchscript", "features")


def inputs_of(made: TinyTorch, frames: list[int]) -> list[Any]:
    if made.tiny.contract.input_kind == "features":
        return list(features(frames))
    rng = np.random.default_rng(3)
    hop = made.tiny.contract.frontend.hop_length
    return [rng.uniform(-0.5, 0.5, count * hop + 7).astype(np.float32) for count in frames]


def batch_of(rows: list[Any], padded: int, fill: float) -> Any:
    batch = np.full((len(rows), padded, *rows[0].shape[1:]), fill, np.float32)
    for row, values in zip(batch, rows, strict=True):
        row[: len(values)] = values
    return batch


def test_the_identifier_takes_these_files_like_any_other(any_torch: TinyTorch) -> None:
    identifier = SpeakerIdentifier.load(any_torch.path)
    sound = tone(0.4)
    onnx = SpeakerIdentifier.load(any_torch.tiny.path)
    assert identifier.identify(sound, 16000).best.speaker == onnx.identify(sound, 16000).best.speaker
    np.testing.assert_allclose(identifier.embed(sound, 16000), onnx.embed(sound, 16000), rtol=0, atol=1e-5)
    batch = [tone(0.1), tone(0.4), tone(0.2)]
    np.testing.assert_allclose(
        identifier.scores_batch(batch, 16000), [identifier.scores(each, 16000) for each in batch], rtol=0, atol=1e-4
    )
    said = str(identifier.explain())
    assert "cpu" in said
    assert torch.__version__ in said


def test_the_content_decides_not_the_name(of_features: TinyTorch, tmp_path: Path) -> None:
    for name in ("model.onnx", "model", "model.bin"):
        path = of_features.write(tmp_path / name)
        assert read_contract(path) == of_features.tiny.contract
        assert isinstance(load_backend(path), TorchModel)
    onnx = tmp_path / "onnx-inside.pt2"
    onnx.write_bytes(of_features.tiny.path.read_bytes())
    assert type(load_backend(onnx)).__name__ == "OnnxModel"


def test_threads_are_set_for_a_run_and_put_back() -> None:
    class Torch:
        def __init__(self) -> None:
            self.threads, self.calls = 6, 0

        def get_num_threads(self) -> int:
            return self.threads

        def set_num_threads(self, threads: int) -> None:
            self.threads, self.calls = threads, self.calls + 1

    fake = Torch()
    with limited_threads(fake, 2):
        assert fake.threads == 2
    assert (fake.threads, fake.calls) == (6, 2)
    with pytest.raises(ZeroDivisionError), limited_threads(fake, 3):
        raise ZeroDivisionError
    assert fake.threads == 6
    before = fake.calls
    for same in (None, 6):
        with limited_threads(fake, same):
            assert fake.threads == 6
    assert fake.calls == before


def test_explain_says_what_runs(script: TinyTorch) -> None:
    before = torch.get_num_threads()
    model = TorchModel.load(script.path, TorchOptions("cpu", threads=2))
    model.run(features(20)[None], [20])
    assert torch.get_num_threads() == before
    found = model.explain()
    assert (found.backend, found.device, found.threads, found.precision) == ("PyTorch, TorchScript", "cpu", 2, "fp32")
    assert found.versions == (("torch", str(torch.__version__)),)
    assert "deprecated" in " ".join(found.notes)
    assert TorchModel.load(script.path).explain().threads == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BackendOptions("tensorrt"), "cannot run on device 'tensorrt'"),
        (BackendOptions(precision="fp16"), "precision fp16 was asked for, the model is fp32"),
        (BackendOptions(threads=0), "threads must be between 1 and 1024"),
    ],
)
def test_what_cannot_be_had_is_refused(script: TinyTorch, options: BackendOptions, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        load_backend(script.path, options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_refused_with_the_way_out(script: TinyTorch) -> None:
    with pytest.raises(BackendError, match=r"'cuda' was asked for, but torch .* finds no usable GPU; .*device 'cpu'"):
        load_backend(script.path, BackendOptions("cuda"))
    assert load_backend(script.path).explain().why == "auto: torch finds no GPU"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_on_the_gpu(any_torch: TinyTorch) -> None:
    model = TorchModel.load(any_torch.path, TorchOptions("cuda"))
    rows = inputs_of(any_torch, [MIN_FRAMES, 31, 59])
    answer = model.run(batch_of(rows, max(map(len, rows)), np.nan), [len(row) for row in rows])
    for row, values in enumerate(rows):
        np.testing.assert_allclose(answer.scores[row], any_torch.tiny.scores(values), rtol=0, atol=1e-3)
    assert model.explain().device == "cuda"


def test_without_torch_the_error_says_what_to_install(script: TinyTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r'PyTorch is not installed.*pip install "voxport\[torch\]".*export onnx'):
        load_backend(script.path)
    assert read_contract(script.path).labels == LABELS


def test_a_failure_inside_torch_is_ours_to_tell(script: TinyTorch) -> None:
    model = TorchModel.load(script.path)

    def fail(*_: object) -> None:
        raise RuntimeError("no memory\nand a long trace")

    model._network = fail
    with pytest.raises(BackendError, match=r"PyTorch failed on an input of shape \(1, 20, 40\): no memory$"):
        model.run(features(20)[None], [20])


def test_a_package_runs_only_where_it_was_compiled_for(script: TinyTorch) -> None:
    import dataclasses
    import platform

    from voxport.runtime.backends.pytorch.file import read_torch

    facts = {
        "machine": f"{platform.system()} {platform.machine()}",
        "torch": "2.11.0",
        "device": "cuda",
        "cpu_features": " ".join(cpu_features()),
    }

    def file(**changes: str) -> Any:
        return dataclasses.replace(
            read_torch(script.path), kind="package", built_with=tuple({**facts, **changes}.items())
        )

    check_machine(file(), "2.11.1+cpu", "m.pt2")
    for changes, message in (
        ({"machine": "Linux sparc"}, "compiled for the machine Linux sparc"),
        ({"torch": "2.9.1"}, r"compiled for the torch 2\.9, here is 2\.11"),
        ({"cpu_features": "amx_fp16 sme"}, "compiled for a processor with amx_fp16, sme"),
    ):
        with pytest.raises(BackendError, match=f"^m.pt2: {message}.*--aoti$"):
            check_machine(file(**changes), "2.11.0", "m.pt2")
    with pytest.raises(BackendError, match=r"compiled for device 'cuda', and 'cpu' was asked for; .*--device cpu"):
        choose_device(torch, "cpu", file(), "m.pt2")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="finds no usable GPU"):
            choose_device(torch, "auto", file(), "m.pt2")
    assert choose_device(torch, "auto", file(device="cpu"), "m.pt2")[0] == "cpu"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


def test_inspect_shows_them(of_features: TinyTorch) -> None:
    result = run("inspect", of_features.path)
    assert result.exit_code == 0, result.output
    for text in ("features: float32 (batch, frames, 40)", "as recorded: max", f"torch {torch.__version__}", "5 to 60"):
        assert text in result.stdout
    report = json.loads(run("inspect", of_features.path, "--json").stdout)
    assert report["format"] == ("torchscript" if of_features.path.suffix == ".torchscript" else "program")
    assert report["built_with"] == {"torch": str(torch.__version__)}
    assert report["golden"]["passed"] is True


def test_inspect_without_torch(of_features: TinyTorch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("inspect", of_features.path)
    assert result.exit_code == 1
    assert "not replayed" in result.stdout
    assert 'pip install "voxport[torch]"' in result.stderr
    assert "--no-verify" in result.stderr
    assert run("inspect", of_features.path, "--no-verify").exit_code == 0


def test_identify_takes_them(of_features: TinyTorch, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "who.wav", tone(0.4), 16000)
    result = run("identify", of_features.path, tmp_path / "who.wav", "--json")
    assert result.exit_code == 0, result.output
    assert "PyTorch" in json.loads(result.stdout)["runs_on"]["backend"]
