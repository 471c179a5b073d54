"""The frontend inside the graph: waveform → log-mel features, by the contract's definition.

Everything between framing and power is linear, so that scaling, removal of DC, pre-emphasis within a
frame, window and Fourier transform are one matrix product. The STFT operator is not used: that of
ONNX Runtime is off by 1e-3 at 400 points, and other runtimes have none.

Letters in shapes: B utterances, L samples each, T frames, W = win_length, P bins, F mel bands.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.runtime.frontend import log_mel as numpy_frontend
from voxport.runtime.frontend.spec import Frontend

_DECIBEL = 20 / math.log(10)  # of the natural logarithm


class FrontendGraph(nn.Module):
    """waveform (B, L), lengths (B,) in samples → features (B, T, F), their lengths (B,) in frames.

    Frames beyond an utterance's own are arbitrary but finite. Tables are float64 until the module is cast.
    """

    basis_WP: Tensor
    mel_PF: Tensor

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.frontend = frontend
        filters = numpy_frontend.mel_filterbank(frontend) * frontend.spectrum_scale
        used = np.flatnonzero(filters.any(axis=1))  # no band hears the other bins
        real, imaginary = _fourier(frontend, used)
        self.bins = len(used)
        self.register_buffer("basis_WP", torch.from_numpy(np.concatenate([real, imaginary], axis=1)))
        self.register_buffer("mel_PF", torch.from_numpy(filters[used]))

    def forward(self, waveform_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a padded batch."""
        spec = self.frontend
        frames_BTW = self._frame(waveform_BL, lengths_B)
        real_BTP, imaginary_BTP = torch.split(frames_BTW @ self.basis_WP, self.bins, dim=-1)
        power_BTP = real_BTP * real_BTP + imaginary_BTP * imaginary_BTP
        if spec.power != 2.0:
            power_BTP = power_BTP ** (spec.power / 2)
        energy_BTF = power_BTP @ self.mel_PF
        counts_B = num_frames(spec, lengths_B)
        if spec.level is not None:
            energy_BTF = energy_BTF * self._gain(energy_BTF, counts_B, spec.level)
        log_BTF = energy_BTF.clamp_min(spec.floor).log() * (1.0 if spec.log == "ln" else _DECIBEL)
        return self._normalize(log_BTF, counts_B), counts_B

    def _frame(self, waveform_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, L) → frames (B, T, W), each row framed as if it ended at its own length."""
        spec, hop, width = self.frontend, self.frontend.hop_length, self.frontend.win_length
        B, L = waveform_BL.shape
        if spec.preemphasis and spec.preemphasis_over == "signal":
            waveform_BL = waveform_BL - spec.preemphasis * F.pad(waveform_BL[:, :-1], (1, 0))
        inside_BL = torch.arange(L, device=lengths_B.device) < lengths_B[:, None]
        signal_BL = torch.where(inside_BL, waveform_BL, 0.0)
        # A frame is some whole hops side by side: slices of one view, where a gather would copy sample by sample.
        parts = -(-width // hop)
        T = num_frames(spec, L)
        signal_BL = self._extend(signal_BL, lengths_B, (T + parts - 1) * hop)
        hops_BTH = signal_BL.reshape(B, T + parts - 1, hop)
        return torch.cat([hops_BTH[:, i : i + T, : min(hop, width - i * hop)] for i in range(parts)], dim=-1)

    def _extend(self, signal_BL: Tensor, lengths_B: Tensor, total: int) -> Tensor:
        """`total` samples from the first frame's first on, each row reflected at its own two ends."""
        spec = self.frontend
        if spec.framing in ("snip_edges", "pad_end"):
            return F.pad(signal_BL, (0, spec.win_length + spec.hop_length))[:, :total]
        # Where the edge sample itself is mirrored (… 1 0 | 0 1 …), the mirror stands half a sample further out.
        edge = 0 if spec.framing == "center_reflect" else 1
        start = numpy_frontend.first_sample(spec)
        index_BL = torch.arange(start, start + total, device=lengths_B.device)[None, :]
        last_B1 = lengths_B[:, None] - 1
        # Kaldi's frames may stand in an utterance shorter than half of them: reflected at both ends, twice.
        for _ in range(1 if spec.framing == "center_reflect" else 2):
            index_BL = torch.maximum(index_BL, -edge - index_BL)
            index_BL = torch.minimum(index_BL, 2 * last_B1 + edge - index_BL)
        # Frames beyond the row's own reach further than the mirror.
        return torch.gather(signal_BL, 1, index_BL.clamp_min(0))

    def _gain(self, energy_BTF: Tensor, counts_B: Tensor, level: float) -> Tensor:
        """What brings each row's own frames to `level`, (B, 1, 1), as `voxport.runtime.frontend.log_mel` does."""
        frames_BT = energy_BTF.sum(dim=-1)
        valid_BT = torch.arange(frames_BT.shape[1], device=counts_B.device) < counts_B[:, None]
        frames_BT = torch.where(valid_BT, frames_BT, 0.0)
        # The clamp keeps silence from being 0 / 0.
        amplitude_B = frames_BT.sqrt().sum(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
        level_B = (frames_BT.sum(dim=-1) / amplitude_B).square()
        return (level / level_B.clamp_min(self.frontend.quietest))[:, None, None]

    def _normalize(self, features_BTF: Tensor, counts_B: Tensor) -> Tensor:
        """Subtract the mean over each row's own frames, and divide by the deviation where that is asked for."""
        if self.frontend.normalize == "none":
            return features_BTF
        valid_BT = torch.arange(features_BTF.shape[1], device=counts_B.device) < counts_B[:, None]
        dtype = features_BTF.dtype
        weight_B1T = (valid_BT.to(dtype) / counts_B[:, None].to(dtype))[:, None, :]
        features_BTF = features_BTF - weight_B1T @ features_BTF
        if self.frontend.normalize == "mean":
            return features_BTF
        variance_B1F = weight_B1T @ (features_BTF * features_BTF)
        deviation_B1F = variance_B1F.clamp_min(numpy_frontend.VARIANCE_FLOOR).sqrt()
        return features_BTF / (deviation_B1F + numpy_frontend.STD_OFFSET)


def num_frames(frontend: Frontend, samples: Any) -> Any:
    """`voxport.runtime.frontend.log_mel.num_frames` for lengths as a tensor or symbol, where samples suffice."""
    window, hop = frontend.win_length, frontend.hop_length
    if frontend.framing == "center_reflect":
        return (samples + 2 * (frontend.n_fft // 2) - frontend.n_fft) // hop + 1
    if frontend.framing == "mirror_edges":
        return (samples + hop // 2) // hop
    if frontend.framing == "pad_end":
        # One frame for anything up to a window: raised by whole hops so that nothing negative is divided.
        hops = -(-window // hop)
        counts = (samples + (hops + 1) * hop - window - 1) // hop - hops + 1
        return counts.clamp_min(1) if isinstance(samples, Tensor) else torch.sym_max(counts, 1)
    return (samples - window) // hop + 1


def _fourier(frontend: Frontend, bins: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.float64], ...]:
    """Real and imaginary part of a frame's spectrum as matrices (W, P), all that precedes it included."""
    width = frontend.win_length
    condition = np.eye(width)
    if frontend.remove_dc:
        condition -= 1 / width
    if frontend.preemphasis and frontend.preemphasis_over == "frame":
        past = np.eye(width, k=-1)
        past[0, 0] = 1.0  # the first sample is its own past
        condition = condition - frontend.preemphasis * past @ condition
    condition *= (numpy_frontend.window(frontend) * frontend.sample_scale)[:, None]
    angle = 2 * np.pi * np.outer(np.arange(width), bins) / frontend.n_fft
    return condition.T @ np.cos(angle), condition.T @ np.sin(angle)
