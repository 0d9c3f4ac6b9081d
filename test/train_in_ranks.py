"""One of several processes of torchrun: trains SAM and leaves what it has learnt and drawn.

Arguments: folder, number of steps, and the step in which the first process is told to stop, or 0.
It then goes on. The first process is slow to write, as a busy disk is. At the end the processes
look for the checkpoint in a folder of their own each, where only the first one has it; and, without
a stop, train for a time of which the second one, slow to begin, has less left.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from square_scenes import square_scenes
from torch import distributed

from lisa_ros.errors import LisaError
from lisa_ros.training import loop
from lisa_ros.training.loop import Schedule, join_ranks, train
from lisa_tabletop.training.nano import nano_network
from lisa_tabletop.training.optimizer import Optimizer
from lisa_tabletop.training.pretrain_towers import PretrainSam


class Watched(PretrainSam):
    """Keeps the first view of every batch."""

    def loss(self, network, batch):
        seen.append(batch.rgb[0].clone())
        if len(seen) == stop and rank.is_main_process:
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().loss(network, batch)


def write_late(path, content, write=loop.write_tensors):
    time.sleep(1)
    write(path, content)


loop.write_tensors = write_late
torch.set_num_threads(1)
folder, steps, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rank = join_ranks("cpu")
seen: list[torch.Tensor] = []
scenes = square_scenes(folder / f"scenes{rank.process_index}")
for _ in range(1 + bool(stop)):
    torch.manual_seed(0)
    network = nano_network()
    stage = Watched(network, scenes, batch=1)
    modules = [network.image_encoder, network.mask_decoder, stage]
    schedule = Schedule(steps, 1e-3, warm_up=1)
    with contextlib.suppress(KeyboardInterrupt):
        train("pretrain_sam", network, stage, Optimizer(modules), schedule, folder, seed=7)
weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
learnt = {"network": weights, "seen": list(seen)}
own, refused = folder / f"own{rank.process_index}", ""
own.mkdir()
if rank.is_main_process:
    shutil.copy(folder / "pretrain_sam.pt", own)
try:
    train("pretrain_sam", network, stage, Optimizer(modules), schedule, own, seed=7)
except LisaError as error:
    refused = str(error)
timed = 0
if not stop:
    seen.clear()
    budget = Schedule(10_000, 1e-3, warm_up=1, seconds=(4.0, 1.0)[rank.process_index])
    train("pretrain_vision", network, stage, Optimizer(modules), budget, folder, seed=7)
    timed = len(seen)
torch.save(learnt | {"refused": refused, "timed": timed}, folder / f"rank{rank.process_index}.pt")
distributed.destroy_process_group()
