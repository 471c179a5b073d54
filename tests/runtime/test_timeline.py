"""Timeline: segments with foretold borders, however the sound comes, and hours in constant memory."""

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, make_tiny, tone
from tests.runtime.tone_speakers import HERTZ, LIKE, RATE, UNLIKE, ToneScorer, spoken
from voxport.runtime import AudioError, LengthError, Segment, SpeakerIdentifier, Timeline, TimelineOptions, VoxportError
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.contract import Rejection

SPEECH = Path(__file__).parents[3] / "shared/data/librispeech10"
HOP = 0.5


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> SpeakerIdentifier:
    """A model that takes windows of up to 10 s."""
    path = tmp_path_factory.mktemp("roomy") / "model.onnx"
    return SpeakerIdentifier.load(make_tiny(path, "waveform", max_frames=1000).path, threads=1)


@pytest.fixture(scope="module")
def timeline(roomy: SpeakerIdentifier) -> Timeline:
    return Timeline(roomy, scorer=ToneScorer())


MEETING = spoken(("low", 4), (None, 1.5), ("high", 5), ("middle", 4), (None, 3), ("low", 3))
TURNS = [("low", 0, 4), ("high", 5.5, 10.5), ("middle", 10.5, 14.5), ("low", 17.5, 20.5)]


def check_meeting(segments: tuple[Segment, ...]) -> None:
    assert [segment.speaker for segment in segments] == [who for who, _, _ in TURNS]
    for segment, (_, start, stop) in zip(segments, TURNS, strict=True):
        # Silence is known to a frame of 20 ms, a change between two voices to a hop.
        assert segment.start_s == pytest.approx(start, abs=HOP if start == 10.5 else 0.021)
        assert segment.end_s == pytest.approx(stop, abs=HOP if stop == 10.5 else 0.021)


def test_turns_silence_and_ends_are_where_they_are(timeline: Timeline) -> None:
    segments = timeline.segments(MEETING, RATE)
    check_meeting(segments)
    assert segments[1].end_s == segments[2].start_s
    # Windows across a change still answer for one speaker, so that means lie a little below LIKE.
    assert all(30 * UNLIKE < segment.score <= 30 * LIKE + 1e-6 for segment in segments)
    assert all(0.9 < segment.probability <= 1 for segment in segments)


@pytest.mark.parametrize("size", [1000, 12345, 10**6])
def test_blocks_of_any_size_give_the_same_segments(timeline: Timeline, size: int) -> None:
    blocks = (MEETING[start : start + size] for start in range(0, len(MEETING), size))
    assert timeline.segments(blocks, RATE) == timeline.segments(MEETING, RATE)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_file_of_any_rate_and_channels_gives_the_same_turns(timeline: Timeline, tmp_path: Path, rate: int) -> None:
    parts: list[tuple[str | float | None, float]]
    parts = [("low", 4), (None, 1.5), ("high", 5), ("middle", 4), (None, 3), ("low", 3)]
    sound = spoken(*parts, rate=rate)
    path = tmp_path / "meeting.flac"
    soundfile.write(path, np.stack([sound, sound], axis=1), rate)
    check_meeting(timeline.segments(path))
    check_meeting(timeline.segments(sound, rate))
    check_meeting(timeline.segments((sound * 32767).astype(np.int16), rate))


def test_segments_are_the_model_s_own_answer_where_nobody_else_is_asked(tiny: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny.path, threads=1)
    sound = tone(1.5, hertz=440)
    (segment,) = Timeline(identifier, TimelineOptions(window_s=0.5, hop_s=0.25)).segments(sound, RATE)
    (best, *_) = identifier.identify(sound[:8000], RATE).ranked
    assert segment.speaker == best.speaker
    assert (segment.start_s, segment.end_s) == (0, 1.5)
    assert segment.score == pytest.approx(best.score, abs=0.5)  # other windows hold other phases of the tone


