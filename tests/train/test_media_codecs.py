"""Codecs of FFmpeg in augmentation: in step with the sound, limited to their band, and refused by name."""

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import correlate

from voxport.runtime.errors import BackendError
from voxport.train.effects import codecs
from voxport.train.effects.media_codecs import MEDIA_CODECS, MediaCodec

RATE = 16_000


def sound() -> npt.NDArray[np.float32]:
    """Two seconds of noise, which is like itself at no other time."""
    return (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)


@pytest.mark.parametrize("name", MEDIA_CODECS)
def test_a_coded_sound_keeps_its_time_and_loses_what_the_codec_loses(name: str) -> None:
    pytest.importorskip("av")
    try:
        codecs.check([name])
    except BackendError as problem:
        pytest.skip(str(problem))
    before = sound()
    after = codecs.code(before, RATE, name)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    lag = int(correlate(after, before).argmax()) - len(before) + 1
    assert abs(lag) <= RATE // 1000  # a millisecond
    error = float(np.square(after - before).sum() / np.square(before).sum())
    assert 1e-5 < error < (0.1 if name == "g722" else 0.99)
    if MEDIA_CODECS[name].sample_rate == 8000:
        power = np.square(np.abs(np.fft.rfft(after)))
        assert power[int(4200 * len(after) / RATE) :].sum() < 1e-4 * power.sum()
    for count in (1, 161):
        assert codecs.code(before[:count], RATE, name).shape == (count,)


@pytest.mark.parametrize(
    ("known", "said"), [({}, "has no encoder nonesuch"), ({"av": None}, r'pip install "voxport\[media\]"')]
)
def test_a_codec_that_cannot_be_had_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, None], said: str
) -> None:
    if not known:
        pytest.importorskip("av")
    for name, module in known.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(MEDIA_CODECS, "g722", MediaCodec("nonesuch", "g722", "s16", RATE, 64000, 22))
    names: Sequence[str] = ("mu_law", "g722")
    with pytest.raises(BackendError, match=said):
        codecs.check(names)
