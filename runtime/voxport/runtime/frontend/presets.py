"""The frontends in use, by name.

| name            | what it computes                                                              |
|-----------------|-------------------------------------------------------------------------------|
| homework_mel40  | the log-mels of the speaker homework's `uttr-*.pt` files (yistLin/dvector)     |
| speech_mel40    | those log-mels at one speech level, whatever the recording's loudness         |
| kaldi_fbank80   | Kaldi log-fbank as sherpa-onnx feeds its `wespeaker` models, mean subtracted   |
| nemo_mel40      | what sherpa-onnx feeds its `nemo` models, with 40 mels, a Hann window and `per_feature` |
| psf_fbank40     | python_speech_features.fbank in dB, mean subtracted                            |

The homework's own preprocessing also normalised and cut silence with sox before the mels; that is a
step on the sound, not a part of the frontend.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.spec import Frontend

_FLOAT32_EPSILON = 2.0**-23  # the floor of Kaldi's log

_HOMEWORK_MEL40 = Frontend(
    name="homework_mel40",
    sample_rate=16000,
    n_fft=400,
    win_length=400,
    hop_length=160,
    window="hann_periodic",
    framing="center_reflect",
    n_mels=40,
    f_min=50.0,
    f_max=8000.0,
    mel_scale="htk",
    mel_norm="none",
    mel_edges="hz",
    floor=1e-9,
    log="ln",
    normalize="none",
)

# 100 is near the median of LibriSpeech (190); the floor is 80 dB below it, in each band.
_SPEECH_MEL40 = replace(_HOMEWORK_MEL40, name="speech_mel40", level=100.0, floor=1e-6)

# sherpa-onnx asks kaldi-native-fbank for high_freq = -400, that is 400 Hz below Nyquist.
_KALDI_FBANK80 = Frontend(
    name="kaldi_fbank80",
    sample_rate=16000,
    n_fft=512,
    win_length=400,
    hop_length=160,
    window="povey",
    framing="mirror_edges",
    n_mels=80,
    f_min=20.0,
    f_max=7600.0,
    mel_scale="htk",
    mel_norm="none",
    mel_edges="mel",
    floor=_FLOAT32_EPSILON,
    log="ln",
    normalize="mean",
    sample_scale=32768.0,
    remove_dc=True,
    preemphasis=0.97,
    nyquist_bin=False,
)

# kaldi-native-fbank's window `hann` is the periodic one; its `hanning` is the symmetric one.
_NEMO_MEL40 = Frontend(
    name="nemo_mel40",
    sample_rate=16000,
    n_fft=512,
    win_length=400,
    hop_length=160,
    window="hann_periodic",
    framing="snip_edges",
    n_mels=40,
    f_min=0.0,
    f_max=7600.0,
    mel_scale="slaney",
    mel_norm="slaney",
    mel_edges="hz",
    floor=_FLOAT32_EPSILON,
    log="ln",
    normalize="mean_std",
    preemphasis=0.97,
)

_PSF_FBANK40 = Frontend(
    name="psf_fbank40",
    sample_rate=16000,
    n_fft=512,
    win_length=400,
    hop_length=160,
    window="rectangular",
    framing="pad_end",
    n_mels=40,
    f_min=0.0,
    f_max=8000.0,
    mel_scale="htk",
    mel_norm="none",
    mel_edges="bin",
    floor=1e-5,
    log="db",
    normalize="mean",
    preemphasis=0.97,
    preemphasis_over="signal",
    spectrum_scale=1 / 512,
)

PROFILES: Mapping[str, Frontend] = MappingProxyType(
    {each.name: each for each in (_HOMEWORK_MEL40, _SPEECH_MEL40, _KALDI_FBANK80, _NEMO_MEL40, _PSF_FBANK40)}
)


def profile(name: str) -> Frontend:
    """The frontend called `name`.

    Raises:
        VoxportError: no frontend has that name; the message lists those that there are.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise VoxportError(f"no frontend is called {name!r}; choose one of {', '.join(PROFILES)}") from None
