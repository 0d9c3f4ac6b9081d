"""The measurements as a table, as plain data, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.measure import Measurements
from benchmarks.studies import LEAST_IOU, Gate, ViewResult
from lisa_ros.errors import LisaError

REFERENCE = "reference schedule"
KNOWN_FRAME_MASK = "engine, mask mode, known frame"


def as_text(machine: Machine, results: Sequence[Measurements]) -> str:
    """Tables in Markdown, as docs/performance.md shows them."""
    parts = [
        f"{machine.name}, {machine.threads} threads, {machine.dtype}, torch {machine.torch}; "
        f"measured: {machine.copy_bandwidth / 1e9:.1f} GB/s copying, "
        f"{machine.matmul_rate / 1e9:.0f} GFLOP/s multiplying matrices"
    ]
    for result in results:
        parts += [
            f"## {result.preset}, {result.parameters / 1e6:.1f} million parameters, "
            f"peak memory {result.memory_mb:.0f} MB",
            _schedules(result),
            _stages(machine, result),
            _known_frame(machine, result),
            _curves(result),
        ]
    return "\n\n".join(parts)


def _schedules(result: Measurements) -> str:
    """Times and how many times faster than the reference schedule with the same answer."""
    reference = {t.tokens: t for t in result.timings if t.case == REFERENCE}
    rows = []
    for t in result.timings:
        base = reference.get(t.tokens)
        gains = ["", ""]
        if base is not None:
            gains = [f"{base.mask_ms / t.mask_ms:.1f}x", f"{base.answer_ms / t.answer_ms:.1f}x"]
        times = [f"{t.mask_ms:.1f}", gains[0], f"{t.answer_ms:.1f}", gains[1]]
        rows.append([t.case, str(t.tokens), *times, str(t.forwards)])
    head = ["case", "tokens", "mask ms", "gain", "answer ms", "gain", "passes"]
    return _table(head, rows)


def _stages(machine: Machine, result: Measurements) -> str:
    rows = []
    for stage in result.stages:
        bound = stage.bound_ms(machine)
        share = f"{100 * bound / stage.ms:.0f} %"
        work = [f"{stage.flop / 1e9:.3g}", f"{stage.bytes / 1e6:.3g}"]
        rows.append([stage.name, *work, f"{stage.ms:.2f}", f"{bound:.2f}", share])
    return _table(["stage", "GFLOP", "MB", "ms", "bound ms", "of the roof"], rows)


def _known_frame(machine: Machine, result: Measurements) -> str:
    """How far the mask of a known frame is from what its two stages would take at best."""
    stages = {stage.name.split(" ")[0]: stage.bound_ms(machine) for stage in result.stages}
    bound = stages["question"] + stages["mask"]
    ms = next(t.mask_ms for t in result.timings if t.case == KNOWN_FRAME_MASK)
    return f"Mask on a known frame: {ms:.1f} ms, {ms / bound:.1f} times its bound of {bound:.2f} ms"


def _curves(result: Measurements) -> str:
    rows = [
        [
            what,
            str(int(point["count"])),
            f"{point['together_ms']:.1f}",
            f"{point['one_by_one_ms']:.1f}",
        ]
        for what, points in (
            ("questions about a known frame", result.questions),
            ("new frames, a question each", result.frames),
        )
        for point in points
    ]
    table = _table(["batch", "count", "together ms", "one by one ms"], rows)
    nth = ", ".join(f"{int(p['number'])}: {p['answer_ms']:.1f}" for p in result.nth)
    return f"{table}\n\nThe n-th question about one frame (ms): {nth}"


def gates_as_text(gates: Sequence[Gate]) -> str:
    """How the masks of quantised models agree with those of the full one."""
    rows = [
        [
            gate.method,
            str(gate.questions),
            f"{gate.mean_iou:.4f}",
            f"{gate.least_iou:.3f}",
            f"{100 * gate.same_words:.0f} %",
            f"{gate.answer_ms:.1f}",
            "yes" if gate.passed else "no",
        ]
        for gate in gates
    ]
    head = ["method", "questions", "mean IoU", "least IoU", "same words", "answer ms"]
    return _table([*head, f"mean IoU >= {LEAST_IOU}"], rows)


def views_as_text(results: Sequence[ViewResult]) -> str:
    """How well objects inside and outside the central square are found."""
    inside, outside = results[0].counts
    rows = [
        [r.clip_view, f"{r.inside:.3f}", f"{r.outside:.3f}", f"{r.answer_ms:.1f}"] for r in results
    ]
    head = ["clip_view", f"inside ({inside})", f"outside ({outside})", "answer ms"]
    return _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(_aligned(cell, i, widths) for i, cell in enumerate(row)) + " |"
        for row in [head, *rows]
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths))
    return "\n".join([lines[0], rule + "|", *lines[1:]])


def _aligned(cell: str, column: int, widths: list[int]) -> str:
    return cell.rjust(widths[column]) if column else cell.ljust(widths[column])


def as_data(machine: Machine, results: Sequence[Measurements]) -> dict:
    """Everything measured, with bounds, for JSON."""
    presets = []
    for result in results:
        data = asdict(result)
        for stage, values in zip(result.stages, data["stages"], strict=True):
            values["bound_ms"] = stage.bound_ms(machine)
        presets.append(data)
    return {"machine": asdict(machine), "presets": presets}


def draw(results: Sequence[Measurements], path: Path) -> None:
    """Cost against the length of the answer and against the questions about a frame."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LisaError(
            "--plot needs the package matplotlib; install it or leave it out"
        ) from error
    figure = Figure(figsize=(11, 4 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 2, squeeze=False)
    for (left, right), result in zip(axes, results, strict=True):
        _draw_lengths(left, result)
        _draw_questions(right, result)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise LisaError(f"cannot write {path}: {error}") from error


def _draw_lengths(axes: object, result: Measurements) -> None:
    lengths = sorted({t.tokens for t in result.timings if t.case == REFERENCE})
    for case in dict.fromkeys(t.case for t in result.timings):
        points = [t for t in result.timings if t.case == case and t.tokens in lengths]
        if len(points) < len(lengths):
            continue
        line = axes.plot(lengths, [t.answer_ms for t in points], marker="o", label=case)[0]
        mask = [t.mask_ms for t in points]
        axes.plot(lengths, mask, marker=".", linestyle=":", color=line.get_color())
    axes.set(
        title=f"{result.preset}: whole answer (line), mask (dots)",
        xlabel="tokens of the answer",
        ylabel="ms",
        yscale="log",
    )
    axes.legend(fontsize="small")


def _draw_questions(axes: object, result: Measurements) -> None:
    axes.plot(
        [p["number"] for p in result.nth],
        [p["answer_ms"] for p in result.nth],
        marker="o",
        label="the n-th question about one frame",
    )
    each = [p["together_ms"] / p["count"] for p in result.questions]
    count = [p["count"] for p in result.questions]
    axes.plot(count, each, marker="s", label="each of n questions asked together")
    axes.set(title=f"{result.preset}: questions about a frame", xlabel="n", ylabel="ms")
    axes.set(xscale="log", ylim=(0, None))
    axes.legend(fontsize="small")
