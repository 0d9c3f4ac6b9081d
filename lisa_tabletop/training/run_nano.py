"""The whole training of nano: tables are rendered, its parts learn apart, then together.

    render ──► pretrain_sam, pretrain_vision_tower, pretrain_language ──► train_joint

Everything in one row runs at the same time, each in a process of its own, and each goes on where
it stopped. With a time budget the renderers go on beside the training until it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lisa_ros.errors import LisaError
from lisa_ros.image_files import figure_format, save_figure
from lisa_ros.model.checkpoint import Lisa, load, open_checkpoint, save
from lisa_ros.model.config import find
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.tokenizer import MODEL_FILE, Tokenizer
from lisa_ros.training.loop import STOP_SIGNALS, Schedule, Stage, join_ranks, train
from lisa_ros.writing import writable_file, written_beside
from lisa_tabletop.language.curriculum import compose_training
from lisa_tabletop.language.instructions import random_record
from lisa_tabletop.language.nouns import read_wordnet, training_vocabulary, write_nouns
from lisa_tabletop.training.nano import (
    PARTS,
    begin_with,
    nano_network,
    take_over,
    train_tokenizer,
)
from lisa_tabletop.training.optimizer import Optimizer
from lisa_tabletop.training.pretrain_towers import PretrainSam, PretrainVisionTower
from lisa_tabletop.training.scenes import Scenes, render_share
from lisa_tabletop.training.train_language import PretrainLanguage, TrainJoint, joint_parts

CORPUS = 40_000  # questions from which the tokenizer learns its pieces
FIRST_TABLES = 10  # rendered before the training begins beside the renderers
EMA = 0.999
RESERVE = 18.0  # seconds of a time budget in which the last stage ends and the model is written
MOST_STEPS = 1_000_000  # of a stage that ends by the clock


@dataclass(frozen=True)
class Plan:
    """How a stage is trained: its share of the time budget; on a processor and on a GPU,
    learning rate, batch size, and the processes that prepare batches (0: a thread)."""

    lr: tuple[float, float]
    share: float
    batch: tuple[int, int]
    workers: tuple[int, int]


PLANS = {
    "pretrain_sam": Plan((8e-4, 8e-4), 0.60, (8, 128), (0, 0)),
    "pretrain_vision_tower": Plan((1e-3, 1e-3), 0.60, (16, 256), (0, 0)),
    "pretrain_language": Plan((1e-3, 1e-3), 0.60, (8, 64), (0, 4)),
    # with batches of 8, a higher rate than 4e-5 unlearns what the parts know
    "train_joint": Plan((4e-5, 3e-4), 0.38, (8, 64), (0, 10)),
}
SHOWN = {
    "pretrain_sam": {
        "iou": "IoU of prompted masks",
        "naming": "patch naming loss",
        "outline": "outline loss",
    },
    "pretrain_vision_tower": {"right": "patches named right", "objects": "view error on objects"},
    "pretrain_language": {
        "right": "answer tokens right",
        "hit": "looks at what is meant",
        "ce": "cross entropy",
    },
    "train_joint": {
        "iou": "IoU of answered masks",
        "right": "answer tokens right",
        "dice": "Dice loss",
    },
}
SMOOTH = 9  # logged points averaged; the raw curve stays behind, paler


def train_nano(args: argparse.Namespace) -> None:
    """Run the stages named by the command's arguments (cli/train_nano.py)."""
    # is there a GPU? asked in a way that leaves CUDA to the processes that are forked from this one
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if args.device == "cuda" and not torch.cuda.is_available():
        join_ranks(args.device)  # says that there is none
    if torch.distributed.is_torchelastic_launched():
        return _train_in_ranks(args)
    _prepare(args)
    with _renderers(args):
        _run_together([name for name in PARTS if name in args.stages], args)
        _run_together([name for name in ("train_joint",) if name in args.stages], args)


