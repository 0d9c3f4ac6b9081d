"""`lisa-ros bench`: the engine beside the reference schedule and transformers' `generate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lisa_ros.errors import LisaError

PRESETS = ("tiny", "nano", "middle", "lisa-7b", "lisa-13b")
DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=PRESETS,
        help="shapes with random weights (default: nano middle; on a GPU also lisa-7b)",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 (default: a GPU if any)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 on a GPU, else float32")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each case")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 20, 100], metavar="TOKENS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the curves")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write what is asked for."""
    import torch

    from lisa_ros.bench.machine import measure
    from lisa_ros.bench.measure import SEG_PLACE, measure_preset
    from lisa_ros.bench.presets import random_lisa
    from lisa_ros.bench.report import as_data, as_text, draw

    if min(args.lengths) <= SEG_PLACE or args.rounds < 1:
        raise LisaError(f"answers need more than {SEG_PLACE} tokens, and at least one round")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    default = "bfloat16" if device.type == "cuda" else "float32"
    dtype = getattr(torch, args.dtype or default)
    presets = args.presets or ["nano", "middle", *(["lisa-7b"] if device.type == "cuda" else [])]

    def report(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    report("measuring the machine")
    machine = measure(device, dtype)
    results = []
    for preset in presets:
        lisa = random_lisa(preset, device=device, dtype=dtype)
        results.append(
            measure_preset(
                lisa, args.lengths, args.rounds, lambda what, p=preset: report(f"{p}: {what}")
            )
        )
        del lisa
    print(as_text(machine, results))
    if args.json:
        args.json.write_text(json.dumps(as_data(machine, results), indent=2) + "\n")
    if args.plot:
        draw(results, args.plot)
    return 0
