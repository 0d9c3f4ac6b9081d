"""What limits nano: its images' size, its views or its reading, when it refuses, and nonsense.

    python -m benchmarks.nano_studies sizes --scenes runs/nano/scenes
    python -m benchmarks.nano_studies reading
    python -m benchmarks.nano_studies refusals
    python -m benchmarks.nano_studies nonsense

Each prints a table in Markdown; they are those of docs/nano.md.
"""

# ruff: noqa: I001  lisa_tabletop comes before mujoco

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lisa_tabletop  # noqa: F401  chooses how MuJoCo draws, which is settled at its import
import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.engine import Engine
from lisa_ros.engine.question import Question
from lisa_ros.errors import LisaError
from lisa_ros.evaluation.evaluate import HIT, union
from lisa_ros.evaluation.reasonseg import read_dataset
from lisa_ros.model.checkpoint import Lisa, load
from lisa_ros.model.network import LisaNetwork
from lisa_ros.text_tables import markdown_table
from lisa_tabletop.evaluation.fixed_test_set import drawn_once, look_at
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.training.augment import (
    Views,
    clip_pixels,
    load_views,
    mirrored,
    photograph,
    resize_ids,
    sam_pixels,
)
from lisa_tabletop.training.concepts import KIND_INDEX, ConceptSpace, coverage, loudness
from lisa_tabletop.training.pretrain_towers import HARD_KINDS, view_ids, view_shares
from lisa_tabletop.training.scenes import Scenes, classes_of
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.tabletop import VALIDATION_SEEDS