def _train_in_ranks(args: argparse.Namespace) -> None:
    """One of torchrun's processes: the stages one after the other, all ranks at each."""
    rank = join_ranks(args.device)
    if rank.is_main_process:
        _prepare(args)
        with _renderers(args):
            pass
    rank.wait_for_everyone()
    for name in args.stages:
        if name != "render":
            run_stage(name, args, args.threads // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _prepare(args: argparse.Namespace) -> None:
    """All that the stages need but rendered tables; nothing is made before what is given is there.

    Each part appears whole: other ranks, and a run that goes on, take what there is.
    """
    if args.init:
        open_checkpoint(args.init)  # read later, part by part
    speaks = not {"pretrain_language", "train_joint"}.isdisjoint(args.stages)
    nouns = args.folder / "nouns.txt"  # may come from a machine that has WordNet
    if speaks and not nouns.exists():
        write_nouns(read_wordnet()[0], nouns)
    Scenes(args.folder / "scenes", args.tables)
    if speaks:
        _make_tokenizer(args)


@contextlib.contextmanager
def _renderers(args: argparse.Namespace) -> Iterator[None]:
    """Processes that render; entered when all tables are there, with a time budget the first."""
    scenes = Scenes(args.folder / "scenes")
    missing = int(np.count_nonzero(scenes.done[args.first_table :] == 0))
    count = min(missing, args.renderers) if "render" in args.stages else 0
    first = args.first_table
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(
            target=render_share, args=(scenes.folder, first + index, count), daemon=True
        )
        for index in range(count)
    ]
    try:
        for process in processes:
            process.start()
        most = len(scenes.done) - first
        wanted = most if args.minutes is None else min(most, FIRST_TABLES)
        while processes and np.count_nonzero(scenes.done[first:]) < wanted:
            _check(processes)
            time.sleep(0.2)
        print(f"{len(scenes)} views rendered", flush=True)
        yield
    finally:
        failed = [p.exitcode for p in processes if p.exitcode not in (None, 0, -signal.SIGTERM)]
        for process in processes:
            process.terminate()
        print(f"{len(scenes)} views rendered", flush=True)
        if failed:
            print(f"{len(failed)} of {count} renderers failed: {failed}", flush=True)


