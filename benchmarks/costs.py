"""What a question costs LISA-7B and 13B: operations and bytes, counted, and the bounds of GPUs.

    python -m benchmarks.costs [--write docs/performance.md] [--write-plan docs/serving.md]

The shapes are built without weights (torch's meta device), and torch counts the operations of every
stage. The rest is arithmetic, not measurement: a stage takes its operations at the GPU's rate for
bfloat16 or its bytes at the GPU's bandwidth, whichever takes longer, and the whole power all the
time. What is measured on a GPU is what `lisa-ros bench --presets lisa-7b` prints; engines reach a
half to three quarters of such a bound.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.generated_tables import page_option, show
from benchmarks.presets import random_lisa
from benchmarks.roofline import count_flop, weight_bytes
from lisa_ros.text_tables import markdown_table

TOKENS = 20  # of an answer
QUESTION = 40  # positions behind the image: the words of a question and of the template
SYSTEM = 40  # positions before it
DRAFTED = (
    4.0  # tokens that a pass of the language model yields on average, drafts accepted included
)
BATCH = 8  # questions that share one reading of the weights
# of the plan for fleets
PERIOD = 10.0  # seconds in which a robot asks once about a new image and once more about the same
REACHED = 0.4  # of a GPU's bound, by assumption
LOAD = 0.6  # of what a GPU does then, so that answers come in time
UP = 22.5e3  # bytes of a first question about a tabletop of 640x480, as `make fleet` counts them
FLEETS = (10, 1000, 100_000)


@dataclass(frozen=True)
class Gpu:
    """Data sheet values, without sparsity."""

    name: str
    flops: float
    """operations a second in bfloat16"""
    bandwidth: float
    """bytes a second"""
    watts: float


GPUS = (
    Gpu("Jetson AGX Orin 64 GB", 69e12, 0.205e12, 60),
    Gpu("RTX 4090", 165e12, 1.01e12, 450),
    Gpu("L40S", 362e12, 0.864e12, 350),
    Gpu("A100 80 GB", 312e12, 2.04e12, 400),
    Gpu("H100 SXM", 989e12, 3.35e12, 700),
    Gpu("H200", 989e12, 4.8e12, 700),
)


@dataclass(frozen=True)
class CountedStage:
    """Operations for one question, bytes of weights, and bytes of keys and values it reads."""

    flop: float
    weights: float
    cache: float = 0.0
    times: float = 1.0
    """how often the weights are read for one question"""

    def seconds(self, gpu: Gpu, batch: int) -> float:
        """Of each question, where `batch` of them run together."""
        reading = self.times * (self.weights / batch + self.cache) / gpu.bandwidth
        return max(self.flop / gpu.flops, reading)


@torch.inference_mode()
def count(preset: str) -> tuple[dict[str, CountedStage], dict[str, CountedStage]]:
    """The stages of a question about a new frame, and of one about a known frame, in bfloat16."""
    lisa = random_lisa(preset, device="meta", dtype=torch.bfloat16)
    network, config = lisa.network, lisa.config
    clip, sam = config.clip["image_size"], config.sam_vision["image_size"]
    width, prompt = config.hidden_size, SYSTEM + config.image_tokens + QUESTION
    layers = weight_bytes(network.language_model.layers)
    position = 2 * 2 * width * config.llama["num_hidden_layers"]  # keys and values, 2 bytes each

    def states(positions: int) -> Callable[[], object]:
        embeds = torch.empty(1, positions, width, device="meta", dtype=torch.bfloat16)
        # given, because making one asks for values, which are not there
        mask = torch.empty(1, 1, positions, positions, device="meta", dtype=torch.bfloat16)
        return lambda: network.language_model(
            inputs_embeds=embeds, attention_mask=mask, use_cache=False
        )

    def head() -> Tensor:
        return network.lm_head(torch.empty(1, width, device="meta", dtype=torch.bfloat16))

    grid = sam // config.sam_vision.get("patch_size", 16)
    frame = torch.zeros(1, config.prompt_size, grid, grid, dtype=torch.bfloat16)
    prompts = torch.zeros(1, 1, config.prompt_size, dtype=torch.bfloat16)
    # small, and its autocast knows no meta device
    for part in (network.mask_decoder, network.no_mask_embed, network.shared_image_embedding):
        part.to_empty(device="cpu")

    passes = TOKENS / DRAFTED
    decoding = CountedStage(
        TOKENS * (count_flop(states(1)) + count_flop(head)),
        layers + weight_bytes(network.lm_head),
        prompt * position,
        passes,
    )
    drawing = CountedStage(
        count_flop(lambda: network.decode_masks(frame, prompts)),
        weight_bytes(network.mask_decoder, network.text_hidden_fcs),
    )
    known = {
        "question": CountedStage(count_flop(states(QUESTION)), layers, prompt * position),
        "answer": decoding,
        "mask": drawing,
    }
    new = {
        "CLIP": CountedStage(
            count_flop(lambda: network.encode_view(_pixels(clip))),
            weight_bytes(network.vision_tower),
        ),
        "SAM": CountedStage(
            count_flop(lambda: network.encode_frame(_pixels(sam))),
            weight_bytes(network.image_encoder),
        ),
        "prompt": CountedStage(count_flop(states(prompt)), layers),
        "answer": decoding,
        "mask": drawing,
    }
    return new, known


def tables(presets: tuple[str, ...]) -> str:
    """Counted costs, and the bounds of each GPU."""
    counted, bounds = [], []
    for preset in presets:
        for frame, stages in zip(("new", "known"), count(preset), strict=True):
            for name, stage in stages.items():
                read = stage.times * (stage.weights + stage.cache)
                row = [preset, frame, name, f"{stage.flop / 1e12:.3f}", f"{read / 1e9:.2f}"]
                counted.append(row)
            for gpu in GPUS:
                alone, shared = (
                    sum(stage.seconds(gpu, batch) for stage in stages.values())
                    for batch in (1, BATCH)
                )
                rates = [f"{1000 * alone:.0f}", f"{1 / shared:.0f}", f"{gpu.watts * shared:.1f}"]
                bounds.append([preset, frame, gpu.name, *rates])
    head = ["model", "frame", "stage", "TFLOP", "GB read"]
    rates = [
        "model",
        "frame",
        "GPU",
        "ms alone",
        f"questions/s, batches of {BATCH}",
        "J a question",
    ]
    return "\n\n".join(
        [markdown_table(head, counted, words=3), markdown_table(rates, bounds, words=3)]
    )


def plan(preset: str) -> str:
    """How many GPUs, and how much bandwidth, fleets of robots need by the bounds above."""
    counted, rows = count(preset), []
    for gpu in GPUS:
        if gpu.watts < 100:
            continue  # a robot's own
        busy = sum(stage.seconds(gpu, BATCH) for stages in counted for stage in stages.values())
        share = busy / REACHED / LOAD / PERIOD  # of a GPU, for one robot
        needed = [f"{math.ceil(robots * share):,}" for robots in FLEETS]
        rows.append([gpu.name, *needed, f"{share * PERIOD / 2 * 1e6 / 3600:.0f}"])
    rates = [f"{2 * robots / PERIOD:,.0f} questions/s" for robots in FLEETS]
    bits = [f"{8e-6 * robots * UP / PERIOD:,.1f} Mbit/s" for robots in FLEETS]
    rows = [["asked", *rates, ""], ["sent up", *bits, ""], *rows]
    head = [
        "GPUs for",
        *(f"{robots:,} robots" for robots in FLEETS),
        "hours of one for a million questions",
    ]
    return markdown_table(head, rows)


def _pixels(size: int) -> Tensor:
    return torch.empty(1, 3, size, size, device="meta", dtype=torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    page_option(parser, "--write", "costs")
    page_option(parser, "--write-plan", "plan")
    args = parser.parse_args()
    show(tables(("lisa-7b", "lisa-13b")), args.write, "costs")
    show(plan("lisa-7b"), args.write_plan, "plan")


if __name__ == "__main__":
    main()
