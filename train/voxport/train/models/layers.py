"""Layers that PyTorch has in a slower form, or for GPUs alone.

Dropout whose masks cost a CPU a quarter of PyTorch's; and batch normalisation over the whole batch when several
CPU processes share it. PyTorch's `SyncBatchNorm` does that on GPUs only. With either, N processes learn what one
process would.
"""

import torch
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class HostDropout(nn.Dropout):
    """Dropout; in training on a CPU the mask is made of 32 random bits per element.

    PyTorch draws each element of a mask as a 53-bit fraction, one at a time; at the reference rate of 0.3
    that is a sixth of a training step. Here the generator fills the mask with bits in one go, and an
    element is kept where they fall below a threshold. The rate is exact to 2^-32, finer than the float32 that
    it multiplies. Elsewhere (GPU, compiled, evaluation) this is `nn.Dropout` itself. There are no weights.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Dropout gives it
        if not self.training or self.p == 0 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        keep = 1.0 - self.p
        words = torch.empty((input.numel() + 1) // 2, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int32)[: input.numel()].view(input.shape)
        return input * (bits < round(keep * 2**32) - 2**31).to(input.dtype).mul_(1.0 / keep)


def use_host_dropout(network: nn.Module) -> None:
    """Put `HostDropout` in the place of every `nn.Dropout` of `network`."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, HostDropout(child.p))


class CpuSyncBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` whose statistics in training are those of all processes' inputs together.

    Every process must bring as many values, as the equal shares of a batch do.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.BatchNorm1d gives it
        """(B, C) or (B, C, T) → the same shape."""
        if not self.training:
            return super().forward(input)
        others = [dim for dim in range(input.dim()) if dim != 1]
        world = torch.distributed.get_world_size()
        count = world * input.numel() // input.shape[1]
        mean = all_reduce(input.mean(dim=others)) / world  # type: ignore[no-untyped-call]
        centred = input - _per_channel(mean, input)
        # Squares of centred values: the mean of squares less the squared mean would cancel in float32.
        variance = all_reduce(centred.square().mean(dim=others)) / world  # type: ignore[no-untyped-call]
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * _per_channel(scale, input) + _per_channel(self.bias, input)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics; as in PyTorch, the remembered variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class CpuLayerSync(LayerSync):
    """Lightning's hook that changes batch normalisation for a run on several CPU processes, and back."""

    def apply(self, model: nn.Module) -> nn.Module:
        return _swap(model, nn.BatchNorm1d, CpuSyncBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        return _swap(model, CpuSyncBatchNorm, nn.BatchNorm1d)


def _swap(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new  # weights, statistics and settings stay as they are
    return model


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(C,) → a shape that broadcasts against (B, C) or (B, C, T)."""
    return values.view(1, -1, *[1] * (like.dim() - 2))