def test_a_stranger_is_unknown_where_there_is_a_threshold(roomy: SpeakerIdentifier) -> None:
    sound = spoken(("low", 4), (1500.0, 4), ("high", 4))
    segments = Timeline(roomy, scorer=ToneScorer(threshold=0.4)).segments(sound, RATE)
    assert [segment.speaker for segment in segments] == ["low", None, "high"]
    assert segments[1].score < 30 * 0.4
    assert None not in [segment.speaker for segment in Timeline(roomy, scorer=ToneScorer()).segments(sound, RATE)]


@pytest.mark.parametrize(("threshold", "known"), [(-1.0, True), (1.0, False)])
def test_the_contract_s_threshold_is_used(model_path: Path, threshold: float, known: bool) -> None:
    make_tiny(model_path, "waveform", rejection=Rejection(threshold, 0.01))
    segments = Timeline(SpeakerIdentifier.load(model_path, threads=1)).segments(tone(2), RATE)
    assert all((segment.speaker is not None) is known for segment in segments)
    assert segments


def test_a_short_slip_does_not_break_a_turn_and_the_penalty_says_what_is_short(roomy: SpeakerIdentifier) -> None:
    sound = spoken(("low", 6), ("high", 0.9), ("low", 6))

    def found(penalty: float) -> list[str | None]:
        settings = TimelineOptions(window_s=1.0, hop_s=0.5, switch_penalty=penalty, min_segment_s=0.1)
        segments = Timeline(roomy, settings, scorer=ToneScorer()).segments(sound, RATE)
        return [segment.speaker for segment in segments]

    assert found(0.0) == ["low", "high", "low"]
    assert found(2.0) == ["low"]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_windows_run_in_batches_of_that_size(roomy: SpeakerIdentifier, batch: int) -> None:
    scorer = ToneScorer()
    segments = Timeline(roomy, TimelineOptions(batch=batch), scorer=scorer).segments(MEETING, RATE)
    check_meeting(segments)
    assert set(scorer.calls[:-1]) == {batch}
    assert 1 <= scorer.calls[-1] <= batch


def test_progress_rises_to_the_length(timeline: Timeline) -> None:
    told: list[float] = []
    timeline.segments(np.array_split(MEETING, 50), RATE, progress=told.append)
    assert told == sorted(told)
    assert len(told) > 10
    assert told[-1] == 20.5


def test_threads_share_a_timeline(timeline: Timeline) -> None:
    found: list[tuple[Segment, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(timeline.segments(MEETING, RATE))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [timeline.segments(MEETING, RATE)] * 3


# --- sound that cannot be used, or says nothing -------------------------------------------------------


def test_silence_has_no_segments(timeline: Timeline) -> None:
    assert timeline.segments(np.zeros(RATE * 10, np.int16), RATE) == ()
    assert timeline.segments(np.full(RATE * 10, 0.3), RATE) == ()


def test_a_cough_is_left_out(timeline: Timeline) -> None:
    assert timeline.segments(spoken((None, 5), ("low", 0.2), (None, 5)), RATE) == ()


def test_a_recording_shorter_than_a_window_is_one_window(timeline: Timeline) -> None:
    (segment,) = timeline.segments(tone(1.1, hertz=HERTZ["high"]), RATE)
    assert (segment.speaker, segment.start_s) == ("high", 0)
    assert segment.end_s == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), [], [np.zeros(0, np.int16)] * 3])
def test_no_sound_is_an_error(timeline: Timeline, sound: Any) -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        timeline.segments(sound, RATE)


def test_a_recording_too_short_for_the_model_is_an_error(timeline: Timeline, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "brief.wav", tone(0.01), RATE)
    with pytest.raises(LengthError, match=r"brief\.wav: .*too short"):
        timeline.segments(tmp_path / "brief.wav")


