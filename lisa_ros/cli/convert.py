"""`lisa-ros convert`: an official checkpoint, once, into the native format."""

from __future__ import annotations

import argparse

CONVERSATIONS = ("llava_v1", "llava_llama_2", "vicuna_v1", "nano")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", help="folder or hub id of the official checkpoint")
    add("target", help="new folder for the native one")
    add("--vision-tower", help="folder or hub id of the CLIP tower")
    add(
        "--conversation",
        choices=CONVERSATIONS,
        help="prompt layout that the model was trained with (default: that of the released ones)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; on failure nothing that looks finished is left."""
    from lisa_ros.model.checkpoint import convert

    convert(
        args.source, args.target, vision_tower=args.vision_tower, conversation=args.conversation
    )
    print(f"wrote {args.target}")
    return 0
