"""`lisa-ros calibrate`: fit what the score of a mask means, and write it into the model."""

from __future__ import annotations

import argparse
from pathlib import Path

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.errors import LisaError
from lisa_ros.writing import writable_file

MODES = ("auto", "mask")  # the words before a mask are part of its score, or there are none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, remote=False)
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="questions that the model was neither trained nor is tested on (default: the"
        " simulator's validation tables, drawn the first time)",
    )


def run(args: argparse.Namespace) -> int:
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
    samples = [sample for mode in MODES for sample, _ in ask(engine, items, mode)]
    for image in sorted({str(s.item.image) for s in samples if s.fault}):
        print(f"left out, for it could not be asked: {image}")
    samples = [sample for sample in samples if not sample.fault]
    weights = fit(samples)
    store(weights, folder)
    found = figures(samples)
    print(f"{found['masks']} masks, {found['right']} of them right")
    print(f"calibration error before: {found['calibration_error']:.3f}")
    print(f"written to {config}: {weights}")
    return 0
