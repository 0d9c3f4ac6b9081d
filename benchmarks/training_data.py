"""Samples per second and core of every published data set, on made-up pictures of real size.

    PYTHONPATH=test python -m benchmarks.training_data

A sample is what a training step takes: a picture read, resized for CLIP and for SAM at 1024 pixels,
its masks drawn, its dialogues in ids.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.training_memory import CLIP, DECODER, LLAMA, SAM
from lisa_ros.evaluation.published import CATALOGUE, open_published
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.processor import Processor
from lisa_ros.training.examples import Pictures
from lisa_ros.training.mixture import Mixture

REAL = {"mapillary": (3264, 2448), "ade20k": (683, 512), "pascal_part": (500, 375),
        "refclef": (480, 360), "reasonseg": (1024, 768)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the processor, for each set")
    seconds = parser.parse_args().seconds
    import published_samples

    torch.set_num_threads(1)
    config = LisaConfig("mini", LLAMA["LISA-7B"], CLIP, SAM, DECODER, "linear", "llava_v1", True, 0)
    print("| data set | picture | samples a second and core |\n|---|---|---|")
    for name in CATALOGUE:
        size = REAL.get(name, (640, 480))
        with tempfile.TemporaryDirectory() as folder:
            published_samples.SIZES = (size,) * 4
            root = published_samples.write_published(Path(folder))
            mixture = Mixture({name: [open_published(root, name)]}, [1])
            source = Pictures(mixture, lambda text: [1] * len(text.split()), config,
                              Processor(config), 1)  # fmt: skip
            random, count, began = np.random.default_rng(0), 0, time.process_time()
            while time.process_time() - began < seconds:
                source.batch(random)
                count += 1
            rate = count / (time.process_time() - began)
        print(f"| {name} | {size[0]}x{size[1]} | {rate:.1f} |")


if __name__ == "__main__":
    main()
