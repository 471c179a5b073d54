"""Models that were exported with --output scores or embedding: every command and example works, or says what to do."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import TinyModel, save, tiny_graph, tone
from voxport.cli.root import cli
from voxport.runtime import Batcher, SpeakerIdentifier, VoxportError
from voxport.runtime.contract import Array, Output

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_EMBEDDINGS = "was exported with --output scores, so it cannot embed, enroll and verify voices; export it again with "
NO_SCORES = "was exported with --output embedding, so it cannot identify its training's speakers; enroll speakers in a "


def write(path: Path, model: TinyModel, output: Output) -> Path:
    """The model with one of its outputs alone, in the graph and in the contract."""
    graph = tiny_graph(model.contract.input_kind, model.project, model.classes)
    for other in [each for each in graph.output if each.name != output]:
        graph.output.remove(other)
    golden = model.contract.golden
    if output == "embedding":
        golden = replace(golden, embedding=Array.of(model.embedding(golden.input.values)))
    save(path, graph, model.contract.replace(outputs=(output,), golden=golden).to_json())
    return path


@pytest.fixture
def scores(tmp_path: Path, either: TinyModel) -> Path:
    return write(tmp_path / "scores.onnx", either, "scores")


@pytest.fixture
def embedding(tmp_path: Path, either: TinyModel) -> Path:
    return write(tmp_path / "embedding.onnx", either, "embedding")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "who.wav", tone(0.4), 16000)
    return tmp_path / "who.wav"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def refused(model: Path, why: str, *arguments: object) -> None:
    """In one line that names the model and the way out, whatever the number of files."""
    result = run(*arguments, code=1)
    assert result.stderr.startswith(f"error: {model}: this model {why}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_commands_with_embeddings_alone(embedding: Path, sound: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    for command in ("identify", "timeline", "stream"):
        refused(embedding, NO_SCORES, command, embedding, sound, *([sound] if command == "identify" else []))
    run("enroll", people, "--model", embedding, "Ada", sound)
    assert "Ada" in run("verify", people, "--model", embedding, "Ada", sound, "--threshold", 0.5).stdout
    for command in ("identify", "timeline", "stream"):
        options = ["--min-segment", "0.1"] if command == "timeline" else []
        assert "Ada" in run(command, embedding, sound, "--gallery", people, "--threshold", 0.5, *options).stdout
    assert run("embed", embedding, sound, sound).stdout.count("1.0000") == 4
    assert "gives              embedding" in run("inspect", embedding).stdout


def test_commands_with_scores_alone(scores: Path, either: TinyModel, sound: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    refused(scores, NO_EMBEDDINGS, "enroll", people, "--model", scores, "Ada", sound, sound)
    assert not people.exists()
    run("enroll", people, "--model", either.path, "Ada", sound)
    refused(scores, NO_EMBEDDINGS, "embed", scores, sound, sound)
    refused(scores, NO_EMBEDDINGS, "verify", people, "--model", scores, "Ada", sound, sound)
    for command in ("identify", "timeline", "stream"):
        refused(scores, NO_EMBEDDINGS, command, scores, sound, "--gallery", people, "--threshold", 0.5)
    best = SpeakerIdentifier.load(either.path).identify(sound).best.speaker
    assert best in run("identify", scores, sound, "--top", 1).stdout
    assert run("stream", scores, sound).stdout != ""


def example(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_python_examples(tmp_path: Path, tiny: TinyModel, sound: Path) -> None:
    scores = write(tmp_path / "scores.onnx", tiny, "scores")
    embedding = write(tmp_path / "embedding.onnx", tiny, "embedding")
    best = SpeakerIdentifier.load(tiny.path).identify(sound).best
    assert example("identify.py", scores, sound).stdout == f"{sound}: {best.speaker} ({best.probability:.0%})\n"
    people = tmp_path / "people"
    for result, why in (
        (example("identify.py", embedding, sound), NO_SCORES),
        (example("gallery.py", scores, people, "add", "Ada", sound), NO_EMBEDDINGS),
    ):
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: this model {why}")
    assert not people.exists()
    assert example("gallery.py", embedding, people, "add", "Ada", sound).returncode == 0
    assert example("gallery.py", embedding, people, "who", sound).stdout == f"{sound}: Ada (1.000)\n"


def test_the_server_starts_with_scores_and_says_at_its_start_that_it_needs_them(
    scores: Path, embedding: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    httpx: Any = pytest.importorskip("httpx", reason="httpx is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "server", raising=False)
    import server  # type: ignore[import-not-found, unused-ignore]

    async def post(model: Path) -> Any:
        monkeypatch.setenv("VOXPORT_MODEL", str(model))
        async with server.lifespan(server.app):
            transport = httpx.ASGITransport(app=server.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post("/identify", content=sound.read_bytes())

    assert asyncio.run(post(scores)).json()["speakers"][0]["name"]
    with pytest.raises(RuntimeError, match=r"embedding\.onnx gives embeddings, not speakers; export it again with"):
        asyncio.run(post(embedding))


def test_a_batcher_refuses_what_its_model_cannot_before_it_waits(scores: Path, embedding: Path, sound: Path) -> None:
    with Batcher(SpeakerIdentifier.load(scores)) as batcher:
        assert batcher.submit(sound).result(60).best.speaker
        with pytest.raises(VoxportError, match=NO_EMBEDDINGS):
            batcher.submit_embed(sound)
    with Batcher(SpeakerIdentifier.load(embedding)) as batcher:
        assert batcher.submit_embed(sound).result(60).ndim == 1
        for ask in (batcher.submit, batcher.submit_scores):
            with pytest.raises(VoxportError, match=NO_SCORES):
                ask(sound)
        assert batcher.waiting == 0
