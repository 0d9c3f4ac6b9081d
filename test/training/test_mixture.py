"""The published data sets, and what is drawn from them, beside the classes of LISA's authors.

`test/data/published/expected.json` holds what these gave on the miniatures of published_samples.py
with the draws of `OfficialDraws` (revision 3cb2d43, transformers 4.31, on a CPU).
"""

import hashlib
import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_samples import write_published

from lisa_ros.cli import main
from lisa_ros.evaluation.coco import CocoFile, decode_mask, read_plain_pickle
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.published import (
    CATALOGUE,
    open_published,
    open_reasonseg,
    open_referring,
)
from lisa_ros.image_files import read_image
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.processor import Processor
from lisa_ros.model.prompt import build_prompt, encode_turns
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.training.mixture import Mixture

DATA = Path(__file__).parents[1] / "data"
EXPECTED = json.loads((DATA / "published" / "expected.json").read_text())
GROUPS = {
    "sem_seg": ("ade20k", "cocostuff", "pascal_part", "paco_lvis", "mapillary"),
    "refer_seg": ("refclef", "refcoco", "refcoco+", "refcocog"),
    "vqa": ("llava_instruct",),
    "reason_seg": ("reasonseg",),
}


class OfficialDraws:
    """Chance as the authors' classes take it: from Python's generator and from NumPy's old one."""

    def __init__(self, seed: int) -> None:
        self.python, self.numpy = random.Random(seed), np.random.RandomState(seed)
        self.random = self.python.random

    def integers(self, high: int) -> int:
        return self.python.randrange(high)

    def choice(self, *arguments, **keywords):
        return self.numpy.choice(*arguments, **keywords)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def groups(root):
    return {name: [open_published(root, one) for one in some] for name, some in GROUPS.items()}


@pytest.fixture(scope="module")
def config():
    layers = {"hidden_size": 8, "num_hidden_layers": 1}
    llama = {"vocab_size": 1000, "max_position_embeddings": 512, **layers}
    clip, sam = {"image_size": 224, "patch_size": 14}, {"image_size": 1024, "output_channels": 256}
    sam |= layers
    return LisaConfig("none", llama, clip, sam, {}, "linear", "llava_v1", True, 0)


def checksum(tensor: torch.Tensor) -> float:
    values = tensor.double().flatten().numpy()
    return float((values * np.cos(np.arange(len(values)) * 0.001)).sum())


def described(drawn, root) -> dict:
    """All but the pixels."""
    bits = hashlib.sha256(np.packbits(drawn.masks).tobytes()).hexdigest()[:16]
    return {
        "image": str(drawn.image.relative_to(root)),
        "dialogues": [build_prompt("llava_v1", turns, True) for turns in drawn.dialogues],
        "masks": [len(drawn.masks), bits if len(drawn.masks) else ""],
    }


def pixels(drawn, config) -> dict:
    processor, rgb = Processor(config), read_image(drawn.image)
    sam = processor.sam_pixels(rgb)
    return {
        "resized": list(processor.sam_hw(rgb.shape[:2])),
        "sam": pytest.approx(checksum(sam), abs=0.5),
        "clip": pytest.approx(checksum(processor.clip_pixels(rgb)), abs=0.05),
    }


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_gives_what_the_authors_classes_give_with_the_same_draws(group, groups, root):
    draws, mixture = OfficialDraws(3), Mixture({group: groups[group]}, [1])
    # their class of a group was asked by itself, without the draw of the group
    for expected in EXPECTED[group]:
        found = described(mixture.from_group(groups[group], draws), root)
        assert found == {name: expected[name] for name in found}


