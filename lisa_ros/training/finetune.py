"""Fine-tuning a LISA of any size on a folder of questions, as the paper does on ReasonSeg's 239.

LISA (Lai et al., arXiv 2308.00692) trains LoRA matrices (Hu et al., arXiv 2106.09685) on the
language model's q and v, and in full its word embeddings, its head, the projection of [SEG] and
SAM's mask decoder. CLIP, the projector and SAM's encoder stay as they are, so they see every
image only once, before training.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lisa_ros.engine.answer import SEG
from lisa_ros.errors import LisaError, WriteError
from lisa_ros.evaluation.reasonseg import TARGET, Item
from lisa_ros.model.checkpoint import Lisa, save
from lisa_ros.model.losses import LisaLoss, lisa_loss
from lisa_ros.model.network import LisaNetwork, label_positions
from lisa_ros.model.processor import Processor
from lisa_ros.model.prompt import encode_dialogue, escape, mode_suffixes
from lisa_ros.model.weights import precision
from lisa_ros.training.loop import Schedule, train
from lisa_ros.writing import writable_folder, write_file

ADAPTERS = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
BATCH = 8  # questions a step
WARM_UP = 0.1  # of all steps
ANSWER = "It is [SEG]."  # to questions that come without one
NAME = "finetune"  # of the run, its checkpoint and its log
AUTHORS_SUFFIXES = (
    " Please output segmentation mask.",
    " Please respond with segmentation mask.",
)
"""With which LISA's authors train on sentences that want a mask."""


@dataclass(frozen=True)
class FinetuneExample:
    """One question in the model's terms.

    ids (T,), of which the last `answer` are to be learnt; view (P,H); frame (C,g,g), in which the
    image takes `resized` (height, width); truth (N,H,W) bool, one mask for each [SEG].
    """

    ids: Tensor
    answer: int
    view: Tensor
    frame: Tensor
    resized: tuple[int, int]
    truth: Tensor


