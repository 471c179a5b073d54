"""The optimisers that a recipe may name."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from voxport.train.recipe import TrainOptions

_SMALLEST_SIDE = 8  # matrices that are narrower have too few directions to make equal


class FullMuon(torch.optim.Muon):
    """PyTorch's Muon, scaled as AdamW, whose matrices on a CPU are made orthogonal in their gradients' precision.

    PyTorch's own casts them to bfloat16 everywhere, whose products a CPU without instructions for it computes slowly.
    """

    def __init__(self, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(weights, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self._on_cpu = all(weight.device.type == "cpu" for weight in weights)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, after `closure` has computed loss and gradients where it is given."""
        if not self._on_cpu:
            return super().step(closure)  # type: ignore[no-untyped-call]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, share = self.state[weight], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - share)
        update = gradient.lerp(state["momentum_buffer"], share)
        update = orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """`matrix` (m, n) with all of its singular values brought near 1, by Newton and Schulz's iteration.

    `coefficients` a, b, c are those of the polynomial a x + b x³ + c x⁵, which each of `steps` applies to every
    singular value, after division by the Frobenius norm, or `eps` where that is smaller.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=eps)
    a, b, c = coefficients
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found


class MatrixOptimizer(torch.optim.Optimizer):
    """Muon for the matrices of hidden layers, AdamW for all else: head, biases, norms, convolutions.

    Muon's step goes in every direction of a matrix by the same length, which a matrix's momentum alone would not; it is
    scaled so that one learning rate serves both.
    Jordan and others: "Muon: An optimizer for hidden layers in neural networks", 2024; the scale after Liu and others:
    "Muon is scalable for LLM training", 2025.
    """

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float, fused: bool | None) -> None:
        matrices = [weight for name, weight in network.named_parameters() if is_hidden_matrix(name, weight)]
        taken = {id(weight) for weight in matrices}
        others = [weight for weight in network.parameters() if id(weight) not in taken]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            FullMuon(matrices, learning_rate, weight_decay),
            torch.optim.AdamW(others, lr=learning_rate, weight_decay=weight_decay, fused=fused),
        )
        super().__init__([{"params": matrices}, {"params": others}], {"lr": learning_rate})
        self._link()

    def _link(self) -> None:
        """The parts' own groups, so that what a schedule sets here reaches them."""
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both, after `closure` has computed loss and gradients where it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both, in order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()


def is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    """Whether Muon takes the network's parameter `name`: a matrix that is neither the head's nor nearly a vector."""
    return weight.ndim == 2 and min(weight.shape) > _SMALLEST_SIDE and not name.startswith("head.")


def build_optimizer(network: nn.Module, options: TrainOptions, on_gpu: bool) -> torch.optim.Optimizer:
    """The recipe's optimiser for all of the network's parameters."""
    fused = on_gpu or None  # one kernel in place of a dozen per weight
    if options.optimizer == "muon":
        return MatrixOptimizer(network, options.learning_rate, options.weight_decay, fused)
    return torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=fused
    )
