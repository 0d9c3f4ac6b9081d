"""Follows a recipe on the ranks of torchrun: RECIPE.json MODEL TOWER QUESTIONS OUT STOP.

Where there are several, they first try it with a folder of their own each, as on machines that
share none.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from lisa_ros.errors import LisaError
from lisa_ros.evaluation.reasonseg import read_items
from lisa_ros.model.checkpoint import load
from lisa_ros.training import recipe as recipes
from lisa_ros.training.examples import Questions
from lisa_ros.training.loop import join_ranks
from lisa_ros.training.objective import Objective
from lisa_ros.training.recipe_file import Recipe


def follow(settings: dict, model: str, tower: str, questions: str, out: str, stop: int) -> None:
    """Train to the end; with `stop`, be interrupted after so many batches first, and go on."""
    recipe, ranks = Recipe(**settings), join_ranks("cpu")
    items, forward = read_items(Path(questions)), Objective.forward
    if ranks.num_processes > 1:
        own = replace(recipe, output=f"{recipe.output}{ranks.process_index}")
        lisa = load(model, vision_tower=tower)
        with pytest.raises(LisaError, match="folders must be the same on all machines"):
            recipes.run(own, lisa, Questions.prepare(lisa, items, recipe.batch), "questions")
    for last in filter(None, (stop, -1)):
        lisa, steps = load(model, vision_tower=tower), []

        def counted(objective, examples, steps=steps, last=last):
            steps.append(1)
            if len(steps) == last:
                os.kill(os.getpid(), signal.SIGINT)
            return forward(objective, examples)

        Objective.forward = counted
        try:
            source = Questions.prepare(lisa, items, recipe.batch)
            figures = recipes.run(recipe, lisa, source, "questions")
        except KeyboardInterrupt:
            continue
        finally:
            Objective.forward = forward
        sharded = [isinstance(p, DTensor) for p in lisa.network.parameters()]
        tensors = recipes.merged(lisa.network, recipe.lora_alpha / recipe.lora_rank, torch.float32)
        if ranks.is_main_process:
            found = {"network": tensors, "figures": figures, "sharded": all(sharded)}
            torch.save(found | {"steps": len(steps)}, out)


if __name__ == "__main__":
    name, *more, last = sys.argv[1:]
    follow(json.loads(Path(name).read_text()), *more, int(last))
