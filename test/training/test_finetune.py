"""Fine-tuning: what changes, that it is learnt and written, and what is said about bad input."""

import json
import re

import numpy as np
import pytest
import torch
from official_layout import TOWER, write_official
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.model.checkpoint import load
from lisa_ros.training.finetune import finetune, lesson_loss, prepare, read_items, save_half


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Three pictures of a light square on a dark ground, in ReasonSeg's format."""
    folder = tmp_path_factory.mktemp("questions")
    for number in range(3):
        x, y = 20 + 15 * number, 60 - 20 * number
        picture = np.full((96, 128, 3), 40, np.uint8)
        picture[y : y + 30, x : x + 30] = 200
        Image.fromarray(picture).save(folder / f"{number}.jpg", quality=95)
        corners = [[x, y], [x + 29, y], [x + 29, y + 29], [x, y + 29]]
        shapes = [{"label": "target", "points": corners}]
        entry = {"text": ["the light thing"], "is_sentence": False, "shapes": shapes}
        (folder / f"{number}.json").write_text(json.dumps(entry))
    return folder


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official") / "tiny-lisa")


def total_loss(lisa, items) -> float:
    with torch.no_grad():
        return lesson_loss(lisa.network, lisa.processor, prepare(lisa, items)).total.item()


def test_what_is_learnt_is_written_and_the_rest_stays(official, questions, tmp_path):
    lisa, items = load(official, vision_tower=TOWER), read_items(questions)
    before = {name: tensor.clone() for name, tensor in lisa.network.state_dict().items()}
    loss = total_loss(lisa, items)
    steps = list(finetune(lisa, items, steps=25, rate=3e-3, seed=0))
    assert len(steps) == 25
    save_half(lisa, tmp_path / "tuned")
    tuned = load(tmp_path / "tuned")
    assert total_loss(tuned, items) < 0.6 * loss
    assert tuned.config.name == "tuned"
    changed = {
        name
        for name, tensor in tuned.network.state_dict().items()
        if not torch.allclose(tensor, before[name], rtol=2e-3, atol=1e-4)
    }
    allowed = re.compile(
        r"mask_decoder|text_hidden_fcs|lm_head|language_model\.embed_tokens"
        r"|language_model\.layers\.\d+\.self_attn\.[qv]_proj"
    )
    assert all(allowed.match(name) for name in changed), sorted(changed)
    for part in ("mask_decoder", "text_hidden_fcs", "lm_head", "language_model.embed_tokens"):
        assert any(name.startswith(part) for name in changed), part
    for layer in ("q_proj", "v_proj"):
        assert any(layer in name for name in changed if name.startswith("language_model")), layer


def test_the_same_seed_learns_the_same(official, questions):
    weights = []
    for _ in range(2):
        lisa = load(official, vision_tower=TOWER)
        list(finetune(lisa, read_items(questions), steps=2, rate=1e-3, seed=5))
        weights.append(lisa.network.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def tune(official, *arguments) -> int:
    model = ["--model", str(official), "--vision-tower", str(TOWER), "--device", "cpu"]
    return main(["finetune", *model, "--steps", "1", *map(str, arguments)])


def test_the_command_writes_a_checkpoint_that_loads(official, questions, tmp_path, capsys):
    output = tmp_path / "tuned"
    assert tune(official, "--dataset", questions, "--output", output) == 0
    assert "3 questions about 3 pictures" in capsys.readouterr().out
    assert load(output).config.conversation == "llava_v1"
    assert tune(official, "--dataset", questions, "--output", output) == 2
    assert "holds a checkpoint already" in capsys.readouterr().err


def test_bad_input_is_said_in_a_sentence(official, questions, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (32, 32)).save(empty / "a.jpg")
    entry = {"text": ["the cup"], "is_sentence": False, "shapes": []}
    (empty / "a.json").write_text(json.dumps(entry))
    for arguments, sentence in (
        (("--dataset", tmp_path / "nowhere"), "there is no data set folder"),
        (("--dataset", empty), "marks nothing as target"),
        (("--dataset", questions, "--rate", "0"), "--rate must be more than 0"),
        (("--questions", "-1"), "--questions must be more than 0"),
    ):
        assert tune(official, *arguments, "--output", tmp_path / "tuned") == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()
