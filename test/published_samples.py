"""Miniatures of the published data sets in their own layouts, drawn from a seed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZES = ((64, 48), (50, 70), (96, 40), (61, 61))  # width, height


def drawn_image(path: Path, seed: int) -> tuple[int, int]:
    """A JPEG of soft colours; its size."""
    random = np.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    small = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.Resampling.BICUBIC).save(path, "JPEG", quality=92)
    return width, height


def label_map(path: Path, size: tuple[int, int], numbers: Sequence[int], seed: int) -> None:
    """A PNG in which each number fills a rectangle, the first one the ground."""
    random = np.random.default_rng(seed)
    image = Image.new("L", size, numbers[0])
    draw = ImageDraw.Draw(image)
    for number in numbers[1:]:
        x, y = random.integers(0, size[0] - 12), random.integers(0, size[1] - 12)
        draw.rectangle([int(x), int(y), int(x) + 11, int(y) + 9], fill=number)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def triangle(size: tuple[int, int], random: np.random.Generator) -> list[float]:
    x, y = random.integers(2, size[0] - 22), random.integers(2, size[1] - 22)
    return [float(v) for v in (x, y, x + 18.5, y + 3, x + 6, y + 17.25)]


def written(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def semantic(root: Path) -> None:
    for n in range(3):
        size = drawn_image(root / f"ade20k/images/training/ADE_train_{n}.jpg", n)
        label_map(root / f"ade20k/annotations/training/ADE_train_{n}.png", size,
                  [(0, 1, 4)[n], 13, 150, 20 + n][: 2 + n], n)  # fmt: skip
    for n in range(4):
        size = drawn_image(root / f"coco/train2017/{n:012d}.jpg", 10 + n)
        # 255 and "wall-brick" (170) are not asked for
        label_map(
            root / f"cocostuff/train2017/{n:012d}.png", size, [170, 0, 43, 255, 148][: 3 + n], n
        )
    labels = [{"readable": name} for name in ("Bird", "Curb", "Traffic Light", "Lane Marking")]
    written(root / "mapillary/config_v2.0.json", {"labels": labels})
    for n in range(2):
        size = drawn_image(root / f"mapillary/training/images/{n}.jpg", 20 + n)
        label_map(root / f"mapillary/training/v2.0/labels/{n}.png", size, [1, 3, 0, 2][: 3 + n], n)


def coco(path: Path, names: Sequence[str], images: Sequence[tuple[str, tuple[int, int]]]) -> None:
    """Annotations in COCO's form: polygons, a plain RLE, one without area."""
    random = np.random.default_rng(len(names))
    entries, annotations = [], []
    for key, (name, size) in enumerate(images, 1):
        entries.append({"id": key, "file_name": name, "width": size[0], "height": size[1]})
        for n in range(1 + key):
            segmentation: object = [triangle(size, random)]
            if n == 2:
                segmentation = {"size": size[::-1], "counts": [40, 30, size[0] * size[1] - 70]}
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": key, "segmentation": segmentation,
                                "category_id": 1 + (number + n) % len(names)})  # fmt: skip
    categories = [{"id": key, "name": name} for key, name in enumerate(names, 1)]
    written(path, {"images": entries, "annotations": annotations, "categories": categories})


def parts(root: Path) -> None:
    sizes = [SIZES[(10 + n) % 4] for n in range(4)]
    images = [(f"train2017/{n:012d}.jpg", sizes[n]) for n in range(3)]
    coco(root / "vlpart/paco/annotations/paco_lvis_v1_train.json",
         ["bench", "bottle_(drink):cap", "mug:handle_(of_it)"], images)  # fmt: skip
    folder = root / "vlpart/pascal_part"
    jpegs = folder / "VOCdevkit/VOC2010/JPEGImages"
    images = [(f"2008_{n}.jpg", drawn_image(jpegs / f"2008_{n}.jpg", 30 + n)) for n in range(2)]
    coco(folder / "train.json", ["dog:ear", "aeroplane:left wing"], images)


