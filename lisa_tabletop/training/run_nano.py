"""The whole training of nano, stage by stage; each resumes where it stopped."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lisa_ros.errors import LisaError
from lisa_ros.model.checkpoint import Lisa, find, load, save
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.tokenizer import MODEL_FILE, Tokenizer
from lisa_ros.training.loop import Schedule, Stage, join_ranks, train
from lisa_tabletop.language.instructions import corpus
from lisa_tabletop.training.nano import nano_network, train_tokenizer
from lisa_tabletop.training.optimizer import Optimizer
from lisa_tabletop.training.pretrain_language import Read
from lisa_tabletop.training.pretrain_sam import See
from lisa_tabletop.training.pretrain_vision_tower import Look
from lisa_tabletop.training.scenes import open_scenes, render_scenes
from lisa_tabletop.training.train_joint import Join, joined_parts
from lisa_tabletop.training.warm_start import PARTS, aim_by, begin_with, take_over

MOST_WORKERS = 12  # that prepare batches for one GPU
CORPUS = 40_000  # questions from which the tokenizer learns its pieces
BATCH = {"see": 8, "look": 32, "read": 8, "join": 8}  # in each process
Plan = tuple[Stage, Sequence[nn.Module], Schedule]


def train_nano(args: argparse.Namespace) -> None:
    """Run the stages named by the command's arguments."""
    share = max(1, args.threads // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    torch.set_num_threads(share)
    rank = join_ranks(args.device)
    # a GPU is faster than one processor core can draw questions
    workers = 0 if rank.device.type == "cpu" else max(1, min(MOST_WORKERS, share - 1))
    plans = {"see": _see, "look": _look, "read": _read, "join": _join}
    if rank.is_main_process:
        args.folder.mkdir(parents=True, exist_ok=True)
        if "render" in args.stages:
            _render(args)
        if not {"read", "join"}.isdisjoint(args.stages):
            _make_tokenizer(args)
    rank.wait_for_everyone()
    for name in args.stages:
        if name == "render":
            continue
        # every stage begins with the same fresh network: SAM's positions are drawn with it
        torch.manual_seed(args.seed)
        network = nano_network().to(rank.device)
        fresh = not (args.folder / f"{name}.pt").exists()
        if args.init and name in args.init_parts and fresh:
            _begin(network, name, args, talk=rank.is_main_process)
        if name == "read":
            aim_by(network, args.folder)
        stage, modules, schedule = plans[name](args, network)
        optimizer = Optimizer([module.to(rank.device) for module in modules])
        stage.to(rank.device)
        folder, seed = args.folder, args.seed
        train(name, network, stage, optimizer, schedule, folder, seed=seed, workers=workers)
        if name == "join" and rank.is_main_process:
            _write(network, _tokenizer(args), args.folder / "checkpoint")


def _render(args: argparse.Namespace) -> None:
    for done in render_scenes(args.folder / "scenes", args.shards, args.threads):
        print(f"rendered {done.stem}", flush=True)


def _begin(network: LisaNetwork, stage: str, args: argparse.Namespace, *, talk: bool) -> None:
    """Begin a stage with an earlier model's part."""
    sentence = begin_with(network, load(args.init), PARTS[stage])
    if talk:
        print(f"{stage}: {sentence}", flush=True)


def _see(args: argparse.Namespace, network: LisaNetwork) -> Plan:
    stage = See(network, open_scenes(args.folder / "scenes"), BATCH["see"])
    modules = [network.image_encoder, network.mask_decoder, network.no_mask_embed, stage]
    return stage, modules, Schedule(args.see_steps, 8e-4)


def _look(args: argparse.Namespace, network: LisaNetwork) -> Plan:
    stage = Look(network, open_scenes(args.folder / "scenes"), BATCH["look"])
    return stage, [network.vision_tower, network.mm_projector], Schedule(args.look_steps, 1e-3)


def _read(args: argparse.Namespace, network: LisaNetwork) -> Plan:
    stage = Read(
        network,
        open_scenes(args.folder / "scenes"),
        _tokenizer(args),
        BATCH["read"],
        implicit=not args.without_implicit,
    )
    modules = [network.language_model, network.lm_head, network.text_hidden_fcs]
    return stage, modules, Schedule(args.read_steps, 1e-3)


def _join(args: argparse.Namespace, network: LisaNetwork) -> Plan:
    take_over(network, args.folder)
    stage = Join(
        network,
        open_scenes(args.folder / "scenes"),
        _tokenizer(args),
        BATCH["join"],
        implicit=not args.without_implicit,
    )
    return stage, joined_parts(network), Schedule(args.join_steps, 3e-4)


def _write(network: LisaNetwork, tokenizer: Tokenizer, folder: Path) -> None:
    """The native checkpoint, in half precision: it ships with the package."""
    half = copy.deepcopy(network).cpu().half()
    half.shared_image_embedding.float()
    save(Lisa(half, tokenizer, Processor(network.config), network.config), folder)


def _make_tokenizer(args: argparse.Namespace) -> None:
    """The run's tokenizer: that of the model whose language part goes on, or one of its own.

    Made from the world's own sentences the first time. Raises LisaError where the language part is
    to go on with other pieces than it has learnt.
    """
    folder = args.folder / "tokenizer"
    earlier = find(args.init) if args.init and "read" in args.init_parts else None
    if not folder.exists():
        tokenizer = Tokenizer.from_folder(earlier) if earlier else _new_tokenizer(args.seed)
        folder.mkdir(parents=True)
        tokenizer.save(folder)
    elif earlier and (earlier / MODEL_FILE).read_bytes() != (folder / MODEL_FILE).read_bytes():
        raise LisaError(
            f"{args.init} was trained with another tokenizer than that of {args.folder}, so its"
            " language part cannot go on here; give --init-parts see look"
        )


def _new_tokenizer(seed: int) -> Tokenizer:
    random = np.random.default_rng(seed)
    return train_tokenizer(
        text
        for question in corpus(random, CORPUS)
        for text in (question["instruction"], question["answer"])
    )


def _tokenizer(args: argparse.Namespace) -> Tokenizer:
    return Tokenizer.from_folder(args.folder / "tokenizer")
