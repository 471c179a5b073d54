"""The declarative definition of a frontend: how samples become log-mel features.

A frontend is part of a model's contract. Training (torch) and runtime (NumPy) both compute it from
this one definition; `presets.py` names the ones that are in use.
"""

from dataclasses import dataclass
from typing import Literal

from voxport.runtime.storage.serialization import encode

Window = Literal["hann_periodic", "hann", "hamming", "povey", "rectangular"]
Framing = Literal["center_reflect", "snip_edges", "mirror_edges", "pad_end"]


@dataclass(frozen=True, kw_only=True)
class Frontend:
    """Samples in [-1, 1] → features of shape (frames, n_mels), float32.

    Lengths are in samples, frequencies in Hz. `framing` says which samples a frame sees:
    `center_reflect` centres n_fft-long frames on multiples of the hop and reflects at the edges
    (torch.stft), `snip_edges` keeps whole windows only, `mirror_edges` is Kaldi's snip_edges=false,
    and `pad_end` pads the last window with zeros (python_speech_features). `mel_edges` says where the
    triangles are straight: over Hz (librosa, torchaudio), over mel (Kaldi), or between whole FFT bins
    (python_speech_features). `normalize` subtracts each band's mean over the utterance; `mean_std` then
    divides by sqrt(max(variance, 1e-5)) + 1e-5, the variance being over all frames (NeMo's per_feature).

    `level` makes the features independent of loudness: before the floor, an utterance's band energies
    are scaled so that its speech level becomes `level`. With e the sum of a frame's energies over the
    bands, the speech level is (Σ e / Σ √e)² over the utterance's frames. Frames count by their own
    amplitude, so that pauses and a silent lead-in hardly do, and nothing is decided by a threshold that
    rounding could cross. Below `quietest` there is no speech to find, and the gain rises no further.
    """

    name: str
    sample_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    window: Window
    framing: Framing
    n_mels: int
    f_min: float
    f_max: float
    mel_scale: Literal["htk", "slaney"]
    mel_norm: Literal["none", "slaney"]
    mel_edges: Literal["hz", "mel", "bin"]
    floor: float
    log: Literal["ln", "db"]  # ln(max(x, floor)) or 20·log10(max(x, floor))
    normalize: Literal["none", "mean", "mean_std"]  # over the utterance's frames, per band
    sample_scale: float = 1.0  # samples are multiplied by this first; Kaldi's 16-bit range is 32768
    remove_dc: bool = False  # per frame
    preemphasis: float = 0.0
    preemphasis_over: Literal["frame", "signal"] = "frame"  # x[0] becomes x[0]·(1 - preemphasis), or stays
    power: float = 2.0  # exponent of the magnitude spectrum
    spectrum_scale: float = 1.0  # |spectrum|**power is multiplied by this
    nyquist_bin: bool = True  # Kaldi leaves the highest bin out
    level: float | None = None  # in units of the band energies; None leaves them as they are
    quietest: float = 1e-5  # in the same units; has no effect without `level`

    def __post_init__(self) -> None:
        if not 0 < self.win_length <= self.n_fft:
            raise ValueError(f"win_length {self.win_length} must be positive and at most n_fft {self.n_fft}")
        if self.hop_length < 1 or self.n_mels < 1 or self.sample_rate < 1:
            raise ValueError("hop_length, n_mels and sample_rate must be positive")
        if not (0 <= self.f_min < self.f_max and 2 * self.f_max <= self.sample_rate):  # a quotient could overflow
            highest = f"half of the sample rate, {self.sample_rate} Hz"
            raise ValueError(f"f_min {self.f_min} and f_max {self.f_max} must rise from 0 to at most {highest}")
        if self.floor <= 0:
            raise ValueError(f"floor must be positive, found {self.floor}")
        if self.level is not None and self.level <= 0:
            raise ValueError(f"level must be positive or null, found {self.level}")
        if self.quietest <= 0:
            raise ValueError(f"quietest must be positive, found {self.quietest}")

    @property
    def title(self) -> str:
        """The rate and the digest."""
        return f"{self.sample_rate} Hz, frontend {self.digest}"

    @property
    def digest(self) -> str:
        """A short hash of every value that has an effect, the key of cached features."""
        import hashlib  # costs milliseconds, and is not always asked for
        import json

        values = encode(self)
        if self.level is None:  # the digest from before these fields: older caches and results still match
            del values["level"], values["quietest"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