def test_bad_sound_is_named(timeline: Timeline, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"absent\.wav"):
        timeline.segments(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="sample_rate"):
        timeline.segments(MEETING)
    with pytest.raises(AudioError, match=r"the chunk at 1\.000 s: holds NaN"):
        timeline.segments([tone(1), np.array([np.nan]), tone(1)], RATE)
    path = tmp_path / "cut.wav"
    soundfile.write(path, MEETING, RATE)
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(AudioError, match=r"cut\.wav: cut short"):
        timeline.segments(path)


@pytest.mark.parametrize(
    "values",
    [
        {"switch_penalty": -1.0},
        {"max_gap_s": float("nan")},
        {"min_segment_s": "1"},
        {"batch": 0},
        {"batch": 2.5},
        {"window_s": -1.0},
    ],
)
def test_options_out_of_range_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(VoxportError, match=next(iter(values))):
        TimelineOptions(**values)


# --- hours ---------------------------------------------------------------------------------------------


def hours(seconds: int) -> Iterator[np.ndarray[Any, np.dtype[np.int16]]]:
    """Blocks of 5 s at 16 kHz: 10 s of one tone, 110 s of silence, 10 s of the next tone, and so on."""
    tones = [(tone(5, RATE, hertz) * 32767).astype(np.int16) for hertz in HERTZ.values()]
    silence = np.zeros(RATE * 5, np.int16)
    for block in range(seconds // 5):
        yield tones[block // 24 % 3] if block % 24 < 2 else silence


def test_three_hours_with_a_model_in_constant_memory(roomy: SpeakerIdentifier) -> None:
    timeline = Timeline(roomy, TimelineOptions(window_s=2.0, hop_s=2.0, batch=8))
    timeline.segments(hours(60), RATE)  # ONNX Runtime and NumPy have made their tables

    def peak(seconds: int) -> tuple[int, tuple[Segment, ...]]:
        tracemalloc.start()
        try:
            segments = timeline.segments(hours(seconds), RATE)
            return tracemalloc.get_traced_memory()[1], segments
        finally:
            tracemalloc.stop()

    short, _ = peak(600)
    long, segments = peak(3 * 3600)
    assert len(segments) == 90  # one for every 120 s
    assert (segments[-1].start_s, segments[-1].end_s) == (89 * 120, 89 * 120 + 10)
    # 691 MB of float32 samples went through; besides the turns (1 kB each is plenty) nothing stays.
    assert long < short + 1000 * len(segments) + 300_000
    assert long < 12_000_000


# --- real speech --------------------------------------------------------------------------------------


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs real speech, which is not part of the repository")
def test_the_gate_finds_real_speech_between_silences(roomy: SpeakerIdentifier) -> None:
    class Anybody(ToneScorer):
        def __call__(self, windows: Any) -> Any:
            return np.tile([24.0, 0.0, 0.0], (len(windows), 1))

    pause = (3e-4 * np.random.default_rng(0).normal(size=2 * RATE)).astype(np.float32)
    pieces, spans, at = [pause], [], 2.0
    for path in sorted(SPEECH.glob("*/*-0000.flac"))[:5]:
        sound = read_audio(path, RATE)[: 6 * RATE]
        pieces += [sound, pause]
        spans.append((at, at + len(sound) / RATE))
        at += len(sound) / RATE + 2
    segments = Timeline(roomy, scorer=Anybody()).segments(np.concatenate(pieces), RATE)
    for segment in segments:
        assert any(start - 0.05 <= segment.start_s < segment.end_s <= stop + 0.05 for start, stop in spans)
    heard = [sum(s.duration_s for s in segments if start - 0.05 <= s.start_s <= stop) for start, stop in spans]
    lengths = [stop - start for start, stop in spans]
    # Read speech pauses, and begins and ends with silence; one of these speakers is 15 dB quieter than others.
    assert sum(heard) > 0.7 * sum(lengths)
    assert all(seconds > 0.4 * length for seconds, length in zip(heard, lengths, strict=True))
