"""Training crops gathered where the network is: the corpus lies in the device's memory.

The reference networks are small. On a large GPU a step is shorter than it takes to gather a batch on the
host and copy it; with the features on the device, all that a step takes from the host is its number.
"""

import numpy as np
import torch
from torch import Tensor

from voxport.train.data import CropBatches
from voxport.train.training.lightning_module import TrainingError

PLANNED_STEPS = 1024  # crops of so many steps are chosen at once and copied in one piece
SHARE_OF_FREE_MEMORY = 0.5  # what a corpus may take; the rest is the network's
_COPY_ROWS = 1 << 18  # rows copied at a time, so that the host never holds the corpus twice


class ResidentCrops:
    """The batches of a `CropBatches`, number for number, as tensors on `device`."""

    def __init__(self, batches: CropBatches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._features = _copy(batches.pack.rows[: batches.last_row], device)
        self._window = torch.arange(batches.crop_frames, device=device)
        self._pad = None if batches.repeats else float(batches.pad)
        self._block = -1  # number of the block of steps that `_plans` holds
        self._plans = torch.empty(0)

    def batch(self, step: int, rows: slice) -> tuple[Tensor, Tensor]:
        """Features (rows, crop_frames, n_mels) float32 and speakers (rows,) int64 of `step`, both on the device."""
        starts, offsets, frames, speakers = self._plan(step)[:, rows]
        features = self._features[starts.unsqueeze(1) + (offsets.unsqueeze(1) + self._window) % frames.unsqueeze(1)]
        if self._pad is not None:
            features.masked_fill_((self._window >= frames.unsqueeze(1)).unsqueeze(2), self._pad)
        return features, speakers

    def _plan(self, step: int) -> Tensor:
        """(4, batch): starts, offsets, frames and speakers of `step`."""
        block, position = divmod(step, PLANNED_STEPS)
        if block != self._block:
            first = block * PLANNED_STEPS
            plans = np.stack([np.stack(self._batches.plan(i)) for i in range(first, first + PLANNED_STEPS)])
            self._plans, self._block = torch.from_numpy(plans).to(self._device), block
        return self._plans[position]


def goes_on_device(batches: CropBatches, device: torch.device, wish: str) -> bool:
    """Whether the corpus is kept on `device`: `wish` is yes, no, or auto (on a GPU with room for it).

    Raises:
        TrainingError: it was asked for, and there is not enough memory.
    """
    if wish == "no" or (wish == "auto" and device.type != "cuda"):
        return False
    if device.type != "cuda":
        return True
    needed, free = batches.last_row * batches.pack.n_mels * 4, torch.cuda.mem_get_info(device)[0]
    if needed <= SHARE_OF_FREE_MEMORY * free:
        return True
    if wish == "auto":
        return False
    raise TrainingError(
        f"--resident yes: the features take {needed / 2**30:.1f} GiB, and {device} has {free / 2**30:.1f} GiB free, of "
        f"which they may take {SHARE_OF_FREE_MEMORY:.0%}; use --resident no"
    )


def _copy(rows: np.ndarray, device: torch.device) -> Tensor:
    """`rows` of a memory-mapped file, on the device."""
    copy = torch.empty(rows.shape, dtype=torch.float32, device=device)
    for start in range(0, len(rows), _COPY_ROWS):
        part = np.array(rows[start : start + _COPY_ROWS])  # a map is read-only, which torch does not take
        copy[start : start + _COPY_ROWS] = torch.from_numpy(part)
    return copy
