"""Stream: decisions from chunks, equal however the sound is cut, and sound that no chunk may hold."""

import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.tiny_models import LABELS, SCALE, TinyModel, make_tiny, tone
from tests.runtime.tone_speakers import HERTZ, ScriptedScorer, ToneScorer, spoken
from voxport.runtime import AudioError, Decision, LengthError, SpeakerIdentifier, Stream, StreamOptions, VoxportError
from voxport.runtime.contract import Rejection

SHORT = StreamOptions(window_s=0.4, hop_s=0.1)


@pytest.fixture(scope="module")
def identifier(tiny_waveform: TinyModel) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(tiny_waveform.path, threads=1)


@pytest.fixture(scope="module")
def by_kind(tiny: TinyModel, tiny_waveform: TinyModel) -> dict[str, SpeakerIdentifier]:
    models = {"features": tiny, "waveform": tiny_waveform}
    return {kind: SpeakerIdentifier.load(model.path, threads=1) for kind, model in models.items()}


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> SpeakerIdentifier:
    """A model that takes windows of up to 10 s."""
    path = tmp_path_factory.mktemp("roomy") / "model.onnx"
    return SpeakerIdentifier.load(make_tiny(path, "waveform", max_frames=1000).path, threads=1)


def whole(stream: Stream, *chunks: Any) -> list[Decision]:
    return [decision for chunk in chunks for decision in stream.push(chunk)] + list(stream.close())


