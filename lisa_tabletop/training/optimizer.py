"""The optimizer of all stages: Muon for the layers' matrices, AdamW for everything else.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") replaces the
momentum of a matrix by the nearest orthogonal one, and needs fewer steps for the same loss.
"""

from __future__ import annotations

from collections import defaultdict
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
    multiplies some thirty times slower than the float32 used here, and takes the matrices one by
    one; here those of one shape are one batch.
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
        shapes = defaultdict(list)
        for value in self.param_groups[0]["params"]:
            if value.grad is not None:
                shapes[value.shape].append(value)
        for values in shapes.values():
            self._turn(values, self.param_groups[0]["lr"])

    def _turn(self, values: list[Tensor], lr: float) -> None:
        """One step of Muon for matrices of one shape."""
        for value in values:
            if not self.state[value]:
                self.state[value]["momentum"] = torch.zeros_like(value)
        momenta = [self.state[value]["momentum"] for value in values]
        gradients = [value.grad for value in values]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterov = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM))
        rows, columns = values[0].shape
        tall = max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(values, 1 - lr * DECAY)
        torch._foreach_add_(values, orthogonal(nesterov).unbind(), alpha=-lr * tall)

    def state_dict(self) -> dict:
        return {"matrices": super().state_dict(), "rest": self._rest.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state["matrices"])
        self._rest.load_state_dict(state["rest"])


def orthogonal(matrices: Tensor) -> Tensor:
    """Near the orthogonal matrices (...,n,m) that are nearest: all singular values about 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def _is_matrix(name: str, value: Tensor) -> bool:
    """Weights of linear maps inside a transformer's layers; SAM's position tables are no maps."""
    return value.ndim == 2 and "layers." in name and "rel_pos" not in name
