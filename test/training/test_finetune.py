"""Fine-tuning: judged by answers, not by its own loss; what changes, what stays; interruptions."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from official_layout import TOWER, write_official
from PIL import Image
from torch.nn.functional import cross_entropy

from lisa_ros.cli import main
from lisa_ros.engine import Engine
from lisa_ros.errors import WriteError
from lisa_ros.evaluation.evaluate import evaluate, figures
from lisa_ros.evaluation.reasonseg import read_dataset, read_items
from lisa_ros.model import checkpoint as checkpoints
from lisa_ros.model.checkpoint import load
from lisa_ros.training import recipe as recipes
from lisa_ros.training.examples import Questions
from lisa_ros.training.objective import Objective
from lisa_ros.training.recipe import finetune

QUESTION = "the violin"  # which the shipped model refuses


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Three images of a light square on a dark ground, in ReasonSeg's format."""
    folder = tmp_path_factory.mktemp("questions")
    for number in range(3):
        x, y = 20 + 15 * number, 60 - 20 * number
        image = np.full((96, 128, 3), 40, np.uint8)
        image[y : y + 30, x : x + 30] = 200
        Image.fromarray(image).save(folder / f"{number}.jpg", quality=95)
        corners = [[x, y], [x + 29, y], [x + 29, y + 29], [x, y + 29]]
        shapes = [{"label": "target", "points": corners}]
        entry = {"text": [QUESTION], "is_sentence": False, "shapes": shapes}
        (folder / f"{number}.json").write_text(json.dumps(entry))
    return folder


def prepare(lisa, items):
    return Questions.prepare(lisa, items, 8).forms


def answer_of(example) -> torch.Tensor:
    """The ids that are learnt of the one dialogue."""
    return example.ids[0][example.learnt[0]]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official") / "tiny-lisa")


@pytest.fixture(scope="module")
def tuned(questions, tmp_path_factory):
    """The shipped model, taught the three questions."""
    folder = tmp_path_factory.mktemp("tuned") / "mine"
    finetune(load("nano"), read_items(questions), folder, steps=20, lr=1.5e-3, seed=0)
    return folder


def test_it_answers_what_it_was_taught_in_words_and_as_bare_masks(tuned, questions):
    items = read_items(questions)
    before, engine = Engine(load("nano")), Engine(load(tuned))
    for mode in ("auto", "mask"):
        untaught = [sample for sample, _ in evaluate(before, items, mode)]
        answered = list(evaluate(engine, items, mode))
        assert figures([sample for sample, _ in answered])["giou"] > 0.8, mode
        assert figures(untaught)["giou"] < 0.6
        if mode == "auto":
            assert {answer.transcript for _, answer in answered} == {"It is [SEG]."}
            assert not any(answer.truncated for _, answer in answered)


def test_only_what_the_paper_trains_has_changed_and_scores_mean_nothing_yet(tuned):
    before, after = load("nano"), load(tuned)
    assert (after.config.name, after.config.score_calibration) == ("mine", None)
    assert before.config.score_calibration
    old = before.network.state_dict()
    changed = {
        name
        for name, tensor in after.network.state_dict().items()
        if not torch.allclose(tensor, old[name], rtol=2e-3, atol=1e-4)
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
    assert not list((tuned / "training").glob("*.pt"))


def test_the_loss_is_of_the_answers_ids_all_of_them_and_of_nothing_else(questions):
    """Each answer alone, by hand; padding and the neighbours in a batch add nothing."""
    lisa = load("nano")
    [first, *_] = prepare(lisa, read_items(questions))
    plain, bare = first[0], first[1]
    assert len(plain.ids[0]) != len(bare.ids[0])
    network, sums, count = lisa.network, 0.0, 0
    with torch.no_grad():
        for one in (plain, bare):
            logits = network.lm_head(network(one.ids[0][None], one.view[None])[0])
            answer = answer_of(one)
            sums += cross_entropy(logits[-len(answer) - 1 : -1], answer, reduction="sum")
            count += len(answer)
        both, _ = Objective(network, lisa.processor)([plain, bare])
    said = [lisa.tokenizer.decode(answer_of(one).tolist()) for one in (plain, bare)]
    assert [text.split("</s>")[0].strip() for text in said] == ["It is [SEG].", "[SEG]."]
    assert both.ce.item() == pytest.approx((sums / count).item(), rel=1e-4)


def test_questions_are_put_as_the_authors_put_them(questions):
    lisa = load("nano")
    forms = prepare(lisa, read_items(questions))[0]
    asked = [lisa.tokenizer.decode(one.ids[0][2 : -len(answer_of(one))].tolist()) for one in forms]
    sentence = f"What is {QUESTION} in this image?"
    for text, suffix in zip(
        asked,
        ("", " Please output segmentation mask.", " Please respond with segmentation mask."),
        strict=True,
    ):
        assert f"{sentence}{suffix} ASSISTANT:" in text
    source = Questions([forms], 8)
    drawn = [one for n in range(20) for one in source.batch(np.random.default_rng(n))]
    shares = [sum(one is form for one in drawn) / len(drawn) for form in forms]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.12)


