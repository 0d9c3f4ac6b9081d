"""One of several processes of torchrun: trains `see` and leaves what it has learnt and drawn.

Arguments: folder, then the numbers of steps after which it is stopped.
"""

import sys
from pathlib import Path

import torch
from square_scenes import square_scenes
from torch import distributed

from lisa_ros.training.loop import Schedule, train
from lisa_ros.training.ranks import join_ranks
from lisa_tabletop.training.nano import nano_network
from lisa_tabletop.training.pretrain_sam import See


class Watched(See):
    """Keeps the first picture of every batch."""

    def loss(self, network, batch):
        seen.append(batch[0].sam[0].clone())
        return super().loss(network, batch)


torch.set_num_threads(1)
folder, stops = Path(sys.argv[1]), [int(stop) for stop in sys.argv[2:]]
rank = join_ranks("cpu")
seen: list[torch.Tensor] = []
for steps in stops:
    torch.manual_seed(0)
    network = nano_network()
    stage = Watched(network, square_scenes(), batch=1)
    modules = [network.image_encoder, network.mask_decoder, stage]
    train("see", network, stage, modules, Schedule(steps, 1e-3, warm_up=1), folder, 7, rank)
torch.save({"network": network.state_dict(), "seen": seen}, folder / f"rank{rank.number}.pt")
distributed.destroy_process_group()
