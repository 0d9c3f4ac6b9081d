"""The whole training of nano, stage by stage; each resumes where it stopped."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch

from lisa_ros.learn.join import Join
from lisa_ros.learn.look import Look
from lisa_ros.learn.nano import nano_network, train_tokenizer
from lisa_ros.learn.read import Read
from lisa_ros.learn.scenes import open_scenes, render_scenes
from lisa_ros.learn.see import See
from lisa_ros.learn.training import Schedule, train
from lisa_ros.model.checkpoint import Lisa, save
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.sim.instructions import corpus

CORPUS = 40_000  # questions from which the tokenizer learns its pieces
PARTS = {
    "see": ("image_encoder.", "mask_decoder.", "no_mask_embed.", "shared_image_embedding."),
    "look": ("vision_tower.", "mm_projector."),
    "read": ("language_model.", "lm_head.", "text_hidden_fcs."),
}
BATCH = {"see": 8, "look": 32, "read": 8, "join": 8}


def train_nano(args: argparse.Namespace) -> None:
    """Run the stages named by the command's arguments."""
    torch.set_num_threads(args.threads)
    stages = {"render": _render, "see": _see, "look": _look, "read": _read, "join": _join}
    for name in args.stages:
        # every stage begins with the same fresh network: SAM's positions are drawn with it
        torch.manual_seed(args.seed)
        stages[name](args)


def _render(args: argparse.Namespace) -> None:
    for done in render_scenes(args.folder / "scenes", args.shards, args.threads):
        print(f"rendered {done.stem}", flush=True)


def _see(args: argparse.Namespace) -> None:
    network = nano_network()
    stage = See(network, open_scenes(args.folder / "scenes"), BATCH["see"])
    modules = [network.image_encoder, network.mask_decoder, network.no_mask_embed, stage]
    train("see", network, stage, modules, Schedule(args.see_steps, 8e-4), args.folder, args.seed)


def _look(args: argparse.Namespace) -> None:
    network = nano_network()
    stage = Look(network, open_scenes(args.folder / "scenes"), BATCH["look"])
    modules = [network.vision_tower, network.mm_projector]
    train("look", network, stage, modules, Schedule(args.look_steps, 1e-3), args.folder, args.seed)


def _read(args: argparse.Namespace) -> None:
    network = nano_network()
    scenes = open_scenes(args.folder / "scenes")
    stage = Read(network, scenes, _tokenizer(args), BATCH["read"])
    modules = [network.language_model, network.lm_head, network.text_hidden_fcs]
    train("read", network, stage, modules, Schedule(args.read_steps, 1e-3), args.folder, args.seed)


def _join(args: argparse.Namespace) -> None:
    network = nano_network()
    scenes, tokenizer = open_scenes(args.folder / "scenes"), _tokenizer(args)
    _take_over(network, args.folder)
    stage = Join(network, scenes, tokenizer, BATCH["join"])
    train(
        "join", network, stage, [network], Schedule(args.join_steps, 5e-4), args.folder, args.seed
    )
    _write(network, tokenizer, args.folder / "checkpoint")


def _take_over(network: LisaNetwork, folder: Path) -> None:
    """Begin with what each stage has taught its part."""
    weights = {
        name: torch.load(folder / f"{name}.pt", weights_only=True)["network"] for name in PARTS
    }
    state = {
        name: tensor
        for stage, parts in PARTS.items()
        for name, tensor in weights[stage].items()
        if name.startswith(parts)
    }
    network.load_state_dict(state)


def _write(network: LisaNetwork, tokenizer: Tokenizer, folder: Path) -> None:
    """The native checkpoint, in half precision: it ships with the package."""
    half = copy.deepcopy(network).half()
    half.shared_image_embedding.float()
    save(Lisa(half, tokenizer, Processor(network.config), network.config), folder)


def _tokenizer(args: argparse.Namespace) -> Tokenizer:
    """The run's tokenizer, made from the world's own sentences the first time."""
    folder = args.folder / "tokenizer"
    if not folder.exists():
        random = np.random.default_rng(args.seed)
        texts = (
            text
            for question in corpus(random, CORPUS)
            for text in (question["instruction"], question["answer"])
        )
        tokenizer = train_tokenizer(texts)
        folder.mkdir(parents=True)
        tokenizer.save(folder)
    return Tokenizer.from_folder(folder)
