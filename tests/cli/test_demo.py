"""`voxport demo`: its voices are who they should be, its folder is its own, and the whole way holds."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.benchmarks import bench_documents
from voxport.cli.demo import steps as demo_steps
from voxport.cli.demo.corpus import SPEAKERS, CorpusPlan, check_distinct, count_files, make_corpus
from voxport.cli.demo.espeak import Speech, Voice, sentences, speak_all, synthesize
from voxport.cli.demo.steps import DemoOptions
from voxport.cli.demo.summary import speeds, summarize
from voxport.cli.demo.workspace import DemoFolder
from voxport.cli.root import cli
from voxport.runtime.errors import VoxportError


def test_sentences_are_all_different_and_a_seed_decides_their_order() -> None:
    assert len(set(sentences(1))) == len(list(sentences(1))) == 9600
    first, again, other = (list(itertools.islice(sentences(seed), 50)) for seed in (1, 1, 2))
    assert first == again != other


def test_speech_is_sound() -> None:
    samples, rate = synthesize(Voice("en-us", "f3"), "The head gardener sold a jar of honey.")
    assert samples.dtype == np.int16
    assert 1.5 < len(samples) / rate < 6
    assert np.abs(samples).max() > 3000


def test_the_same_list_gives_the_same_samples(tmp_path: Path) -> None:
    """Processes of their own, so that nothing of the first is left in the second."""
    for folder in ("one", "two"):
        speak_all(
            [
                Speech(voice, text, tmp_path / folder / f"{name}{i}.flac")
                for name, voice in list(SPEAKERS.items())[:3]
                for i, text in enumerate(itertools.islice(sentences(4), 2))
            ]
        )
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == 6
    for file in files:
        assert np.array_equal(soundfile.read(file)[0], soundfile.read(tmp_path / "two" / file.name)[0])


@pytest.mark.parametrize("voice", [Voice("xx-nowhere", "m1"), Voice("en-us", "nobody")])
def test_an_unknown_voice_is_refused_where_espeak_keeps_silent(voice: Voice) -> None:
    """espeak-ng would speak on in the previous voice, or without the variant."""
    synthesize(Voice("en-us", "f1"), "Hello.")
    with pytest.raises(VoxportError, match=f"no voice {voice.language}\\+{voice.variant}"):
        synthesize(voice, "Hello.")


def test_an_error_of_the_speaking_process_arrives(tmp_path: Path) -> None:
    with pytest.raises(VoxportError, match="no voice"):
        speak_all([Speech(Voice("en-us", "nobody"), "Hello.", tmp_path / "x.ogg")])
    assert list(tmp_path.iterdir()) == []


def test_two_speakers_with_one_voice_are_found_out(tmp_path: Path) -> None:
    voice = SPEAKERS["andrew"]
    twin = dataclasses.replace(voice, rate=voice.rate + 6)
    files = {}
    for name, of in (("andrew", voice), ("lars", SPEAKERS["lars"]), ("twin", twin)):
        samples, rate = synthesize(of, "Quick foxes jump over the lazy brown dog.")
        files[name] = tmp_path / f"{name}.wav"
        soundfile.write(files[name], samples, rate)
    with pytest.raises(VoxportError, match=r"andrew\.wav and .*twin\.wav sound the same"):
        check_distinct(files)
    del files["twin"]
    check_distinct(files)


def test_the_corpus_is_split_on_disk_and_no_sentence_returns(tmp_path: Path) -> None:
    written = 0

    def done() -> None:
        nonlocal written
        written += 1

    plan = CorpusPlan(train=2, held_out=1, seed=5)
    corpus = make_corpus(tmp_path, plan, done)
    assert len(SPEAKERS) >= 12
    assert written == count_files(plan) == 4 * len(SPEAKERS)
    assert sorted(path.name for path in corpus.train.iterdir()) == sorted(SPEAKERS)
    held_out = corpus.held_out_files()
    assert len(held_out) == len(SPEAKERS)
    contents = [path.read_bytes() for path in tmp_path.rglob("*.ogg")]
    assert len(set(contents)) == len(contents)
    assert soundfile.info(held_out[0][1]).duration > 1.5


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds something else already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demos_folder_is_made_anew_and_what_a_user_added_stays(tmp_path: Path) -> None:
    folder = DemoFolder.at(tmp_path / "demo")
    folder.prepare()
    (folder.run / "logs").mkdir(parents=True)
    folder.model.write_bytes(b"old")
    (folder.path / "notes.txt").write_text("mine")
    folder.prepare()
    assert sorted(path.name for path in folder.path.iterdir()) == [".voxport-demo", "notes.txt", "plots"]


def test_the_whole_way_on_a_small_scale(tmp_path: Path) -> None:
    """Every step of the demo, shortened; the benchmark, which takes a minute at least, has tests of its own."""
    options = DemoOptions(seed=3, steps=24, progress=False, train_files=4, held_out_files=1, max_frames=700)
    folder = DemoFolder.at(tmp_path / "demo")
    folder.prepare()
    corpus = demo_steps.speak(folder, options)
    fitted = demo_steps.train(folder, corpus, options)
    parity = demo_steps.export(folder, fitted.model, options)
    answers = demo_steps.identify(folder, corpus)
    summary = summarize(folder, corpus, fitted, parity, bench_documents.latency(), answers, {"train": 1.0})
    assert parity.passed
    assert 0 < summary.parity_max_abs_score <= summary.parity_tolerance
    assert {path.name for path in folder.plots.iterdir()} == {"training.png", "confusion.png"}
    assert json.loads(folder.answers.read_text(encoding="utf-8")) == [dataclasses.asdict(item) for item in answers]
    right = sum(answer.speaker == answer.answered for answer in answers)
    assert (summary.held_out_right, summary.held_out_files) == (right, len(SPEAKERS))
    assert right > len(SPEAKERS) / 2, "chance is one in sixteen"
    named = {Path(path) for name, path in summary.files.items() if name not in ("latency", "latency_chart", "summary")}
    assert all(path.exists() for path in named)


def test_the_summary_quotes_the_benchmark() -> None:
    measured = bench_documents.latency()
    rows = [row for row in measured.rows if row.speed_up is not None and row.backend.endswith(".onnx")]
    assert rows
    for speed, row in zip(speeds(measured), rows, strict=True):
        assert row.speed_up is not None
        assert (speed.frames, speed.onnx_ms, speed.verdict) == (row.cell.frames, row.p50_ms, row.verdict)
        assert (speed.speed_up, speed.low, speed.high) == (row.speed_up.ratio, row.speed_up.low, row.speed_up.high)
        (eager,) = (r for r in measured.rows if r.verdict == "baseline" and r.cell == row.cell)
        assert speed.pytorch_ms == eager.p50_ms