def _run_together(names: Sequence[str], args: argparse.Namespace) -> None:
    """Train stages at the same time, each in a process; a signal lets all save and stop."""
    if not names:
        return
    # a process that is forked from one that has asked for a GPU cannot use it
    context = multiprocessing.get_context("spawn")
    threads = max(1, args.threads // len(names))
    processes = [
        context.Process(target=_in_a_process, args=(run_stage, name, args, threads), name=name)
        for name in names
    ]

    told = False  # to save and stop, which a second signal cuts short

    def stop(number: int, frame: object) -> None:
        nonlocal told
        told = True
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGTERM)

    for process in processes:
        process.start()
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        while any(process.is_alive() for process in processes):
            if not told and any(process.exitcode for process in processes):
                stop(signal.SIGTERM, None)  # without one part the others are of no use
            time.sleep(0.2)
        _check(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_a_process(work: Callable[..., None], *args: object) -> None:
    """Run `work`; its fault is a sentence and an exit code, as that of a command."""
    try:
        work(*args)
    except LisaError as error:
        print(f"lisa-ros: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _check(processes: Sequence[multiprocessing.Process]) -> None:
    """Raise KeyboardInterrupt or LisaError where a process was stopped or has failed."""
    stopped = (0, None, 130, -signal.SIGTERM)  # the last where one was told to before it had begun
    failed = [process.name for process in processes if process.exitcode not in stopped]
    if failed:
        raise LisaError(f"{', '.join(failed)} failed; what it said stands above")
    if any(process.exitcode for process in processes):
        raise KeyboardInterrupt("the training was stopped; the same command goes on")


def run_stage(name: str, args: argparse.Namespace, threads: int) -> None:
    """Train one stage in this process, and write nano when it was the last."""
    torch.set_num_threads(max(1, threads))
    rank, plan = join_ranks(args.device), PLANS[name]
    on_gpu = rank.device.type == "cuda"
    # every stage begins with the same fresh network: SAM's positions are drawn with it
    torch.manual_seed(args.seed)
    network = nano_network()
    fresh = not (args.folder / f"{name}.pt").exists()
    prefixes = PARTS[name] if args.init and name in args.init_parts else ()
    if fresh and name == "train_joint":
        if args.init and not any((args.folder / f"{part}.pt").exists() for part in PARTS):
            prefixes = tuple(chain(*PARTS.values()))  # an earlier model is trained on as a whole
        else:
            take_over(network, args.folder)
    if fresh and prefixes:
        sentence = begin_with(network, load(args.init), prefixes)
        if rank.is_main_process:
            print(f"{name}: {sentence}", flush=True)
    stage, modules = _stage(name, network, args, plan.batch[on_gpu])
    network.to(rank.device)
    stage.to(rank.device)
    steps, seconds = args.steps[name], math.inf
    if args.minutes is not None:
        steps, seconds = MOST_STEPS, 60 * args.minutes * plan.share
    if args.minutes is not None and name == "train_joint":
        # what starting and rendering took is taken from the end
        left = 60 * args.minutes - RESERVE - (time.monotonic() - args.began)
        seconds = max(1.0, min(seconds, left))
    train(
        name,
        network,
        stage,
        Optimizer(modules),
        Schedule(steps, plan.lr[on_gpu], min(100, steps // 10), seconds),
        args.folder,
        seed=args.seed,
        workers=min(plan.workers[on_gpu], max(1, args.threads - 1)),
        ema=EMA,
    )
    if name == "train_joint" and rank.is_main_process:
        half = copy.deepcopy(network).cpu().half()  # it ships with the package
        half.shared_image_embedding.float()
        tokenizer = Tokenizer.from_folder(args.folder / "tokenizer")
        lisa = Lisa(half, tokenizer, Processor(network.config), network.config)
        save(lisa, args.folder / "checkpoint")


def _stage(
    name: str, network: LisaNetwork, args: argparse.Namespace, batch: int
) -> tuple[Stage, list[nn.Module]]:
    """The stage and the modules that it teaches."""
    scenes = Scenes(args.folder / "scenes")
    if not len(scenes):
        raise LisaError(f"{scenes.folder} has no rendered table; add `render` to --stages")
    if name == "pretrain_sam":
        stage = PretrainSam(network, scenes, batch)
        parts = [network.image_encoder, network.mask_decoder, network.no_mask_embed, stage]
        return stage, parts
    if name == "pretrain_vision_tower":
        stage = PretrainVisionTower(network, scenes, batch)
        return stage, [network.vision_tower, network.mm_projector]
    kind = TrainJoint if name == "train_joint" else PretrainLanguage
    stage = kind(
        network,
        scenes,
        Tokenizer.from_folder(args.folder / "tokenizer"),
        training_vocabulary(args.folder / "nouns.txt"),
        batch,
        implicit=not args.without_implicit,
    )
    if name == "train_joint":
        return stage, joint_parts(network)
    return stage, [network.language_model, network.lm_head, network.text_hidden_fcs]


def _make_tokenizer(args: argparse.Namespace) -> None:
    """The run's tokenizer: that of the model whose language part goes on, or one of its own.

    Made from the world's own sentences the first time. Raises LisaError where the language part is
    to go on with other pieces than it has learnt.
    """
    folder = args.folder / "tokenizer"
    earlier = find(args.init) if args.init and "pretrain_language" in args.init_parts else None
    if not folder.exists():
        tokenizer = Tokenizer.from_folder(earlier) if earlier else _new_tokenizer(args)
        with written_beside(folder) as beside:
            tokenizer.save(beside)
    elif earlier and (earlier / MODEL_FILE).read_bytes() != (folder / MODEL_FILE).read_bytes():
        raise LisaError(
            f"{args.init} was trained with another tokenizer than that of {args.folder}, so its"
            " language part cannot go on here; give"
            " --init-parts pretrain_sam pretrain_vision_tower"
        )


def _new_tokenizer(args: argparse.Namespace) -> Tokenizer:
    random = np.random.default_rng(args.seed)
    vocabulary = training_vocabulary(args.folder / "nouns.txt")
    return train_tokenizer(
        text
        for _ in range(CORPUS // 8)
        for question in compose_training(random_record(random), random, 8, vocabulary)
        for text in (question["instruction"], question["answer"])
    )


def draw_curves(folder: Path, path: Path) -> None:
    """One panel a stage, losses and accuracies over steps; LisaError where there is no run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figure_format(writable_file(path))
    if not (folder / "log").is_dir():
        raise LisaError(f"{folder} holds no training run: it has no log folder")
    figure, axes = pyplot.subplots(1, len(SHOWN), figsize=(4.2 * len(SHOWN), 3.4))
    for axis, (stage, curves) in zip(axes, SHOWN.items(), strict=True):
        if not (folder / "log" / stage).is_dir():
            continue
        log = EventAccumulator(str(folder / "log" / stage))
        log.Reload()
        for name, label in curves.items():
            if name not in log.Tags()["scalars"]:
                continue
            # a run that was stopped has logged the steps since its checkpoint twice
            points = sorted({event.step: event.value for event in log.Scalars(name)}.items())
            steps, values = np.array(points).T
            (line,) = axis.plot(steps, values, alpha=0.25, linewidth=0.8)
            axis.plot(steps, _smooth(values), color=line.get_color(), label=label)
        axis.set(title=stage, xlabel="step", ylim=(0, 1.5))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    save_figure(figure, path, dpi=90)
    pyplot.close(figure)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean that takes fewer points at the ends."""
    window = np.ones(min(SMOOTH, len(values)))
    counts = np.convolve(np.ones(len(values)), window, mode="same")
    return np.convolve(values, window, mode="same") / counts
