"""Dropout whose masks cost a CPU a quarter of PyTorch's."""

import torch
from torch import Tensor, nn


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
