"""What every target of `voxport export` refuses alike: in one line, before anything is built, with nothing written.

What one target alone promises is tested beside it. A further target is one line more in `TARGETS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.export.tiny import OPTIONS, make_checkpoint, write_checkpoint
from voxport.cli.root import cli


@dataclass(frozen=True)
class Target:
    """A command with its options, and the name of a file that it writes."""

    command: str
    name: str
    options: tuple[str, ...] = ()

    def run(self, checkpoint: object, output: object, *more: object) -> Result:
        arguments = ["export", self.command, checkpoint, "-o", output, *self.options, *more]
        return CliRunner().invoke(cli, [str(each) for each in arguments])


TARGETS = (
    Target("onnx", "model.onnx"),
    Target("onnx", "model.onnx", ("--precision", "int8")),
    Target("sherpa", "model.onnx"),
    Target("torchscript", "model.torchscript"),
    Target("pt2", "model.pt2"),
    Target("tensorrt", "model.plan"),
    Target("tensorrt", "model.rtx", ("--for", "rtx")),
    Target("triton", "repository", ("--name", "speakers")),
)
FILES = TARGETS[:-1]
ASKED = ((), ("--dry-run",), ("--json",))

each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda each: " ".join((each.command, *each.options)))
each_file = pytest.mark.parametrize("target", FILES, ids=lambda each: " ".join((each.command, *each.options)))


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint alone in the working folder; whoever captures its graph fails the test."""

    def captured(*_: object) -> None:
        raise AssertionError("a graph was captured")

    for name in ("onnx_graph.capture", "sherpa.export.capture_sherpa", "pytorch.export.subject_of"):
        monkeypatch.setattr(f"voxport.export.targets.{name}", captured)
    # A machine without TensorRT is told before the checkpoint is read; here it seems to have all that it needs.
    monkeypatch.setattr("voxport.export.targets.trt.export.require_machine", lambda: None)
    monkeypatch.setattr("voxport.export.targets.trt.export.builds_typed_graphs", lambda: True)
    monkeypatch.chdir(tmp_path)
    return write_checkpoint(tmp_path / "model.pt", make_checkpoint(OPTIONS, "nemo_mel40"))


def check_refused(result: Result, *messages: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert any(message in result.stderr for message in messages), result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


@pytest.fixture
def untouched(checkpoint: Path) -> Iterator[Path]:
    """The same, and at the end the folder is as the test left it before the export."""
    before = contents(checkpoint.parent)
    yield checkpoint
    assert contents(checkpoint.parent) == before
    assert all(each.is_file() for each in checkpoint.parent.iterdir())


@each_target
@pytest.mark.parametrize("asked", ASKED)
def test_a_checkpoint_that_is_not_there_is_named(target: Target, asked: tuple[str, ...], untouched: Path) -> None:
    check_refused(target.run("none.pt", target.name, *asked), "none.pt: no such", "none.pt: cannot be read")


@each_target
@pytest.mark.parametrize("length", [0, 3, 100, -1])
def test_a_damaged_checkpoint_is_named_and_no_advice_is_given_to_trust_it(
    target: Target, length: int, checkpoint: Path
) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:length])
    before = contents(checkpoint.parent)
    result = target.run(checkpoint.name, target.name)
    check_refused(result, "model.pt: not a readable checkpoint", "model.pt: not a", "model.pt: is no")
    assert "weights_only" not in result.stderr  # torch advises to load it without that
    assert contents(checkpoint.parent) == before


@each_target
@pytest.mark.parametrize("asked", ASKED)
def test_a_range_that_holds_no_length_is_refused(target: Target, asked: tuple[str, ...], untouched: Path) -> None:
    result = target.run(untouched.name, target.name, "--min-frames", 9, "--max-frames", 8, *asked)
    check_refused(result, "min_frames 9 and max_frames 8")


@each_target
@pytest.mark.parametrize("asked", ASKED)
def test_a_labelled_set_that_is_not_there_is_told_before_anything_is_built(
    target: Target, asked: tuple[str, ...], untouched: Path
) -> None:
    if target.command == "sherpa":
        pytest.skip("a model for sherpa-onnx has no accuracy gate")
    check_refused(target.run(untouched.name, target.name, "--accuracy-data", "held-out", *asked), "held-out")


@each_file
def test_a_file_that_is_there_is_kept_without_force(target: Target, checkpoint: Path) -> None:
    path = checkpoint.parent / target.name
    path.write_bytes(b"precious")
    check_refused(target.run(checkpoint.name, path), f"{path}: exists; give another name, or --force to replace it")
    dry = target.run(checkpoint.name, path, "--dry-run")
    assert "refused without --force" in dry.stdout or "or --force to replace it" in dry.stderr
    assert contents(checkpoint.parent) == {"model.pt": checkpoint.read_bytes(), target.name: b"precious"}


@each_file
@pytest.mark.parametrize("more", [("--force",), ("--force", "--dry-run"), ()])
def test_the_checkpoint_is_never_the_output(target: Target, more: tuple[str, ...], untouched: Path) -> None:
    for source in (untouched, untouched.parent):  # the file, and its run's folder
        check_refused(target.run(source, untouched, *more), "is the checkpoint itself, and would be lost", "suffix")


@each_file
@pytest.mark.parametrize("asked", ASKED)
def test_a_name_that_would_mislead_is_refused(target: Target, asked: tuple[str, ...], untouched: Path) -> None:
    """By these endings a file is loaded as a plan, whatever is in it."""
    if target.name == "model.plan":
        pytest.skip("a plan has them")
    for name in ("voice.plan", "voice.engine"):
        check_refused(target.run(untouched.name, name, *asked), name)


@each_file
@pytest.mark.parametrize("asked", ASKED)
def test_a_folder_is_no_file(target: Target, asked: tuple[str, ...], checkpoint: Path) -> None:
    place = checkpoint.parent / target.name
    place.mkdir()
    check_refused(target.run(checkpoint.name, place, *asked), "is a folder; name a file in it")
    check_refused(target.run(checkpoint.name, place, "--force", *asked), "is a folder; name a file in it")
    assert list(place.iterdir()) == []
