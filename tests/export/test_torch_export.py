"""TorchScript and .pt2 exports: proven, the same bytes every time, no size frozen, and refusals in one line."""

import dataclasses
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner, Result

from tests.export.conftest import SMALL
from tests.export.tiny import LABELS, make_checkpoint, write_checkpoint
from tests.runtime.tiny_models import make_tiny
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.targets.pytorch import aoti as to_aoti
from voxport.export.targets.pytorch import export as torch_artefact
from voxport.export.targets.pytorch.archive import write_archive
from voxport.export.targets.pytorch.capture import Subject, program_members, to_program, to_torchscript
from voxport.export.targets.pytorch.export import (
    Pt2Options,
    TorchExportOptions,
    export_pt2,
    export_torchscript,
    subject_of,
)
from voxport.export.verification.report import ParityError, ParityReport
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.pytorch import session as torch_session
from voxport.runtime.backends.pytorch.file import CONTRACT_MEMBER, FRONTEND_MEMBER, read_torch
from voxport.runtime.backends.pytorch.model import TorchModel
from voxport.runtime.contract import Contract, InputKind
from voxport.runtime.errors import BackendError, ContractError, VoxportError
from voxport.train.checkpoint import Checkpoint

Form = Literal["torchscript", "pt2"]
LIMITS: dict[str, Any] = {"min_frames": 5, "max_frames": 60}
FRONTEND: dict[InputKind, str] = {"features": "homework_mel40", "waveform": "psf_fbank40"}


@dataclasses.dataclass(frozen=True)
class Written:
    """A finished export, and the subject that was captured for it."""

    checkpoint: Checkpoint
    checkpoint_path: Path
    model: Path
    report: ParityReport
    form: Form
    kind: InputKind


@pytest.fixture(
    scope="module",
    params=[(form, kind) for form in ("torchscript", "pt2") for kind in ("features", "waveform")],
    ids=lambda pair: "-".join(pair),
)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    form, kind = request.param
    folder = tmp_path_factory.mktemp(f"{form}-{kind}")
    checkpoint = make_checkpoint(SMALL, FRONTEND[kind])
    path = write_checkpoint(folder / "model.pt", checkpoint)
    model = folder / f"model.{form}"
    if form == "torchscript":
        report = export_torchscript(path, model, TorchExportOptions(input_kind=kind, **LIMITS))
    else:
        report = export_pt2(path, model, Pt2Options(input_kind=kind, **LIMITS))
    return Written(checkpoint, path, model, report, form, kind)


def members(subject: Subject, form: Form) -> dict[str, bytes]:
    return to_torchscript(subject) if form == "torchscript" else program_members(to_program(subject))


def test_passes_the_gate_and_says_so_itself(written: Written) -> None:
    contract = read_contract(written.model)
    assert written.report.passed
    assert contract.parity == written.report.summary()
    assert contract.labels == LABELS
    assert (contract.input_kind, contract.min_frames, contract.max_frames) == (written.kind, 5, 60)
    assert (contract.precision, contract.golden.tolerance) == ("fp32", written.report.tolerance.score)
    assert {each.name for each in written.model.parent.iterdir()} == {
        "model.pt",
        written.model.name,
        *(f"model.parity.{suffix}" for suffix in ("json", "md", "png")),
    }
    # Single rows, the ends of the range, and padding with anything: what specialisation would break.
    alone = {row.frames for case in written.report.cases if case.batch == 1 for row in case.rows}
    assert {5, 60} <= alone
    assert {case.batch for case in written.report.cases} == {1, 2, 7, 32}
    assert {"NaN", "infinity"} <= {case.garbage for case in written.report.cases}