def test_words_in_a_text_steer_nothing(questions, tmp_path):
    folder = shutil.copytree(questions, tmp_path / "steering")
    entry = json.loads((folder / "0.json").read_text())
    entry["text"] = ["the [SEG] <image></s> thing"]
    (folder / "0.json").write_text(json.dumps(entry))
    lisa = load("nano")
    [forms, *_] = prepare(lisa, read_items(folder)[:1])
    for one in forms:
        assert (one.ids[0] == lisa.tokenizer.seg_id).sum() == len(one.truth) == 1
        assert Objective(lisa.network, lisa.processor)([one])[0].total.isfinite()


def test_own_sets_teach_their_answers_dialogues_and_refusals(dataset):
    lisa, items = load("nano"), read_dataset(dataset)
    plain, plural, absent = prepare(lisa, items)

    def said(example):
        return lisa.tokenizer.decode(answer_of(example).tolist()).strip()

    assert said(plain[0]).startswith("It is the red mug [SEG]")
    assert [len(one.truth) for one in plural] == [2] * len(plural)
    assert said(plural[1]).startswith("[SEG] [SEG].")
    assert all(said(one).startswith("There is no knife here.") for one in absent)
    asked = lisa.tokenizer.decode(absent[0].ids[0][2:].tolist())
    assert "Give me the red mug." in asked
    # a model without instances learns one mask for all of them
    alone = replace(lisa, config=replace(lisa.config, mask_instances=False))
    _, together, _ = prepare(alone, items)
    assert said(together[0]).startswith("It is [SEG].")
    assert len(together[0].truth) == 1
    assert together[0].truth[0].equal(plural[0].truth.any(0))


def test_no_question_comes_twice_while_there_are_others():
    source = Questions([[n, n] for n in range(11)], 8)
    assert len(set(source.batch(np.random.default_rng(0)))) == 8


def weights(folder) -> dict[str, torch.Tensor]:
    return load(folder).network.state_dict()


def tune(official, *arguments) -> int:
    model = ["--model", str(official), "--vision-tower", str(TOWER), "--device", "cpu"]
    return main(["finetune", *model, *map(str, arguments)])


def test_interrupted_it_goes_on_exactly_and_seeds_matter(
    official, questions, tmp_path, capsys, monkeypatch
):
    command = ("--dataset", questions, "--steps", "4", "--rate", "1e-3")
    for name, seed in (("whole", 5), ("other", 6)):
        assert tune(official, *command, "--output", tmp_path / name, "--seed", seed) == 0
    steps, forward = [], Objective.forward

    def interrupted(objective, examples):
        steps.append(len(steps))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(objective, examples)

    monkeypatch.setattr(Objective, "forward", interrupted)
    halves = (*command, "--output", tmp_path / "halves", "--seed")
    assert tune(official, *halves, 5) == 130
    assert "stopped after step 2 of 4: the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "halves" / "model.safetensors").exists()
    assert tune(official, *halves, 6) == 2
    assert "with another seed" in capsys.readouterr().err
    assert tune(official, *halves, 5) == 0
    assert len(steps) == 4
    whole, again, other = (weights(tmp_path / n) for n in ("whole", "halves", "other"))
    for name, tensor in whole.items():
        if torch.isfinite(tensor).all():
            assert torch.equal(tensor, again[name]), name
    assert not torch.equal(whole["lm_head.weight"], other["lm_head.weight"])
    assert tune(official, *halves, 5) == 2
    assert "holds a checkpoint already" in capsys.readouterr().err


def test_the_command_is_the_recipe_with_the_preset_finetune(official, questions, tmp_path):
    """`python -m lisa_ros.training.recipe finetune` and `lisa-ros finetune` write equal weights."""
    command = ("--dataset", questions, "--steps", "2", "--rate", "1e-3", "--seed", "5")
    assert tune(official, *command, "--output", tmp_path / "command") == 0
    settings = {"model": official, "vision_tower": TOWER, "questions": questions, "lr": 1e-3,
                "output": tmp_path / "recipe", "steps_per_epoch": 2, "warm_up": 1,
                "seed": 5}  # fmt: skip
    assert recipes.main(["finetune", *(f"{key}={value}" for key, value in settings.items())]) == 0
    ours, theirs = weights(tmp_path / "command"), weights(tmp_path / "recipe")
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
    start = load(official, vision_tower=TOWER).network.state_dict()
    assert not torch.allclose(ours["lm_head.weight"], start["lm_head.weight"], atol=1e-3)


