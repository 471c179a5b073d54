"""Bulk scoring with processes of this machine: every row right, none lost, none twice, whatever is killed."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.runtime.tiny_models import TinyModel, tone
from tests.scale.corpus import BAD, deadly_decoder, rows_of, start
from voxport.cli.root import cli
from voxport.runtime import SpeakerIdentifier
from voxport.scale.errors import ScaleError
from voxport.scale.scoring.options import ScoreOptions
from voxport.scale.scoring.parts import read_figures
from voxport.scale.scoring.plan import make_plan
from voxport.scale.scoring.run import score

LOCAL = ScoreOptions(engine="local", workers=1, part_rows=4)


def test_every_row_is_what_identify_says(corpus: Path, model: TinyModel, scored: Path) -> None:
    identifier = SpeakerIdentifier.load(model.path)
    rows = rows_of(scored)
    names = {path.relative_to(corpus).as_posix() for path in corpus.rglob("*.*")}
    assert [row["id"] for row in rows] == sorted(names)
    for row in rows:
        assert row["model"] == json.loads((scored / "plan.json").read_text())["model_sha256"]
        if row["error"] is not None:
            continue
        said = identifier.identify(row["path"])
        assert (row["speaker"], row["known"], row["windows"]) == (said.speaker, said.known, said.windows)
        assert row["seconds"] == said.duration_s
        assert [each["speaker"] for each in row["top"]] == [each.speaker for each in said.ranked]
        assert row["probability"] == pytest.approx(said.best.probability, abs=1e-3)
        assert [each["score"] for each in row["top"]] == pytest.approx([each.score for each in said.ranked], abs=1e-3)
        np.testing.assert_allclose(row["embedding"], identifier.embed(row["path"]), atol=1e-5)
    assert max(row["windows"] or 0 for row in rows) > 1


def test_what_cannot_be_used_is_a_row_with_its_reason(scored: Path) -> None:
    failed = {row["id"]: row for row in rows_of(scored) if row["error"] is not None}
    assert set(failed) == {*BAD, "two.wav"}
    assert "hold different sounds" in failed["two.wav"]["error"]
    assert all(row["speaker"] is row["top"] is row["embedding"] is row["seconds"] is None for row in failed.values())
    summary = json.loads((scored / "summary.json").read_text())
    assert (summary["utterances"], summary["errors"], summary["resumed"]) == (45, 4, 0)


def parts_in(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("part-*.parquet")}


def test_a_run_that_is_killed_goes_on_without_a_lost_or_doubled_row(
    corpus: Path, model: TinyModel, scored: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for wanted in (1, 5):
        run = start(corpus, model.path, out, "--engine", "local", "--workers", "1", "--part-rows", "4")
        while run.poll() is None and (not out.exists() or len(parts_in(out)) < wanted):
            time.sleep(0.002)
        # Only the parent: its worker must notice.
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
    before = parts_in(out)
    assert 5 <= len(before) < 12
    summary = score(corpus, model.path, out, LOCAL)
    assert summary.resumed >= 4 * (len(before) - 1)
    assert summary.resumed + summary.scored == 45
    after = parts_in(out)
    assert all(after[name] == stamp for name, stamp in before.items()), "a part was done twice"
    assert rows_of(out) == rows_of(scored)
    assert [path for path in (out / "parts").iterdir() if path.name.startswith(".")] == []


def test_a_file_that_ends_the_process_is_a_row_too(
    corpus: Path, model: TinyModel, scored: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    deadly = deadly_decoder(tmp_path / "deadly")
    run = start(
        corpus, model.path, out, "--engine", "local", "--workers", "2", "--part-rows", "8", "--json", env=deadly
    )
    said, problem = run.communicate(timeout=600)
    assert run.returncode == 0, problem
    assert json.loads(said)["errors"] == 5
    expected = [
        row | {"error": "the process that read it died, twice; its format's decoder may be at fault"}
        if row["id"] == "0007.flac"
        else row
        for row in rows_of(scored)
    ]
    for row, wanted in zip(rows_of(out), expected, strict=True):
        assert (row["id"], row["error"]) == (wanted["id"], wanted["error"])
        if wanted["error"] is None:  # other batches round otherwise
            assert row["speaker"] == wanted["speaker"]
            np.testing.assert_allclose(row["embedding"], wanted["embedding"], atol=1e-5)


def test_a_part_that_was_damaged_is_written_anew(corpus: Path, model: TinyModel, scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for path in scored.rglob("*"):
        if path.is_file():
            (out / path.relative_to(scored)).parent.mkdir(exist_ok=True)
            (out / path.relative_to(scored)).write_bytes(path.read_bytes())
    damaged = out / "parts" / "part-000003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    planned = make_plan(corpus, model.path, out, LOCAL)
    assert [part.number for part in planned.parts if read_figures(out, part) is None] == [3]
    assert score(corpus, model.path, out, LOCAL).scored == 4
    assert rows_of(out) == rows_of(scored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 2}, "another top"),
        ({"embeddings": False}, "another embeddings"),
        ({"part_rows": 5}, "another part_rows"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    corpus: Path, model: TinyModel, scored: Path, change: dict[str, int], message: str
) -> None:
    options = ScoreOptions(**({"engine": "local", "workers": 1, "part_rows": 4} | change))  # type: ignore[arg-type]
    with pytest.raises(ScaleError, match=message):
        score(corpus, model.path, scored, options)


def test_another_corpus_and_a_folder_of_others_are_refused(corpus: Path, model: TinyModel, scored: Path) -> None:
    with pytest.raises(ScaleError, match="another list of utterances"):
        score(corpus / "bad", model.path, scored, LOCAL)
    with pytest.raises(ScaleError, match="no run of `voxport score` began in it"):
        score(corpus, model.path, corpus, LOCAL)


def test_two_runs_do_not_write_into_one_folder(corpus: Path, model: TinyModel, scored: Path) -> None:
    from voxport.runtime.storage.lock import locked

    with locked(scored, 0), pytest.raises(ScaleError, match="another run"):
        score(corpus, model.path, scored, LOCAL)


def test_the_enrolled_of_a_gallery_answer_in_place_of_the_models_own(model: TinyModel, tmp_path: Path) -> None:
    from voxport.runtime import Gallery

    corpus = tmp_path / "voices"
    corpus.mkdir()
    for number in range(1, 9):  # soft and loud, which the tiny model tells apart by more than a rounding
        sound = tone(0.3, 16000, 150 + 37 * number, size=0.9 if number % 2 == 0 else 0.1)
        soundfile.write(corpus / f"{number:04d}.wav", sound, 16000)
    identifier = SpeakerIdentifier.load(model.path)
    gallery = Gallery(identifier.contract)
    gallery.enroll("Ada", identifier.embed(corpus / "0001.wav"))
    gallery.enroll("Bo", identifier.embed(corpus / "0002.wav"))
    soft, loud = (gallery.identify(identifier.embed(corpus / f"000{number}.wav")).ranked[1].cosine for number in (1, 2))
    assert max(soft, loud) < 0.99
    gallery.set_thresholds(identify=0.99)
    gallery.save(tmp_path / "people.gallery")
    options = ScoreOptions(engine="local", workers=1, gallery=tmp_path / "people.gallery", embeddings=False)
    score(corpus, model.path, tmp_path / "out", options)
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert rows["0002.wav"]["speaker"] == "Bo"
    for row in rows.values():
        if row["error"] is None:
            said = gallery.identify(identifier.embed(row["path"]))
            assert (row["speaker"], row["known"], row["embedding"]) == (said.speaker, said.known, None)
            assert row["top"][0]["score"] == pytest.approx(said.best.cosine, abs=1e-5)
            assert row["probability"] is None


def test_the_command_says_what_it_did_and_ends_with_1_where_nothing_could_be_scored(
    corpus: Path, model: TinyModel, tmp_path: Path
) -> None:
    arguments = ["score", str(corpus / "bad"), str(model.path), "--out", str(tmp_path / "out"), "--engine", "local"]
    done = CliRunner().invoke(cli, [*arguments, "--workers", "1", "--progress"])
    assert done.exit_code == 1
    assert "no utterance could be scored" in done.stderr
    assert re.search(r"of them with an error +3\n", done.stdout)