@dataclass(frozen=True)
class FineTuning:
    """LISA's loss on examples: of each question one, for every form in which it is asked."""

    processor: Processor
    questions: Sequence[Sequence[FinetuneExample]]

    def prepare(self, random: np.random.Generator) -> tuple[FinetuneExample, ...]:
        """BATCH questions, none twice while there are others; half of them plainly asked."""
        chosen = np.resize(random.permutation(len(self.questions)), BATCH)
        forms = random.integers(1, [len(self.questions[i]) for i in chosen])
        forms *= random.random(BATCH) < 0.5
        return tuple(self.questions[i][form] for i, form in zip(chosen, forms, strict=True))

    def loss(
        self, network: LisaNetwork, batch: tuple[FinetuneExample, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """LISA's joint loss, its masks compared at the size of their images."""
        loss = example_loss(network, self.processor, batch)
        return loss.total, {"ce": loss.ce, "bce": loss.bce, "dice": loss.dice}


def finetune(
    lisa: Lisa, items: Sequence[Item], folder: Path, *, steps: int, lr: float, seed: int
) -> None:
    """Train `lisa` (as `load` gives it) in place and write it to `folder`, in half precision.

    Interrupted, it leaves its state in `folder` and goes on from it when called again with the same
    model, questions and settings. On a GPU, and with a model in half precision, the products are
    computed in bfloat16.

    Raises:
        WriteError: there is no room for what will be written, or no longer.
        LisaError: `folder` holds the state of another fine-tuning, or the loss is no number.
    """
    settings = {"model": lisa.config.name, "steps": steps, "rate": lr, "seed": seed}
    settings["questions"] = _digest(items)
    state = folder / "training"
    _take_up(state, settings)
    network = lisa.network

    # 1. what the frozen parts see; what is trained
    torch.manual_seed(seed)  # of the adapters
    stage = FineTuning(lisa.processor, prepare(lisa, items))
    adapters = get_peft_model(network.language_model, LoraConfig(**ADAPTERS))
    words = network.language_model.embed_tokens
    for part in (words, network.lm_head, network.text_hidden_fcs, network.mask_decoder):
        part.float().requires_grad_(True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    _require_room(folder, network, parameters)
    # 2. train, or go on
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = Schedule(steps, lr, max(1, int(WARM_UP * steps)))
    train(NAME, network, stage, optimizer, schedule, state, seed=seed)
    # 3. an ordinary model again; what scores meant before they need not mean now
    adapters.merge_and_unload()
    network.eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(precision(name, torch.float16))
    lisa.config = network.config = replace(lisa.config, name=folder.name, score_calibration=None)
    save(lisa, folder)
    for name in (f"{NAME}.pt", "settings.json"):
        (state / name).unlink(missing_ok=True)


def _digest(items: Sequence[Item]) -> str:
    """What is asked about which image; equal for the same questions wherever they lie."""
    words = [[item.split, item.image.name, item.instruction, item.shapes] for item in items]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _take_up(state: Path, settings: Mapping) -> None:
    """Begin a fine-tuning in `state`, or see that the one interrupted there is this one."""
    path = writable_folder(state) / "settings.json"
    if not path.exists():
        write_file(path, json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    other = sorted(name for name in settings if before.get(name) != settings[name])
    if other:
        raise LisaError(
            f"{state} holds a fine-tuning that was interrupted, with another {', '.join(other)};"
            " give the same to go on with it, or name a new folder"
        )


def _require_room(folder: Path, network: LisaNetwork, parameters: Sequence[nn.Parameter]) -> None:
    """Raise WriteError unless the checkpoint and the state of the optimizer have room."""
    trained = sum(p.numel() for p in parameters)
    # the weights with two moments, written beside the ones before; and at last in half precision
    need = 2 * 3 * 4 * trained + 2 * sum(p.numel() for p in network.parameters())
    free = shutil.disk_usage(folder).free
    if free < need:
        raise WriteError(
            f"fine-tuning needs {need / 1e6:.0f} MB in {folder}, but {free / 1e6:.0f} MB are free:"
            " make room, or name a folder on another disk"
        )


@torch.no_grad()
def prepare(lisa: Lisa, items: Sequence[Item]) -> list[list[FinetuneExample]]:
    """The forms of every question; the frozen parts see each image once, and it is kept."""
    network, processor = lisa.network, lisa.processor
    device = network.no_mask_embed.weight.device
    seen: dict[Hashable, tuple[Tensor, Tensor, tuple[int, int]]] = {}
    questions = []
    for item in items:
        if item.scene not in seen:
            rgb = item.rgb()
            view = network.encode_view(processor.clip_pixels(rgb)[None].to(device))[0]
            pixels, resized = processor.sam_pixels(rgb)
            frame = network.encode_frame(pixels[None].to(device))[0].float()
            seen[item.scene] = view, frame, resized
        view, frame, resized = seen[item.scene]
        answer, truth = _answer(item, lisa.config.mask_instances)
        forms = []
        for suffix, said in _forms(lisa, item, answer):
            question = {"instruction": escape(item.instruction) + suffix, "answer": said}
            question["history"] = item.history
            ids, learnt = encode_dialogue(question, lisa.tokenizer.encode, lisa.config)
            tensor = torch.tensor(ids + learnt, device=device)
            example = FinetuneExample(
                tensor, len(learnt), view, frame, resized, torch.from_numpy(truth)
            )
            forms.append(example)
        questions.append(forms)
    return questions


def _answer(item: Item, instances: bool) -> tuple[str, np.ndarray]:
    """What is to be said, and a mask for each [SEG] in it; one for all without `instances`."""
    mask, each = item.truth()
    if item.ours and (instances or not len(each)):
        return item.ours["answer"], each
    return ANSWER, (mask == TARGET)[None]


def _forms(lisa: Lisa, item: Item, answer: str) -> Iterator[tuple[str, str]]:
    """With what suffix a question is asked, and what is said then: in words, or bare masks.

    The words that mode `mask` adds, and for LISA's own models both of the authors', come beside the
    plain question: a model that learns that one alone does not know the others any more.
    """
    yield "", answer
    masks = answer.count(SEG)
    bare = " ".join([SEG] * masks) + "." if masks else answer
    for suffix in {mode_suffixes(lisa.config)["mask"]: None, **dict.fromkeys(AUTHORS_SUFFIXES)}:
        yield suffix, bare


def example_loss(
    network: LisaNetwork, processor: Processor, examples: Sequence[FinetuneExample]
) -> LisaLoss:
    """LISA's loss of some examples, its masks compared at the size of their images."""
    tokens = network.config.image_tokens
    ids = pad_sequence([one.ids for one in examples], batch_first=True)  # (B, T)
    place = torch.arange(ids.shape[1], device=ids.device)
    lengths = torch.tensor([len(one.ids) for one in examples], device=ids.device)
    answers = torch.tensor([one.answer for one in examples], device=ids.device)
    known = place < lengths[:, None]
    learnt = known & (place >= (lengths - answers)[:, None])
    views = torch.stack([one.view for one in examples])
    states = network(ids, views, known)  # (B, T + P - 1, H)
    logits = network.lm_head(states[tuple(label_positions(ids, learnt, tokens).T)])
    segs = label_positions(ids, learnt & (ids == network.config.seg_token_id), tokens)
    prompts = network.seg_embeddings(states[tuple(segs.T)])
    masks, truth = [], []
    for row, one in enumerate(examples):
        low, _ = network.decode_masks(one.frame[None], prompts[segs[:, 0] == row][None])
        size = tuple(one.truth.shape[1:])
        masks.append(processor.full_size_masks(low[0], one.resized, size))
        truth.append(one.truth.to(ids.device))
    return lisa_loss(logits, ids[learnt], masks, truth)