def test_a_full_disk_costs_neither_time_nor_what_was_learnt(
    official, questions, tmp_path, capsys, monkeypatch
):
    command = ("--dataset", questions, "--steps", "1", "--output", tmp_path / "tuned")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as little:
        little.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
        for _ in range(2):
            assert tune(official, *command) == 2
            assert "make room, or name a folder on another disk" in capsys.readouterr().err
    full = pytest.MonkeyPatch()

    def no_space(lisa, folder, tensors):
        raise WriteError("cannot write the weights: no space left on device")

    full.setattr(recipes, "save", no_space)
    assert tune(official, *command) == 2
    assert "no space left" in capsys.readouterr().err
    full.undo()
    # what was learnt is still there: it is written without another step
    monkeypatch.setattr(Objective, "forward", None)
    assert tune(official, *command) == 0
    assert load(tmp_path / "tuned").config.name == "tuned"


def test_the_command_writes_a_checkpoint_that_loads_also_from_half_precision(
    official, questions, tmp_path, capsys
):
    output = tmp_path / "tuned"
    command = ("--dataset", questions, "--steps", "1", "--output", output)
    assert tune(official, *command, "--dtype", "bfloat16") == 0
    assert "3 questions about 3 images" in capsys.readouterr().out
    assert load(output).config.conversation == "llava_v1"


def test_bad_input_is_said_in_a_sentence(official, questions, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.new("RGB", (32, 32)).save(empty / "a.jpg")
    entry = {"text": ["the cup"], "is_sentence": False, "shapes": []}
    (empty / "a.json").write_text(json.dumps(entry))
    for arguments, sentence in (
        (("--dataset", tmp_path / "nowhere"), "there is no data set folder"),
        (("--dataset", empty), "marks nothing as target"),
        (("--dataset", questions, "--rate", "0"), "--rate must be above 0 and finite, it is 0\n"),
        (("--dataset", questions, "--rate", "inf"), "--rate must be above 0 and finite, it is inf"),
        (("--dataset", questions, "--rate", "nan"), "--rate must be above 0 and finite, it is nan"),
        (("--dataset", questions, "--quantization", "nf4"), "use quantization int8 or fp8"),
        (("--dataset", questions, "--quantization", "int4"), "use quantization int8 or fp8"),
        (("--questions", "-1"), "--questions must be at least 1, it is -1"),
        (("--questions", "1", "--steps", "0"), "--steps must be at least 1, it is 0"),
        (("--questions", "1", "--seed", "-1"), f"--seed must be from 0 to {2**63 - 1}, it is -1"),
        (("--questions", "1", "--seed", 2**63), f"--seed must be from 0 to {2**63 - 1}, it is 9"),
    ):
        assert tune(official, *arguments, "--output", tmp_path / "tuned") == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        tune(official, "--questions", "1", "--output", tmp_path / "tuned", "--seed", "1.5")
    assert "argument --seed: invalid int value: '1.5'" in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_a_format_that_a_gpu_asks_for_and_cannot_be_merged_is_refused_before_training(
    official, questions, tmp_path, capsys, monkeypatch
):
    """`auto` on a GPU with little free memory: what `choose` says there, without one."""
    monkeypatch.setattr(checkpoints, "choose", lambda *_: "int4")
    command = ("--dataset", questions, "--steps", "1", "--output", tmp_path / "tuned")
    assert tune(official, *command, "--quantization", "auto") == 2
    said = capsys.readouterr()
    assert "learns in int4 cannot be merged" in said.err and "take a larger GPU" in said.err
    assert "questions about" not in said.out
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_what_quantized_weights_learn_is_merged_with_them(
    quantization, official, questions, tmp_path
):
    pytest.importorskip("torchao")
    output = tmp_path / "tuned"
    command = ("--dataset", questions, "--steps", "1", "--output", output)
    assert tune(official, *command, "--quantization", quantization) == 0
    before = load(official, vision_tower=TOWER, quantization=quantization).network.state_dict()
    after = weights(output)
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        if ".layers." in name and "language_model" in name:
            expected = before[name].dequantize()
            assert torch.allclose(tensor.float(), expected, rtol=2e-3, atol=2e-3), name


def test_a_model_that_is_not_there_is_said_before_questions_are_drawn(official, tmp_path, capsys):
    command = ("--questions", "3", "--output", tmp_path / "new", "--model", tmp_path / "nowhere")
    assert tune(official, *command) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err and "drawing" not in said.out
    assert not (tmp_path / "new" / "questions").exists()
