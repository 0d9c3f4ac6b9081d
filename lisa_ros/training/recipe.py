"""Training a LISA: `accelerate launch -m lisa_ros.training.recipe FILE.yaml`.

LISA (Lai et al., arXiv 2308.00692) trains LoRA matrices (Hu et al., arXiv 2106.09685) on the
language model's q and v, and in full its word embeddings, its head, the projection of [SEG] and
SAM's mask decoder. CLIP, the projector and SAM's encoder stay as they are. A recipe says from what,
on what and for how long; the presets lie in `recipes/`, `lisa-ros finetune` runs one of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lisa_ros.errors import LisaError, WriteError
from lisa_ros.evaluation.evaluate import overlap
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.published import CATALOGUE, open_published
from lisa_ros.evaluation.reasonseg import Item, read_dataset, read_items
from lisa_ros.model.checkpoint import WEIGHTS_FILE, Lisa, open_checkpoint, save
from lisa_ros.model.hf_checkpoint import unlike_official, write_official
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.weights import precision
from lisa_ros.training.examples import MixtureBatches, Questions, validation_example
from lisa_ros.training.feature_cache import GB, FeatureCache, bytes_of_an_image
from lisa_ros.training.loop import (
    Schedule,
    join_ranks,
    require_equal,
    sharded_like,
    train,
    whole,
    write_tensors,
)
from lisa_ros.training.mixture import Mixture
from lisa_ros.training.objective import ImageExample, Objective
from lisa_ros.training.recipe_file import PRESETS, Recipe, RecipeError, read_recipe
from lisa_ros.writing import remove_abandoned, writable_folder, write_file

NAME = "lisa"  # of the run, its checkpoint and its log
_PEER_GONE = re.compile("(closed|reset) by peer|Broken pipe|remote process exited|NCCL")
_NOT_COMPARED = {"output", "workers", "shard", "validation", "questions", "cache", "cache_gb"}
"""what an interrupted run may go on with otherwise"""


@dataclass(frozen=True)
class RecipeStage:
    """The stage of the loop: batches of a source, and their loss."""

    objective: Objective
    source: MixtureBatches | Questions

    def prepare(self, random: np.random.Generator) -> tuple[ImageExample, ...]:
        return self.source.batch(random)

    def loss(
        self, network: LisaNetwork, batch: tuple[ImageExample, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _ = self.objective(batch)
        return loss.total, {"ce": loss.ce, "bce": loss.bce, "dice": loss.dice}


def by_length(batches: list[tuple[ImageExample, ...]]) -> list[tuple[ImageExample, ...]]:
    """The examples of some batches in as many others, those of like length together."""
    size = len(batches[0])
    examples = [one for batch in batches for one in batch]
    examples.sort(key=lambda one: max(map(len, one.ids)))
    return [tuple(examples[n : n + size]) for n in range(0, len(examples), size)]


def open_mixture(recipe: Recipe) -> Mixture:
    """The published sets of a recipe. DatasetError: what of them is missing, and where."""
    root = Path(recipe.data)
    try:
        groups = {g: [open_published(root, n) for n in some] for g, some in recipe.sets.items()}
    except DatasetError as error:
        raise DatasetError(
            f"{error} (`lisa-ros data check {root}` says what is missing and where to get it)"
        ) from error
    return Mixture(groups, recipe.rates, recipe.explanatory)


def start(recipe: Recipe) -> Lisa:
    """The model that a recipe begins with, in the memory of the processor."""
    dtype = getattr(torch, recipe.precision)
    tower = Path(recipe.vision_tower) if recipe.vision_tower else None
    if recipe.llava:
        from lisa_ros.model.llava import from_llava

        if not recipe.sam:
            raise RecipeError("llava needs sam beside it: the file of SAM's weights")
        return from_llava(
            Path(recipe.llava), Path(recipe.sam), tower, dtype=dtype, seed=recipe.seed
        )
    if not recipe.model:
        raise RecipeError("a recipe begins with model, or with llava and sam: give one of them")
    # not `load`: it would wrap what this processor cannot multiply, and a GPU can
    source = open_checkpoint(recipe.model, tower)
    if recipe.official and (reason := unlike_official(source.config)):
        raise RecipeError(
            f"{recipe.model} cannot be written in the released layout ({reason}): set official: "
            "false, which leaves the native one"
        )
    return source.read(dtype, torch.device("cpu"))


def run(
    recipe: Recipe,
    lisa: Lisa,
    source: MixtureBatches | Questions,
    digest: str,
    cache: FeatureCache | None = None,
) -> dict[str, float]:
    """Train `lisa` in place and write it to `recipe.output`; the figures of its last validation.

    `digest` tells the data of a run from others. Interrupted, it leaves its state in the output's
    folder `training`, and goes on from it when called again with the same model, data and settings.

    Raises:
        WriteError: there is no room for what will be written, or no longer.
        LisaError: the output holds the state of another run, or the loss is no number.
    """
    ranks, folder = PartialState(), Path(recipe.output)
    state, network = folder / "training", lisa.network
    settings = {k: v for k, v in asdict(recipe).items() if k not in _NOT_COMPARED}
    settings |= {"model": lisa.config.name, "data": digest}
    items = read_dataset(Path(recipe.validation)) if recipe.validation else []
    if ranks.is_main_process:
        _take_up(state, settings)
    ranks.wait_for_everyone()
    seen = {"data": digest, "validation": len(items), "run": (state / "settings.json").exists()}
    require_equal(seen, "of their run")
    # 1. what is trained
    torch.manual_seed(recipe.seed)  # of the adapters
    parameters = add_trained_parts(network, recipe)
    if recipe.checkpoint_activations:
        model = network.language_model  # whose method had another name in older transformers
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    if ranks.is_main_process:
        _require_room(folder, network, parameters)
    objective = Objective(network, lisa.processor, cache)
    if recipe.shard and ranks.num_processes > 1:
        shard(objective, ranks.device)
        parameters = [p for p in network.parameters() if p.requires_grad]
    how = "each parameter in parts, one on each" if recipe.shard else "all parameters on each"
    if ranks.is_main_process and ranks.num_processes > 1:
        print(f"{ranks.num_processes} processes, {how} ({ranks.device.type})", flush=True)
    # 2. train, or go on
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = Schedule(recipe.steps, recipe.lr, recipe.warm_up, linear=recipe.decay == "linear")
    figures: dict[str, float] = {}

    def validate(step: int) -> Mapping[str, float]:
        figures.update(validation(objective, lisa, items))
        _keep_best(state / "best.pt", network, step, figures)
        return {f"validation/{name}": value for name, value in figures.items()}

    train(
        NAME, network, RecipeStage(objective, source), optimizer, schedule, state,
        seed=recipe.seed, workers=recipe.workers, accumulate=recipe.accumulate,
        epoch=recipe.steps_per_epoch, validate=validate if items else None,
        arrange=by_length if recipe.group_by_length else None,
    )  # fmt: skip
    # 3. an ordinary model again, in both layouts
    if items and (state / "best.pt").exists():
        figures = _load_best(state / "best.pt", network)
        ranks.wait_for_everyone()  # the first one deletes the file when all is written
    half = torch.bfloat16 if network.dtype == torch.bfloat16 else torch.float16
    scale = recipe.lora_alpha / recipe.lora_rank
    tensors = merged(network, scale, half, keep=ranks.is_main_process)
    if ranks.is_main_process:
        _write(recipe, lisa, tensors, figures)
        for name in (f"{NAME}.pt", "best.pt", "settings.json"):
            (state / name).unlink(missing_ok=True)
    ranks.wait_for_everyone()
    return figures


def finetune(
    lisa: Lisa, items: Sequence[Item], folder: Path, *, steps: int, lr: float, seed: int
) -> None:
    """Follow the preset `finetune` with a model that is loaded already, on its device.

    What `run` raises; the written model is native, in half precision.
    """
    given = {"output": str(folder), "questions": folder.name, "model": lisa.config.name}
    given |= {"steps_per_epoch": steps, "lr": lr, "seed": seed, "warm_up": max(1, steps // 10)}
    recipe = read_recipe("finetune", given)
    run(recipe, lisa, Questions.prepare(lisa, items, recipe.batch), digest(items))


def add_trained_parts(network: LisaNetwork, recipe: Recipe) -> list[nn.Parameter]:
    """Add the LoRA matrices and free what is trained in full, in float32; returns all of it."""
    lora = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=["q_proj", "v_proj"],
    )
    inject_adapter_in_model(lora, network.language_model)
    for name, parameter in network.language_model.named_parameters():
        if ".lora_" in name:  # made in the precision of the weight beside it
            parameter.data = parameter.data.float()
    words = network.language_model.embed_tokens
    for part in (words, network.lm_head, network.text_hidden_fcs, network.mask_decoder):
        part.float().requires_grad_(True)
    return [p for p in network.parameters() if p.requires_grad]


def shard(objective: Objective, device: torch.device) -> None:
    """Divide all parameters over the ranks, layer by layer (torch's FSDP2)."""
    network = objective.network
    mesh = init_device_mesh(device.type, (PartialState().num_processes,))
    for tower in (network.language_model, network.vision_tower.encoder, network.image_encoder):
        for layer in tower.layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    objective.sharded = True
    strays = [name for name, p in network.named_parameters() if not isinstance(p, DTensor)]
    if strays:  # a wrapper that fell back to copies would train on, and need eight times the memory
        raise RuntimeError(f"not sharded: {', '.join(strays[:3])}")


def merged(
    network: LisaNetwork, scale: float, dtype: torch.dtype, *, keep: bool = True
) -> dict[str, Tensor]:
    """The tensors without adapters, in `dtype` on the CPU; all ranks must call it."""
    state, tensors = network.state_dict(), {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        plain, stem = name.replace(".base_layer.", "."), name.removesuffix("base_layer.weight")
        parts = [tensor]
        if plain != name:
            parts += [state[f"{stem}lora_{one}.default.weight"] for one in "BA"]
        parts = whole(parts, keep=keep)
        if keep:
            value = parts[0].dequantize().float()  # of torchao; plain ones stay as they are
            if plain != name:
                value = value + scale * parts[1].float() @ parts[2].float()
            tensors[plain] = value.to(precision(plain, dtype)).cpu()
    return tensors


@torch.no_grad()
def validation(objective: Objective, lisa: Lisa, items: Sequence[Item]) -> dict[str, float]:
    """gIoU and cIoU as LISA's authors validate: the answer is given, its mask is compared."""
    training = lisa.network.training
    objective.eval()
    ranks, device = PartialState(), lisa.network.no_mask_embed.weight.device
    own = list(items)[ranks.process_index :: ranks.num_processes]
    rounds, found = -(-len(items) // ranks.num_processes), []
    half = device.type == "cuda" or lisa.network.dtype != torch.float32
    for number in range(rounds):  # all ranks as often, for sharded weights are gathered together
        item = own[min(number, len(own) - 1)] if own else items[0]
        example, truth = validation_example(item, lisa, device, objective.cache)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            _, [mask] = objective([example])
        if number < len(own):
            found.append(overlap((mask[0] > 0).cpu().numpy(), truth))
    objective.train(training)
    rows = [[one.iou, one.intersection, one.union, 1] for one in found] or [[0.0] * 4]
    counts = torch.tensor(rows, dtype=torch.float64, device=device).sum(0)
    iou, intersection, union, count = reduce(counts, "sum").tolist()
    return {"giou": iou / count, "ciou": intersection / (union + 1e-10)}


def _keep_best(path: Path, network: LisaNetwork, step: int, figures: Mapping[str, float]) -> None:
    """Write what is trained, if its gIoU is the best so far."""
    main = PartialState().is_main_process
    better = [
        main
        and not (path.exists() and torch.load(path, weights_only=True)["giou"] >= figures["giou"])
    ]
    better = broadcast_object_list(better) if PartialState().num_processes > 1 else better
    if better[0]:
        trained = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
        content = {"step": step, **figures, "network": whole(trained, keep=main)}
        if main:
            write_tensors(path, content)


def _load_best(path: Path, network: LisaNetwork) -> dict[str, float]:
    """Take up the best weights; returns their figures."""
    best, own = torch.load(path, weights_only=True), network.state_dict()
    with torch.no_grad():
        for name, value in best["network"].items():
            own[name].copy_(sharded_like(value, own[name]))
    return {name: best[name] for name in ("giou", "ciou")}


def _write(
    recipe: Recipe, lisa: Lisa, tensors: dict[str, Tensor], figures: Mapping[str, float]
) -> None:
    """The native layout, the released one below it, and a card; scores mean nothing any more."""
    folder = Path(recipe.output)
    lisa.config = lisa.network.config = replace(
        lisa.config, name=folder.name, score_calibration=None
    )
    if recipe.official:
        write_official(folder / "official", lisa.config, lisa.tokenizer, tensors)
    write_file(folder / "README.md", model_card(recipe, figures))
    save(lisa, folder, tensors)


def model_card(recipe: Recipe, figures: Mapping[str, float]) -> str:
    """What was done, so that whoever finds the weights knows."""
    begun = f"`{recipe.model}`" if recipe.model else f"LLaVA `{recipe.llava}` and SAM"
    said = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    table = f"\n| last validation | |\n|---|---|\n{said}\n" if said else ""
    used, licences = [Path(recipe.questions).name], ""
    if not recipe.questions:
        used = [name for some in recipe.sets.values() for name in some]
        of_each = "; ".join(f"{name}: {CATALOGUE[name].licence}" for name in used)
        licences = f"\nLicences of the data: {of_each}\n"
    return (
        f"---\nlibrary_name: lisa_ros\npipeline_tag: image-segmentation\n---\n"
        f"# {Path(recipe.output).name}\n\nA LISA (arXiv 2308.00692) trained by `lisa_ros`, from"
        f" {begun}, on {', '.join(used)}: {recipe.steps} steps of {recipe.batch} images,"
        f" {recipe.accumulate} times on each rank, learning rate {recipe.lr:g}, LoRA rank"
        f" {recipe.lora_rank}, seed {recipe.seed}.\n{table}{licences}"
    )


def digest(items: Sequence[Item]) -> str:
    """What is asked about which image; equal for the same questions wherever they lie."""
    words = [[item.split, item.image.name, item.instruction, item.shapes] for item in items]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _take_up(state: Path, settings: Mapping) -> None:
    """Begin a run in `state`, or see that the one interrupted there is this one."""
    path = writable_folder(state) / "settings.json"
    for folder in (state, state.parent, state.parent / "official"):
        remove_abandoned(folder)
    if not path.exists():
        write_file(path, json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    other = sorted(name for name in settings if before.get(name) != settings[name])
    if other:
        raise LisaError(
            f"{state} holds a fine-tuning that was interrupted, with another {', '.join(other)};"
            " give the same to go on with it, or name a new folder"
        )


def _require_room(folder: Path, network: LisaNetwork, parameters: Sequence[nn.Parameter]) -> None:
    """Raise WriteError unless the checkpoint and the state of the optimizer have room."""
    trained = sum(p.numel() for p in parameters)
    # the weights with two moments, written beside the ones before; and at last in half precision
    need = 2 * 3 * 4 * trained + 2 * sum(p.numel() for p in network.parameters())
    free = shutil.disk_usage(folder).free
    if free < need:
        raise WriteError(
            f"fine-tuning needs {need / 1e6:.0f} MB in {folder}, but {free / 1e6:.0f} MB are free:"
            " make room, or name a folder on another disk"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """`FILE.yaml [KEY=VALUE ...]`; the exit code, 2 for what the user can mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(f"usage: accelerate launch -m lisa_ros.training.recipe FILE.yaml [KEY=VALUE ...]\n"
              f"one process: python -m lisa_ros.training.recipe FILE.yaml [KEY=VALUE ...]\n"
              f"presets: {', '.join(sorted(one.stem for one in PRESETS.glob('*.yaml')))}\n\n"
              f"{inspect.getdoc(Recipe)}\n\nkeys, and their values where nothing is said:\n"
              f"{yaml.safe_dump(asdict(Recipe()), sort_keys=False)}")  # fmt: skip
        return 0 if given else 2
    try:
        if wrong := [one for one in given[1:] if "=" not in one]:
            raise RecipeError(f"{wrong[0]} is no KEY=VALUE")
        follow(read_recipe(given[0], dict(map(_override, given[1:]))))
    except LisaError as error:
        _say_at_last(f"recipe: {error}")
        return 2
    except RuntimeError as error:
        if not _PEER_GONE.search(str(error)):
            raise
        print(
            "recipe: another process of this training has ended: its own last lines say why;"
            " the last checkpoint is whole, the same command goes on from it",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt as stopped:
        print(f"{stopped or 'stopped'}: the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def _override(given: str) -> tuple[str, Any]:
    key, _, value = given.partition("=")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        said = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise RecipeError(f"{given} is no YAML: {said}") from error


def _say_at_last(sentence: str) -> None:
    """Say it here, and to the launcher of several processes, which ends with a page of its own:
    what it finds in this file stands at the end of that."""
    print(sentence, file=sys.stderr, flush=True)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):  # a launcher that is gone, a full disk
            Path(path).write_text(json.dumps({"message": said}), encoding="utf-8")


def follow(recipe: Recipe) -> dict[str, float]:
    """Follow a recipe from its first line to the written model, on all ranks of torchrun."""
    if not recipe.output:
        raise RecipeError("output: name the folder for the new model")
    if (Path(recipe.output) / WEIGHTS_FILE).exists():
        raise LisaError(f"{recipe.output} holds a checkpoint already; name a new folder")
    if bool(recipe.data) == bool(recipe.questions):
        raise RecipeError("give data (the root of the published sets) or questions (a folder)")
    items = read_items(Path(recipe.questions)) if recipe.questions else []
    mixture = None if items else open_mixture(recipe)
    ranks = join_ranks("auto")
    writable_folder(Path(recipe.output))
    lisa = start(recipe)
    if not (recipe.shard and ranks.num_processes > 1):
        lisa.network.to(ranks.device)
    cache = open_cache(recipe, lisa) if recipe.cache else None
    if mixture is None:
        source = Questions.prepare(lisa, items, recipe.batch, cache)
        return run(recipe, lisa, source, digest(items), cache)
    source = MixtureBatches(
        mixture, lisa.tokenizer.encode, lisa.config, lisa.processor, recipe.batch, cache
    )
    sizes = [[len(one) for one in some] for some in mixture.groups.values()]
    return run(recipe, lisa, source, json.dumps(sizes), cache)


def open_cache(recipe: Recipe, lisa: Lisa) -> FeatureCache:
    """The cache of a recipe, whose size is said before anything is written."""
    ranks, folder = PartialState(), Path(recipe.cache)
    cache = FeatureCache.open(folder, recipe.cache_gb * GB, lisa, ranks.num_processes)
    each, room = bytes_of_an_image(lisa), cache.left * ranks.num_processes
    if ranks.is_main_process:
        print(f"{folder}: has room for the features of {room // each:,.0f} images more,"
              f" {each / 1e6:.2f} MB each, {room / GB:.2f} GB", flush=True)  # fmt: skip
    return cache


if __name__ == "__main__":
    sys.exit(main())
