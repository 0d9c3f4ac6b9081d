"""The optimizer of all stages: Muon for the layers' matrices, AdamW for everything else.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") replaces the
momentum of a matrix by the nearest orthogonal one, and needs fewer steps for the same loss.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MATRIX_RATE = 20.0  # the matrices' learning rate in multiples of the others'
MOMENTUM, DECAY = 0.95, 0.01
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients and number of steps of that paper
ITERATIONS = 5


class Optimizer(torch.optim.Optimizer):
    """One step for all parameters of some modules.

    `torch.optim.Muon` orthogonalises in bfloat16, which a processor without instructions for it
    multiplies some thirty times slower than the float32 used here.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        named = [pair for module in modules for pair in module.named_parameters()]
        named = [(name, value) for name, value in named if value.requires_grad]
        matrices = [value for name, value in named if _is_matrix(name, value)]
        chosen = {id(value) for value in matrices}
        rest = [value for _, value in named if id(value) not in chosen]
        groups = [{"params": matrices, "lr_ratio": MATRIX_RATE}, {"params": rest}]
        super().__init__(groups, {"lr": 0.0, "lr_ratio": 1.0})
        self._rest = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=DECAY, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        """Follow the gradients."""
        self._rest.param_groups[0]["lr"] = self.param_groups[1]["lr"]
        self._rest.step()
        for value in self.param_groups[0]["params"]:
            if value.grad is not None:
                self._turn(value, self.param_groups[0]["lr"])

    def _turn(self, value: Tensor, rate: float) -> None:
        state = self.state[value]
        if not state:
            state["momentum"] = torch.zeros_like(value)
        momentum = state["momentum"].lerp_(value.grad, 1 - MOMENTUM)
        direction = orthogonal(value.grad.lerp(momentum, MOMENTUM))
        tall = max(1.0, value.shape[0] / value.shape[1]) ** 0.5
        value.mul_(1 - rate * DECAY).add_(direction, alpha=-rate * tall)

    def state_dict(self) -> dict:
        return {"matrices": super().state_dict(), "rest": self._rest.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state["matrices"])
        self._rest.load_state_dict(state["rest"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Near the orthogonal matrix (n,m) that is nearest: all singular values about 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def _is_matrix(name: str, value: Tensor) -> bool:
    """Weights of linear maps inside a transformer's layers; SAM's position tables are no maps."""
    return value.ndim == 2 and "layers." in name and "rel_pos" not in name
