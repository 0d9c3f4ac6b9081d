"""What a choice costs in masks: quantization, and what the language model sees of a wide image.

Both ask about simulated tabletops that no training has seen.
"""

# ruff: noqa: I001  lisa_tabletop comes before mujoco

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

import lisa_tabletop  # noqa: F401  chooses how MuJoCo draws, which is settled at its import
import mujoco
import numpy as np

from lisa_ros.text_tables import markdown_table
from lisa_ros.engine import Answer, Engine
from lisa_ros.evaluation.evaluate import union
from lisa_tabletop.evaluation.fixed_test_set import views
from lisa_tabletop.world.camera import TabletopCamera, SceneView
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.language.knowledge import load_knowledge
from lisa_tabletop.world.tabletop import TEST_SEEDS, Tabletop

LEAST_IOU = 0.99  # mean agreement of masks that a quantized model must reach
QUESTIONS = 6  # of all kinds, about each scene
TURNED = (0.25, 0.42)  # radians by which the comparison of views turns the camera
MIN_VISIBLE = 0.6  # of an object that is asked for by the comparison of views


@dataclass(frozen=True)
class Gate:
    """How far a quantized model's answers are from those of the full model."""

    method: str
    questions: int
    mean_iou: float
    least_iou: float
    same_words: float
    """fraction of the answers whose words are the same"""
    answer_ms: float

    @property
    def passed(self) -> bool:
        """Whether the masks agree well enough to use the method on a robot."""
        return self.mean_iou >= LEAST_IOU


def quantization_gate(full: Engine, quantized: Mapping[str, Engine], scenes: int) -> list[Gate]:
    """Ask the full model and each quantized one the same questions of all kinds."""
    asked = list(_questions(scenes))
    expected = [full.segment(image, words, key=key) for key, image, words in asked]
    gates = []
    for method, engine in quantized.items():
        answers = [engine.segment(image, words, key=key) for key, image, words in asked]
        overlaps = [_agreement(a, b) for a, b in zip(answers, expected, strict=True)]
        same = mean(a.text == b.text for a, b in zip(answers, expected, strict=True))
        time = median(a.timings["total"] for a in answers)
        gates.append(Gate(method, len(asked), mean(overlaps), min(overlaps), same, time))
    return gates


def gate_table(gates: Sequence[Gate]) -> str:
    """How the masks of quantized models agree with those of the full one."""
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
    return markdown_table([*head, f"mean IoU >= {LEAST_IOU}"], rows)


def _questions(scenes: int) -> Iterator[tuple[int, np.ndarray, str]]:
    for key, view in enumerate(views(scenes)):
        random = np.random.default_rng((view.record["seed"], 3))
        for question in compose(view.record, random, QUESTIONS):
            yield key, view.rgb, question["instruction"]


def _agreement(a: Answer, b: Answer) -> float:
    """IoU of everything that two answers mask; 1 where neither masks anything."""
    if not a.instances and not b.instances:
        return 1.0
    shape = (a.instances or b.instances)[0].mask.shape
    return _iou(union(a, shape), union(b, shape))


@dataclass(frozen=True)
class ViewResult:
    """How well single objects are found with one view of the image, by where they stand."""

    clip_view: str
    inside: float
    """mean IoU with the truth for objects that the central square shows in full"""
    outside: float
    """the same for objects of which it shows less than half"""
    counts: tuple[int, int]
    answer_ms: float


def compare_views(engines: Mapping[str, Engine], scenes: int) -> list[ViewResult]:
    """Ask each engine for every object that its kind and colour tell from all others."""
    overlaps: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in engines}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for key, view in enumerate(_turned_views(scenes)):
        for words, truth in _single_objects(view):
            shown = _share_in_square(truth)
            if 0.5 <= shown < 1:
                continue
            for name, engine in engines.items():
                answer = engine.segment(view.rgb, words, key=key)
                overlaps[name][shown < 1].append(_iou(union(answer, truth.shape), truth))
                times[name].append(answer.timings["total"])
    return [
        ViewResult(name, _mean(a), _mean(b), (len(a), len(b)), median(times[name]))
        for name, (a, b) in overlaps.items()
    ]


def view_table(results: Sequence[ViewResult]) -> str:
    """How well objects inside and outside the central square are found."""
    inside, outside = results[0].counts
    rows = [
        [r.clip_view, f"{r.inside:.3f}", f"{r.outside:.3f}", f"{r.answer_ms:.1f}"] for r in results
    ]
    head = ["clip_view", f"inside ({inside})", f"outside ({outside})", "answer ms"]
    return markdown_table(head, rows)


def _turned_views(scenes: int) -> Iterator[SceneView]:
    """Test scenes seen by a camera that is turned aside, so that much stands near the border."""
    for seed in TEST_SEEDS[:scenes]:
        scene = Tabletop(seed)
        camera = TabletopCamera(scene)
        random = np.random.default_rng((seed, 4))
        camera.move(random)
        angle = random.choice([-1, 1]) * random.uniform(*TURNED)
        turned, aside = np.empty(4), np.array([np.cos(angle / 2), 0, np.sin(angle / 2), 0])
        mujoco.mju_mulQuat(turned, scene.model.cam_quat[0], aside)
        scene.model.cam_quat[0] = turned
        mujoco.mj_forward(scene.model, scene.data)
        yield camera.look()
        camera.close()


def _single_objects(view: SceneView) -> Iterator[tuple[str, np.ndarray]]:
    """An instruction for each object that is alone of its kind and colour, and its mask (H, W)."""
    kinds = load_knowledge().kinds
    looks = Counter((o["kind"], o["color"]) for o in view.record["objects"])
    for thing in view.record["objects"]:
        mask = view.instances == thing["id"]
        alone = looks[thing["kind"], thing["color"]] == 1
        if alone and thing["visible"] >= MIN_VISIBLE and mask.any():
            yield f"the {thing['color']} {kinds[thing['kind']].name}", mask


def _share_in_square(mask: np.ndarray) -> float:
    """The part of a mask (H, W) that lies in the central square of its image."""
    height, width = mask.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return float(mask[top : top + side, left : left + side].sum() / mask.sum())


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def _mean(values: Sequence[float]) -> float:
    return mean(values) if values else float("nan")
