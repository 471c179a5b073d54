"""The examples do what they say."""

import ast
import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone
from voxport.runtime import SpeakerIdentifier

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "who.wav"
    soundfile.write(path, tone(0.4), 16000)
    return path


def test_the_command_line_program_names_speakers_and_goes_on_after_a_bad_file(either: TinyModel, sound: Path) -> None:
    missing = sound.with_name("missing.wav")
    command = [sys.executable, "-W", "error", EXAMPLES / "identify.py", either.path, missing, sound]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)
    best = SpeakerIdentifier.load(either.path).identify(sound).best
    assert result.stdout == f"{sound}: {best.speaker} ({best.probability:.0%})\n"
    assert result.stderr.startswith(f"error: {missing}: ")
    assert result.returncode == 1


def test_the_server_is_python_of_the_oldest_version_that_we_support() -> None:
    text = (EXAMPLES / "server.py").read_text()
    ast.parse(text, feature_version=(3, 10))
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
             and node.module == "voxport.runtime" for alias in node.names}  # fmt: skip
    import voxport.runtime

    assert "Batcher" in names
    assert names <= set(voxport.runtime.__all__)


@pytest.mark.parametrize("installed", [True, False])
def test_the_server_takes_what_a_browser_records(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    testclient: Any = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")
    pytest.importorskip("av")
    from tests.runtime.media_files import KINDS, encode, voice

    recording = encode(tmp_path / "a.webm", voice(48000, 0.4), KINDS["chrome"])
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(os.environ, "VOXPORT_MODEL", str(tiny.path))
    monkeypatch.delitem(sys.modules, "server", raising=False)
    import server  # type: ignore[import-not-found, unused-ignore]

    expected = SpeakerIdentifier.load(tiny.path).identify(recording)
    if not installed:
        monkeypatch.setitem(sys.modules, "av", None)
    with testclient.TestClient(server.app) as client:
        reply = client.post("/identify", content=recording.read_bytes())
    if installed:
        assert reply.json()["speakers"][0]["name"] == expected.best.speaker
    else:
        assert reply.status_code == 415
        assert reply.json()["detail"].startswith("the sound: PyAV reads such files")


def test_the_server_answers(either: TinyModel, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    httpx: Any = pytest.importorskip("httpx", reason="httpx is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setitem(os.environ, "VOXPORT_MODEL", str(either.path))
    monkeypatch.delitem(sys.modules, "server", raising=False)
    import server  # type: ignore[import-not-found, unused-ignore]

    async def main() -> list[Any]:
        async with server.lifespan(server.app):
            transport = httpx.ASGITransport(app=server.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                bodies = [sound.read_bytes()] * 5 + [b"no sound", b"x" * (server.MAX_BYTES + 1)]
                return await asyncio.gather(*(client.post("/identify", content=body) for body in bodies))

    replies = asyncio.run(main())
    assert [reply.status_code for reply in replies] == [200] * 5 + [422, 413]
    expected = SpeakerIdentifier.load(either.path).identify(sound)
    for reply in replies[:5]:
        assert reply.json()["speakers"][0]["name"] == expected.best.speaker
        assert reply.json()["speakers"][0]["probability"] == pytest.approx(expected.best.probability, abs=1e-3)
        assert reply.json()["seconds"] == 0.4
    assert "not a sound file" in replies[5].json()["detail"]
    assert "/tmp" not in replies[5].json()["detail"]
