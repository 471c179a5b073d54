"""Weights of the trained network, moved into matrix products in float64.

Every product here is `x @ weight + bias`, so weights have shape (in, out): ONNX Runtime, TensorRT and
int8 quantisation know that form best. Folding changes no answer but its rounding, and is done in
float64 so that the rounding happens once, at the end.
"""

import torch
from torch import Tensor, nn


class Product(nn.Module):
    """x (…, in) → x @ weight + bias, (…, out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", bias.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias

    def scaled(self, factor: Tensor | float) -> "Product":
        """This product with its output multiplied by `factor`, a number or (out,)."""
        return Product(self.weight * factor, self.bias * factor)


def linear(module: nn.Linear | nn.Conv1d) -> Product:
    """A linear layer, or a convolution over single frames, as a product."""
    weight = module.weight.flatten(1)  # (out, in, 1) of a convolution → (out, in)
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias
    return Product(double(weight).T, double(bias))


def after_norm(norm: nn.LayerNorm, product: Product) -> Product:
    """`product` of `norm`, as a product of what `norm` gives before its gain and offset."""
    gain, offset = double(norm.weight), double(norm.bias)
    return Product(gain[:, None] * product.weight, product.bias + offset @ product.weight)


def before_norm(product: Product, norm: nn.Module | None) -> Product:
    """`product` with the trained batch normalisation (or identity) that follows it."""
    gain, offset = batch_norm(norm or nn.Identity(), product.weight.shape[1])
    return Product(product.weight * gain, product.bias * gain + offset)


def batch_norm(norm: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Gain and offset, each (channels,), of a trained batch normalisation or of an identity."""
    if isinstance(norm, nn.Identity):
        return torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    if not isinstance(norm, nn.BatchNorm1d) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"expected a BatchNorm1d with running statistics, found {norm}")
    gain = double(norm.weight) / torch.sqrt(double(norm.running_var) + norm.eps)
    return gain, double(norm.bias) - gain * double(norm.running_mean)


def double(tensor: Tensor) -> Tensor:
    """A detached float64 copy."""
    return tensor.detach().to("cpu", torch.float64)
