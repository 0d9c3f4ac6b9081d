"""`lisa-ros convert`: an official checkpoint, once, into the native format."""

from __future__ import annotations

import argparse
from typing import get_args

from lisa_ros.model.config import Conversation
from lisa_ros.model.conversion import convert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="folder of the official checkpoint")
    parser.add_argument("target", help="new folder for the native one")
    parser.add_argument("--vision-tower", help="folder of the CLIP tower")
    parser.add_argument(
        "--conversation",
        choices=get_args(Conversation),
        help="prompt layout that the model was trained with (default: that of the released ones)",
    )


def run(args: argparse.Namespace) -> int:
    convert(
        args.source, args.target, vision_tower=args.vision_tower, conversation=args.conversation
    )
    print(f"wrote {args.target}")
    return 0