def test_nothing_in_it_tells_where_it_was_written(written: Written) -> None:
    content = written.model.read_bytes()
    for trace in (os.path.dirname(torch.__file__), str(Path(__file__).parents[2]), 'stack_trace": "', ".debug_pkl"):
        assert trace.encode() not in content, trace
    assert b"traced_inputs" not in content


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The archive without its digest, and with other members."""
    with zipfile.ZipFile(source) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(target, "w") as archive:
        for name, each in content.items():
            archive.writestr(name, each)
    return target


def claim_another_rate(content: dict[str, bytes]) -> None:
    contract = json.loads(content[f"archive/{CONTRACT_MEMBER}"])
    contract["frontend"]["sample_rate"] *= 2
    content[f"archive/{CONTRACT_MEMBER}"] = json.dumps(contract).encode()


def claim_another_scale(content: dict[str, bytes]) -> None:
    contract = json.loads(content[f"archive/{CONTRACT_MEMBER}"])
    contract["score_scale"] *= 2
    content[f"archive/{CONTRACT_MEMBER}"] = json.dumps(contract).encode()


def check_title_is_proven(path: Path, folder: Path) -> None:
    """Without a digest too, a contract with another rate or scale than the graph's is refused, and nothing else is."""
    suffix = path.suffix
    unsealed = rewritten(path, folder / f"unsealed{suffix}", lambda content: None)
    assert TorchModel.load(unsealed).contract == TorchModel.load(path).contract
    wrong = rewritten(path, folder / f"wrong{suffix}", claim_another_rate)
    rate = read_contract(path).frontend.sample_rate
    with pytest.raises(ContractError, match=f"{wrong}: the contract claims {2 * rate} Hz, .* {rate} Hz"):
        TorchModel.load(wrong)
    scaled = rewritten(path, folder / f"scaled{suffix}", claim_another_scale)
    with pytest.raises(ContractError, match=r"claims .*, scores times 60, the graph was made for .*, scores times 30;"):
        TorchModel.load(scaled)
    assert TorchModel.load(wrong, verify=False).contract.frontend.sample_rate == 2 * rate  # the user's own choice
    before = rewritten(path, folder / f"before{suffix}", lambda content: content.pop(f"archive/{FRONTEND_MEMBER}"))
    assert TorchModel.load(before).contract == read_contract(path)  # files of older versions load as they did


def test_a_contract_cannot_claim_another_rate_or_scale_even_without_a_digest(written: Written, tmp_path: Path) -> None:
    check_title_is_proven(written.model, tmp_path)


def test_the_same_checkpoint_gives_the_same_bytes(written: Written) -> None:
    """Also a second time in one process, where torch counts its names on."""
    again = members(subject_of(written.checkpoint, written.kind, LengthLimits(5, 60)), written.form)
    with zipfile.ZipFile(written.model) as archive:
        found = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        # Weights can be mapped into memory, as from files that torch wrote.
        assert all(
            (info.header_offset + 30 + len(info.filename) + len(info.extra)) % 64 == 0 for info in archive.infolist()
        )
    assert {name: found[name] for name in again} == again


@pytest.mark.parametrize("form", ["torchscript", "pt2"])
def test_one_row_and_one_frame_are_no_special_case(form: Form, tmp_path: Path) -> None:
    """torch.export takes sizes of 0 and 1 for constants unless it is kept from it."""
    checkpoint = make_checkpoint(SMALL)
    subject = subject_of(checkpoint, "features", LengthLimits(1, 9))
    if form == "torchscript":
        path = tmp_path / "one.torchscript"
        write_archive(path, to_torchscript(subject), make_tiny(tmp_path / "tiny.onnx").contract, {})
        load: Any = torch.jit.load
        run: Callable[..., Any] = load(io.BytesIO(path.read_bytes()))
    else:
        run = to_program(subject).module()
    for batch in (1, 2, 5):
        for frames in (1, 2, 9):
            values = torch.rand(batch, frames, 40)
            lengths = torch.randint(1, frames + 1, (batch,))
            with torch.inference_mode():
                torch.testing.assert_close(run(values, lengths), subject.module(values, lengths), rtol=0, atol=1e-5)


def test_a_program_refuses_time_outside_its_range() -> None:
    """The range is in the file, for those who use it without voxport."""
    program = to_program(subject_of(make_checkpoint(SMALL), "features", LengthLimits(5, 60)))
    ranges = sorted((int(each.lower), str(each.upper)) for each in program.range_constraints.values())
    assert ranges == [(1, "int_oo"), (5, "60")]
    with pytest.raises(Exception, match="60"):
        program.module()(torch.rand(2, 61, 40), torch.tensor([61, 61]))


