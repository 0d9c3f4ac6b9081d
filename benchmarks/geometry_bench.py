"""What a mask's way to cloud, box and grasps costs, on one core.

    OMP_NUM_THREADS=1 PYTHONPATH=test python -m benchmarks.geometry_bench

prints the processor time of each step in milliseconds: medians of rounds of calls, of which the
best counts, as other work on the machine can only make a round slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from geometry_scenes import noisy, on_table, render

from lisa_ros.geometry import Intrinsics, locate, parallel_grasps, suction_grasps
from lisa_ros.text_tables import markdown_table

ROUNDS, CALLS = 8, 15
CAMERA = Intrinsics(640, 480, fx=550.0, fy=552.0, cx=321.0, cy=238.0)
SIZE, DISTANCE = (0.12, 0.08, 0.06), 0.6  # metres


def milliseconds(calls: list[Callable[[], object]]) -> float:
    """The best median of processor time; the calls take turns, as each may suit a branch better."""
    medians = []
    for _ in range(ROUNDS):
        spent = []
        for call in calls * -(-CALLS // len(calls)):
            began = time.thread_time()
            call()
            spent.append(1000 * (time.thread_time() - began))
        medians.append(statistics.median(spent))
    return min(medians)


def main() -> None:
    scenes = []
    for seed in range(5):
        scene = on_table(SIZE, yaw=0.3 * seed, distance=DISTANCE)
        depth, seen = render([scene.thing, scene.table], CAMERA)
        scenes.append((seen == 0, noisy(depth, seed)))
    pixels = statistics.mean(int(mask.sum()) for mask, _ in scenes)
    print(f"640x480, an object of {pixels:,.0f} pixels; milliseconds of one core\n")
    rows = []
    for name, up in (("upright", "support"), ("free", None)):
        objects = [locate(mask, depth, CAMERA, up=up) for mask, depth in scenes]
        steps = (
            [partial(locate, *one, CAMERA, up=up) for one in scenes],
            [partial(parallel_grasps, obj) for obj in objects],
            [partial(suction_grasps, obj) for obj in objects],
        )
        times = [milliseconds(step) for step in steps]
        rows.append([name, *(f"{value:.1f}" for value in (*times, float(np.sum(times))))])
    print(markdown_table(["box", "cloud and box", "gripper", "suction cup", "together"], rows))


if __name__ == "__main__":
    main()
