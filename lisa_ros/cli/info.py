"""`lisa-ros info`: what a model folder is, without loading it."""

from __future__ import annotations

import argparse

from lisa_ros.errors import CheckpointError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", help="model folder, the name of a shipped model, or a hub id")
    add("--vision-tower", help="folder or hub id of the CLIP tower")
    add("--verify", action="store_true", help="read the weights and compare their recorded hash")


def run(args: argparse.Namespace) -> int:
    """Print what the folder is; with `--verify` also whether its weights are unchanged."""
    from lisa_ros.model.checkpoint import describe, verify
    from lisa_ros.model.config import find

    for heading, words in describe(args.path, args.vision_tower).items():
        print(f"{heading:>15}  {words}")
    if args.verify:
        if not verify(find(args.path)):
            raise CheckpointError(f"{args.path} was changed since it was converted")
        print(f"{'hash':>15}  as converted")
    return 0
