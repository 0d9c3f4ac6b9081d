"""The papers' tables: splits and words beside the authors' validation class, Markdown, AP."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from published_samples import write_published

from lisa_ros.cli import main
from lisa_ros.evaluation.evaluate import Overlap, Sample
from lisa_ros.evaluation.tables import instance_ap, markdown, published_items
from lisa_ros.model.prompt import MODE_SUFFIXES, build_prompt

EXPECTED = json.loads(
    (Path(__file__).parents[1] / "data" / "published" / "expected.json").read_text()
)["validation"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.mark.parametrize("name", EXPECTED)
def test_questions_and_masks_of_a_split_are_those_of_the_authors_validation(name, root):
    kind, *_, split = name.lower().replace("testa", "testA").split("|")
    items = published_items(root, kind, [split])
    found = [
        (
            str(item.image.relative_to(root)),
            build_prompt("llava_v1", [(f" {item.instruction}{MODE_SUFFIXES['mask']}", "[SEG].")],
                         True),
        )
        for item in items
    ]  # fmt: skip
    said = [(one["image"], text) for one in EXPECTED[name] for text in one["dialogues"]]
    assert [(image, words.replace("\n ", "\n")) for image, words in said] == [
        (image, words.replace("\n ", "\n")) for image, words in found
    ]
    for one in EXPECTED[name]:
        own = [item.truth()[0] for item in items if str(item.image).endswith(one["image"])]
        if kind == "reasonseg":
            bits = np.stack(own).astype(np.uint8).tobytes()
        else:
            bits = np.packbits(np.stack(own) > 0).tobytes()
        assert [len(own), hashlib.sha256(bits).hexdigest()[:16]] == one["masks"]


def test_the_command_writes_the_papers_table(root, tmp_path, capsys):
    table = tmp_path / "table.md"
    arguments = ["eval", "--device", "cpu", "--root", str(root)]
    assert main([*arguments, "--dataset", "reasonseg", "--markdown", str(table)]) == 0
    text = table.read_text()
    assert "| val | 3 |" in text
    assert "| test, short queries | 1 |" in text
    assert "| test, long queries | 3 |" in text
    assert "52.9 / 54.0" in text
    capsys.readouterr()
    for more, sentence in (
        (["--dataset", "refcoco", "--split", "testB"], "refcoco has no split testB"),
        (["--dataset", "imagenet"], "--root needs --dataset, one of refcoco"),
        (["--dataset", "reasonseg", "--split", "trial"], "ReasonSeg has no split trial"),
    ):
        assert main([*arguments, *more]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["eval", "--split", "val"]) == 2


def sample(item, iou: float, scores=(), ious=()) -> Sample:
    return Sample(item, "", Overlap(round(100 * iou), 100), False, False, None, None,
                  np.array(scores), [], np.array(ious, float))  # fmt: skip


def test_figures_are_beside_the_papers_and_ap_is_counted_at_every_iou(root):
    items = published_items(root, "refcocog", ["test"])
    text = markdown("refcocog", "mine", [sample(item, 0.5) for item in items])
    assert f"| test | {len(items)} | 50.0 / 50.0 | – / 68.5 | – / 70.6 |" in text
    plus = published_items(root, "lisa_plus_instances")
    found = instance_ap([sample(plus[0], 1, [0.9], [[0.8]]), sample(plus[1], 1, [0.5], [[0.6]])])
    assert found["AP50"] == pytest.approx(1)
    assert found["AP75"] == pytest.approx(51 / 101)
    assert found["mAP"] == pytest.approx((3 + 4 * 51 / 101) / 10)
    assert [len(item.truth()[1]) for item in plus] == [1, 2, 3]
