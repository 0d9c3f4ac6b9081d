"""What training costs: memory of a GPU, what makes it cheaper, how fast its images are read.

    PYTHONPATH=test python -m benchmarks.training_bench memory [--write docs/training.md]
    PYTHONPATH=test python -m benchmarks.training_bench speed [--write docs/training.md]
    PYTHONPATH=test python -m benchmarks.training_bench data

`memory` counts bytes: the networks have the real shapes and lie on torch's meta device, where no
byte of them exists, but every tensor that autograd would keep for the backward pass is asked for
its size. Weights, gradients and moments are those of the parameters as the recipe sets them up.

`speed` counts operations on the same networks, for an image with three dialogues, and measures on
nano a cache, rows of like lengths, compiling. Batches are drawn with the shares of the paper; a
dialogue about a thing has 62 to 80 ids, one of LLaVA-Instruct 110 to 420, cut where training cuts
it; nano's rows are made as long as those of 7B, whose image takes 256 places.

`data` takes samples from made-up images of the published sets' sizes: an image read, resized for
CLIP and for SAM at 1024 pixels, its masks drawn, its dialogues in ids.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_samples
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generated_tables import page_option, show
from benchmarks.presets import preset_config
from lisa_ros.evaluation.published import CATALOGUE, open_published
from lisa_ros.model.checkpoint import load
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.weights import empty_network, precision
from lisa_ros.text_tables import markdown_table
from lisa_ros.training.examples import MOST_IDS, MixtureBatches
from lisa_ros.training.feature_cache import FeatureCache
from lisa_ros.training.mixture import Mixture
from lisa_ros.training.objective import ImageExample, Objective
from lisa_ros.training.recipe import add_trained_parts, by_length
from lisa_ros.training.recipe_file import LISA_SETS, Recipe

PRESETS = ("lisa-7b", "lisa-13b")
GB = 1e9
IDS = 90  # of a dialogue about a thing, the system's words included; three dialogues an image
ROOM = 0.92  # of a GPU's memory: CUDA itself and fragments take the rest
SAM_AT_WORK = 1.5e9  # one image at 1024 through SAM's encoder without gradients, in bfloat16
STEPS, ACCUMULATE = 3, 10  # steps of so many batches each
IMAGE_TOKENS = 256  # of 7B
SECONDS = 5.0  # of the processor, for each set
REAL = {"mapillary": (3264, 2448), "ade20k": (683, 512), "pascal_part": (500, 375),
        "refclef": (480, 360), "reasonseg": (1024, 768)}  # fmt: skip


def meta_network(preset: str, layers: int | None = None) -> LisaNetwork:
    """The network in bfloat16 with what is trained in float32, as `recipe.run` has it."""
    config = preset_config(preset)
    if layers:
        config = replace(config, llama={**config.llama, "num_hidden_layers": layers})
    network = empty_network(config)
    for key, parameter in network.named_parameters():
        parameter.data = parameter.data.to(precision(key, torch.bfloat16))
    network.requires_grad_(False)
    with torch.device("meta"):
        add_trained_parts(network, Recipe())
    return network


def through_a_layer(network: LisaNetwork, rows: int) -> Tensor:
    """What the first layer of the language model makes of dialogues, in training."""
    llama = network.config.llama
    length = IDS + network.config.image_tokens - 1
    heads = llama["hidden_size"] // llama["num_attention_heads"]
    embeds = torch.empty(rows, length, llama["hidden_size"], device="meta", requires_grad=True)
    turns = torch.empty(1, length, heads, device="meta", dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        said = network.language_model.layers[0](embeds, position_embeddings=(turns, turns))
    return said[0] if isinstance(said, tuple) else said


# 1. memory


def sizes(network: LisaNetwork) -> dict[str, float]:
    """Bytes of weights (those of sharded layers apart), gradients and Adam's moments."""
    towers = (network.language_model, network.vision_tower.encoder, network.image_encoder)
    layers = {id(p) for tower in towers for layer in tower.layers for p in layer.parameters()}
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {
        "weights": sum(p.nbytes for p in network.parameters()),
        "root": sum(p.nbytes for p in network.parameters() if id(p) not in layers),
        "layer": max(
            sum(p.nbytes for p in layer.parameters()) for layer in network.language_model.layers
        ),
        "gradients": 4 * trained,
        "moments": 8 * trained,
        "trained": trained,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def kept_of_a_layer(preset: str, images: int) -> float:
    """What autograd keeps of one layer of the language model, each storage once, on meta."""
    network, kept = meta_network(preset, layers=1), {}
    known = {p.untyped_storage()._cdata for p in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" and storage._cdata not in known:
            kept[storage._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        through_a_layer(network, 3 * images)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def plan(preset: str, ranks: int, images: int) -> dict[str, float]:
    """Bytes on one of `ranks` GPUs; sharded where there are several."""
    network = meta_network(preset)
    counted, llama = sizes(network), network.config.llama
    # checkpointed: what goes into each layer (float32), and all of the layer that is gone through
    length = IDS + network.config.image_tokens - 1
    inputs = llama["num_hidden_layers"] * 3 * images * length * llama["hidden_size"] * 4
    state = (counted["weights"] + counted["gradients"] + counted["moments"]) / ranks
    # gathered: the root's weights and gradients, the layer at work and the next one
    gathered = 0 if ranks == 1 else counted["root"] + counted["gradients"] + 2 * counted["layer"]
    activations = inputs + kept_of_a_layer(preset, images) + SAM_AT_WORK
    return {"state": state, "gathered": gathered, "activations": activations,
            "together": state + gathered + activations}  # fmt: skip


def memory() -> str:
    """The table of bytes on a GPU, by the number of GPUs and of images on each."""
    rows = []
    for preset in PRESETS:
        counted = sizes(meta_network(preset))
        name = preset.upper()
        print(f"{name}: {counted['parameters'] / 1e6:,.0f} million parameters,"
              f" {counted['trained'] / 1e6:,.1f} trained; weights {counted['weights'] / GB:.1f} GB,"
              f" gradients {counted['gradients'] / GB:.1f}, moments {counted['moments'] / GB:.1f}"
              f" GB")  # fmt: skip
        for ranks, images in ((1, 1), (1, 2), (4, 1), (8, 1), (8, 2)):
            found = plan(preset, ranks, images)
            fits = [f"{size} GB" for size in (24, 48, 80) if found["together"] / GB < ROOM * size]
            cells = [f"{value / GB:.1f}" for value in found.values()]
            rows.append([name, str(ranks), str(images), *cells, *(fits[:1] or ["–"])])
    head = ["model", "GPUs", "images", "state", "gathered", "activations", "together", "fits"]
    return markdown_table(head, rows)


# 2. speed


def operations(preset: str) -> dict[str, float]:
    """Of an image with three dialogues: the two encoders, and the language model with its
    backward pass, whose layers are computed again."""
    network, config, found = meta_network(preset, layers=1), preset_config(preset), {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for part, encode, side in (
            ("CLIP", network.encode_view, config.clip["image_size"]),
            ("SAM's encoder", network.encode_frame, config.sam_vision["image_size"]),
        ):
            with FlopCounterMode(display=False) as counter:
                encode(torch.empty(1, 3, side, side, device="meta"))
            found[part] = counter.get_total_flops()
    with FlopCounterMode(display=False) as forward:
        said = through_a_layer(network, 3)
    with FlopCounterMode(display=False) as backward:
        said.sum().backward()
    once = 2 * forward.get_total_flops() + backward.get_total_flops()
    return found | {"language model": config.llama["num_hidden_layers"] * once}


def lengths(random: Generator) -> list[int]:
    """Ids of the dialogues about one image of the paper's mixture."""
    group = random.choice(4, p=np.array([9, 3, 3, 1]) / 16)
    low, high, count = ((62, 80, 3), (62, 80, 3), (110, 420, 1), (75, 110, 3))[group]
    return np.minimum(random.integers(low, high + 1, count), MOST_IDS).tolist()


def of_lengths(example: ImageExample, config: LisaConfig, random: Generator) -> ImageExample:
    """The same image with dialogues of such lengths, of which the end is learnt, no mask."""
    ids, learnt = [], []
    for length in lengths(random):
        length += IMAGE_TOKENS - config.image_tokens
        row = example.ids[0][:length].clone()
        row[row == config.seg_token_id] = row[-1]
        ids.append(torch.cat([row, row[-1:].expand(length - len(row))]))
        learnt.append(torch.arange(length) >= length - 8)
    return replace(example, ids=tuple(ids), learnt=tuple(learnt), truth=example.truth[:0])


def lengthened(batches: Sequence[Sequence[ImageExample]], config: LisaConfig) -> list[tuple]:
    random = np.random.default_rng(1)
    return [tuple(of_lengths(one, config, random) for one in batch) for batch in batches]


def padding(batches: Sequence[Sequence[ImageExample]], image_tokens: int) -> float:
    """The share of padding of all positions of some batches."""
    together = empty = 0
    for batch in batches:
        rows = [len(row) + image_tokens - 1 for one in batch for row in one.ids]
        together += max(rows) * len(rows)
        empty += max(rows) * len(rows) - sum(rows)
    return empty / together


def learn(objective: Objective, batches: Sequence[Sequence[ImageExample]]) -> float:
    """Seconds of processor time, forward and backward."""
    began = time.process_time()
    for batch in batches:
        loss, _ = objective(batch)
        loss.total.backward()
    return time.process_time() - began


def in_turns(ways: Sequence[Callable[[int], float]], steps: int, images: int) -> list[float]:
    """Images a second of some ways to take a step, by turns: a neighbour slows all of them."""
    spent = [0.0] * len(ways)
    for step in range(steps):
        for number, seconds in enumerate(ways):
            spent[number] += seconds(step)
    return [steps * images / one for one in spent]


def speed() -> str:
    """The table of images a second of nano, without and with each of the options."""
    for preset in PRESETS:
        found = operations(preset)
        parts = ", ".join(f"{part} {value / 1e12:.1f}" for part, value in found.items())
        share = (found["CLIP"] + found["SAM's encoder"]) / sum(found.values())
        print(f"{preset.upper()}: {parts} x 10^12 operations; a cache saves {share:.1%}")

    rows: list[list[str]] = []

    def row(what: str, without: float, rate: float) -> None:
        rows.append([what, f"{without:.2f}", f"{rate:.2f}", f"{rate / without - 1:+.0%}"])
        print(" | ".join(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root, lisa = published_samples.write_published(Path(folder) / "data"), load("nano")
        groups = {g: [open_published(root, n) for n in some] for g, some in LISA_SETS.items()}
        add_trained_parts(lisa.network, Recipe())
        lisa.network.train()

        def drawn(cache: FeatureCache | None, size: int) -> list[tuple[ImageExample, ...]]:
            random = np.random.default_rng(0)
            mixture = Mixture(groups, [9, 3, 3, 1])
            source = MixtureBatches(mixture, lisa.tokenizer.encode, lisa.config, lisa.processor,
                                    size, cache)  # fmt: skip
            return [source.batch(random) for _ in range(STEPS * ACCUMULATE)]

        def step_of(batches: Sequence, step: int) -> Sequence:
            return batches[step * ACCUMULATE : (step + 1) * ACCUMULATE]

        # 1. the cache at its first look and at its second; the reading of the images counts
        rates = []
        for cached in (False, True, True):
            cache = FeatureCache.open(Path(folder) / "cache", 1e9, lisa) if cached else None
            began = time.process_time()
            batches = drawn(cache, 2)
            spent = time.process_time() - began
            spent += learn(Objective(lisa.network, lisa.processor, cache), batches)
            rates.append(2 * len(batches) / spent)
        row("`cache`, an image's first look", rates[0], rates[1])
        row("`cache`, every other look", rates[0], rates[2])
        # 2. like lengths together
        objective = Objective(lisa.network, lisa.processor)
        for size in (2, 4):
            seen = lengthened(drawn(cache, size), lisa.config)
            steps = [step_of(seen, n) for n in range(STEPS)]
            ordered = [by_length(batches) for batches in steps]
            empty, fewer = (
                padding([one for batches in some for one in batches], lisa.config.image_tokens)
                for some in (steps, ordered)
            )
            rates = in_turns(
                [lambda n, steps=steps: learn(objective, steps[n]),
                 lambda n, ordered=ordered: learn(objective, ordered[n])],
                STEPS, size * ACCUMULATE,
            )  # fmt: skip
            what = f"{size} images a batch: padding {empty:.1%}, then {fewer:.1%}"
            row(f"`group_by_length`, {what}", *rates)
        # 3. compiled layers, their compilation apart
        seen, layers = lengthened(drawn(cache, 2), lisa.config), lisa.network.language_model.layers
        for layer in layers:
            layer.compile(dynamic=True)
        compiled = [layer._compiled_call_impl for layer in layers]

        def learn_with(calls: Sequence, batches: Sequence) -> float:
            for layer, call in zip(layers, calls, strict=True):
                layer._compiled_call_impl = call
            return learn(objective, batches)

        began = time.monotonic()
        learn_with(compiled, seen)
        first = time.monotonic() - began
        rates = in_turns(
            [lambda n: learn_with([None] * len(layers), step_of(seen, n)),
             lambda n: learn_with(compiled, step_of(seen, n))],
            STEPS, 2 * ACCUMULATE,
        )  # fmt: skip
        row(f"`torch.compile` of the language model's layers, after a first pass of {first:.0f} s",
            *rates)  # fmt: skip
    return markdown_table(["nano, a processor's core", "without", "with", "gain"], rows)


def data() -> str:
    """The table of samples a second of every published set."""
    rows, config = [], preset_config("lisa-7b")
    for name in CATALOGUE:
        size = REAL.get(name, (640, 480))
        with tempfile.TemporaryDirectory() as folder:
            published_samples.SIZES = (size,) * 4
            root = published_samples.write_published(Path(folder))
            mixture = Mixture({name: [open_published(root, name)]}, [1])
            source = MixtureBatches(mixture, lambda text: [1] * len(text.split()), config,
                              Processor(config), 1)  # fmt: skip
            random, count, began = np.random.default_rng(0), 0, time.process_time()
            while time.process_time() - began < SECONDS:
                source.batch(random)
                count += 1
            rate = count / (time.process_time() - began)
        rows.append([name, f"{size[0]}x{size[1]}", f"{rate:.1f}"])
        print(" | ".join(rows[-1]), flush=True)
    return markdown_table(["data set", "image", "samples a second and core"], rows, words=2)


STUDIES = {"memory": memory, "speed": speed, "data": data}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = parser.add_subparsers(dest="study", required=True)
    page_option(studies.add_parser("memory"), "--write", "training memory")
    page_option(studies.add_parser("speed"), "--write", "training speed")
    studies.add_parser("data").set_defaults(write=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    show(STUDIES[args.study](), args.write, f"training {args.study}")


if __name__ == "__main__":
    main()
