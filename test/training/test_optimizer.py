"""The optimizer: matrices turn by orthogonal steps, the rest follows AdamW, nothing is left out."""

import pytest
import torch
from torch import nn

from lisa_tabletop.training.optimizer import Optimizer, orthogonal


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 16)])
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(x)


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16)])
def test_orthogonal_matrices_keep_the_direction(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    turned = orthogonal(matrix)
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.5 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ vh
    assert (turned * nearest).sum() / (turned.norm() * nearest.norm()) > 0.97


def test_every_parameter_moves_and_the_loss_goes_down():
    torch.manual_seed(0)
    net, x = Small(), torch.randn(64, 16)
    y = x @ torch.randn(16, 4)
    optimizer = Optimizer([net])
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in net.parameters()
    }
    before = [p.detach().clone() for p in net.parameters()]
    losses = []
    for _ in range(60):
        for group in optimizer.param_groups:
            group["lr"] = group["lr_ratio"] * 2e-3
        loss = (net(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
