"""What makes training cheaper, counted for 7B and measured on nano: a cache, lengths, compiling.

    PYTHONPATH=test python -m benchmarks.training_speed [--write docs/training.md]

Operations are counted on networks of the real shapes that lie on torch's meta device, for a picture
with three dialogues. Batches are drawn with the shares of the paper; a dialogue about a thing has
62 to 80 ids, one of LLaVA-Instruct 110 to 420, cut where training cuts it; nano's rows are made as
long as those of 7B, whose picture takes 256 places.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generated_tables import put_into_page
from benchmarks.training_memory import CLIP, IDS, LLAMA, SAM, meta_network
from lisa_ros.evaluation.published import open_published
from lisa_ros.model.checkpoint import load
from lisa_ros.model.config import LisaConfig
from lisa_ros.text_tables import markdown_table
from lisa_ros.training.examples import MOST_IDS, Pictures
from lisa_ros.training.feature_cache import FeatureCache
from lisa_ros.training.mixture import Mixture
from lisa_ros.training.objective import Objective, PictureExample
from lisa_ros.training.recipe import add_trained_parts, by_length
from lisa_ros.training.recipe_file import LISA_SETS, Recipe

ACCUMULATE = 10
IMAGE_TOKENS = 256  # of 7B


def operations(name: str) -> dict[str, float]:
    """Of a picture with three dialogues: the two encoders, and the language model with its
    backward pass, whose layers are computed again."""
    network = meta_network(name, layers=1)
    pixels = [torch.empty(1, 3, one["image_size"], one["image_size"], device="meta")
              for one in (CLIP, SAM)]  # fmt: skip
    found = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for part, encode, seen in (("CLIP", network.encode_view, pixels[0]),
                                   ("SAM's encoder", network.encode_frame, pixels[1])):  # fmt: skip
            with FlopCounterMode(display=False) as counter:
                encode(seen)
            found[part] = counter.get_total_flops()
    length, llama = IDS + network.config.image_tokens - 1, LLAMA[name]
    states = torch.empty(3, length, llama["hidden_size"], device="meta", requires_grad=True)
    heads = llama["hidden_size"] // llama["num_attention_heads"]
    turns = torch.empty(1, length, heads, device="meta", dtype=torch.bfloat16)
    layer = network.language_model.layers[0]
    with FlopCounterMode(display=False) as forward, torch.autocast("cpu", torch.bfloat16):
        said = layer(states, position_embeddings=(turns, turns))
    with FlopCounterMode(display=False) as backward:
        (said[0] if isinstance(said, tuple) else said).sum().backward()
    once = 2 * forward.get_total_flops() + backward.get_total_flops()
    return found | {"language model": llama["num_hidden_layers"] * once}


def lengths(random: Generator) -> list[int]:
    """Ids of the dialogues about one picture of the paper's mixture."""
    group = random.choice(4, p=np.array([9, 3, 3, 1]) / 16)
    low, high, count = ((62, 80, 3), (62, 80, 3), (110, 420, 1), (75, 110, 3))[group]
    return np.minimum(random.integers(low, high + 1, count), MOST_IDS).tolist()


def of_lengths(example: PictureExample, config: LisaConfig, random: Generator) -> PictureExample:
    """The same picture with dialogues of such lengths, of which the end is learnt, no mask."""
    ids, learnt = [], []
    for length in lengths(random):
        length += IMAGE_TOKENS - config.image_tokens
        row = example.ids[0][:length].clone()
        row[row == config.seg_token_id] = row[-1]
        ids.append(torch.cat([row, row[-1:].expand(length - len(row))]))
        learnt.append(torch.arange(length) >= length - 8)
    return replace(example, ids=tuple(ids), learnt=tuple(learnt), truth=example.truth[:0])


def lengthened(batches: Sequence[Sequence[PictureExample]], config: LisaConfig) -> list[tuple]:
    random = np.random.default_rng(1)
    return [tuple(of_lengths(one, config, random) for one in batch) for batch in batches]


def padding(batches: Sequence[Sequence[PictureExample]], image_tokens: int) -> float:
    """The share of padding of all positions of some batches."""
    together = empty = 0
    for batch in batches:
        rows = [len(row) + image_tokens - 1 for one in batch for row in one.ids]
        together += max(rows) * len(rows)
        empty += max(rows) * len(rows) - sum(rows)
    return empty / together


