"""`lisa-ros bench`: the engine beside the reference schedule and transformers' `generate`.

With `--study` it measures instead what a choice costs in masks, with a real model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lisa_ros.engine.load import default_threads, find_device, multiplications
from lisa_ros.errors import LisaError, check_number
from lisa_ros.image_files import figure_format, save_figure
from lisa_ros.writing import writable_file, write_file

if TYPE_CHECKING:
    import torch

    from benchmarks.measure import Measurements

PRESETS = ("tiny", "nano", "lisa-35m", "lisa-7b", "lisa-13b")
QUANTIZATIONS = ("int8", "fp8", "int4")
DTYPES = ("float32", "bfloat16", "float16", "mixed")
REFERENCE = "reference schedule"
KNOWN_FRAME_MASK = "engine, mask mode, known frame"
LONGEST = 400  # tokens of an answer: more than some presets have words or room for
DEFAULTS = {"busy": 0, "rounds": 5, "lengths": [8, 20, 100], "model": "nano", "scenes": 50}
USED_BY = {  # beside --device, --threads, --busy and --write, which all of them use
    "": ("presets", "dtype", "quantization", "rounds", "lengths", "json", "plot"),
    "sam": ("presets", "rounds"),
    "quantization": ("model", "vision_tower", "dtype", "scenes"),
    "views": ("model", "vision_tower", "dtype", "scenes", "quantization"),
}
"""Which options a study uses, or the bench without one; others are refused."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; a default stands in `DEFAULTS`, so that what is given can be told."""
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=PRESETS,
        help="shapes with random weights (default: nano lisa-35m; on a GPU also lisa-7b)",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU if any)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="default: bfloat16 on a GPU, else float32; mixed: float32, but the engine's SAM "
        "in bfloat16",
    )
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="compress the language model's weights before measuring",
    )
    parser.add_argument(
        "--threads", type=int, help="processor threads (default: what the node takes for the model)"
    )
    parser.add_argument(
        "--busy",
        type=int,
        help="measure beside so many processes that keep cores busy (default: 0)",
    )
    parser.add_argument("--rounds", type=int, help="repetitions of each case (default: 5)")
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        metavar="TOKENS",
        help="of the answers (default: 8 20 100)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="PAGE",
        help="put the tables into a page; presets that were not measured keep theirs",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an image of the curves")
    parser.add_argument(
        "--study",
        choices=("quantization", "views", "sam"),
        help="masks of quantized models beside full precision; center, squash and tiles; ways to "
        "compute SAM's image encoder",
    )
    parser.add_argument("--model", help="of a study (default: nano)")
    parser.add_argument("--vision-tower", help="of a study: folder of the CLIP tower")
    parser.add_argument("--scenes", type=int, help="of a study (default: 50)")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write what is asked for."""
    # 1. everything that can be wrong is told before anything is measured
    device, dtype, sam_dtype, place = check(args)
    # 2. measure
    from benchmarks.generated_tables import put_into_page
    from benchmarks.measure import busy_neighbours

    with busy_neighbours(args.busy):
        if args.study:
            text = study(args, device, dtype, sam_dtype)
        else:
            text = side_by_side(args, device, dtype, sam_dtype or dtype)
    # 3. show and write
    print(text)
    if args.write:
        kept = put_into_page(args.write, place, text, by_section=not args.study)
        if kept:
            print(f"{args.write} keeps its tables of {', '.join(kept)}")
    return 0


def check(
    args: argparse.Namespace,
) -> tuple[torch.device, torch.dtype, torch.dtype | None, str]:
    """Fill in the defaults; give device, precision, SAM's own one if it has one, and the place of
    the tables in a page. Raises `LisaError` for what cannot be measured as it was asked for."""
    from benchmarks.generated_tables import find_place
    from benchmarks.measure import SEG_PLACE

    name = f"--study {args.study}" if args.study else "the bench without --study"
    for option in sorted({one for some in USED_BY.values() for one in some}):
        if getattr(args, option) is None:
            setattr(args, option, DEFAULTS.get(option))
        elif option not in USED_BY[args.study or ""]:
            raise LisaError(f"{name} has no use for --{option.replace('_', '-')}: leave it out")
    args.busy = args.busy or 0
    for option, least in (("threads", 1), ("rounds", 1), ("scenes", 1), ("busy", 0)):
        check_number(f"--{option}", getattr(args, option), least)
    if not SEG_PLACE < min(args.lengths) <= max(args.lengths) <= LONGEST:
        raise LisaError(f"--lengths must be from {SEG_PLACE + 1} to {LONGEST} tokens")
    half = args.dtype == "mixed"
    if half and args.study == "quantization":
        raise LisaError("--study quantization compares mixed anyway: name the full precision")
    place = args.study or ("bench mixed" if half else "bench")
    for path in filter(None, (args.json, args.plot, args.write)):
        writable_file(path)
    if args.plot:
        figure_format(args.plot)
    if args.write:
        find_place(args.write, place)
    import torch

    from lisa_ros.model.quantization import multiplies_natively

    device = torch.device(find_device(args.device))
    if half and not multiplies_natively(torch.bfloat16, device):
        raise LisaError("--dtype mixed: this processor has no bfloat16 instructions")
    full = "float32" if half else args.dtype
    full = full or ("bfloat16" if device.type == "cuda" else "float32")
    return device, getattr(torch, full), torch.bfloat16 if half else None, place


def side_by_side(
    args: argparse.Namespace, device: torch.device, dtype: torch.dtype, sam_dtype: torch.dtype
) -> str:
    """All presets, all schedules, all stages; the tables."""
    import torch

    from benchmarks.measure import measure_preset
    from benchmarks.presets import random_lisa
    from lisa_ros.model.quantization import quantize

    presets = args.presets or ["nano", "lisa-35m", *(["lisa-7b"] if device.type == "cuda" else [])]
    results, left_out = [], []
    for preset in presets:
        lisa = None
        try:
            lisa = random_lisa(preset, device=device, dtype=dtype, sam_dtype=sam_dtype)
            if args.quantization:
                quantize(lisa.network, args.quantization, device)
            results.append(measure_preset(lisa, args.lengths, args.rounds, args.threads))
        except (torch.OutOfMemoryError, MemoryError):
            left_out.append(f"{preset} is left out: not enough memory on {device}")
            print(left_out[-1], file=sys.stderr)
            continue
        finally:
            del lisa
        # what is written into a page must not take the place of what was measured in another way
        results[-1].preset += f" in {args.quantization}" if args.quantization else ""
        results[-1].preset += f" beside {args.busy} busy processes" if args.busy else ""
    if not results:
        raise LisaError(f"{'; '.join(left_out)}; try --quantization, or a smaller preset")
    if args.json:
        write_file(args.json, json.dumps(as_data(results), indent=2) + "\n")
    if args.plot:
        draw(results, args.plot)
    return as_text(results)


def study(
    args: argparse.Namespace,
    device: torch.device,
    dtype: torch.dtype,
    sam_dtype: torch.dtype | None,
) -> str:
    """Ask a real model about simulated tabletops; the result as a table."""
    if args.study == "sam":
        from benchmarks.roofline import measure_routes, route_table

        presets = args.presets or ("nano", "lisa-35m")
        return route_table(measure_routes(presets, device, args.rounds, args.threads))
    import torch

    from benchmarks.studies import compare_views, gate_table, quantization_gate, view_table
    from lisa_ros.engine import Engine, EngineConfig
    from lisa_ros.model.checkpoint import Lisa, load
    from lisa_ros.model.processor import ClipView
    from lisa_ros.model.quantization import multiplies_natively

    def loaded(quantization: str | None = None, sam: torch.dtype | None = sam_dtype) -> Lisa:
        return load(
            args.model,
            device=device,
            dtype=dtype,
            sam_dtype=sam,
            vision_tower=args.vision_tower,
            quantization=quantization,
        )

    lisa = loaded(args.quantization)
    threads = args.threads or default_threads(multiplications(lisa))
    if args.study == "quantization":
        config = EngineConfig(threads=threads)
        quantized = {method: Engine(loaded(method), config) for method in QUANTIZATIONS}
        if multiplies_natively(torch.bfloat16, device):
            quantized["mixed"] = Engine(loaded(sam=torch.bfloat16), config)
        else:
            print("mixed is left out: there are no bfloat16 instructions here", file=sys.stderr)
        return gate_table(quantization_gate(Engine(lisa, config), quantized, args.scenes))
    engines = {
        view: Engine(lisa, EngineConfig(clip_view=view, threads=threads))
        for view in get_args(ClipView)
    }
    return view_table(compare_views(engines, args.scenes))


def as_text(results: Sequence[Measurements]) -> str:
    """Tables in Markdown, as docs/performance.md shows them."""
    from lisa_ros.text_tables import markdown_table

    parts = []
    for result in results:
        machine = result.machine
        reference = {t.tokens: t for t in result.timings if t.case == REFERENCE}
        schedules = []
        for t in result.timings:
            base, gains = reference.get(t.tokens), ["", ""]
            if base is not None:
                gains = [f"{base.mask_ms / t.mask_ms:.1f}x", f"{base.answer_ms / t.answer_ms:.1f}x"]
            times = [f"{t.mask_ms:.1f}", gains[0], f"{t.answer_ms:.1f}", gains[1]]
            schedules.append([t.case, str(t.tokens), *times, str(t.forwards)])
        bounds = {stage.name.split(" ")[0]: stage.bound_ms(machine) for stage in result.stages}
        stages = [
            [
                stage.name,
                f"{stage.flop / 1e9:.3g}",
                f"{stage.bytes / 1e6:.3g}",
                f"{stage.ms:.2f}",
                f"{stage.bound_ms(machine):.2f}",
                f"{100 * stage.bound_ms(machine) / stage.ms:.0f} %",
            ]
            for stage in result.stages
        ]
        # How far the mask of a known frame is from what its two stages would take at best.
        mask_ms = next(t.mask_ms for t in result.timings if t.case == KNOWN_FRAME_MASK)
        bound = bounds["question"] + bounds["mask"]
        batches = [
            [
                what,
                f"{point['count']:.0f}",
                f"{point['together_ms']:.1f}",
                f"{point['one_by_one_ms']:.1f}",
            ]
            for what, points in (
                ("questions about a known frame", result.questions),
                ("new frames, a question each", result.frames),
            )
            for point in points
        ]
        nth = ", ".join(f"{point['number']:.0f}: {point['answer_ms']:.1f}" for point in result.nth)
        beside = ", ".join(f"{p['count']:.0f}: {p['mask_ms']:.1f}" for p in result.neighbours)
        parts += [
            f"### {result.preset}, {result.parameters / 1e6:.1f} million parameters, "
            f"peak memory {result.memory_mb:.0f} MB",
            f"{machine.name}, {machine.threads} threads, {machine.dtype}, torch {machine.torch}; "
            f"measured: {machine.copy_bandwidth / 1e9:.1f} GB/s copying, "
            f"{machine.matmul_rate / 1e9:.0f} GFLOP/s multiplying matrices, "
            f"load average {machine.load:.1f}",
            markdown_table(
                ["case", "tokens", "mask ms", "gain", "answer ms", "gain", "passes"], schedules
            ),
            markdown_table(["stage", "GFLOP", "MB", "ms", "bound ms", "of the roof"], stages),
            f"Mask on a known frame: {mask_ms:.1f} ms, {mask_ms / bound:.1f} times its bound of "
            f"{bound:.2f} ms",
            f"The same beside processes that keep a core busy (ms): {beside}",
            markdown_table(["batch", "count", "together ms", "one by one ms"], batches),
            f"The n-th question about one frame (ms): {nth}",
        ]
    return "\n\n".join(parts)


def as_data(results: Sequence[Measurements]) -> dict:
    """Everything measured, with bounds, for JSON."""
    presets = []
    for result in results:
        data = asdict(result)
        for stage, values in zip(result.stages, data["stages"], strict=True):
            values["bound_ms"] = stage.bound_ms(result.machine)
        presets.append(data)
    return {"presets": presets}


def draw(results: Sequence[Measurements], path: Path) -> None:
    """Cost against the length of the answer and against the questions about a frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 2, squeeze=False)
    for (left, right), result in zip(axes, results, strict=True):
        lengths = sorted({t.tokens for t in result.timings if t.case == REFERENCE})
        for case in dict.fromkeys(t.case for t in result.timings):
            points = [t for t in result.timings if t.case == case and t.tokens in lengths]
            if len(points) == len(lengths):
                answers = [t.answer_ms for t in points]
                line = left.plot(lengths, answers, marker="o", label=case)[0]
                masks = [t.mask_ms for t in points]
                left.plot(lengths, masks, marker=".", linestyle=":", color=line.get_color())
        left.set(title=f"{result.preset}: whole answer (line), mask (dots)", yscale="log")
        left.set(xlabel="tokens of the answer", ylabel="ms")
        numbers, times = [p["number"] for p in result.nth], [p["answer_ms"] for p in result.nth]
        right.plot(numbers, times, marker="o", label="the n-th question about one frame")
        counts = [p["count"] for p in result.questions]
        each = [p["together_ms"] / p["count"] for p in result.questions]
        right.plot(counts, each, marker="s", label="each of n questions asked together")
        right.set(title=f"{result.preset}: questions about a frame", xlabel="n", ylabel="ms")
        right.set(xscale="log", ylim=(0, None))
        for one in (left, right):
            one.legend(fontsize="small")
    save_figure(figure, path)
