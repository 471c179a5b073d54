"""The homework's directory: what is read, and every way in which an entry can be wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.corpora import write_homework
from voxport.runtime.frontend.presets import profile
from voxport.train.data import Corpus, CorpusError, CorpusOptions, open_corpus

HOMEWORK = profile("homework_mel40")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_homework(tmp_path / "corpus")


@pytest.fixture
def open_(tmp_path: Path) -> Callable[..., Corpus]:
    def open_it(path: Path, **changes: Any) -> Corpus:
        options = {"frontend": HOMEWORK, "cache": tmp_path / "cache", "progress": False, **changes}
        return open_corpus(path, CorpusOptions(**options))

    return open_it


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def utterances_of(data: Path, speaker: str) -> list[str]:
    return [item["feature_path"] for item in json.loads((data / "metadata.json").read_text())["speakers"][speaker]]


def test_features_are_those_of_the_files(data: Path, open_: Callable[..., Corpus]) -> None:
    corpus = open_(data)
    assert (corpus.kind, corpus.problems) == ("homework", ())
    assert len(corpus.utterances) == 24
    for i, utterance in enumerate(corpus.utterances):
        expected = torch.load(data / utterance.key, weights_only=True).numpy()
        np.testing.assert_array_equal(corpus.features(i), expected)
        assert utterance.frames == len(expected)
        assert utterance.key in utterances_of(data, corpus.labels[utterance.speaker])
    tests = json.loads((data / "testdata.json").read_text())["utterances"]
    assert [utterance.key for utterance in corpus.test] == [item["feature_path"] for item in tests]
    assert {utterance.speaker for utterance in corpus.test} == {-1}
    for i, utterance in enumerate(corpus.test):
        np.testing.assert_array_equal(corpus.test_features(i), torch.load(data / utterance.key, weights_only=True))


def test_labels_follow_the_mapping_and_not_the_alphabet(data: Path, open_: Callable[..., Corpus]) -> None:
    ids = {"id00003": 0, "id00001": 1, "id00000": 2, "id00002": 3}
    mapping = {"speaker2id": ids, "id2speaker": {str(i): name for name, i in ids.items()}}
    (data / "mapping.json").write_text(json.dumps(mapping))
    corpus = open_(data)
    assert corpus.labels == ("id00003", "id00001", "id00000", "id00002")
    assert {corpus.labels[u.speaker] for u in corpus.utterances if u.key in utterances_of(data, "id00003")} == {
        "id00003"
    }


def _missing(data: Path, name: str) -> None:
    (data / name).unlink()


def _cut(data: Path, name: str) -> None:
    (data / name).write_bytes((data / name).read_bytes()[:300])


def _program(data: Path, name: str) -> None:
    torch.save({"run": os.path.join}, data / name)  # a pickle that names a function


def _not_a_tensor(data: Path, name: str) -> None:
    torch.save([1.0, 2.0], data / name)


def _resave(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path, str], None]:
    def damage(data: Path, name: str) -> None:
        changed = change(torch.load(data / name, weights_only=True))
        torch.save(changed.contiguous(), data / name)
        edit(data / "metadata.json", lambda content: _declare(content, name, len(changed)))

    return damage


def _declare(content: Any, name: str, frames: int) -> None:
    for items in content["speakers"].values():
        for item in items:
            if item["feature_path"] == name:
                item["mel_len"] = frames


def _wrong_length(data: Path, name: str) -> None:
    edit(data / "metadata.json", lambda content: _declare(content, name, 7000))


def _set(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3, 4] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("damage", "kind", "reason"),
    [
        (_missing, "missing", "no such file"),
        (_cut, "unreadable", ""),
        (_program, "unreadable", "weights_only|Weights only"),
        (_not_a_tensor, "wrong-shape", "expected a tensor, found list"),
        (_wrong_length, "wrong-shape", "mel_len says 7000"),
        (_resave(lambda tensor: tensor.T), "wrong-shape", "transposed"),
        (_resave(lambda tensor: tensor[None]), "wrong-shape", r"\(1, \d+, 40\)"),
        (_resave(lambda tensor: tensor.to(torch.int32)), "wrong-shape", "floats"),
        (_resave(lambda tensor: tensor[:19]), "short", "19 frames, at least 20"),
        (_resave(lambda tensor: tensor[:0]), "short", "0 frames"),
        (_resave(_set(float("nan"))), "not-finite", "1 of"),
        (_resave(_set(float("-inf"))), "not-finite", "1 of"),
        (_resave(lambda tensor: tensor.double() + 1e300), "not-finite", ""),
        (_resave(_set(-30.0)), "wrong-frontend", "floor of homework_mel40 is -20.72"),
        (_resave(lambda tensor: tensor - tensor.mean(0)), "wrong-frontend", "every band has mean 0 and deviation 1"),
    ],
)
def test_a_damaged_entry_is_named_and_can_be_left_out(
    data: Path, open_: Callable[..., Corpus], damage: Callable[[Path, str], None], kind: str, reason: str
) -> None:
    name = utterances_of(data, "id00002")[1]
    damage(data, name)
    with pytest.raises(CorpusError, match=rf"1 unusable entry \(1 {kind}\)\n  {name}: {kind}: .*({reason})"):
        open_(data)
    corpus = open_(data, skip_bad=True)
    assert [(problem.key, problem.kind) for problem in corpus.problems] == [(name, kind)]
    assert len(corpus.utterances) == 23
    assert name not in {utterance.key for utterance in corpus.utterances}
    for i, utterance in enumerate(corpus.utterances):
        expected = torch.load(data / utterance.key, weights_only=True).numpy()
        np.testing.assert_array_equal(corpus.features(i), expected)
    with pytest.raises(CorpusError, match="--skip-bad"):  # from the cache, the problem stays a problem
        open_(data)


def test_many_problems_are_counted_and_ten_are_shown(data: Path, open_: Callable[..., Corpus]) -> None:
    for name in (utterances_of(data, "id00000") + utterances_of(data, "id00001"))[:11]:
        (data / name).unlink()
    for name in utterances_of(data, "id00003")[:2]:
        (data / name).write_bytes(b"")
    with pytest.raises(CorpusError) as caught:
        open_(data)
    lines = str(caught.value).splitlines()
    # The first speaker has no utterance left, which is told too.
    assert lines[0].endswith("14 unusable entries (11 missing, 2 unreadable, 1 empty-speaker)")
    assert len(lines) == 1 + 10 + 2
    assert "4 more" in lines[-2]
    corpus = open_(data, skip_bad=True)
    assert corpus.labels == ("id00001", "id00002", "id00003")
    assert {utterance.speaker for utterance in corpus.utterances} == {0, 1, 2}


def test_a_file_listed_twice_counts_once(data: Path, open_: Callable[..., Corpus]) -> None:
    def twice(content: Any) -> None:
        content["speakers"]["id00001"].append(content["speakers"]["id00001"][0])

    edit(data / "metadata.json", twice)
    corpus = open_(data, skip_bad=True)
    assert [problem.kind for problem in corpus.problems] == ["duplicate"]
    assert sorted(u.key for u in corpus.utterances if u.speaker == 1) == sorted(utterances_of(data, "id00001")[:6])


def test_a_file_of_two_speakers_belongs_to_neither(data: Path, open_: Callable[..., Corpus]) -> None:
    def shared(content: Any) -> None:
        content["speakers"]["id00001"].append(content["speakers"]["id00000"][0])

    name = utterances_of(data, "id00000")[0]
    edit(data / "metadata.json", shared)
    with pytest.raises(CorpusError, match=f"{name}: duplicate: the same file as .* of speaker id00001, here under"):
        open_(data)
    corpus = open_(data, skip_bad=True)
    assert len(corpus.problems) == 2
    assert name not in {utterance.key for utterance in corpus.utterances}


@pytest.mark.parametrize(("other", "left"), [("id00000", 23), ("id00002", 22)])
def test_equal_content_under_two_names_is_a_duplicate(
    data: Path, open_: Callable[..., Corpus], other: str, left: int
) -> None:
    first, second = utterances_of(data, "id00000")[0], utterances_of(data, other)[5]
    features = torch.load(data / first, weights_only=True)
    torch.save(features, data / second)
    edit(data / "metadata.json", lambda content: _declare(content, second, len(features)))
    with pytest.raises(CorpusError, match="duplicate: the same content as"):
        open_(data)
    assert len(open_(data, skip_bad=True).utterances) == left


def test_a_test_utterance_must_not_be_trained_on(data: Path, open_: Callable[..., Corpus]) -> None:
    leaked = json.loads((data / "testdata.json").read_text())["utterances"][2]
    edit(data / "metadata.json", lambda content: content["speakers"]["id00000"].append(leaked))
    corpus = open_(data, skip_bad=True)
    assert [(p.key, p.kind) for p in corpus.problems] == [(leaked["feature_path"], "duplicate")]
    assert "among the test utterances" in corpus.problems[0].reason
    assert len(corpus.test) == 5
    assert leaked["feature_path"] not in {utterance.key for utterance in corpus.utterances}


def test_a_damaged_test_utterance_is_a_problem_too(data: Path, open_: Callable[..., Corpus]) -> None:
    name = json.loads((data / "testdata.json").read_text())["utterances"][0]["feature_path"]
    (data / name).unlink()
    with pytest.raises(CorpusError, match=f"{name}: missing"):
        open_(data)
    assert len(open_(data, skip_bad=True).test) == 4


def test_testdata_may_be_absent(data: Path, open_: Callable[..., Corpus]) -> None:
    (data / "testdata.json").unlink()
    assert open_(data).test == ()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metadata.json", lambda content: content.pop("n_mels"), "metadata.json: no n_mels"),
        ("metadata.json", lambda content: content["speakers"].update(stranger=[]), "have no id, first stranger"),
        ("metadata.json", lambda content: content["speakers"].update(id00000=3), "expected a list of utterances"),
        ("metadata.json", lambda content: content["speakers"].update(id00000=[]), "id00000: empty-speaker"),
        ("metadata.json", lambda content: content["speakers"]["id00001"].append({"mel_len": 3}), "1 malformed"),
        ("mapping.json", lambda content: content["speaker2id"].update(id00000=9), "0 to 3, each once"),
        ("mapping.json", lambda content: content["id2speaker"].update({"0": "x"}), "not the inverse"),
        ("testdata.json", lambda content: content.update(n_mels=20), "n_mels 20, but metadata.json says 40"),
    ],
)
def test_contradicting_descriptions_are_refused(
    data: Path, open_: Callable[..., Corpus], file: str, change: Callable[[Any], Any], message: str
) -> None:
    edit(data / file, change)
    with pytest.raises(CorpusError, match=message):
        open_(data)


@pytest.mark.parametrize(("n_mels", "advice"), [(80, "pass one of kaldi_fbank80"), (41, "no known frontend")])
def test_another_number_of_bands_is_refused(data: Path, open_: Callable[..., Corpus], n_mels: int, advice: str) -> None:
    for file in ("metadata.json", "testdata.json"):
        edit(data / file, lambda content: content.update(n_mels=n_mels))
    with pytest.raises(CorpusError, match=f"{n_mels} bands, but frontend homework_mel40 has 40; {advice}"):
        open_(data)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "[" * 100_000])
def test_a_damaged_description_is_refused(data: Path, open_: Callable[..., Corpus], text: str) -> None:
    (data / "metadata.json").write_text(text)
    with pytest.raises(CorpusError, match=r"metadata\.json: (not a readable JSON file|no n_mels)"):
        open_(data)


def test_missing_descriptions_are_named(data: Path, open_: Callable[..., Corpus]) -> None:
    (data / "mapping.json").unlink()
    with pytest.raises(CorpusError, match=r"mapping\.json: no such file"):
        open_(data)
    (data / "metadata.json").unlink()
    with pytest.raises(CorpusError, match=r"found 29 \.pt files but no metadata\.json"):
        open_(data)


def test_one_speaker_is_not_enough(tmp_path: Path, open_: Callable[..., Corpus]) -> None:
    with pytest.raises(CorpusError, match=r"1 speakers? .*needs at least two"):
        open_(write_homework(tmp_path / "lonely", speakers=1))


def test_a_wrong_path_is_named(tmp_path: Path, data: Path, open_: Callable[..., Corpus]) -> None:
    with pytest.raises(CorpusError, match="absent: no such directory or manifest"):
        open_(tmp_path / "absent")
    with pytest.raises(CorpusError, match="pass the directory that holds it"):
        open_(data / "metadata.json")
    with pytest.raises(CorpusError, match=r"must be a manifest \(\.csv, \.tsv, \.jsonl or \.json\)"):
        open_(data / utterances_of(data, "id00000")[0])


def test_the_description_counts_what_is_there(data: Path, open_: Callable[..., Corpus]) -> None:
    lengths = sorted(
        len(torch.load(data / name, weights_only=True))
        for speaker in ("id00000", "id00001", "id00002", "id00003")
        for name in utterances_of(data, speaker)
    )
    described = open_(data).describe()
    assert (described.speakers, described.utterances, described.test_utterances) == (4, 24, 5)
    assert described.frames == sum(lengths)
    assert described.hours == pytest.approx(sum(lengths) * 0.01 / 3600)
    assert described.utterances_per_speaker == (6, 6, 6)
    assert (described.frames_per_utterance[0], described.frames_per_utterance[-1]) == (lengths[0], lengths[-1])
    assert described.problems == {}