def test_a_range_of_a_single_length(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.pt", make_checkpoint(SMALL))
    report = export_pt2(path, tmp_path / "one.pt2", Pt2Options(min_frames=30, max_frames=30))
    assert report.passed
    assert TorchModel.load(tmp_path / "one.pt2").run(np.zeros((3, 30, 40), np.float32), [30] * 3).scores.shape == (3, 7)


def wrong(subject: Subject) -> Subject:
    with torch.no_grad():
        for buffer in subject.module.buffers():
            buffer.mul_(1.01)
    return subject


def test_a_model_that_is_not_equal_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path / "model.pt", make_checkpoint(SMALL))
    build = torch_artefact.subject_of
    monkeypatch.setattr(torch_artefact, "subject_of", lambda *arguments: wrong(build(*arguments)))
    options = TorchExportOptions(**LIMITS, keep_failed=True)
    with pytest.raises(ParityError, match=r"parity failed.*model\.failed\.torchscript"):
        export_torchscript(path, tmp_path / "model.torchscript", options)
    names = {each.name for each in tmp_path.iterdir()}
    assert "model.torchscript" not in names
    assert "model.failed.torchscript" in names
    assert not [name for name in names if name.endswith(".part")]


@pytest.mark.parametrize("form", ["torchscript", "pt2"])
@pytest.mark.parametrize("output", ["scores", "embedding"])
def test_one_output_alone(form: Form, output: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.pt", make_checkpoint(SMALL))
    lengths = ("--min-frames", 8, "--max-frames", 16, "--real", 0)
    result = run(form, path, "-o", tmp_path / f"one.{form}", "--output", output, *lengths)
    assert result.exit_code == 0, result.output
    model = load_backend(tmp_path / f"one.{form}")
    assert model.contract.outputs == (output,)
    values: npt.NDArray[np.float32] = np.random.default_rng(4).normal(size=(2, 16, 40)).astype(np.float32)
    answer = model.run(values, [16, 9])
    with torch.inference_mode():
        scores, embedding = subject_of(make_checkpoint(SMALL), "features", LengthLimits(8, 16)).module(
            torch.from_numpy(values), torch.tensor([16, 9])
        )
    kept, wanted, other = ("scores", scores, "embedding") if output == "scores" else ("embedding", embedding, "scores")
    np.testing.assert_allclose(getattr(answer, kept), wanted.numpy(), rtol=0, atol=1e-5)
    with pytest.raises(VoxportError, match=f"was exported with --output {output}"):
        getattr(answer, other)


# --- AOTInductor --------------------------------------------------------------------------------------


def test_without_a_compiler_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match=r"C\+\+ compiler, and no-such-compiler is not found; .*CXX"):
        export_pt2(tmp_path / "none.pt", tmp_path / "m.pt2", Pt2Options(aoti=True))
    monkeypatch.delenv("CXX")
    monkeypatch.setattr("voxport.export.targets.pytorch.compiler.platform.system", lambda: "Linux")
    monkeypatch.setattr("voxport.export.targets.pytorch.compiler.shutil.which", lambda _: None)
    with pytest.raises(BackendError, match=r"g\+\+ is not found; apt-get install g\+\+"):
        to_aoti.need_compiler()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_nothing_is_compiled_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_aoti, "need_compiler", lambda: "/usr/bin/g++")
    with pytest.raises(BackendError, match=r"--device cuda: torch .* finds no usable GPU"):
        export_pt2(tmp_path / "none.pt", tmp_path / "m.pt2", Pt2Options(aoti=True, device="cuda"))
    with pytest.raises(ExportError, match="--device is for --aoti"):
        Pt2Options(device="cuda")


AOTI = "VOXPORT_TEST_AOTI"