def referring(root: Path) -> None:
    folder = root / "refer_seg"
    for name in ("refclef", "refcoco", "refcoco+", "refcocog"):
        by = "umd" if name == "refcocog" else "unc"
        below = "saiapr_tc-12/00/images" if name == "refclef" else "mscoco/images/train2014"
        random = np.random.default_rng(len(name))
        images, annotations, refs = [], [], []
        for key in range(1, 5):
            file = f"{key}.jpg" if name == "refclef" else f"COCO_train2014_{key:012d}.jpg"
            size = drawn_image(folder / "images" / below / file, 40 + key)
            file = f"00/images/{file}" if name == "refclef" else file
            images.append({"id": key, "file_name": file, "width": size[0], "height": size[1]})
            for n in range(2):
                number = 10 * key + n
                segmentation: object = [triangle(size, random)]
                if name == "refclef":
                    counts = [30, 25, size[0] * size[1] - 55]
                    segmentation = [compressed({"size": size[::-1], "counts": counts})]
                annotations.append({"id": number, "image_id": key, "segmentation": segmentation})
                split = ["train", "train", "val", "testA" if name != "refcocog" else "test"][
                    key - 1
                ]
                words = [f" The {name} Thing {number} ", "left one", "RED"][: 1 + (key + n) % 3]
                sentences = [{"sent_id": 100 * number + k, "sent": w, "tokens": w.split()}
                             for k, w in enumerate(words)]  # fmt: skip
                refs.append({"ref_id": number, "ann_id": number, "category_id": 1, "image_id": key,
                             "split": split, "sentences": sentences})  # fmt: skip
        categories = [{"id": 1, "name": "thing"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        written(folder / name / "instances.json", content)
        # Python 2 wrote the real ones, with the oldest protocols
        (folder / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=0))


def compressed(code: dict) -> dict:
    from pycocotools import mask

    packed = mask.frPyObjects(code, *code["size"])
    return {"size": list(code["size"]), "counts": packed["counts"].decode()}


def dialogues(root: Path) -> None:
    says = [("human", "<image>\nWhat is here?"), ("gpt", "A table."),
            ("human", "And on it?"), ("gpt", "A cup, and a spoon.")]  # fmt: skip
    late = [("human", "Is it day?\n<image>"), ("gpt", "Yes.")]
    entries = [
        {"id": str(n), "image": f"{n:012d}.jpg",
         "conversations": [{"from": who, "value": what} for who, what in (says, late)[n % 2]]}
        for n in range(3)
    ]  # fmt: skip
    written(root / "llava_dataset/llava_instruct_150k.json", entries)


def reasonseg(root: Path) -> None:
    folder = root / "reason_seg/ReasonSeg"
    for split, count in (("train", 4), ("val", 3), ("test", 4)):
        for n in range(count):
            size = drawn_image(folder / split / f"{split}{n}.jpg", 60 + n)
            random = np.random.default_rng(n)
            corners = [np.reshape(triangle(size, random), (3, 2)).tolist() for _ in range(1 + n)]
            shapes = [{"label": label, "points": points} for points, label in zip(
                       corners, ("target", "ignore", "target", "flag"), strict=False)]  # fmt: skip
            text = [f"What do you drink {word} from?" for word in ("tea", "milk", "water", "rum")]
            if n == 1:
                text = ["the Wet Thing"]
            entry = {"text": text[: 5 - n], "is_sentence": n != 1, "shapes": shapes}
            written(folder / split / f"{split}{n}.json", entry)
    reasons = [
        {"image": f"train{n}.jpg", "query": "q", "outputs": f"A cup {n} holds it."} for n in (0, 2)
    ]
    written(folder / "explanatory/train.json", reasons)


def lisa_plus(root: Path) -> None:
    sizes = [SIZES[(10 + n) % 4] for n in range(4)]
    coco(root / "coco/annotations/instances_train2017.json", ["person", "cup"],
         [(f"{n:012d}.jpg", sizes[n]) for n in range(3)])  # fmt: skip
    entries = [{"img_path": f"train2017/{n:012d}.jpg", "English Question": "Which are cups?",
                "ID": [["1"], ["3", "4"], ["6", "7", "8"]][n]} for n in range(3)]  # fmt: skip
    written(root / "reason_seg_plus/LISA_Plus_Instance_Seg.json", entries)
    talk = "<person>: What stands there?\n<robot>: The cups [<3| cup>, <4| cup>] and <5|person>."
    talk += "<person>: Any [more]?<robot>: No."
    written(root / "reason_seg_plus/LISA_Plus_Conversations.json",
            [{"img_path": "000000000001.jpg", "output": talk}])  # fmt: skip


def write_published(root: Path) -> Path:
    """Every set of `published.CATALOGUE`, in a folder as the authors have it."""
    for write in (semantic, parts, referring, dialogues, reasonseg, lisa_plus):
        write(root)
    return root
