"""`lisa-ros bench`: the engine beside the reference schedule and transformers' `generate`.

With `--study` it measures instead what a choice costs in masks, with a real model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lisa_ros.errors import LisaError

if TYPE_CHECKING:
    import torch

PRESETS = ("tiny", "nano", "middle", "lisa-7b", "lisa-13b")
QUANTIZATIONS = ("int8", "fp8", "int4")
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
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="compress the language model's weights before measuring",
    )
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each case")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 20, 100], metavar="TOKENS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the curves")
    parser.add_argument(
        "--study",
        choices=("quantization", "views"),
        help="masks of quantised models beside full precision; center, squash and tiles",
    )
    parser.add_argument("--model", default="nano", help="of a study (default: nano)")
    parser.add_argument("--vision-tower", help="of a study: folder of the CLIP tower")
    parser.add_argument("--scenes", type=int, default=50, help="of a study (default: 50)")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write what is asked for."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    default = "bfloat16" if device.type == "cuda" else "float32"
    dtype = getattr(torch, args.dtype or default)
    if args.study:
        print(study(args, device, dtype))
    else:
        side_by_side(args, device, dtype)
    return 0


def side_by_side(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    """All presets, all schedules, all stages."""
    import torch

    from benchmarks.machine import measure
    from benchmarks.measure import SEG_PLACE, measure_preset
    from benchmarks.presets import random_lisa
    from benchmarks.report import as_data, as_text, draw
    from lisa_ros.model.quantization import multiplies_natively, quantize

    if min(args.lengths) <= SEG_PLACE or args.rounds < 1:
        raise LisaError(f"answers need more than {SEG_PLACE} tokens, and at least one round")
    presets = args.presets or ["nano", "middle", *(["lisa-7b"] if device.type == "cuda" else [])]
    print("measuring the machine", file=sys.stderr)
    machine = measure(device, dtype if multiplies_natively(dtype, device) else torch.float32)
    results = []
    for preset in presets:
        lisa = random_lisa(preset, device=device, dtype=dtype)
        if args.quantization:
            quantize(lisa.network, args.quantization, device)
        results.append(measure_preset(lisa, args.lengths, args.rounds))
        del lisa
    print(as_text(machine, results))
    if args.json:
        data = json.dumps(as_data(machine, results), indent=2)
        try:
            args.json.write_text(data + "\n")
        except OSError as error:
            raise LisaError(f"cannot write {args.json}: {error.strerror}") from error
    if args.plot:
        draw(results, args.plot)


def study(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> str:
    """Ask a real model about simulated tabletops; the result as a table."""
    from benchmarks.report import gates_as_text, views_as_text
    from benchmarks.studies import compare_views, quantization_gate
    from lisa_ros.engine import Engine, EngineConfig
    from lisa_ros.model.checkpoint import Lisa, load
    from lisa_ros.model.processor import ClipView

    def loaded(quantization: str | None = None) -> Lisa:
        tower = args.vision_tower
        return load(
            args.model, device=device, dtype=dtype, vision_tower=tower, quantization=quantization
        )

    if args.study == "quantization":
        quantised = {method: Engine(loaded(method)) for method in QUANTIZATIONS}
        return gates_as_text(quantization_gate(Engine(loaded()), quantised, args.scenes))
    lisa = loaded()
    engines = {view: Engine(lisa, EngineConfig(clip_view=view)) for view in get_args(ClipView)}
    return views_as_text(compare_views(engines, args.scenes))
