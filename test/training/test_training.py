"""Training: packing changes nothing, runs resume exactly, the losses go down."""

import os
import signal
import threading

import numpy as np
import pytest
import torch
from square_scenes import square_scenes

from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.model.prompt import encode_dialogue
from lisa_ros.training.loop import Schedule, batches, train
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.language.nouns import held_out_vocabulary
from lisa_tabletop.training.nano import nano_config, nano_network
from lisa_tabletop.training.optimizer import Optimizer
from lisa_tabletop.training.pretrain_towers import PretrainSam, PretrainVisionTower
from lisa_tabletop.training.scenes import VIEWS, Scenes
from lisa_tabletop.training.sequence_packing import pack, run_packed
from lisa_tabletop.training.train_language import PretrainLanguage

WORDS = held_out_vocabulary()  # any will do


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Scenes:
    return square_scenes(tmp_path_factory.mktemp("scenes"))


def test_packed_dialogues_have_the_states_of_dialogues_alone(scenes, tokenizer):
    torch.manual_seed(0)
    network, config = nano_network().eval(), nano_config()
    questions = compose(scenes.record(0), np.random.default_rng(0), 5)
    assert len(questions) == 5
    view = torch.randn(1, config.image_tokens, config.hidden_size)
    packed = pack([questions], tokenizer, config)
    with torch.no_grad():
        together = run_packed(network, packed, view)[0][0]
        for number, question in enumerate(questions, start=1):
            prompt, answer = encode_dialogue(question, tokenizer.encode, config)
            alone = network(torch.tensor([prompt + answer]), view)[0]
            mine = together[packed.owner[0] == number]
            assert torch.allclose(alone[-len(mine) :], mine, atol=1e-4)


def test_packing_learns_the_answers_and_nothing_else(scenes, tokenizer):
    config = nano_config()
    questions = compose(scenes.record(1), np.random.default_rng(3), 6)
    packed = pack([questions], tokenizer, config)
    learnt = tokenizer.decode([i for i in packed.labels.tolist() if i != tokenizer.eos_id])
    said = " ".join(question["answer"] for question in questions)
    assert learnt.replace(" ", "") == said.replace(" ", "")
    rows, columns = packed.segs.T
    assert (packed.ids[rows, columns + 1] == tokenizer.seg_id).all()
    assert packed.targets.tolist() == [t for q in questions for t in q["targets"]]
    assert (packed.ids == IMAGE_TOKEN).sum() == config.image_tokens


def test_a_stopped_run_goes_on_exactly(scenes, tmp_path):
    class Interrupted(PretrainSam):
        """Is told to stop in the middle of its second step."""

        def loss(self, network, batch):
            steps.append(len(steps))
            if len(steps) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(network, batch)

    def run(kind, folder) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = nano_network()
        stage = kind(network, scenes, batch=2)
        optimizer, schedule = Optimizer([network.image_encoder, stage]), Schedule(4, 1e-2, 1)
        train("pretrain_sam", network, stage, optimizer, schedule, folder, seed=7, ema=0.5)
        return network.state_dict()

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt, match="after step 2 of 4"):
        run(Interrupted, tmp_path / "halves")
    halves = run(Interrupted, tmp_path / "halves")
    assert len(steps) == 4
    whole, fresh = run(PretrainSam, tmp_path / "whole"), nano_network().state_dict()
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name
    name = "image_encoder.layers.0.attn.qkv.weight"
    assert not torch.equal(whole[name], fresh[name])


def test_batches_do_not_depend_on_who_prepares_them(scenes, tokenizer):
    stage = PretrainLanguage(nano_network(), scenes, tokenizer, WORDS, batch=2)
    on_a_thread, in_processes = (
        list(batches(stage, (3, 0), range(5, 8), workers)) for workers in (0, 2)
    )
    assert len(on_a_thread) == len(in_processes) == 3
    for mine, other in zip(on_a_thread, in_processes, strict=True):
        assert torch.equal(mine.views.ids, other.views.ids)
        assert torch.equal(mine.packed.ids, other.packed.ids)
    assert not torch.equal(on_a_thread[0].views.ids, on_a_thread[1].views.ids)


def test_sam_learns_to_segment_what_it_is_prompted_with(scenes):
    torch.manual_seed(0)
    network = nano_network()
    stage = PretrainSam(network, scenes, batch=4)
    batch = stage.prepare(np.random.default_rng(0))
    optimizer = torch.optim.AdamW([*network.parameters(), *stage.parameters()], lr=2e-3)
    losses = []
    for _ in range(25):
        loss, _ = stage.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_language_model_learns_to_answer_and_to_aim(scenes, tokenizer):
    torch.manual_seed(0)
    network = nano_network()
    stage = PretrainLanguage(network, scenes, tokenizer, WORDS, batch=2)
    batch = stage.prepare(np.random.default_rng(0))
    first, _ = stage.loss(network, batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(30):
        loss, logs = stage.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first.item()
    assert logs["right"] > 0.6


def test_the_tower_learns_to_name_what_patches_hold(scenes):
    torch.manual_seed(0)
    network = nano_network()
    stage = PretrainVisionTower(network, scenes, batch=4)
    batch = stage.prepare(np.random.default_rng(0))
    modules = [network.vision_tower, network.mm_projector]
    optimizer = torch.optim.AdamW([p for m in modules for p in m.parameters()], lr=1e-3)
    losses = []
    for _ in range(20):
        loss, _ = stage.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_no_table_is_drawn_twice_before_all_are(scenes):
    drawn = scenes.draw(np.random.default_rng(0), 5)
    assert sorted((drawn // VIEWS).tolist()[:4]) == [0, 0, 1, 1]
    assert set(scenes.draw(np.random.default_rng(1), 200).tolist()) == set(range(12))


def test_views_are_drawn_while_others_are_rendered(tmp_path):
    scenes = Scenes(tmp_path, 50_000)
    scenes.done[::2] = 1
    ended = threading.Event()

    def render() -> None:
        while not ended.is_set():  # tables come and go faster than they ever would
            scenes.done[1::2] = 1 - scenes.done[1::2]

    renderer = threading.Thread(target=render)
    renderer.start()
    try:
        for seed in range(200):
            scenes.draw(np.random.default_rng(seed), 4)
    finally:
        ended.set()
        renderer.join()
