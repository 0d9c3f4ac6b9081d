"""Fine-tuning a LISA of any size on a folder of questions, as the paper does on ReasonSeg's 239.

LISA (Lai et al., arXiv 2308.00692) trains LoRA matrices (Hu et al., arXiv 2106.09685) on the
language model's q and v, and in full its word embeddings, its head, the projection of [SEG] and
SAM's mask decoder. CLIP, the projector and SAM's encoder stay as they are, so they see every
picture only once, before training.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lisa_ros.evaluation.reasonseg import TARGET, DatasetError, Item, read_dataset
from lisa_ros.model.checkpoint import Lisa, save
from lisa_ros.model.losses import LisaLoss, lisa_loss
from lisa_ros.model.network import LisaNetwork, label_positions
from lisa_ros.model.processor import Processor
from lisa_ros.model.prompt import encode_dialogue
from lisa_ros.model.weights import precision
from lisa_ros.training.loop import Schedule

ADAPTERS = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
BATCH = 8  # questions a step
WARM_UP = 0.1  # of all steps
ANSWER = "It is [SEG]."  # to questions that come without one


@dataclass(frozen=True)
class Lesson:
    """One question in the model's terms.

    ids (T,), of which the last `answer` are to be learnt; view (P,H); frame (C,g,g), in which the
    picture takes `resized` (height, width); truth (N,H,W) bool, one mask for each [SEG].
    """

    ids: Tensor
    answer: int
    view: Tensor
    frame: Tensor
    resized: tuple[int, int]
    truth: Tensor


def read_items(folder: Path) -> list[Item]:
    """All questions of a folder in ReasonSeg's format; DatasetError where one means nothing."""
    items = read_dataset(folder)
    for item in items:
        if not item.ours and not (item.truth()[0] == TARGET).any():
            raise DatasetError(
                f"{item.image.with_suffix('.json')} marks nothing as target;"
                " there is nothing to learn from it, so take it out of the folder"
            )
    return items


def finetune(
    lisa: Lisa, items: Sequence[Item], *, steps: int, rate: float, seed: int
) -> Iterator[dict[str, float]]:
    """Train `lisa` in place, yielding every step's losses; the adapters are merged at the end.

    `lisa` as `load` gives it. On a GPU the products are computed in bfloat16.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network, device = lisa.network, lisa.network.no_mask_embed.weight.device
    lessons = prepare(lisa, items)
    adapters = get_peft_model(network.language_model, LoraConfig(**ADAPTERS))
    for part in taught_in_full(network):
        part.float().requires_grad_(True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = Schedule(steps, rate, max(1, int(WARM_UP * steps)))
    network.train()
    for step, chosen in enumerate(_batches(len(lessons), steps, random)):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step, 0.0)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = lesson_loss(network, lisa.processor, [lessons[i] for i in chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield {"ce": loss.ce.item(), "bce": loss.bce.item(), "dice": loss.dice.item()}
    adapters.merge_and_unload()
    network.eval().requires_grad_(False)
    # what scores meant before they need not mean now
    lisa.config = network.config = replace(lisa.config, score_calibration=None)


def save_half(lisa: Lisa, folder: Path) -> None:
    """Write a native checkpoint in half precision, named after its folder; `lisa` becomes that."""
    for name, parameter in lisa.network.named_parameters():
        parameter.data = parameter.data.to(precision(name, torch.float16))
    lisa.config = replace(lisa.config, name=folder.name)
    save(lisa, folder)


def taught_in_full(network: LisaNetwork) -> list[nn.Module]:
    """What LISA trains beside the adapters."""
    words = network.language_model.embed_tokens
    return [words, network.lm_head, network.text_hidden_fcs, network.mask_decoder]


@torch.no_grad()
def prepare(lisa: Lisa, items: Sequence[Item]) -> list[Lesson]:
    """Questions as lessons; the frozen parts see each picture once, and what they say is kept."""
    seen: dict[Hashable, tuple[Tensor, Tensor, tuple[int, int]]] = {}
    lessons = []
    for item in items:
        if item.scene not in seen:
            seen[item.scene] = _see(lisa, item.rgb())
        view, frame, resized = seen[item.scene]
        answer, truth = _answer(item, lisa.config.mask_instances)
        question = {"instruction": item.instruction, "answer": answer, "history": item.history}
        prompt, said = encode_dialogue(question, lisa.tokenizer.encode, lisa.config)
        ids = torch.tensor(prompt + said, device=view.device)
        lessons.append(Lesson(ids, len(said), view, frame, resized, torch.from_numpy(truth)))
    return lessons


def _see(lisa: Lisa, rgb: np.ndarray) -> tuple[Tensor, Tensor, tuple[int, int]]:
    network, device = lisa.network, lisa.network.no_mask_embed.weight.device
    view = network.encode_view(lisa.processor.clip_pixels(rgb)[None].to(device))[0]
    pixels, resized = lisa.processor.sam_pixels(rgb)
    return view, network.encode_frame(pixels[None].to(device))[0].float(), resized


def _answer(item: Item, instances: bool) -> tuple[str, np.ndarray]:
    """What is to be said, and a mask for each [SEG] in it; one for all without `instances`."""
    mask, each = item.truth()
    if item.ours and (instances or not len(each)):
        return item.ours["answer"], each
    return ANSWER, (mask == TARGET)[None]


def _batches(count: int, steps: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of BATCH lessons for each step; all are seen before one comes again."""
    order = np.zeros(0, dtype=int)
    for _ in range(steps):
        while len(order) < BATCH:
            order = np.concatenate([order, random.permutation(count)])
        yield order[:BATCH]
        order = order[BATCH:]


def lesson_loss(network: LisaNetwork, processor: Processor, lessons: Sequence[Lesson]) -> LisaLoss:
    """LISA's loss of some lessons, its masks compared at the size of their pictures."""
    tokens = network.config.image_tokens
    ids = pad_sequence([lesson.ids for lesson in lessons], batch_first=True)
    place = torch.arange(ids.shape[1], device=ids.device)
    lengths = torch.tensor([len(lesson.ids) for lesson in lessons], device=ids.device)
    answers = torch.tensor([lesson.answer for lesson in lessons], device=ids.device)
    known = place < lengths[:, None]
    learnt = known & (place >= (lengths - answers)[:, None])
    views = torch.stack([lesson.view for lesson in lessons])
    states = network(ids, views, known)
    logits = network.lm_head(states[tuple(label_positions(ids, learnt, tokens).T)])
    segs = label_positions(ids, learnt & (ids == network.config.seg_token_id), tokens)
    prompts = network.seg_embeddings(states[tuple(segs.T)])
    masks, truth = [], []
    for row, lesson in enumerate(lessons):
        low, _ = network.decode_masks(lesson.frame[None], prompts[segs[:, 0] == row][None])
        size = tuple(lesson.truth.shape[1:])
        masks.append(processor.full_size_masks(low[0], lesson.resized, size))
        truth.append(lesson.truth.to(ids.device))
    return lisa_loss(logits, ids[learnt], masks, truth)