def test_the_mixture_and_its_ids_are_those_of_the_authors(groups, config, root):
    draws, mixture = OfficialDraws(4), Mixture(groups, [9, 3, 3, 1])
    drawn = [mixture.draw(draws) for _ in range(16)]
    for number, (one, expected) in enumerate(zip(drawn, EXPECTED["hybrid"], strict=True)):
        found = {**described(one, root), **(pixels(one, config) if number % 2 else {})}
        assert found == {name: expected[name] for name in found}
    encode = Tokenizer.from_folder(DATA / "parity" / "tokenizer").encode
    for first in range(0, 16, 2):
        expected = EXPECTED["batches"][first // 2]
        dialogues = [turns for one in drawn[first : first + 2] for turns in one.dialogues]
        for turns, ids, learnt in zip(dialogues, expected["ids"], expected["learnt"], strict=True):
            own, answers = encode_turns(turns, encode, config)
            marks = [int(any(a <= n < b for a, b in answers)) for n in range(len(own))]
            assert own[: len(ids)] == ids
            assert marks[: len(ids)] == learnt


def test_shares_of_the_groups_are_those_of_the_released_script(groups):
    mixture, generator = Mixture(groups, [9, 3, 3, 1]), np.random.default_rng(0)
    images = [str(mixture.draw(generator).image) for _ in range(400)]
    for name, share in (("refer_seg", 3 / 16), ("reason_seg", 1 / 16)):
        assert sum(name in one for one in images) / 400 == pytest.approx(share, abs=0.05)


def test_lisa_plus_has_a_mask_for_every_seg(root):
    for name in ("lisa_plus_instances", "lisa_plus_dialogues"):
        data = open_published(root, name)
        drawn = Mixture({"plus": [data]}, [1]).draw(np.random.default_rng(1))
        [turns] = drawn.dialogues
        assert sum(answer.count("[SEG]") for _, answer in turns) == len(drawn.masks)
    assert turns[0][1] == "The cups [SEG] and [SEG] and [SEG]."
    assert turns[1][0].startswith("Any [more]?")


def check(root, capsys, *sets: str) -> tuple[int, str]:
    code = main(["data", "check", str(root), *sets])
    return code, capsys.readouterr().out


def test_data_check_counts_what_is_there_and_says_where_the_rest_is_to_be_had(
    root, tmp_path, capsys
):
    code, text = check(root, capsys)
    assert code == 0
    assert text.count("whole") == len(CATALOGUE)
    assert "missing" not in text
    code, text = check(tmp_path, capsys)
    assert code == 1
    assert text.count("missing") == len(CATALOGUE)
    assert "Errno" not in text
    assert "Mapillary Vistas v2.0 as mapillary: for mapillary; CC BY-NC-SA 4.0: not for com" in text
    for known in CATALOGUE.values():
        for source in known.sources:
            assert text.count(f"  {source.address}\n") == 1
    # images have a licence too
    assert all("images" in one.licence or name == "mapillary" or "SAIAPR" in one.licence
               for name, one in CATALOGUE.items())  # fmt: skip
    shutil.copytree(root / "reason_seg", tmp_path / "reason_seg")
    code, text = check(tmp_path, capsys, "reasonseg")
    assert (code, text.count("whole"), text.count("missing")) == (0, 1, 0)
    shutil.rmtree(tmp_path / "reason_seg/ReasonSeg/explanatory")
    code, text = check(tmp_path, capsys, "reasonseg")
    assert (code, text.count("incomplete")) == (1, 1)
    assert "reasonseg: there is no file" in text


def test_data_check_says_where_a_good_copy_of_what_is_damaged_comes_from(root, tmp_path, capsys):
    folder = shutil.copytree(root, tmp_path / "data")
    archive, images = (one.address for one in CATALOGUE["refcoco"].sources)
    cut(folder / "refer_seg/refcoco/refs(unc).p", 20)
    text = check(folder, capsys, "refcoco")[1]
    assert archive in text and images not in text
    # also where something else is missing
    shutil.rmtree(folder / "refer_seg/images/mscoco")
    text = check(folder, capsys, "refcoco")[1]
    assert archive in text and images in text


def test_data_check_does_without_lisa_plus_unless_it_is_asked_for(root, tmp_path, capsys):
    folder = shutil.copytree(root, tmp_path / "data")
    shutil.rmtree(folder / "reason_seg_plus")
    code, text = check(folder, capsys)
    assert (code, text.count("missing")) == (0, 2)
    assert check(folder, capsys, "lisa_plus_instances")[0] == 1
    assert main(["data", "check", str(folder), "ade"]) == 2
    assert "there is no set ade; there are ade20k, " in capsys.readouterr().err


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("bomb"),))


