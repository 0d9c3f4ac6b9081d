"""The experiment with 239 questions: nothing implicit before it, an honest baseline, its table."""

import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from square_scenes import square_scenes

from benchmarks import implicit_questions as headline
from benchmarks.implicit_questions import KindClassifier, answer_in_two_stages
from lisa_ros.evaluation.reasonseg import Item
from lisa_ros.model.config import find
from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.evaluation.fixed_test_set import BENCHMARK, draw_set
from lisa_tabletop.language.curriculum import compose_training, is_implicit
from lisa_tabletop.language.instructions import random_record
from lisa_tabletop.language.knowledge import load_patterns
from lisa_tabletop.language.nouns import held_out_vocabulary, write_nouns
from lisa_tabletop.training.nano import nano_network


def test_a_model_without_implicit_questions_meets_none():
    random = np.random.default_rng(0)
    sentences = {
        text.lower().rstrip(".?")
        for patterns in load_patterns("training").uses.values()
        for pattern in patterns
        for text in pattern.every_text()
    }
    asked = {True: 0, False: 0}
    for _ in range(60):
        record = random_record(random)
        for implicit in asked:
            words = held_out_vocabulary()
            for question in compose_training(record, random, 8, words, implicit=implicit):
                found = question["instruction"].lower().rstrip(".?") in sentences
                assert implicit or not found, question["instruction"]
                asked[implicit] += found
    assert asked[True] > 20  # the sentences that are left out do occur otherwise


def test_turns_and_refusals_count_as_implicit():
    plain = {"type": "plain", "instruction": "the mug", "answer": "It is the mug [SEG]."}
    assert not is_implicit(plain)
    assert is_implicit(plain | {"type": "use"})
    assert is_implicit(plain | {"history": [["I am thirsty.", "It is the mug [SEG]."]]})
    assert is_implicit(plain | {"answer": "There is nothing here to drink from."})


def question(instruction: str, *names: str) -> Item:
    targets = [{"id": i + 1, "name": name, "kind": name} for i, name in enumerate(names)]
    ours = {"type": "use", "targets": targets}
    return Item("train", Path("a.jpg"), instruction, (), ours)


class OnlyBooks:
    """A detector that finds books and nothing else."""

    def __init__(self) -> None:
        self.asked = []

    def segment(self, image, instruction, *, key):
        self.asked.append(instruction)
        found = ["a mask"] if "book" in instruction else []
        return type("Answer", (), {"instances": found})()


def test_two_stages_name_a_kind_and_look_for_it(monkeypatch):
    monkeypatch.setattr(Item, "rgb", lambda self: None)
    items = [
        question("I am thirsty, what do I drink from?", "mug"),
        question("Which could hold my drink?", "mug", "bottle"),
        question("I am bored, what could I read?", "book"),
        question("Something to read tonight?", "book"),
    ]
    classifier = KindClassifier(Tokenizer.from_folder(find("nano")), items)
    assert classifier.ranked("what could I drink from?")[0] == "mug"
    assert classifier.ranked("I want to read.")[0] == "book"
    detector = OnlyBooks()
    answer_in_two_stages(detector, classifier, question("Where do I drink from?"), tries=1)
    assert detector.asked == ["Please segment the mug."]
    answer = answer_in_two_stages(detector, classifier, question("a drink to drink"), tries=3)
    assert answer.instances
    assert detector.asked[-1] == "Please segment the book."


def test_the_table_has_means_and_extremes():
    def row(system, seed, value):
        figures = {"giou": value, "ciou": value, "named": None, "false_refusals": 0.0}
        return {"system": system, "seed": seed, "figures": {"implicit": figures}}

    text = headline.table([row("before", None, 0.25), *map(row, "aaa", count(), (0.4, 0.5, 0.9))])
    before, after = text.splitlines()[2:]
    cells = [cell.strip() for cell in before.strip("|").split("|")]
    assert cells == ["before", "0.250", "0.250", "–", "0.000", "–", "–", "–"]
    assert "0.600 (0.400–0.900)" in after


def test_a_run_that_lacks_a_stage_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(headline, "drawn_once", None)  # minutes: that is told before
    arguments = ["--run", str(tmp_path), "--folder", str(tmp_path / "headline")]
    assert headline.main(arguments) == 2
    assert "has no scenes" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_experiment_in_small(tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.setattr(headline, "SEEDS", (0,))
    run = tmp_path / "run"
    square_scenes(run / "scenes")
    (tmp_path / "headline").mkdir()
    (run / "tokenizer").mkdir()
    tokenizer.save(run / "tokenizer")
    write_nouns(held_out_vocabulary().nouns, tmp_path / "headline" / "nouns.txt")
    torch.manual_seed(0)
    for name in ("pretrain_sam", "pretrain_vision_tower"):
        torch.save({"network": nano_network().state_dict()}, run / f"{name}.pt")
    draw_set(tmp_path / "tests", BENCHMARK, images=3, processes=1)
    small = ["--read-steps", "2", "--join-steps", "1", "--questions", "4", "--steps", "2"]
    folders = ["--run", str(run), "--folder", str(tmp_path / "headline")]
    arguments = [*folders, "--dataset", str(tmp_path / "tests"), *small, "--threads", "1"]
    assert headline.main(arguments) == 0
    results = headline._read(tmp_path / "headline")
    assert [row["system"].split(",")[0] for row in results] == [
        "before",
        "fine-tuned",
        "two stages",
        "two stages",
    ]
    assert all(row["figures"]["implicit"]["samples"] > 0 for row in results)
    assert headline.main(arguments) == 0  # nothing is done twice
    assert headline._read(tmp_path / "headline") == results
    assert re.search(r"^\| before +\|", capsys.readouterr().out, re.MULTILINE)
