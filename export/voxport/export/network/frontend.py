"""The frontend inside the graph: waveform → log-mel features, by the contract's definition.

Letters in shapes: B utterances, L samples each, T frames, F mel bands.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.export.network.spectrum import mel_spectrum
from voxport.runtime.frontend import log_mel as numpy_frontend
from voxport.runtime.frontend.spec import Frontend

_DECIBEL = 20 / math.log(10)  # of the natural logarithm


class FrontendGraph(nn.Module):
    """waveform (B, L), lengths (B,) in samples → features (B, T, F), their lengths (B,) in frames.

    Frames beyond an utterance's own hold 0. Tables are float64 until the module is cast.
    """

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.frontend = frontend
        self.spectrum = mel_spectrum(frontend)

    def forward(self, waveform_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a padded batch."""
        spec = self.frontend
        energy_BTF = self.spectrum(self._signal(waveform_BL, lengths_B))
        counts_B = num_frames(spec, lengths_B)
        valid_BT = torch.arange(energy_BTF.shape[1], device=lengths_B.device) < counts_B[:, None]
        log_BTF = self._log(energy_BTF, None if spec.level is None else self._gain(energy_BTF, valid_BT, spec.level))
        # What the padding held may be NaN, and is in the frames that reach into it.
        log_BTF = torch.where(valid_BT[:, :, None], log_BTF, 0.0)
        return self._normalize(log_BTF, valid_BT, counts_B), counts_B

    def _signal(self, waveform_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """All frames of the longest row, each row framed as if it ended at its own length."""
        spec = self.frontend
        if spec.preemphasis and spec.preemphasis_over == "signal":
            waveform_BL = waveform_BL - spec.preemphasis * F.pad(waveform_BL[:, :-1], (1, 0))
        total = (num_frames(spec, waveform_BL.shape[1]) - 1) * spec.hop_length + self.spectrum.samples
        reflected = spec.framing in ("center_reflect", "mirror_edges")
        # A row's own frames see its own samples, and what `_reflected` writes behind them.
        if not reflected and (spec.framing == "pad_end" or self.spectrum.samples > spec.win_length):
            samples = torch.arange(waveform_BL.shape[1], device=lengths_B.device)
            waveform_BL = torch.where(samples < lengths_B[:, None], waveform_BL, 0.0)
        if reflected:
            return self._reflected(waveform_BL, lengths_B)[:, :total]
        return F.pad(waveform_BL, (0, spec.hop_length + self.spectrum.samples))[:, :total]

    def _reflected(self, waveform_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """From the first frame's first sample on, each row reflected at its own two ends.

        Only what lies beyond the ends is gathered: indices of a whole row cost as much as its spectrum.
        """
        spec = self.frontend
        before = max(0, -numpy_frontend.first_sample(spec))
        behind = self.spectrum.samples + spec.hop_length
        # Where the edge sample itself is mirrored (… 1 0 | 0 1 …), the mirror stands half a sample further out.
        edge = 0 if spec.framing == "center_reflect" else 1
        device = lengths_B.device
        length_B1, last_B1 = lengths_B[:, None], lengths_B[:, None] - 1
        ahead_BI = torch.arange(-before, 0, device=device) + 0 * length_B1
        place_BI = torch.cat([ahead_BI, torch.arange(behind, device=device) + length_B1], dim=1)
        index_BI = place_BI
        # Kaldi's frames may stand in an utterance shorter than half of them: reflected at both ends, twice.
        for _ in range(1 if spec.framing == "center_reflect" else 2):
            index_BI = torch.maximum(index_BI, -edge - index_BI)
            index_BI = torch.minimum(index_BI, 2 * last_B1 + edge - index_BI)
        # Frames beyond the row's own reach further than the mirror.
        values_BI = torch.gather(waveform_BL, 1, index_BI.clamp_min(0))
        filled_BL = F.pad(waveform_BL, (before, behind))
        return torch.scatter(filled_BL, 1, place_BI + before, values_BI)[:, max(0, numpy_frontend.first_sample(spec)) :]

    def _gain(self, energy_BTF: Tensor, valid_BT: Tensor, level: float) -> Tensor:
        """What brings each row's own frames to `level`, (B, 1, 1), as `voxport.runtime.frontend.log_mel` does."""
        frames_BT = torch.where(valid_BT, energy_BTF.sum(dim=-1), 0.0)
        # The clamp keeps silence from being 0 / 0.
        amplitude_B = frames_BT.sqrt().sum(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
        level_B = (frames_BT.sum(dim=-1) / amplitude_B).square()
        return (level / level_B.clamp_min(self.frontend.quietest))[:, None, None]

    def _log(self, energy_BTF: Tensor, gain_B11: Tensor | None) -> Tensor:
        """The logarithm of energies times `gain_B11`; above that of the floor where a mean is to be subtracted from it.

        The mean takes any constant away, and a band that lies on its floor is exactly 0 this way, as is its mean. Of
        2,000 frames at -100 dB a float32 sum is off by 6e-4 dB in each of them, which a network whose norms have learnt
        that such a band never moves magnifies.
        """
        spec = self.frontend
        from_floor = spec.normalize != "none"
        if gain_B11 is not None:
            energy_BTF = energy_BTF * (gain_B11 / spec.floor if from_floor else gain_B11)
        elif from_floor:
            energy_BTF = energy_BTF * (1 / spec.floor)
        log_BTF = energy_BTF.clamp_min(1.0 if from_floor else spec.floor).log()
        return log_BTF * _DECIBEL if spec.log == "db" else log_BTF

    def _normalize(self, features_BTF: Tensor, valid_BT: Tensor, counts_B: Tensor) -> Tensor:
        """Subtract the mean over each row's own frames, and divide by the deviation where that is asked for."""
        if self.frontend.normalize == "none":
            return features_BTF
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