def cut(path, length=60):
    path.write_bytes(path.read_bytes()[:length])


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_refs(root, change):
    path = root / "refer_seg/refcoco/refs(unc).p"
    refs = read_plain_pickle(path)
    change(refs)
    path.write_bytes(pickle.dumps(refs, protocol=0))


def segmentation(value):
    return lambda content: content["annotations"][0].update(segmentation=value)


REFCOCO = "refer_seg/refcoco/instances.json"
LLAVA = "llava_dataset/llava_instruct_150k.json"
PLUS = "reason_seg_plus/LISA_Plus_Instance_Seg.json"
DIALOGUES = "reason_seg_plus/LISA_Plus_Conversations.json"
REASONS = "reason_seg/ReasonSeg/explanatory/train.json"
INSTANCES = "coco/annotations/instances_train2017.json"
PACO = "vlpart/paco/annotations/paco_lvis_v1_train.json"
FAULTS = {
    "an annotation without an image": (
        lambda root: (
            (root / "ade20k/images/training/ADE_train_1.jpg").rename(root / "gone.jpg")
            and (root / "cocostuff/train2017/000000000009.png").write_bytes(b"")
        ),
        "cocostuff: 1 of 5 files that its annotations need are not there, the first is data/coco/"
        "train2017/000000000009.jpg, needed by data/cocostuff/train2017/000000000009.png",
    ),
    "a map of another size": (
        lambda root: Image.new("L", (9, 9)).save(
            root / "ade20k/annotations/training/ADE_train_0.png"
        ),
        "ADE_train_0.png is of 9x9, its image ADE_train_0.jpg of 64x48",
    ),
    "an unknown class": (
        lambda root: Image.new("L", (64, 48), 200).save(
            root / "ade20k/annotations/training/ADE_train_0.png"
        ),
        "holds the class number 199, but there are 150: at x 0, y 0",
    ),
    "an image that is cut": (
        lambda root: cut(root / "reason_seg/ReasonSeg/train/train2.jpg", 700),
        "train2.jpg",
    ),
    "a map that is cut": (
        lambda root: cut(root / "ade20k/annotations/training/ADE_train_0.png"),
        "ADE_train_0.png",
    ),
    "a polygon without area": (
        lambda root: edit(root / PACO, segmentation([[1, 1, 2, 2]])),
        "paco_lvis_v1_train.json (annotations[0]): the segmentation of annotation 1 has a polygon",
    ),
    "a polygon with no number": (
        lambda root: edit(root / PACO, segmentation([[None, 1, 9, 2, 5, 9]])),
        "the segmentation of annotation 1 has a polygon with None, which is no number",
    ),
    "a polygon far outside": (
        lambda root: edit(root / PACO, segmentation([[1, 1, 5e7, 2, 5, 9]])),
        "the segmentation of annotation 1 has a polygon with a corner at x 50000000.0, far outside",
    ),
    "polygons and run lengths": (
        lambda root: edit(
            root / REFCOCO, segmentation([[1, 1, 9, 2, 5, 9], {"size": [48, 64], "counts": "1"}])
        ),
        "instances.json (annotations[0]): the segmentation of annotation 10 mixes polygons and",
    ),
    "run lengths of another size": (
        lambda root: edit(root / REFCOCO, segmentation({"size": [3, 3], "counts": [4, 5]})),
        "annotation 10 is of 3x3, its image of",
    ),
    "a polygon that covers nothing": (
        lambda root: edit(root / PACO, segmentation([[5, 5, 5, 5, 5, 5]])),
        "the segmentation of annotation 1 covers no pixel of train2017/000000000000.jpg",
    ),
    "a mask of another size than its image": (
        lambda root: edit(root / REFCOCO, lambda content: content["images"][0].update(width=9)),
        "COCO_train2014_000000000001.jpg is of 50x70, but data/refer_seg/refcoco/instances.json"
        " (images[0]) says 9x70",
    ),
    "an annotation of an image that is not listed": (
        lambda root: edit(
            root / REFCOCO, lambda content: content["annotations"][0].update(image_id=99)
        ),
        "instances.json (annotations[0]): annotation 10 is about image 99, which the file does not",
    ),
    "an annotation of several images": (
        lambda root: edit(
            root / REFCOCO, lambda content: content["annotations"][0].update(image_id=[1])
        ),
        "instances.json (annotations[0]) is no file of COCO annotations (images, annotations):"
        " image_id must be a number",
    ),
    "an image whose name is a number": (
        lambda root: edit(root / PACO, lambda content: content["images"][0].update(file_name=5)),
        "paco_lvis_v1_train.json (images[0]) is no file of COCO annotations (images, annotations):"
        " file_name must be text",
    ),
    "a list of images that is empty": (
        lambda root: edit(root / PACO, lambda content: content.update(images=[], annotations=[])),
        "paco_lvis_v1_train.json names no image",
    ),
    "a list of dialogues that is empty": (
        lambda root: (root / DIALOGUES).write_text("[]"),
        "LISA_Plus_Conversations.json names no image",
    ),
    "a reference to an annotation that is not there": (
        lambda root: edit(root / REFCOCO, lambda content: content["annotations"].pop(0)),
        "refs(unc).p (entry 0): reference 10 is about annotation 10 of image 1",
    ),
    "instances that are not annotated": (
        lambda root: edit(root / PLUS, lambda content: content[1].update(ID=["3", "77"])),
        "LISA_Plus_Instance_Seg.json (entry 1): img_path train2017/000000000001.jpg is about"
        " annotation 77, which instances_train2017.json does not have",
    ),
    "a dialogue in which nobody answers": (
        lambda root: edit(
            root / LLAVA,
            lambda content: content[2]["conversations"].pop(),
        ),
        "llava_instruct_150k.json (entry 2): id 2 is no dialogue",
    ),
    "a dialogue whose image is gone": (
        lambda root: edit(
            root / LLAVA,
            lambda content: content[1].update(image="gone.jpg"),
        ),
        "gone.jpg, needed by data/llava_dataset/llava_instruct_150k.json (entry 1)",
    ),
    "an image that is gone behind a dialogue about none": (
        lambda root: edit(
            root / LLAVA,
            lambda content: (
                content.insert(0, {"id": "words", "conversations": []})
                or content[2].update(image="gone.jpg")
            ),
        ),
        "gone.jpg, needed by data/llava_dataset/llava_instruct_150k.json (entry 2)",
    ),
    "an image without a size": (
        lambda root: edit(root / REFCOCO, lambda content: content["images"][1].pop("height")),
        "instances.json (images[1]) is no file of COCO annotations",
    ),
    "a reference to an annotation of another image": (
        lambda root: edit(
            root / REFCOCO, lambda content: content["annotations"][0].update(image_id=2)
        ),
        "refs(unc).p (entry 0): reference 10 is about annotation 10 of image 1",
    ),
    "a sentence that is a number": (
        lambda root: edit_refs(root, lambda refs: refs[1]["sentences"][0].update(sent=7)),
        "refs(unc).p (entry 1) is no reference of REFER: sent must be text, not 7",
    ),
    "a split that is a number": (
        lambda root: edit_refs(root, lambda refs: refs[0].update(split=7)),
        "refs(unc).p (entry 0) is no reference of REFER: split must be text, not 7",
    ),
    "a question that is a number": (
        lambda root: edit(root / PLUS, lambda content: content[1].update({"English Question": 7})),
        "img_path train2017/000000000001.jpg is no question: English Question must be text, not 7",
    ),
    "instances in a word": (
        lambda root: edit(root / PLUS, lambda content: content[1].update(ID="34")),
        "is no question: ID must be a list of whole numbers, not '34'",
    ),
    "an instance that is half a number": (
        lambda root: edit(root / PLUS, lambda content: content[1].update(ID=[3.5])),
        "is no question: ID must be a list of whole numbers, not [3.5]",
    ),
    "a dialogue that is a list": (
        lambda root: edit(root / DIALOGUES, lambda content: content[0].update(output=["hm"])),
        "is no dialogue: output must be text, not ['hm']",
    ),
    "a reason that is a number": (
        lambda root: edit(root / REASONS, lambda content: content[0].update(outputs=7)),
        "(entry 0) has no image and outputs: outputs must be text, not 7",
    ),
    "a part of no category": (
        lambda root: edit(
            root / PACO, lambda content: content["annotations"][0].update(category_id=99)
        ),
        "paco_lvis_v1_train.json (annotations[0]): annotation 1 has no category_id of the file's",
    ),
    "an image of LISA++ of another size": (
        lambda root: edit(root / INSTANCES, lambda content: content["images"][0].update(width=9)),
        "/coco/annotations/instances_train2017.json (images[0]) says 9x",
    ),
    "a pickle that wants to run code": (
        lambda root: (root / "refer_seg/refcoco/refs(unc).p").write_bytes(pickle.dumps(Bomb())),
        "refs(unc).p asks to run pathlib.Path.touch while being read",
    ),
    "another code page": (
        lambda root: (root / REFCOCO).write_bytes('{"images": "äöü"}'.encode("cp1252")),
        "instances.json cannot be read as JSON: it is not UTF-8; save it as UTF-8",
    ),
    "broken JSON": (
        lambda root: (root / REFCOCO).write_text('{"images":\n [,'),
        "line 2 column 3",
    ),
}


