"""What the real world sends: every way in judges it alike, and answers it alike."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.test_fuzz_arrays import RATES, arrays
from tests.runtime.tiny_models import TinyModel, tone
from voxport.runtime import (
    AudioError,
    Batcher,
    BatcherOptions,
    Gallery,
    LengthError,
    SpeakerIdentifier,
    Timeline,
    VoxportError,
)
from voxport.runtime.audio.samples import resample

LONG = 60.0  # seconds: a test that waits so long has failed
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
Served = tuple[SpeakerIdentifier, Batcher]


@pytest.fixture(scope="module", params=["features", "waveform"])
def served(request: pytest.FixtureRequest, tiny: TinyModel, tiny_waveform: TinyModel) -> Iterator[Served]:
    identifier = SpeakerIdentifier.load((tiny if request.param == "features" else tiny_waveform).path)
    with Batcher(identifier, BatcherOptions(max_batch=4, max_wait_ms=1, buckets=(0.1, 0.3, 0.5))) as batcher:
        yield identifier, batcher


def outcome(question: Any, *arguments: Any) -> Any:
    """Scores, or the kind of error."""
    try:
        found = question(*arguments)
    except VoxportError as problem:
        return type(problem)
    return np.asarray(found, np.float64)


# --- the same everywhere ------------------------------------------------------------------------------


@MANY
@given(array=arrays(), rate=RATES)
def test_one_by_one_in_a_batch_and_from_a_batcher_are_judged_alike(served: Served, array: Any, rate: Any) -> None:
    identifier, batcher = served
    alone = outcome(identifier.scores, array, rate)
    others = [
        outcome(lambda: identifier.scores_batch([array], rate)[0]),
        outcome(lambda: batcher.submit_scores(array, rate).result(LONG)),
        outcome(lambda: asyncio.run(batcher.scores(array, rate))),
    ]
    for other in others:
        if isinstance(alone, type):
            assert other is alone
        else:
            np.testing.assert_allclose(other, alone, atol=identifier.contract.golden.tolerance)
    assert batcher.waiting == 0


@MANY
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 24))
def test_whatever_shares_a_batcher_each_gets_what_it_would_get_alone(served: Served, seed: int, count: int) -> None:
    """Lengths, rates, types, questions and cancellations as they come; good and bad sounds among each other."""
    identifier, batcher = served
    chance = random.Random(seed)
    asked = []
    for _ in range(count):
        rate = chance.choice((16000, 16000, 8000, 44100, chance.randint(4000, 192000)))
        sound = tone(chance.uniform(0.0, 0.7), rate, chance.uniform(100, 1900))
        given_sound: Any = (sound * 32767).astype(np.int16) if chance.random() < 0.3 else sound
        if chance.random() < 0.1:
            given_sound = sound.astype(np.uint8)
        embeds = chance.random() < 0.3
        future = (batcher.submit_embed if embeds else batcher.submit_scores)(given_sound, rate)
        if chance.random() < 0.1:
            future.cancel()
        asked.append((future, identifier.embed if embeds else identifier.scores, given_sound, rate))
    for future, question, sound, rate in asked:
        if not future.cancelled():
            expected, found = outcome(question, sound, rate), outcome(future.result, LONG)
            if isinstance(expected, type):
                assert found is expected
            else:
                np.testing.assert_allclose(found, expected, atol=identifier.contract.golden.tolerance)
    assert batcher.waiting == 0


# --- rates and channels -------------------------------------------------------------------------------


@MANY
@given(rate=st.integers(4000, 192_000), hertz=st.floats(80, 1500), channels=st.integers(1, 8))
def test_every_rate_from_4_to_192_khz_and_1_to_8_channels_give_the_same_sound(
    rate: int, hertz: float, channels: int
) -> None:
    """A tone at any rate, spread over channels, is the tone at 16 kHz: its length to the sample, its middle to 1 %."""
    sound = np.stack([tone(0.4, rate, hertz)] * channels, axis=1)
    found = resample(sound, rate, 16000)
    assert abs(len(found) - len(sound) * 16000 / rate) <= 1
    middle = slice(1600, 4800)  # a resampler's ends ring
    assert np.abs(found[middle] - tone(0.4, 16000, hertz)[middle]).max() < 0.005


@pytest.mark.parametrize("rate", [3999, 192_001, 0, -16000])
def test_other_rates_are_refused_everywhere(served: Served, rate: int, tmp_path: Path) -> None:
    identifier, batcher = served
    sound = np.zeros(5000, np.float32)
    for ask in (
        lambda: identifier.identify(sound, rate),
        lambda: batcher.submit(sound, rate).result(LONG),
        lambda: Timeline(identifier).segments(sound, rate),
    ):
        with pytest.raises(AudioError, match="Hz is outside the 4000 to 192000 Hz"):
            ask()


# --- what is decided about each kind ------------------------------------------------------------------

SOUND = tone(0.4)
KINDS: dict[str, tuple[npt.NDArray[Any], type[VoxportError] | None]] = {
    "silence": (np.zeros(6400, np.float32), None),
    "clipped": (np.clip(SOUND * 40, -1, 1), None),
    "DC offset": (SOUND / 2 + np.float32(0.5), None),
    "nothing but DC": (np.full(6400, 0.25, np.float32), None),
    "NaN": (np.where(np.arange(6400) == 77, np.nan, SOUND), AudioError),
    "infinite": (np.where(np.arange(6400) == 77, np.inf, SOUND), AudioError),
    "16-bit values as floats": (SOUND * 32767, AudioError),
    "no samples": (np.zeros(0, np.float32), AudioError),
    "one sample": (np.zeros(1, np.float32), LengthError),
    "more than the model takes whole": (np.tile(SOUND, 5), None),
    "a virtual year": (np.broadcast_to(np.float32(0.1), 365 * 86400 * 16000), LengthError),
    "8 channels": (np.stack([SOUND] * 8, axis=1), None),
    "9 channels": (np.stack([SOUND] * 9, axis=1), AudioError),
    "channels first": (np.stack([SOUND] * 2), AudioError),
    "uint8": ((SOUND * 100 + 128).astype(np.uint8), AudioError),
    "int64": ((SOUND * 32767).astype(np.int64), AudioError),
    "int16": ((SOUND * 32767).astype(np.int16), None),
    "int32": ((SOUND.astype(np.float64) * (2**31 - 1)).astype(np.int32), None),
    "float16": (SOUND.astype(np.float16), None),
    "big-endian": (SOUND.astype(">f4"), None),
    "every second sample": (np.repeat(SOUND, 2)[::2], None),
    "backwards": (SOUND[::-1].copy()[::-1], None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_array_has_one_decided_behaviour(served: Served, kind: str) -> None:
    identifier, batcher = served
    array, error = KINDS[kind]
    array = array.view()
    array.flags.writeable = False
    ways: tuple[Callable[[], str], ...] = (
        lambda: identifier.identify(array, 16000).best.speaker,
        lambda: identifier.identify_batch([array], 16000)[0].best.speaker,
        lambda: batcher.submit(array, 16000).result(LONG).best.speaker,
    )
    for ask in ways:
        if error is None:
            assert ask() in identifier.contract.labels
        else:
            with pytest.raises(error) as caught:
                ask()
            assert type(caught.value) is error
            assert "Traceback" not in str(caught.value)
            assert len(str(caught.value)) < 400


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate", [8000, 16000, 192_000])
def test_each_depth_and_rate_of_a_file_names_the_same_speaker(
    served: Served, tmp_path: Path, subtype: str, rate: int
) -> None:
    identifier, _ = served
    soundfile.write(tmp_path / "who.wav", np.stack([tone(0.4, rate)] * 8, axis=1), rate, subtype)
    found = identifier.scores(tmp_path / "who.wav")
    assert found.argmax() == identifier.scores(SOUND, 16000).argmax()
    if rate == 16000:  # what soundfile itself makes of it, in float64
        decoded = soundfile.read(tmp_path / "who.wav")[0].mean(axis=1)
        np.testing.assert_allclose(found, identifier.scores(decoded, 16000), atol=identifier.contract.golden.tolerance)


def test_a_voice_that_silence_gives_is_a_voice(served: Served) -> None:
    """Nobody hears who is silent, but no answer may be NaN: a gallery would keep it for good."""
    identifier, _ = served
    gallery = Gallery(identifier.contract)
    gallery.enroll("nobody", identifier.embed(np.zeros(6400, np.float32), 16000))
    assert gallery.verify("nobody", identifier.embed(np.zeros(8000, np.float32), 16000)).cosine > 0.9
