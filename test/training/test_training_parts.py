"""A stage begins with what an earlier model or an earlier stage has learnt."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from corpus import corpus
from square_scenes import square_scenes

from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.network import LisaNetwork
from lisa_ros.training.loop import Schedule, train
from lisa_tabletop.language.nouns import held_out_vocabulary, write_nouns
from lisa_tabletop.training.nano import (
    PARTS,
    POSITIONS,
    begin_with,
    nano_config,
    nano_network,
    take_over,
    train_tokenizer,
)
from lisa_tabletop.training.optimizer import Optimizer
from lisa_tabletop.training.train_language import MASKS, TrainJoint, joint_parts


@pytest.fixture(scope="module")
def earlier() -> Lisa:
    """A model with fewer words than nano has."""
    config = nano_config()
    config = replace(config, name="earlier", llama={**config.llama, "vocab_size": 900})
    torch.manual_seed(1)
    return Lisa(LisaNetwork(replace(config, seg_token_id=899)), None, None, config)


def test_a_part_begins_with_the_earlier_one_and_the_others_stay(earlier):
    network = nano_network()
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sentence = begin_with(network, earlier, PARTS["pretrain_sam"])
    for name, tensor in network.state_dict().items():
        taken = name.startswith(PARTS["pretrain_sam"])
        wanted = earlier.network.state_dict()[name] if taken else fresh[name]
        assert torch.equal(tensor, wanted), name
    assert "earlier" in sentence
    assert "fresh" not in sentence


def test_what_does_not_fit_begins_fresh_and_is_named(earlier):
    sentence = begin_with(nano_network(), earlier, PARTS["pretrain_language"])
    assert "begin fresh: language_model.embed_tokens.weight, lm_head.weight" in sentence


def write_stages(folder, networks) -> None:
    for name, network in zip(PARTS, networks, strict=True):
        torch.save({"network": network.state_dict()}, folder / f"{name}.pt")


def test_the_joint_training_takes_each_part_from_its_stage(tmp_path):
    torch.manual_seed(0)
    networks = [nano_network() for _ in PARTS]
    positions = networks[0].state_dict()[POSITIONS]
    for network in networks:
        network.state_dict()[POSITIONS].copy_(positions)
    write_stages(tmp_path, networks)
    joined = nano_network()
    take_over(joined, tmp_path)
    for prefixes, network in zip(PARTS.values(), networks, strict=True):
        for name, tensor in network.state_dict().items():
            if name.startswith(prefixes):
                assert torch.equal(joined.state_dict()[name], tensor), name


def test_the_joint_training_teaches_all_but_sams_encoder(tmp_path, tokenizer):
    torch.manual_seed(0)
    network = nano_network()
    before = copy.deepcopy(network.state_dict())
    stage = TrainJoint(
        network, square_scenes(tmp_path / "scenes"), tokenizer, held_out_vocabulary(), batch=2
    )
    batch = stage.prepare(np.random.default_rng(0))
    assert len(batch.drawn) == MASKS * 2 < len(batch.packed.segs)
    parts = joint_parts(network)
    train("train_joint", network, stage, Optimizer(parts), Schedule(2, 1e-2), tmp_path, seed=0)
    learnt = {
        name.split(".")[0]
        for name, tensor in network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    fixed = {"image_encoder", "shared_image_embedding"}
    assert learnt == {name for name, _ in network.named_children()} - fixed


def test_stages_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(LisaError, match="run `train-nano --stages pretrain_sam` first"):
        take_over(nano_network(), tmp_path)
    write_stages(tmp_path, [nano_network() for _ in PARTS])
    with pytest.raises(LisaError, match="began with other positions"):
        take_over(nano_network(), tmp_path)


def test_a_language_part_does_not_go_on_with_other_pieces(tmp_path, capsys):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    texts = (q["instruction"] for q in corpus(np.random.default_rng(0), 4000))
    train_tokenizer(texts).save(folder)
    write_nouns(held_out_vocabulary().nouns, tmp_path / "nouns.txt")
    arguments = [
        "train-nano",
        "--folder",
        str(tmp_path),
        "--init",
        "nano",
        "--stages",
        "pretrain_language",
    ]
    assert main(arguments) == 2
    assert "give --init-parts pretrain_sam pretrain_vision_tower" in capsys.readouterr().err