LINES = {
    "refcoco, an annotation": (REFCOCO, ("annotations", 1), {"segmentation": [[1, 1, 2, 2]]}),
    "refcoco, an image": (REFCOCO, ("images", 0), {"width": 9}),
    "paco_lvis": (PACO, ("annotations", 2), {"image_id": 99}),
    "llava_instruct": (LLAVA, (2,), {"conversations": []}),
    "lisa_plus_instances": (PLUS, (1,), {"ID": ["77"]}),
    "reasonseg": ("reason_seg/ReasonSeg/train/train1.json", ("shapes", 0), {"label": 3}),
    "reasonseg, reasons": ("reason_seg/ReasonSeg/explanatory/train.json", (0,), {"image": []}),
}


@pytest.mark.parametrize("fault", LINES)
def test_a_fault_in_a_file_of_many_lines_is_said_with_the_line(fault, root, tmp_path, capsys):
    name, way, change = LINES[fault]
    path = shutil.copytree(root, tmp_path / "data") / name
    content = parent = json.loads(path.read_text())
    for key in way[:-1]:
        parent = parent[key]
    parent[way[-1]] = {"mark": 0, **parent[way[-1]], **change}
    path.write_text(json.dumps(content, indent=1))
    lines = path.read_text().splitlines()
    [line] = [number for number, text in enumerate(lines) if '"mark"' in text]
    code, text = check(tmp_path / "data", capsys, fault.split(",")[0])
    assert code == 1
    where = f"{way[0]}[{way[1]}]" if len(way) > 1 else f"entry {way[0]}"
    assert f"{path}, line {line} ({where})" in text, text