def speech_like(rate: int, seconds: float = 1.9, seed: int = 3) -> Any:
    """Noise that swells and fades, with a pause."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.2 * generator.normal(size=len(time)) * (1.1 + np.sin(9 * time)) / 2
    sound[(time > 0.8) & (time < 1.1)] = 0
    return np.clip(sound, -1, 1).astype(np.float32)


# --- chunked equals whole -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["features", "waveform"])
@given(
    rate=st.sampled_from([16000, 44100, 8000]),
    scaled=st.booleans(),
    sizes=st.lists(st.one_of(st.integers(0, 40), st.integers(0, 30000)), max_size=30),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunked_equals_whole_bit_by_bit(
    by_kind: dict[str, SpeakerIdentifier], kind: str, rate: int, scaled: bool, sizes: list[int]
) -> None:
    sound = speech_like(rate)
    if scaled:
        sound = (sound * 32767).astype(np.int16)
    stream = Stream(by_kind[kind], rate, SHORT)
    expected = whole(stream, sound)
    assert len(expected) >= 5
    stream.reset()
    cuts = np.minimum(np.cumsum([0, *sizes]), len(sound))
    chunks = [sound[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(sound)], strict=True)]
    assert whole(stream, *chunks) == expected


def test_one_sample_at_a_time_equals_whole(identifier: SpeakerIdentifier) -> None:
    sound = speech_like(8000, 0.7)
    stream = Stream(identifier, 8000, SHORT)
    expected = whole(stream, sound)
    stream.reset()
    assert whole(stream, *sound.reshape(-1, 1)) == expected
    assert expected


def test_int16_and_float_give_the_same_decisions(identifier: SpeakerIdentifier) -> None:
    scaled = (speech_like(16000) * 32767).astype(np.int16)
    stream = Stream(identifier, options=SHORT)
    expected = whole(stream, scaled)
    for other in (scaled / 32768, (scaled / 32768).astype(np.float32), scaled.astype(np.int32) << 16):
        stream.reset()
        assert whole(stream, other) == expected


def test_channels_are_averaged(identifier: SpeakerIdentifier) -> None:
    mono = speech_like(16000)
    stream = Stream(identifier, options=SHORT)
    expected = whole(stream, mono)
    stream.reset()
    assert whole(stream, *np.split(np.stack([mono, mono], axis=1), [7, 5000])) == expected


def test_reset_reproduces_the_first_run_also_from_the_middle(identifier: SpeakerIdentifier) -> None:
    sound = speech_like(44100)
    stream = Stream(identifier, 44100, SHORT)
    first = whole(stream, sound)
    stream.reset()
    stream.push(sound[::-1][:30001])
    stream.reset()
    assert stream.seconds == 0
    assert whole(stream, sound) == first == whole(Stream(identifier, 44100, SHORT), sound)


def test_streams_in_threads_share_an_identifier(by_kind: dict[str, SpeakerIdentifier]) -> None:
    sounds = [speech_like(16000, seed=seed) for seed in range(4)]
    expected = [whole(Stream(by_kind["features"], options=SHORT), sound) for sound in sounds]
    found: dict[int, list[Decision]] = {}

    def work(index: int) -> None:
        found[index] = whole(Stream(by_kind["features"], options=SHORT), *np.array_split(sounds[index], 9))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(4)] == expected


# --- what is decided ----------------------------------------------------------------------------------


def test_decisions_are_means_of_the_model_s_scores_over_the_last_windows(
    tiny_waveform: TinyModel, identifier: SpeakerIdentifier
) -> None:
    sound = 0.4 * np.random.default_rng(5).uniform(-1, 1, size=16000).astype(np.float32)  # never silent
    options = StreamOptions(window_s=0.4, hop_s=0.1, average=3, top=5)
    decisions = whole(Stream(identifier, options=options), sound)
    starts = list(range(0, 16000 - 6400 + 1, 1600))
    rows = np.array([tiny_waveform.scores(sound[start : start + 6400]) for start in starts])
    assert len(decisions) == len(starts)
    for index, decision in enumerate(decisions):
        first = max(0, index - 2)
        mean = rows[first : index + 1].mean(axis=0)
        order = np.argsort(-mean)
        assert decision.start_s == pytest.approx(starts[first] / 16000)
        assert decision.end_s == pytest.approx((starts[index] + 6400) / 16000)
        assert [each.speaker for each in decision.ranked] == [LABELS[i] for i in order]
        np.testing.assert_allclose([each.score for each in decision.ranked], mean[order], atol=1e-3)
        shares = np.exp(mean - mean.max()) / np.exp(mean - mean.max()).sum()
        np.testing.assert_allclose([each.probability for each in decision.ranked], shares[order], atol=1e-3)
        assert decision.known is None
        assert decision.speaker == decision.best.speaker


def test_known_voices_are_named_in_turn(roomy: SpeakerIdentifier) -> None:
    sound = spoken(("low", 5), (None, 3), ("high", 5), ("middle", 5))
    firm = [d for d in whole(Stream(roomy, scorer=ToneScorer()), *np.array_split(sound, 77)) if d.firm]
    assert list(dict.fromkeys(decision.speaker for decision in firm)) == ["low", "high", "middle"]
    for decision in firm:
        (start, stop) = {"low": (0, 6), "high": (7, 15.5), "middle": (11.5, 18)}[str(decision.speaker)]
        assert start <= decision.start_s < decision.end_s <= stop


A, B, MIDST = [0.6, 0.1, 0.0], [0.1, 0.6, 0.0], [0.32, 0.30, 0.0]


@pytest.mark.parametrize(
    ("rows", "threshold", "firm", "speakers"),
    [
        ([A, A, A, A], None, [0, 0, 1, 1], "AAAA"),
        ([A, A, B, B, B], None, [0, 0, 0, 0, 1], "AABBB"),
        ([A, B, A, B, A], None, [0, 0, 0, 0, 0], "ABABA"),
        ([MIDST] * 4, None, [0, 0, 0, 0], "AAAA"),  # never leads by the margin
        ([A, A, A, A], 0.55, [0, 0, 0, 0], "AAAA"),  # over the threshold by too little
        ([A, A, A, A], 0.5, [0, 0, 1, 1], "AAAA"),
        ([A, B, A, B], 0.75, [0, 0, 1, 1], "????"),  # nobody, and steadily so
        ([A, A, A, A], 0.65, [0, 0, 0, 0], "????"),
    ],
)
def test_firm_means_leading_for_long_enough_by_enough(
    identifier: SpeakerIdentifier, rows: list[list[float]], threshold: float | None, firm: list[int], speakers: str
) -> None:
    options = StreamOptions(window_s=0.4, hop_s=0.4, average=1, firm_after=3, firm_margin=0.0999)
    stream = Stream(identifier, options=options, scorer=ScriptedScorer(rows, threshold))
    decisions = whole(stream, tone(0.4 * len(rows)))
    assert [decision.firm for decision in decisions] == [bool(each) for each in firm]
    assert [decision.speaker or "?" for decision in decisions] == list(speakers)
    assert all(
        decision.known is (None if threshold is None else decision.speaker is not None) for decision in decisions
    )


@pytest.mark.parametrize(("threshold", "known"), [(-1.0, True), (1.0, False)])
def test_the_contract_s_threshold_makes_strangers_unknown(model_path: Path, threshold: float, known: bool) -> None:
    make_tiny(model_path, "waveform", rejection=Rejection(threshold, 0.01))
    decisions = whole(Stream(SpeakerIdentifier.load(model_path, threads=1), options=SHORT), tone(1))
    assert {decision.known for decision in decisions} == {known}
    assert all((decision.speaker is not None) is known for decision in decisions)
    assert all(decision.best.score <= SCALE for decision in decisions)


def test_a_newest_window_that_disagrees_is_not_firm(identifier: SpeakerIdentifier) -> None:
    rows = [A, A, A, A, B, B, B, B, B]
    options = StreamOptions(window_s=0.4, hop_s=0.4, average=3, firm_after=2, firm_margin=0.1)
    decisions = whole(Stream(identifier, options=options, scorer=ScriptedScorer(rows)), tone(0.4 * len(rows)))
    assert [decision.speaker for decision in decisions] == list("AAAAABBBB")
    assert [decision.firm for decision in decisions] == [bool(each) for each in (0, 1, 1, 1, 0, 0, 1, 1, 1)]


def test_a_single_speaker_is_firm_by_steadiness_alone(identifier: SpeakerIdentifier) -> None:
    options = StreamOptions(window_s=0.4, hop_s=0.4)
    decisions = whole(Stream(identifier, options=options, scorer=ScriptedScorer([[0.1]] * 4)), tone(1.6))
    assert [decision.firm for decision in decisions] == [False, False, True, True]


# --- silence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(32000, np.float32),
        np.full(32000, 0.5, np.float32),  # a DC offset is no sound
        (1e-4 * np.random.default_rng(0).normal(size=32000)).astype(np.float32),  # -80 dB
        np.zeros(32000, np.int16),
    ],
)
def test_silence_gives_no_decision(identifier: SpeakerIdentifier, sound: Any) -> None:
    assert whole(Stream(identifier, options=SHORT), sound) == []


def test_silence_ends_a_turn(identifier: SpeakerIdentifier) -> None:
    alone = spoken((None, 3), ("high", 2))
    after = spoken(("low", 2), (None, 1), ("high", 2))
    expected = whole(Stream(identifier, options=SHORT), alone)
    decisions = [d for d in whole(Stream(identifier, options=SHORT), after) if d.start_s > 2.5]
    assert decisions == expected
    assert expected


# --- the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [1, 100, 319, 320, 1599])
def test_the_tail_is_one_window_up_to_the_end(
    tiny_waveform: TinyModel, identifier: SpeakerIdentifier, extra: int
) -> None:
    sound = spoken(("low", 0.5), ("high", 0.5))[: 9600 + extra]
    stream = Stream(identifier, options=StreamOptions(window_s=0.4, hop_s=0.1, average=1))
    before = stream.push(sound)
    (last,) = stream.close()
    assert before[-1].end_s == pytest.approx(0.6)
    assert last.end_s == pytest.approx(len(sound) / 16000)
    assert last.best.score == pytest.approx(tiny_waveform.scores(sound[-6400:]).max(), abs=1e-3)


def test_no_tail_where_the_last_window_ends_with_the_sound(identifier: SpeakerIdentifier) -> None:
    stream = Stream(identifier, options=SHORT)
    assert len(stream.push(tone(0.5))) == 2
    assert stream.close() == ()


def test_a_stream_shorter_than_a_window_is_one_window(tiny_waveform: TinyModel, identifier: SpeakerIdentifier) -> None:
    stream = Stream(identifier, options=SHORT)
    assert stream.push(tone(0.3)) == ()
    (only,) = stream.close()
    assert only.start_s == 0
    assert only.end_s == pytest.approx(0.3)
    assert only.best.score == pytest.approx(tiny_waveform.scores(tone(0.3)).max(), abs=1e-3)


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.02])
def test_a_stream_shorter_than_the_model_needs_has_no_decision(identifier: SpeakerIdentifier, seconds: float) -> None:
    assert whole(Stream(identifier, options=SHORT), tone(seconds)) == []
    assert whole(Stream(identifier, 44100, SHORT), tone(seconds, 44100)) == []


def test_a_closed_stream_takes_nothing_until_it_is_reset(identifier: SpeakerIdentifier) -> None:
    stream = Stream(identifier, options=SHORT)
    first = whole(stream, tone(1))
    assert stream.close() == ()
    with pytest.raises(VoxportError, match="closed"):
        stream.push(tone(1))
    stream.reset()
    assert whole(stream, tone(1)) == first


# --- sound that cannot be used ------------------------------------------------------------------------

BAD: list[tuple[Any, str]] = [
    (np.array([0.1, np.nan]), "NaN"),
    (np.array([0.1, np.inf], np.float32), "infinite"),
    (np.append(tone(3), np.nan), "NaN"),  # beyond the first piece that is converted
    (np.array([1, 2, 3]), "int64"),
    (np.array([1, 2], np.uint8), "uint8"),
    (np.array([1j]), "complex"),
    (np.zeros((4, 9), np.float32), "shape"),
    (np.zeros((2, 100), np.float32), "transpose"),
    (np.zeros((2, 2, 2), np.float32), "shape"),
    (np.zeros((0, 9), np.float32), "shape"),
    (np.zeros(0, np.int64), "int64"),
    (np.float32(0.5), "shape"),
    (np.array([300.0, -20000.0]), "32768"),
    ([[0.1], [0.1, 0.2]], "array"),
    ("noise", "expected floats"),
    (None, "object"),
]


@pytest.mark.parametrize(("chunk", "says"), BAD)
def test_a_bad_chunk_is_refused_and_the_stream_goes_on(identifier: SpeakerIdentifier, chunk: Any, says: str) -> None:
    sound = speech_like(44100)
    expected = whole(Stream(identifier, 44100, SHORT), sound)
    stream = Stream(identifier, 44100, SHORT)
    decisions = list(stream.push(sound[:22050]))
    with pytest.raises(AudioError, match=says) as caught:
        stream.push(chunk)
    assert "the chunk at 0.500 s" in str(caught.value)
    assert decisions + whole(stream, sound[22050:]) == expected


@pytest.mark.parametrize("chunk", [[], np.zeros(0, np.int16), np.zeros((0, 2), np.float32)])
def test_an_empty_chunk_is_no_sound_and_no_mistake(identifier: SpeakerIdentifier, chunk: Any) -> None:
    stream = Stream(identifier, options=SHORT)
    assert stream.push(chunk) == ()
    assert stream.seconds == 0
    assert stream.close() == ()


def test_chunks_are_left_as_they_were_and_need_not_lie_in_order(identifier: SpeakerIdentifier) -> None:
    sound = speech_like(16000)
    expected = whole(Stream(identifier, options=SHORT), sound)
    frozen = sound.copy()
    frozen.setflags(write=False)
    spread = np.repeat(sound, 3)[::3]
    for other in (frozen, spread, sound.astype(">f4")):
        assert whole(Stream(identifier, options=SHORT), other) == expected


@pytest.mark.parametrize("rate", [0, 3999, 192001, -16000, 16000.0, True, "16000", float("nan")])
def test_a_rate_that_cannot_be_is_refused(identifier: SpeakerIdentifier, rate: Any) -> None:
    with pytest.raises(AudioError, match="sample_rate"):
        Stream(identifier, rate)


# --- options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"window_s": 0.0},
        {"window_s": float("nan")},
        {"window_s": "2"},
        {"hop_s": 0.001},
        {"min_speech": 1.1},
        {"floor_db": 3.0},
        {"range_db": 0.0},
        {"average": 0},
        {"firm_after": 2.0},
        {"top": True},
        {"firm_margin": -0.1},
    ],
)
def test_options_out_of_range_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(VoxportError, match=next(iter(values))):
        StreamOptions(**values)


def test_windows_that_the_model_does_not_take_are_refused(identifier: SpeakerIdentifier) -> None:
    for seconds in (0.03, 2.0):
        with pytest.raises(LengthError, match="window_s: this model takes 5 frames"):
            Stream(identifier, options=StreamOptions(window_s=seconds))
    with pytest.raises(VoxportError, match="skip sound"):
        Stream(identifier, options=StreamOptions(window_s=0.2, hop_s=0.21))


def test_default_windows_are_two_seconds_or_as_near_as_the_model_allows(
    roomy: SpeakerIdentifier, identifier: SpeakerIdentifier
) -> None:
    first, second = whole(Stream(roomy), tone(2.5))
    assert (first.end_s, second.end_s) == (2.0, 2.5)
    longest = whole(Stream(identifier), tone(0.7))[0].end_s
    assert longest == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("answer", [np.zeros((1, 2)), np.zeros(3), np.full((1, 3), np.nan)])
def test_a_scorer_s_wrong_answer_is_no_decision(identifier: SpeakerIdentifier, answer: Any) -> None:
    class Wrong(ToneScorer):
        def __call__(self, windows: Any) -> Any:
            return answer

    with pytest.raises(VoxportError, match=r"shape \(1, 3\)"):
        Stream(identifier, options=SHORT, scorer=Wrong()).push(tone(1))


# --- memory and start ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 8000])
def test_memory_does_not_grow_with_what_is_pushed(identifier: SpeakerIdentifier, rate: int) -> None:
    stream = Stream(identifier, rate, StreamOptions(window_s=0.5, hop_s=0.5), scorer=ToneScorer())
    chunk = tone(1, rate, HERTZ["low"])

    def peak(seconds: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(seconds):
            stream.push(chunk)
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        short, long = peak(10), peak(160)
    finally:
        tracemalloc.stop()
    # Python keeps up to 2000 freed tuples of each size for later: some 200 kB that come slowly, once.
    assert long < short + 300_000
    assert long < 1_000_000 < 150 * chunk.nbytes


def test_a_huge_chunk_costs_no_copy_of_itself(identifier: SpeakerIdentifier) -> None:
    stream = Stream(identifier, 48000, StreamOptions(window_s=0.5, hop_s=0.5), scorer=ToneScorer())
    chunk = np.zeros(48000 * 100, np.int16)  # 9.6 MB
    tracemalloc.start()
    try:
        stream.push(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_importing_the_stream_imports_no_package_that_it_may_not_need() -> None:
    code = (
        "import sys; from voxport.runtime import Stream, Timeline;"
        "print([name for name in ('onnxruntime', 'soundfile', 'soxr', 'torch', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