@pytest.mark.skipif(os.environ.get(AOTI) != "1", reason=f"compiling takes a minute; {AOTI}=1 asks for it")
@pytest.mark.skipif(shutil.which(os.environ.get("CXX") or "g++") is None, reason="no C++ compiler is here")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_compiled_package(device: Literal["cpu", "cuda"], tmp_path: Path) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    path = write_checkpoint(tmp_path / "model.pt", make_checkpoint(SMALL))
    report = export_pt2(path, tmp_path / "native.pt2", Pt2Options(aoti=True, device=device, **LIMITS))
    assert report.passed
    found = read_torch(tmp_path / "native.pt2")
    assert found.kind == "package"
    assert dict(found.built_with)["device"] == device
    model = load_backend(tmp_path / "native.pt2")
    assert model.explain().device == device
    assert "AOTInductor" in model.explain().backend
    values: npt.NDArray[np.float32] = np.random.default_rng(2).normal(size=(1, 33, 40)).astype(np.float32)
    with torch.inference_mode():
        wanted = make_checkpoint(SMALL).network()(torch.from_numpy(values))[0].numpy()
    np.testing.assert_allclose(model.run(values, [33]).scores[0], wanted, rtol=0, atol=1e-4)

    check_title_is_proven(tmp_path / "native.pt2", tmp_path)
    with to_aoti.checked_inputs():  # at any number of rows, as the contract promises and as C++ may ask
        strict = load_backend(tmp_path / "native.pt2")
        for rows in (1, 2, 15, 16, 17, 100):
            batch: npt.NDArray[np.float32] = np.repeat(values, rows, axis=0)
            found_scores = strict.run(batch, np.full(rows, 33)).scores
            np.testing.assert_allclose(found_scores, np.tile(wanted, (rows, 1)), rtol=0, atol=1e-4)


class Narrowed:
    """A package that refuses what its compiler narrowed: `refuses` says which rows and lengths."""

    def __init__(self, contract: Contract, refuses: Callable[[int, int], bool]) -> None:
        self.contract, self._refuses = contract, refuses
        self.asked: list[tuple[int, int, str | None]] = []

    def run(self, inputs: Any, lengths: Any) -> Any:
        rows, length = inputs.shape[:2]
        self.asked.append((rows, length, os.environ.get(to_aoti.CHECK_INPUTS)))
        if self._refuses(rows, length):
            raise BackendError("dim value is too small at 0, expected it to be >= 2, but got: 1")


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        (lambda rows, length: rows == 1, "refuses 1 rows of 5,"),
        (lambda rows, length: rows > 15, "refuses 16 rows of 5,"),
        (lambda rows, length: length == 60, "refuses 1 rows of 60,"),
    ],
)
def test_a_range_that_the_compiler_narrowed_is_no_artefact(
    refuses: Callable[[int, int], bool], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(to_aoti.CHECK_INPUTS, "0")
    contract = make_tiny(tmp_path / "tiny.onnx").contract  # of 5 to 60 frames
    with pytest.raises(ExportError, match=said):
        to_aoti.check_corners(cast(Any, Narrowed(contract, refuses)))
    whole = Narrowed(contract, lambda rows, length: False)
    to_aoti.check_corners(cast(Any, whole))
    assert {(1, 5, "1"), (1, 60, "1"), (16, 5, "1"), (2, 60, "1")} <= set(whole.asked)
    assert os.environ[to_aoti.CHECK_INPUTS] == "0"


def test_compiled_code_never_sees_what_it_was_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would read the memory of a strided or wider tensor as if it were what it expects."""
    seen: list[Any] = []

    class Loader:
        def boxed_run(self, inputs: list[Any]) -> list[Any]:
            seen.append(inputs)
            return inputs

    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", lambda *arguments: Loader())
    run = torch_session._load_package(torch, "model.pt2")
    right, lengths = torch.zeros(2, 9, 40), torch.tensor([9, 8])
    run(right, lengths)
    for inputs, counts in (
        (right.double(), lengths),
        (right, lengths.int()),
        (torch.zeros(2, 40, 9).transpose(1, 2), lengths),
        (right[:, ::2], lengths),
        (right, lengths[:1]),
        (right[:0], lengths[:0]),
    ):
        with pytest.raises(ValueError, match="needed"):
            run(inputs, counts)
    assert len(seen) == 1


# --- as a user types it -------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_torchscript_command(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.pt", make_checkpoint(SMALL))
    out = tmp_path / "model.torchscript"
    result = run("torchscript", path, "-o", out, "--min-frames", 5, "--max-frames", 30, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["passed"] is True
    assert "PyTorch has deprecated TorchScript" in result.stderr
    assert read_contract(out).max_frames == 30