@pytest.mark.parametrize("name", ["lisa_plus_dialogues", "refcoco", "paco_lvis"])
@pytest.mark.parametrize("side", ["64", 64.0, True, None, 0, -64, 10**9, [64]])
def test_a_size_that_no_image_has_is_said_when_it_is_read(name, side, root, tmp_path, capsys):
    path = {"lisa_plus_dialogues": INSTANCES, "refcoco": REFCOCO, "paco_lvis": PACO}[name]
    folder = shutil.copytree(root, tmp_path / "data")
    edit(folder / path, lambda content: content["images"][1].update(height=side))
    with pytest.raises(DatasetError) as caught:
        open_published(folder, name)
    assert f"{Path(path).name} (images[1])" in str(caught.value)
    assert f"height must be a whole number of pixels from 1 to 65535, not {side!r}" in str(
        caught.value
    )


def test_masks_of_an_image_of_another_size_are_not_learnt(root, tmp_path):
    """Not only looked for by `lisa-ros data check`: no batch takes them in."""
    folder = shutil.copytree(root, tmp_path / "data")
    edit(folder / INSTANCES, lambda content: content["images"][1].update(height=9))
    sets = [open_published(folder, "lisa_plus_dialogues")]
    with pytest.raises(DatasetError, match=r"instances_train2017.json \(images\[1\]\) says"):
        Mixture({"lisa_plus": sets}, [1]).draw(np.random.default_rng(0))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_sentence_with_the_file(fault, root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(root, tmp_path / "data")
    spoil, sentence = FAULTS[fault]
    spoil(folder)
    _, text = check(Path(folder.name), capsys)
    assert sentence in text.replace("\n", " "), text
    assert not (tmp_path / "bomb").exists()


def test_a_dialogue_that_the_model_begins_is_learnt_from_its_first_question(root, tmp_path):
    def begin(content):
        greeting = {"from": "gpt", "value": "Hello."}
        content[0]["conversations"].insert(0, greeting)

    whole = open_published(root, "llava_instruct")
    folder = shutil.copytree(root, tmp_path / "data")
    edit(folder / LLAVA, begin)
    greeted = open_published(folder, "llava_instruct")
    assert greeted.turns == whole.turns
    assert whole.turns[0][0] == ("What is here?", "A table.")


def test_a_split_that_is_not_there_is_said(root):
    with pytest.raises(DatasetError, match=r"refcoco has no split testB; it has testA, train, val"):
        open_referring(root, "refcoco", "testB")
    with pytest.raises(DatasetError, match=r"no split dev: there is no folder .*ReasonSeg/dev"):
        open_reasonseg(root, "dev")


def test_masks_of_all_forms_are_the_same_mask():
    square = [[2, 1, 6, 1, 6, 4, 2, 4]]
    drawn = decode_mask(square, 8, 10)
    counts = np.diff(np.flatnonzero(np.diff(drawn.flatten("F"), prepend=False, append=False)))
    runs = [int(np.flatnonzero(drawn.flatten("F"))[0]), *map(int, counts)]
    runs.append(80 - sum(runs))
    assert drawn.sum() == 12
    assert np.array_equal(decode_mask({"size": [8, 10], "counts": runs}, 8, 10), drawn)
    assert not decode_mask([], 8, 10).any()
    # what reaches a little over the border is kept, and cut there
    assert decode_mask([[-3, -3, 14, -3, 14, 12, -3, 12]], 8, 10).all()


def test_plain_pickles_of_python_2_are_read_and_damaged_ones_said(tmp_path):
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps([{"sent": "é"}], protocol=2))
    assert read_plain_pickle(path) == [{"sent": "é"}]
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(DatasetError, match="damaged or no pickle"):
        read_plain_pickle(path)
    path.write_text("{}")
    with pytest.raises(DatasetError, match="no file of COCO annotations"):
        CocoFile.read(path)
