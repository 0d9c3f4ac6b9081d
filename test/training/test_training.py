"""Training: packing changes nothing, runs resume exactly, the losses go down."""

import copy

import numpy as np
import pytest
import torch
from square_scenes import square_scenes

from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.training import loop as training
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.training.image_batches import load_maps, mirror
from lisa_tabletop.training.nano import nano_config, nano_network
from lisa_tabletop.training.pretrain_language import Read, object_centres
from lisa_tabletop.training.pretrain_sam import See
from lisa_tabletop.training.scenes import Scenes
from lisa_tabletop.training.sequence_packing import encode_dialogue, pack, run_packed


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return square_scenes()


def test_packed_dialogues_have_the_states_of_dialogues_alone(scenes, tokenizer):
    torch.manual_seed(0)
    network, config = nano_network().eval(), nano_config()
    questions = compose(scenes.records[0], np.random.default_rng(0), 5)
    assert len(questions) == 5
    view = torch.randn(1, config.image_tokens, config.hidden_size)
    packed = pack([questions], tokenizer, config)
    with torch.no_grad():
        together = run_packed(network, packed, view)[0][0]
        for number, question in enumerate(questions, start=1):
            prompt, answer = encode_dialogue(question, tokenizer, config)
            alone = network(torch.tensor([prompt + answer]), view)[0]
            mine = together[packed.owner[0] == number]
            assert torch.allclose(alone[-len(mine) :], mine, atol=1e-4)


def test_packing_learns_the_answers_and_nothing_else(scenes, tokenizer):
    config = nano_config()
    questions = compose(scenes.records[1], np.random.default_rng(3), 6)
    packed = pack([questions], tokenizer, config)
    learnt = tokenizer.decode([i for i in packed.labels.tolist() if i != tokenizer.eos_id])
    said = " ".join(question["answer"] for question in questions)
    assert learnt.replace(" ", "") == said.replace(" ", "")
    rows, columns = packed.segs.T
    assert (packed.ids[rows, columns + 1] == tokenizer.seg_id).all()
    assert packed.targets.tolist() == [t for q in questions for t in q["targets"]]
    assert (packed.ids == IMAGE_TOKEN).sum() == config.image_tokens


def test_a_stopped_run_goes_on_exactly(scenes, tmp_path):
    def run(folder, stops) -> dict[str, torch.Tensor]:
        for steps in stops:
            torch.manual_seed(0)
            network = nano_network()
            stage = See(network, scenes, batch=2)
            schedule = training.Schedule(steps, 1e-3)
            training.train(
                "see", network, stage, [network.image_encoder, stage], schedule, folder, seed=7
            )
        return network.state_dict()

    whole, halves = run(tmp_path / "whole", [4]), run(tmp_path / "halves", [2, 4])
    fresh = nano_network().state_dict()
    name = "image_encoder.layers.0.attn.qkv.weight"
    assert torch.equal(whole[name], halves[name])
    assert not torch.equal(whole[name], fresh[name])


def test_batches_do_not_depend_on_who_prepares_them(scenes):
    prepared = training.Steps(See(nano_network(), scenes, batch=2), "see", 3, rank=0)
    on_a_thread = list(training.prepared_on_a_thread(prepared, range(5, 8)))
    in_processes = list(training.prepared_in_processes(prepared, range(5, 8), 2))
    assert len(on_a_thread) == len(in_processes) == 3
    for (pictures, draws), (same_pictures, same_draws) in zip(
        on_a_thread, in_processes, strict=True
    ):
        assert torch.equal(pictures.sam, same_pictures.sam)
        assert torch.equal(draws.targets, same_draws.targets)
    assert not torch.equal(on_a_thread[0][0].sam, on_a_thread[1][0].sam)


def test_see_learns_to_segment_what_it_is_prompted_with(scenes, tmp_path):
    torch.manual_seed(0)
    network = nano_network()
    stage = See(network, scenes, batch=4)
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


def test_read_learns_to_answer_and_to_aim(scenes, tokenizer):
    torch.manual_seed(0)
    network = nano_network()
    stage = Read(network, scenes, tokenizer, batch=2)
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


def test_a_mirrored_view_stays_true(scenes):
    record = scenes.records[0]
    twice = mirror(mirror(record))
    assert twice == record
    assert mirror(record)["objects"][0]["center"][0] == 159 - record["objects"][0]["center"][0]
    maps = load_maps(scenes, np.arange(4), np.random.default_rng(2))
    assert maps.flipped.any()
    assert not maps.flipped.all()
    for row, seen in enumerate(maps.records):
        for thing in seen["objects"]:
            centre = object_centres(maps.ids[row : row + 1], torch.tensor([thing["id"]]))[0]
            assert centre.tolist() == pytest.approx(thing["center"])


def test_augmentation_leaves_the_stored_scenes_alone(scenes):
    before = copy.deepcopy(scenes.rgb)
    See(nano_network(), scenes, batch=4).prepare(np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(before, scenes.rgb, strict=True))