SEED = 0
# 1. sizes: pixels along the image, and along a patch; nano's own numbers of patches stay
SIZES = {
    "clip": ((112, 8), (168, 12), (224, 16), (280, 20)),
    "sam": ((160, 8), (240, 12), (320, 16)),
}
STEPS, BATCH = 40, 16
ENCODER_LR, HEAD_LR = 1e-4, 1e-2
# 2. reading: the same tables for all types of question
TYPES = ("plain", "use", "relation", "two_hop")
QUESTIONS = 5  # of each type about each table
# 3. refusals: what could be added to the logit with which an answer begins "There is no"
ADDED = (-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# 4. nonsense
HARD_INPUTS = Path(__file__).parents[1] / "test" / "tabletop" / "hard_inputs.yaml"
CONFIDENT = 0.5


def resized(lisa: Lisa, part: str, size: int, patch: int) -> LisaNetwork:
    """The model with one encoder for images of another size, cut into as many patches.

    Its first layer's kernels are resized so that they answer to the smaller patch as they did to
    the whole one (Beyer et al., FlexiViT, arXiv 2212.08013, section 3.4); the rest is the same.
    """
    field = "clip" if part == "clip" else "sam_vision"
    sizes = {**getattr(lisa.config, field), "image_size": size, "patch_size": patch}
    network = LisaNetwork(replace(lisa.config, **{field: sizes}))
    name = (
        "vision_tower.embeddings.patch_embedding.weight"
        if part == "clip"
        else "image_encoder.patch_embed.projection.weight"
    )
    weights = {key: value.float() for key, value in lisa.network.state_dict().items()}
    kernel = weights[name]  # (N,3,p,p)
    pixels = torch.eye(kernel.shape[-1] ** 2).unflatten(1, kernel.shape[-2:])[:, None]
    smaller = functional.interpolate(pixels, (patch, patch), mode="bilinear", antialias=True)
    shrink = smaller.flatten(1)  # (p*p, patch*patch): what resizing does to a patch
    fitted = kernel.flatten(2) @ torch.linalg.pinv(shrink).T
    weights[name] = fitted.unflatten(2, (patch, patch))
    network.load_state_dict(weights)
    return network


def features(network: LisaNetwork, part: str, size: int, rgb: Tensor) -> Tensor:
    """What an encoder says of each patch, (B,P,C), of images (B,3,H,W) of 0..255."""
    if part == "clip":
        return network.encode_view(clip_pixels(rgb, size))
    return network.encode_frame(sam_pixels(rgb, size)).flatten(2).mT


def patch_shares(part: str, ids: Tensor, table: Tensor, classes: int, side: int) -> Tensor:
    """How much of each patch every class covers, (B,K,P), from ids (B,H,W), of which `table`
    (B,ids) tells the class."""
    if part == "clip":
        return coverage(view_ids(ids, side), table, classes, side).flatten(2)
    width = 12 * side
    small = resize_ids(ids, width * ids.shape[1] // ids.shape[2], width)
    square = functional.pad(small, (0, 0, 0, width - small.shape[1]))
    return coverage(square, table, classes, side).flatten(2)


def kinds_recognised(part: str, size: int, patch: int, scenes: Scenes) -> tuple[float, float, int]:
    """Train an encoder of this size and a linear head on it to name what each patch holds; the
    share of the validation set's objects that they name rightly, and that of thin ones."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    network = resized(load("nano"), part, size, patch)
    encoder = network.vision_tower if part == "clip" else network.image_encoder
    encoder.requires_grad_(True)
    classes, side = len(KIND_INDEX) + 1, size // patch
    width = network.config.hidden_size if part == "clip" else network.config.prompt_size
    head = nn.Linear(width, classes)
    groups = [{"params": encoder.parameters(), "lr": ENCODER_LR}]
    groups += [{"params": head.parameters(), "lr": HEAD_LR}]
    optimizer = torch.optim.AdamW(groups)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    # 1. the same views in the same order for every size
    for _ in range(STEPS):
        views = mirrored(load_views(scenes, scenes.draw(random, BATCH), random))
        wanted = patch_shares(part, views.ids, views.kinds, classes, side)  # (B,K,P)
        said = head(features(network, part, size, photograph(views.rgb))).log_softmax(-1)
        weight = 0.1 + (1 - wanted[:, 0])  # most of a table is empty
        loss = -((wanted.mT * said).sum(-1) * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    # 2. whose patches are most like which kind
    right: dict[bool, list[bool]] = {True: [], False: []}
    with torch.inference_mode():
        for rgb, ids, objects in validation_objects():
            said = head(features(network, part, size, rgb))[0, :, 1:].log_softmax(-1)  # (P,K-1)
            table = torch.zeros(1, 256, dtype=torch.long)
            for number, (identity, _) in enumerate(objects, 1):
                table[0, identity] = number
            shares = patch_shares(part, ids, table, len(objects) + 1, side)[0, 1:]  # (objects,P)
            named = (shares @ said).argmax(-1) + 1
            for (_, kind), guess in zip(objects, named.tolist(), strict=True):
                right[kind in HARD_KINDS].append(guess == KIND_INDEX[kind])
    every = right[True] + right[False]
    return float(np.mean(every)), float(np.mean(right[True])), len(every)


def validation_objects() -> Iterator[tuple[Tensor, Tensor, list[tuple[int, str]]]]:
    """Each image of the validation set (1,3,H,W), its ids, and the objects that it asks for."""
    items: dict[tuple[str, str], list] = {}
    for item in read_dataset(drawn_once("validation")):
        items.setdefault(item.scene, []).append(item)
    for asked in items.values():
        meant = {one["id"]: one["kind"] for item in asked for one in item.ours["targets"]}
        if meant:
            rgb = torch.from_numpy(asked[0].rgb().copy()).permute(2, 0, 1)[None].float()
            yield rgb, torch.from_numpy(asked[0].ids()).long()[None], list(meant.items())


def sizes(args: argparse.Namespace) -> str:
    """The table of kinds recognised by input size."""
    scenes, rows = Scenes(args.scenes), []
    for part, pairs in SIZES.items():
        for size, patch in pairs:
            every, thin, count = kinds_recognised(part, size, patch, scenes)
            rows.append([part, f"{size} px", str(patch), f"{every:.3f}", f"{thin:.3f}", str(count)])
            print(*rows[-1], flush=True)
    head = ["encoder", "image", "patch", "kind right", "of thin things", "objects"]
    return markdown_table(head, rows)


def written_view(engine: Engine, view: SceneView) -> Tensor:
    """The embeddings (P,H) with which `pretrain_language` writes what the image really holds."""
    config = engine.lisa.config
    concepts = ConceptSpace(config.prompt_size, config.hidden_size)
    ids = torch.from_numpy(view.instances)[None].long()
    views = Views(ids[..., :0], ids, torch.from_numpy(classes_of(view.record))[None], ids > 0)
    kinds, colors = view_shares(
        concepts, views, config.clip["image_size"] // config.clip["patch_size"]
    )
    return concepts.view(loudness(kinds), loudness(colors))[0]


def reading(args: argparse.Namespace) -> str:
    """The table of answers about views of the tower, and about views that say the truth."""
    engine = Engine(load(args.model))
    right: dict[tuple[str, str], list[bool]] = {}
    for seed in VALIDATION_SEEDS[-args.tables :]:
        view = look_at(seed)
        random = np.random.default_rng((seed, 5))
        asked = [
            (name, question)
            for name in TYPES
            for question in compose(
                view.record,
                random,
                QUESTIONS,
                types={name: 1.0},
                forms={"name": 1.0},
                whole_frame=True,
            )
        ]
        for source in ("tower", "truth"):
            key = (seed, source)
            if source == "truth":
                entry = engine.features.get(key, view.rgb.shape[:2])
                entry.views = [written_view(engine, view)]
            for name, question in asked:
                answer = engine.segment(view.rgb, question["instruction"], key=key)
                found = union(answer, view.instances.shape)
                meant = np.isin(view.instances, question["targets"])
                overlap = (found & meant).sum() / max(1, (found | meant).sum())
                right.setdefault((name, source), []).append(bool(overlap > HIT))
    rows = [
        [
            name.replace("_", " "),
            str(len(right[name, "tower"])),
            *(f"{np.mean(right[name, source]):.2f}" for source in ("tower", "truth")),
        ]
        for name in TYPES
    ]
    return markdown_table(["questions", "asked", "views of the tower", "true views"], rows)


@torch.inference_mode()
def refusals(args: argparse.Namespace) -> str:
    """The table of refusals, if the answer's first id were chosen more or less in their favour."""
    engine = Engine(load(args.model))
    network, prompts = engine.network, engine.prompts
    odds: dict[bool, list[float]] = {True: [], False: []}
    for item in read_dataset(drawn_once("validation")):
        question = Question(item.rgb(), item.instruction, history=item.history)
        view = network.encode_view(engine.lisa.processor.clip_pixels(question.image)[None])
        states = network(torch.tensor([prompts.ids(question)]), view)
        logits = network.lm_head(states[0, -1])
        refusal = logits[prompts.refusal[0]].item()
        logits[prompts.refusal[0]] = -torch.inf
        odds[not item.ours["targets"]].append(refusal - logits.max().item())
    rows = [
        [f"{added:+.1f}", *(f"{np.mean(np.array(odds[k]) + added > 0):.3f}" for k in (True, False))]
        for added in ADDED
    ]
    counts = len(odds[True]), len(odds[False])
    head = ["added", f"refused rightly, of {counts[0]}", f"wrongly, of {counts[1]}"]
    return markdown_table(head, rows)


def nonsense(args: argparse.Namespace) -> str:
    """The table of what comes of inputs that mean nothing on a table."""
    engine, rows = Engine(load(args.model)), []
    images = [look_at(8_000_000 + number).rgb for number in range(args.tables)]
    inputs = yaml.safe_load(HARD_INPUTS.read_text(encoding="utf-8"))
    for sort, texts in inputs.items():
        best = [_best_score(engine, *one, text) for text in texts for one in enumerate(images)]
        shown = [score for score in best if score is not None]
        confident = sum(score >= CONFIDENT for score in shown)
        rows.append([sort, len(best), len(best) - len(shown), len(shown) - confident, confident])
    rows.append(["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    head = ["input", "asked", "words or a refusal", "a doubtful mask", "a confident mask"]
    return markdown_table(head, [[str(cell) for cell in row] for row in rows])


def _best_score(engine: Engine, key: int, image: np.ndarray, text: str) -> float | None:
    """The best score of the answer's masks; None where there is none."""
    answer = engine.segment(image, text, key=key)
    return max((instance.score for instance in answer.instances), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = parser.add_subparsers(dest="study", required=True)
    rendered = studies.add_parser("sizes")
    rendered.add_argument(
        "--scenes", type=Path, default=Path("runs/nano/scenes"), help="rendered tables to train on"
    )
    rendered.set_defaults(run=sizes)
    for run, tables in ((reading, 40), (refusals, None), (nonsense, 2)):
        asked = studies.add_parser(run.__name__)
        asked.add_argument("--model", default="nano")
        if tables:
            about = f"to ask about (default: {tables})"
            asked.add_argument("--tables", type=int, default=tables, help=about)
        asked.set_defaults(run=run)
    args = parser.parse_args()
    if getattr(args, "tables", 1) < 1:
        parser.error(f"--tables must be 1 or more, it is {args.tables}")
    try:
        print(args.run(args))
    except (LisaError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
