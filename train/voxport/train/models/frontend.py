"""Log-mel features in PyTorch: the runtime's frontend, batched, on any device, with gradients."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxport.runtime.errors import LengthError
from voxport.runtime.frontend import log_mel as numpy_frontend
from voxport.runtime.frontend.spec import Frontend


class TorchFrontend(nn.Module):
    """Samples in [-1, 1] of shape (B, n) → features of shape (B, T, n_mels); (n,) → (T, n_mels).

    The numbers equal `voxport.runtime.frontend.log_mel.compute_features`. All utterances of a batch have the
    same length n: a frontend that normalises over the utterance would otherwise count the padding.
    The tables are no part of the state dict, since the contract's definition already says them.
    For float64 pass `dtype=torch.float64`: `.double()` would keep the tables' float32 rounding.
    """

    window: Tensor
    mel: Tensor

    def __init__(self, frontend: Frontend, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.frontend = frontend
        window = numpy_frontend.window(frontend) * frontend.sample_scale
        mel = numpy_frontend.mel_filterbank(frontend) * frontend.spectrum_scale
        self.register_buffer("window", torch.from_numpy(window).to(dtype), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel).to(dtype), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Features of `samples`, in the tables' dtype.

        Raises:
            LengthError: too few samples for one frame.
        """
        # Mixed precision must not reach the mel product: bfloat16 keeps three digits of an energy.
        with torch.autocast(samples.device.type, enabled=False):
            return self._features(samples.to(self.window.dtype))

    def _features(self, samples: Tensor) -> Tensor:
        spec = self.frontend
        frames = self._condition(self._frames(samples)) * self.window
        spectrum = torch.fft.rfft(frames, spec.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        if spec.power != 2.0:
            power = power.pow(spec.power / 2)
        energies = power @ self.mel
        if spec.level is not None:
            energies = energies * (spec.level / self._speech_level(energies).clamp_min(spec.quietest))
        floor = spec.floor
        if spec.normalize != "none":  # the mean takes any constant away, and a band on its floor is exactly 0 this way
            energies, floor = energies / floor, 1.0
        energies = energies.clamp_min(floor)
        features: Tensor = energies.log() if spec.log == "ln" else 20 * energies.log10()
        if spec.normalize == "none":
            return features
        features = features - features.mean(dim=-2, keepdim=True)
        if spec.normalize == "mean_std":
            variance = features.square().mean(dim=-2, keepdim=True)
            features = features / (variance.clamp_min(numpy_frontend.VARIANCE_FLOOR).sqrt() + numpy_frontend.STD_OFFSET)
        return features

    @staticmethod
    def _speech_level(energies: Tensor) -> Tensor:
        """Energies (…, T, F) → levels (…, 1, 1), as `voxport.runtime.frontend.log_mel.speech_level`."""
        frames = energies.sum(dim=-1)
        # The square root of 0 has no finite gradient; as an amplitude the least normal number is nothing.
        amplitudes = frames.clamp_min(torch.finfo(frames.dtype).tiny).sqrt().sum(dim=-1)
        return (frames.sum(dim=-1) / amplitudes).square()[..., None, None]

    def _frames(self, samples: Tensor) -> Tensor:
        spec, length = self.frontend, samples.shape[-1]
        count = numpy_frontend.num_frames(spec, length)
        if count < 1:
            raise LengthError(
                f"{length} samples are too few for one frame of frontend {spec.name}: "
                f"at least {numpy_frontend.min_samples(spec, 1)} are needed"
            )
        if spec.preemphasis and spec.preemphasis_over == "signal":
            samples = torch.cat((samples[..., :1], samples[..., 1:] - spec.preemphasis * samples[..., :-1]), dim=-1)
        start = numpy_frontend.first_sample(spec)
        stop = start + (count - 1) * spec.hop_length + spec.win_length
        if start < 0 or stop > length:
            samples = self._extend(samples, start, stop)
        else:
            samples = samples[..., start:stop]
        return samples.unfold(-1, spec.win_length, spec.hop_length)

    def _extend(self, samples: Tensor, start: int, stop: int) -> Tensor:
        """Samples start…stop - 1, where those outside the utterance are zeros or reflections."""
        length, framing = samples.shape[-1], self.frontend.framing
        if framing == "pad_end":
            return functional.pad(samples, (0, stop - length))
        index = torch.arange(start, stop, device=samples.device)
        if framing == "center_reflect":  # … 2 1 | 0 1 2 … n-1 | n-2 …
            period = max(1, 2 * length - 2)
            index = index.remainder(period)
            return samples[..., torch.minimum(index, period - index)]
        index = index.remainder(2 * length)  # … 1 0 | 0 1 … n-1 | n-1 …
        return samples[..., torch.minimum(index, 2 * length - 1 - index)]

    def _condition(self, frames: Tensor) -> Tensor:
        spec = self.frontend
        if spec.remove_dc:
            frames = frames - frames.mean(dim=-1, keepdim=True)
        if spec.preemphasis and spec.preemphasis_over == "frame":
            past = torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
            frames = frames - spec.preemphasis * past
        return frames
