"""The curves of a training run, drawn from its TensorBoard logs."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lisa_ros.errors import LisaError
from lisa_ros.image_files import figure_format, save_figure
from lisa_ros.writing import writable_file

SHOWN = {
    "pretrain_sam": {
        "iou": "IoU of prompted masks",
        "naming": "patch naming loss",
        "outline": "outline loss",
    },
    "pretrain_vision_tower": {"right": "patches named right", "objects": "view error on objects"},
    "pretrain_language": {
        "right": "answer tokens right",
        "hit": "looks at what is meant",
        "ce": "cross entropy",
    },
    "train_joint": {
        "iou": "IoU of answered masks",
        "right": "answer tokens right",
        "dice": "Dice loss",
    },
}
SMOOTH = 9  # logged points averaged; the raw curve stays behind, paler


def draw_curves(folder: Path, path: Path) -> None:
    """One panel a stage, losses and accuracies over steps; LisaError where there is no run."""
    figure_format(writable_file(path))
    if not (folder / "log").is_dir():
        raise LisaError(f"{folder} holds no training run: it has no log folder")
    figure, axes = pyplot.subplots(1, len(SHOWN), figsize=(4.2 * len(SHOWN), 3.4))
    for axis, (stage, curves) in zip(axes, SHOWN.items(), strict=True):
        if not (folder / "log" / stage).is_dir():
            continue
        log = EventAccumulator(str(folder / "log" / stage))
        log.Reload()
        for name, label in curves.items():
            if name not in log.Tags()["scalars"]:
                continue
            # a run that was stopped has logged the steps since its checkpoint twice
            points = sorted({event.step: event.value for event in log.Scalars(name)}.items())
            steps, values = np.array(points).T
            (line,) = axis.plot(steps, values, alpha=0.25, linewidth=0.8)
            axis.plot(steps, _smooth(values), color=line.get_color(), label=label)
        axis.set(title=stage, xlabel="step", ylim=(0, 1.5))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    save_figure(figure, path, dpi=90)
    pyplot.close(figure)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean that takes fewer points at the ends."""
    window = np.ones(min(SMOOTH, len(values)))
    counts = np.convolve(np.ones(len(values)), window, mode="same")
    return np.convolve(values, window, mode="same") / counts
