"""`lisa-ros info`, `convert`, `calibrate`, `finetune`: what is done to a model's folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from lisa_ros.cli import LAST_SEED, add_model_arguments, model_options
from lisa_ros.errors import CheckpointError, LisaError, check_number, counted
from lisa_ros.model.config import Conversation
from lisa_ros.writing import writable_file, writable_folder

# the words before a mask are part of its score, or there are none
CALIBRATED_MODES = ("auto", "mask")


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", help="model folder, the name of a shipped model, or a hub id")
    add("--vision-tower", help="folder or hub id of the CLIP tower")
    add("--verify", action="store_true", help="read the weights and compare their recorded hash")


def run_info(args: argparse.Namespace) -> int:
    """Print what the folder is; with `--verify` also whether its weights are unchanged."""
    from lisa_ros.model.checkpoint import describe, verify
    from lisa_ros.model.config import find

    for heading, words in describe(args.path, args.vision_tower).items():
        print(f"{heading:>15}  {words}")
    if args.verify:
        same = verify(find(args.path))
        if same is False:
            raise CheckpointError(f"{args.path} was changed since it was converted")
        print(f"{'hash':>15}  {'as converted' if same else 'nothing to check: not converted'}")
    return 0


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", help="folder or hub id of the official checkpoint")
    add("target", help="new folder for the native one")
    add("--vision-tower", help="folder or hub id of the CLIP tower")
    add(
        "--conversation",
        choices=get_args(Conversation),
        help="prompt layout that the model was trained with (default: that of the released ones)",
    )


def run_convert(args: argparse.Namespace) -> int:
    """Convert; on failure nothing that looks finished is left."""
    from lisa_ros.model.checkpoint import convert

    kind = convert(
        args.source, args.target, vision_tower=args.vision_tower, conversation=args.conversation
    )
    copied = f", a copy: {args.source} is native already" if kind == "native" else ""
    print(f"wrote {args.target}{copied}")
    return 0


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, remote=False)
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="questions that the model was neither trained nor is tested on (default: the"
        " simulator's validation tables, drawn the first time)",
    )


def run_calibrate(args: argparse.Namespace) -> int:
    """Ask every question with and without words, fit, write the model's config.json."""
    from lisa_ros.evaluation.reasonseg import read_dataset, tabletop
    from lisa_ros.model.config import LisaConfig, find
    from lisa_ros.model.hub import is_cached

    folder = find(args.model)
    config = folder / "config.json"
    LisaConfig.from_json(config)  # only native models have a place for it
    if is_cached(folder):
        raise LisaError(
            f"{args.model} lies in the hub's cache, which must stay as the hub has it: make a copy"
            " with `lisa-ros convert`, and calibrate that"
        )
    writable_file(config)
    ours = None if args.dataset else tabletop()
    items = read_dataset(args.dataset) if args.dataset else []
    from lisa_ros.cli.eval import ask
    from lisa_ros.engine import Engine
    from lisa_ros.engine.load import load_lisa
    from lisa_ros.evaluation.calibration import figures, fit, store, uncalibrated

    lisa = uncalibrated(load_lisa(**model_options(args)))
    if ours:
        items = read_dataset(ours.drawn_once("validation"))  # minutes: the model can be used
    engine = Engine(lisa)
    samples = [sample for mode in CALIBRATED_MODES for sample, _ in ask(engine, items, mode)]
    for image in sorted({str(s.item.image) for s in samples if s.fault}):
        print(f"left out, for it could not be asked: {image}")
    samples = [sample for sample in samples if not sample.fault]
    weights = fit(samples)
    store(weights, folder)
    found = figures(samples)
    print(f"{counted(found['masks'], 'mask')}, {found['right']} of them right")
    print(f"calibration error before: {found['calibration_error']:.3f}")
    print(f"written to {config}: {weights}")
    return 0


def add_finetune_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_arguments(parser, remote=False)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="questions in ReasonSeg's format, as `lisa-ros sim-benchmark` also writes them",
    )
    source.add_argument(
        "--questions",
        type=int,
        metavar="N",
        help="N implicit questions about simulated tables, drawn into OUTPUT/questions",
    )
    add("--output", type=Path, required=True, help="folder for the new checkpoint")
    add("--steps", type=int, default=300, help="of 8 questions each (default: 300)")
    add("--rate", type=float, default=3e-4, help="peak learning rate (default: LISA's own, 3e-4)")
    add("--seed", type=int, default=0, help="of all that is drawn by chance (default: 0)")


def run_finetune(args: argparse.Namespace) -> int:
    """Fine-tune and write; nothing is trained before model, questions and room are found good."""
    check_number("--steps", args.steps, 1)
    check_number("--questions", args.questions, 1)
    check_number("--rate", args.rate, 0, above=True)
    check_number("--seed", args.seed, 0, LAST_SEED)
    if (args.output / "model.safetensors").exists():
        raise LisaError(f"{args.output} holds a checkpoint already; name a new folder")
    from lisa_ros.evaluation.reasonseg import read_items, tabletop

    tables = None if args.dataset else tabletop()
    items = read_items(args.dataset) if args.dataset else []
    writable_folder(args.output)
    from lisa_ros.engine.load import load_lisa

    lisa = load_lisa(**model_options(args), mergeable=True)
    if tables:  # minutes: what the model lacks has been told by now
        print(f"drawing {args.output / 'questions'}")
        items = tables.implicit_questions(args.output / "questions", args.questions, args.seed)
    images = counted(len({item.scene for item in items}), "image")
    print(f"{counted(len(items), 'question')} about {images}")
    from lisa_ros.training.recipe import finetune

    try:
        finetune(lisa, items, args.output, steps=args.steps, lr=args.rate, seed=args.seed)
    except KeyboardInterrupt as stopped:
        print(f"{stopped or 'stopped'}: the same command goes on from there", file=sys.stderr)
        return 130
    print(
        f"{args.output}: a native checkpoint; `lisa-ros calibrate` makes its scores mean something"
    )
    return 0
