"""Energies in mel bands of overlapping frames, by matrix products alone.

The STFT operator is not used: that of ONNX Runtime is off by 1e-3 at 400 points, and other runtimes have none.

Letters in shapes: B utterances, L samples each, T frames, W = win_length, N = n_fft, P bins that a band hears, F mel
bands; of the transform in two steps: b samples in a block, A blocks in a frame, R = N / b residues.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.runtime.frontend import log_mel as numpy_frontend
from voxport.runtime.frontend.spec import Frontend

_WORTH = 2.0  # by how much two steps must be fewer multiplications than one, for the passes between them
_FEWEST = 4  # residues, below which the first step would spare nothing

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """The bins that some band hears, (P,), and what of each the bands hear, (P, F), scale of the spectrum included."""

    used: npt.NDArray[np.intp]
    filters: Array

    @classmethod
    def of(cls, frontend: Frontend) -> "Bins":
        """Those of a frontend."""
        filters = numpy_frontend.mel_filterbank(frontend) * frontend.spectrum_scale
        used = np.flatnonzero(filters.any(axis=1))
        return cls(used, filters[used])


class WholeSpectrum(nn.Module):
    """Signal (B, L) → energies (B, T, F). Everything between framing and power is one product, (W, 2P).

    Removal of DC, pre-emphasis within a frame, scaling and window are linear too, and are in it.
    """

    basis_WP: Tensor
    mel_PF: Tensor

    def __init__(self, frontend: Frontend, bins: Bins) -> None:
        super().__init__()
        self.frontend, self.bins = frontend, len(bins.used)
        self.samples = frontend.win_length
        real, imaginary = _fourier(frontend, bins.used)
        self.register_buffer("basis_WP", torch.from_numpy(np.concatenate([real, imaginary], axis=1)))
        self.register_buffer("mel_PF", torch.from_numpy(bins.filters))

    def forward(self, signal_BL: Tensor) -> Tensor:
        """L is the length of some whole frames."""
        hop, width = self.frontend.hop_length, self.frontend.win_length
        # A frame is some whole hops side by side: slices of one view, where a gather would copy sample by sample.
        parts = -(-width // hop)
        frames = (signal_BL.shape[1] - width) // hop + 1
        filled_BL = F.pad(signal_BL, (0, parts * hop - width))
        hops_BTH = filled_BL.reshape(filled_BL.shape[0], frames + parts - 1, hop)
        pieces = [hops_BTH[:, i : i + frames, : min(hop, width - i * hop)] for i in range(parts)]
        real_BTP, imaginary_BTP = torch.split(torch.cat(pieces, dim=-1) @ self.basis_WP, self.bins, dim=-1)
        return _powers(self.frontend, real_BTP, imaginary_BTP) @ self.mel_PF


class TwoStepSpectrum(nn.Module):
    """Signal (B, L) → energies (B, T, F), by a Fourier transform in two steps (Cooley and Tukey, 1965).

    With n = b·a + i and c = k mod R, bin k of a frame x is Σᵢ e^(-2πj·k·i/N) · Y(c, i), where
    Y(c, i) = Σₐ w(n) x(n) e^(-2πj·c·a/R). The first step, from samples to Y, is a convolution over the blocks for each
    i, its stride the hop; the second is a product for each residue c. Both are real: a residue and its negative are
    conjugate, and so have the same bins. For 199 bins of 400 samples that is a seventh of the multiplications.
    """

    first: Tensor
    real_RbI: Tensor
    imaginary_RbI: Tensor
    mel_FP: Tensor

    def __init__(self, frontend: Frontend, bins: Bins, block: int) -> None:
        super().__init__()
        self.frontend, self.block = frontend, block
        self.pairs = frontend.n_fft // block // 2  # of residues: 0 with R/2, and each other one with its negative
        first = _first_step(frontend, block)
        self.samples = first.shape[-1] * block
        self.register_buffer("first", torch.from_numpy(first))
        real, imaginary, places = _second_step(bins.used, frontend.n_fft, block)
        self.register_buffer("real_RbI", torch.from_numpy(real))
        self.register_buffer("imaginary_RbI", torch.from_numpy(imaginary))
        mel = np.zeros((bins.filters.shape[1], self.pairs * block))
        mel[:, places] = bins.filters.T
        self.register_buffer("mel_FP", torch.from_numpy(mel))

    def forward(self, signal_BL: Tensor) -> Tensor:
        """L is the length of some whole frames."""
        rows, block = signal_BL.shape[0], self.block
        samples_BbJ = signal_BL.reshape(rows, -1, block).transpose(1, 2)
        parts_BIT = F.conv1d(samples_BbJ, self.first, stride=self.frontend.hop_length // block, groups=block)
        parts_BRIT = parts_BIT.reshape(rows, block, 2 * self.pairs, -1).transpose(1, 2)
        parts_BRIT = parts_BRIT.reshape(rows, self.pairs, 2 * block, -1)
        power_BRbT = _powers(self.frontend, self.real_RbI @ parts_BRIT, self.imaginary_RbI @ parts_BRIT)
        return (self.mel_FP @ power_BRbT.reshape(rows, self.pairs * block, -1)).transpose(1, 2)


def mel_spectrum(frontend: Frontend) -> WholeSpectrum | TwoStepSpectrum:
    """Of a signal (B, L) the energies (B, T, F), in the form that multiplies least.

    Frames begin at the signal's first sample, and `samples` of it are read from each one's first on.
    """
    bins = Bins.of(frontend)
    block = best_block(frontend, len(bins.used))
    return WholeSpectrum(frontend, bins) if block is None else TwoStepSpectrum(frontend, bins, block)


def best_block(frontend: Frontend, bins: int) -> int | None:
    """The samples in a block for the transform in two steps; None where one step is as good, or all that is right.

    A frame has to be a window times samples: the mean of a frame, and a past that ends with it, are not in that form.
    """
    if frontend.remove_dc or (frontend.preemphasis and frontend.preemphasis_over == "frame"):
        return None
    width, common = frontend.win_length, math.gcd(frontend.n_fft, frontend.hop_length)
    costs = {width * 2 * bins / _WORTH: -1}
    for block in range(common, 0, -1):
        residues = frontend.n_fft // block
        if common % block == 0 and residues % 2 == 0 and residues >= _FEWEST:
            costs.setdefault(residues * -(-width // block) * block + residues * 2 * block * block, block)
    best = costs[min(costs)]
    return best if best > 0 else None


def _first_step(frontend: Frontend, block: int) -> Array:
    """Taps (b · R, 1, A) of a convolution with b groups: for each sample i of a block all parts of Y(·, i).

    First come residues 0 and R/2, which are real, then the real and the imaginary part of each other one.
    """
    blocks, residues = -(-frontend.win_length // block), frontend.n_fft // block
    window = np.zeros(blocks * block)
    window[: frontend.win_length] = numpy_frontend.window(frontend) * frontend.sample_scale
    turns = 2 * np.pi * np.outer(np.arange(residues // 2 + 1), np.arange(blocks)) / residues
    cosines, sines = np.cos(turns), -np.sin(turns)
    rows = [cosines[0], cosines[-1], *(row for c in range(1, residues // 2) for row in (cosines[c], sines[c]))]
    taps_bRA = window.reshape(blocks, block).T[:, None, :] * np.array(rows)
    return np.asarray(taps_bRA.reshape(-1, 1, blocks))


def _second_step(used: npt.NDArray[np.intp], n_fft: int, block: int) -> tuple[Array, Array, list[int]]:
    """From Y to real and imaginary parts of bins, (R/2, b, 2b) each, and which of R/2 · b places each bin has."""
    residues = n_fft // block
    real = np.zeros((residues // 2, block, 2 * block))
    imaginary, places = np.zeros_like(real), []
    filled = [0] * (residues // 2)
    for k in used.tolist():
        residue = min(k % residues, -k % residues)
        alike = k if k % residues == residue else n_fft - k  # the conjugate bin has the same power
        turn = 2 * np.pi * alike * np.arange(block) / n_fft
        group = residue % (residues // 2)
        row = filled[group]
        filled[group] += 1
        places.append(group * block + row)
        if group == 0:  # residues 0 and R/2 share it, each with a half
            half = slice(0, block) if residue == 0 else slice(block, 2 * block)
            real[group, row, half], imaginary[group, row, half] = np.cos(turn), -np.sin(turn)
        else:
            real[group, row] = np.concatenate([np.cos(turn), np.sin(turn)])
            imaginary[group, row] = np.concatenate([-np.sin(turn), np.cos(turn)])
    return real, imaginary, places


def _powers(frontend: Frontend, real: Tensor, imaginary: Tensor) -> Tensor:
    power = real * real + imaginary * imaginary
    return power if frontend.power == 2.0 else power ** (frontend.power / 2)


def _fourier(frontend: Frontend, bins: npt.NDArray[np.intp]) -> tuple[Array, Array]:
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