def learn(objective: Objective, batches: Sequence[Sequence[PictureExample]]) -> float:
    """Seconds of processor time, forward and backward."""
    began = time.process_time()
    for batch in batches:
        loss, _ = objective(batch)
        loss.total.backward()
    return time.process_time() - began


def in_turns(ways: Sequence[Callable[[int], float]], steps: int, pictures: int) -> list[float]:
    """Pictures a second of some ways to take a step, by turns: a neighbour slows all of them."""
    spent = [0.0] * len(ways)
    for step in range(steps):
        for number, seconds in enumerate(ways):
            spent[number] += seconds(step)
    return [steps * pictures / one for one in spent]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help=f"of {ACCUMULATE} batches each")
    parser.add_argument("--write", type=Path, help="a page with a place for `training speed`")
    args = parser.parse_args()
    from published_samples import write_published

    torch.set_num_threads(1)
    for name in LLAMA:
        found = operations(name)
        together = sum(found.values())
        parts = ", ".join(f"{part} {value / 1e12:.1f}" for part, value in found.items())
        share = (found["CLIP"] + found["SAM's encoder"]) / together
        print(f"{name}: {parts} x 10^12 operations; a cache saves {share:.1%}", flush=True)

    rows: list[list[str]] = []

    def row(what: str, without: float, rate: float) -> None:
        rows.append([what, f"{without:.2f}", f"{rate:.2f}", f"{rate / without - 1:+.0%}"])
        print(" | ".join(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root, lisa = write_published(Path(folder) / "data"), load("nano")
        groups = {g: [open_published(root, n) for n in some] for g, some in LISA_SETS.items()}
        add_trained_parts(lisa.network, Recipe())
        lisa.network.train()

        def drawn(cache: FeatureCache | None, size: int) -> list[tuple[PictureExample, ...]]:
            random = np.random.default_rng(0)
            source = Pictures(Mixture(groups, [9, 3, 3, 1]), lisa.tokenizer.encode, lisa.config,
                              lisa.processor, size, cache)  # fmt: skip
            return [source.batch(random) for _ in range(args.steps * ACCUMULATE)]

        def step_of(batches: Sequence, step: int) -> Sequence:
            return batches[step * ACCUMULATE : (step + 1) * ACCUMULATE]

        # 1. the cache at its first look and at its second; the reading of the pictures counts
        rates = []
        for cached in (False, True, True):
            cache = FeatureCache.open(Path(folder) / "cache", 1e9, lisa) if cached else None
            began = time.process_time()
            batches = drawn(cache, 2)
            spent = time.process_time() - began
            spent += learn(Objective(lisa.network, lisa.processor, cache), batches)
            rates.append(2 * len(batches) / spent)
        row("`cache`, a picture's first look", rates[0], rates[1])
        row("`cache`, every other look", rates[0], rates[2])
        # 2. like lengths together
        objective = Objective(lisa.network, lisa.processor)
        for size in (2, 4):
            seen = lengthened(drawn(cache, size), lisa.config)
            steps = [step_of(seen, n) for n in range(args.steps)]
            ordered = [by_length(batches) for batches in steps]
            empty, fewer = (
                padding([one for batches in some for one in batches], lisa.config.image_tokens)
                for some in (steps, ordered)
            )
            rates = in_turns(
                [lambda n, steps=steps: learn(objective, steps[n]),
                 lambda n, ordered=ordered: learn(objective, ordered[n])],
                args.steps, size * ACCUMULATE,
            )  # fmt: skip
            what = f"{size} pictures a batch: padding {empty:.1%}, then {fewer:.1%}"
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
            args.steps, 2 * ACCUMULATE,
        )  # fmt: skip
        row(f"`torch.compile` of the language model's layers, after a first pass of {first:.0f} s",
            *rates)  # fmt: skip
    table = markdown_table(["nano, a processor's core", "without", "with", "gain"], rows)
    print(f"\npictures a second\n{table}")
    if args.write:
        put_into_page(args.write, "training speed", table)


if __name__ == "__main__":
    main()
