"""`lisa-ros bench`: the engine beside the reference schedule and transformers' `generate`.

With `--study` it measures instead what a choice costs in masks, with a real model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lisa_ros.errors import LisaError
from lisa_ros.writing import writable_file, write_file

if TYPE_CHECKING:
    import torch

    from benchmarks.measure import Measurements

PRESETS = ("tiny", "nano", "lisa-35m", "lisa-7b", "lisa-13b")
QUANTIZATIONS = ("int8", "fp8", "int4")
DTYPES = ("float32", "bfloat16", "float16", "mixed")
REFERENCE = "reference schedule"
KNOWN_FRAME_MASK = "engine, mask mode, known frame"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=PRESETS,
        help="shapes with random weights (default: nano lisa-35m; on a GPU also lisa-7b)",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 (default: a GPU if any)")
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
        "--busy", type=int, default=0, help="measure beside so many processes that keep cores busy"
    )
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each case")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 20, 100], metavar="TOKENS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into a page")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the curves")
    parser.add_argument(
        "--study",
        choices=("quantization", "views", "sam"),
        help="masks of quantised models beside full precision; center, squash and tiles; ways to "
        "compute SAM's image encoder",
    )
    parser.add_argument("--model", default="nano", help="of a study (default: nano)")
    parser.add_argument("--vision-tower", help="of a study: folder of the CLIP tower")
    parser.add_argument("--scenes", type=int, default=50, help="of a study (default: 50)")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write what is asked for."""
    for path in (args.json, args.plot, args.write):
        if path:
            writable_file(path)
    import torch

    from benchmarks.generated_tables import put_into_page

    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    dtype = torch.float32 if name == "mixed" else getattr(torch, name)
    if args.study:
        place, text = args.study, study(args, device, dtype)
    else:
        place = "bench mixed" if name == "mixed" else "bench"
        text = side_by_side(args, device, dtype, torch.bfloat16 if name == "mixed" else dtype)
    print(text)
    if args.write:
        put_into_page(args.write, place, text)
    return 0


def side_by_side(
    args: argparse.Namespace, device: torch.device, dtype: torch.dtype, sam_dtype: torch.dtype
) -> str:
    """All presets, all schedules, all stages; the tables."""
    from benchmarks.measure import SEG_PLACE, busy_neighbours, measure_preset
    from benchmarks.presets import random_lisa
    from lisa_ros.model.quantization import quantize

    if min(args.lengths) <= SEG_PLACE or args.rounds < 1 or args.busy < 0:
        raise LisaError(f"answers need more than {SEG_PLACE} tokens, and at least one round")
    presets = args.presets or ["nano", "lisa-35m", *(["lisa-7b"] if device.type == "cuda" else [])]
    results = []
    with busy_neighbours(args.busy):
        for preset in presets:
            lisa = random_lisa(preset, device=device, dtype=dtype, sam_dtype=sam_dtype)
            if args.quantization:
                quantize(lisa.network, args.quantization, device)
            results.append(measure_preset(lisa, args.lengths, args.rounds, args.threads))
            del lisa
    if args.json:
        write_file(args.json, json.dumps(as_data(results), indent=2) + "\n")
    if args.plot:
        draw(results, args.plot)
    return as_text(results)


def study(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> str:
    """Ask a real model about simulated tabletops; the result as a table."""
    from benchmarks.sam_routes import measure_routes, route_table

    if args.study == "sam":
        presets = args.presets or ("nano", "lisa-35m")
        return route_table(measure_routes(presets, device, args.rounds, args.threads))
    from benchmarks.studies import compare_views, gate_table, quantization_gate, view_table
    from lisa_ros.engine import Engine, EngineConfig
    from lisa_ros.model.checkpoint import Lisa, load
    from lisa_ros.model.processor import ClipView

    def loaded(quantization: str | None = None, sam_dtype: torch.dtype | None = None) -> Lisa:
        return load(
            args.model,
            device=device,
            dtype=dtype,
            sam_dtype=sam_dtype,
            vision_tower=args.vision_tower,
            quantization=quantization,
        )

    if args.study == "quantization":
        import torch

        quantised = {method: Engine(loaded(method)) for method in QUANTIZATIONS}
        quantised["mixed"] = Engine(loaded(sam_dtype=torch.bfloat16))
        return gate_table(quantization_gate(Engine(loaded()), quantised, args.scenes))
    lisa = loaded()
    engines = {view: Engine(lisa, EngineConfig(clip_view=view)) for view in get_args(ClipView)}
    return view_table(compare_views(engines, args.scenes))


def as_text(results: Sequence[Measurements]) -> str:
    """Tables in Markdown, as docs/performance.md shows them."""
    from benchmarks.generated_tables import markdown_table

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
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise LisaError(f"cannot write {path}: {error}") from error
