"""What our network says about the cases of the golden set, which the reference implementation made.

`python test/parity_samples.py` prints the largest difference seen per tensor, and
`python test/parity_samples.py quantization` the masks of compressed models: tables of
docs/fidelity.md.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from lisa_ros.errors import CheckpointError
from lisa_ros.model.checkpoint import Lisa, load
from lisa_ros.model.losses import IGNORE, lisa_loss
from lisa_ros.model.network import label_positions

DATA = Path(__file__).parent / "data" / "parity"
CASES = sorted(path.stem for path in DATA.glob("case_*.safetensors"))
FORWARD = [name for name in CASES if "forward" in name]

TOLERANCES = {
    "clip_pixel_values": 1e-5,
    "sam_pixel_values": 1e-5,
    "clip_patch_features": 1e-4,
    "projected_image_features": 1e-4,
    "sam_image_embeddings": 1e-4,
    "inputs_embeds": 1e-4,
    "last_hidden_state": 2e-4,
    "logits": 2e-4,
    "step_logits": 2e-4,
    "seg_embeddings": 2e-4,
    "iou_predictions": 2e-4,
    "low_res_masks": 1e-3,
    "pred_masks": 1e-3,
    "loss": 1e-4,
    "grad_norm": 1e-3,
}
"""As the set's README states them; what is not listed must be equal."""


@dataclass
class Case:
    """One golden file: its tensors by name, and the images it is about."""

    tensors: dict[str, Tensor]
    images: list[np.ndarray]

    def expected(self, name: str) -> Tensor:
        return self.tensors[f"expected.{name}"]


@cache
def golden() -> Lisa:
    torch.manual_seed(0)
    return load(DATA / "checkpoint")


def read_case(name: str) -> Case:
    with safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        names = file.metadata()["image"].split()
    return Case(tensors, [np.asarray(Image.open(DATA / n).convert("RGB")) for n in names])


def computed(name: str, lisa: Lisa | None = None) -> dict[str, Tensor]:
    """Everything that our network can say about a case, under the golden set's names."""
    case, lisa = read_case(name), lisa or golden()
    if name.startswith("case_image"):
        return image_case(case, lisa)
    if name.startswith("case_train"):
        return train_case(case, lisa)
    ids_name = "expected.output_ids" if "evaluate" in name else "input.input_ids"
    return forward_case(case, lisa, case.tensors[ids_name], generated="evaluate" in name)


def iou(a: Tensor, b: Tensor) -> float:
    return ((a & b).sum() / (a | b).sum()).item()


def golden_ious(lisa: Lisa) -> dict[str, float]:
    """IoU of a model's masks with the golden ones, per forward case."""
    return {
        name: iou(
            computed(name, lisa)["pred_masks"] > 0, read_case(name).expected("pred_masks") > 0
        )
        for name in FORWARD
    }


@torch.no_grad()
def image_case(case: Case, lisa: Lisa) -> dict[str, Tensor]:
    clip = lisa.processor.clip_pixels(case.images[0])[None]
    sam = lisa.processor.sam_pixels(case.images[0])
    features = []
    hook = lisa.network.mm_projector.register_forward_pre_hook(lambda _, x: features.append(x[0]))
    projected = lisa.network.encode_view(clip)
    hook.remove()
    return {
        "clip_pixel_values": clip,
        "sam_pixel_values": sam[None],
        "resized_hw": torch.tensor(lisa.processor.sam_hw(case.images[0].shape[:2])),
        "clip_patch_features": features[0],
        "projected_image_features": projected,
        "sam_image_embeddings": lisa.network.encode_frame(sam[None]),
    }


@torch.no_grad()
def forward_case(case: Case, lisa: Lisa, ids: Tensor, *, generated: bool) -> dict[str, Tensor]:
    """A teacher-forced pass; for generated cases over the ids that came out."""
    network = lisa.network
    image, seg_id = case.images[0], int(case.tensors["input.seg_token_idx"])
    view = network.encode_view(lisa.processor.clip_pixels(image)[None])
    mask = case.tensors.get("input.attention_mask")
    states = network(ids, view.expand(len(ids), -1, -1), mask)
    # the reference never feeds the last new id, and a padded place says nothing
    kept = states[:, :-1] if generated else states
    positions = label_positions(ids, ids == seg_id, view.shape[1])
    prompts = network.seg_embeddings(states[positions[:, 0], positions[:, 1]])
    sam = lisa.processor.sam_pixels(image)
    low_res, quality = network.decode_masks(network.encode_frame(sam[None]), prompts[None])
    result = {
        "seg_positions": positions,
        "seg_embeddings": prompts,
        "low_res_masks": low_res[0, :, None],
        "iou_predictions": quality[0, :, None],
        "pred_masks": lisa.processor.full_size_masks(low_res[0], image.shape[:2]),
        "last_hidden_state": kept,
        "logits": network.lm_head(kept),
        "inputs_embeds": network.embed_prompt(ids[0], view[0])[None],
    }
    if generated:
        new = ids.shape[1] - case.tensors["input.input_ids"].shape[1]
        result["step_logits"] = network.lm_head(kept[0, -new:])
        choices = result["step_logits"].argmax(-1)[None]
        result["output_ids"] = torch.cat([case.tensors["input.input_ids"], choices], dim=1)
    elif mask is not None:
        padded = torch.cat([mask.new_ones(len(ids), view.shape[1] - 1), mask], dim=1)
        result["last_hidden_state"] = torch.where(
            padded[..., None], kept, case.expected("last_hidden_state")
        )
    return result


def train_case(case: Case, lisa: Lisa) -> dict[str, Tensor]:
    network, tensors = lisa.network, case.tensors
    ids, offset = tensors["input.input_ids"], tensors["input.offset"].tolist()
    learnt = {
        "embed_tokens": network.language_model.embed_tokens.weight,
        "lm_head": network.lm_head.weight,
        "layer0_q_proj": network.language_model.layers[0].self_attn.q_proj.weight,
        "final_norm": network.language_model.norm.weight,
        "text_hidden_fcs_0": network.text_hidden_fcs[0].weight,
        "text_hidden_fcs_2": network.text_hidden_fcs[2].weight,
        "mask_tokens": network.mask_decoder.mask_tokens.weight,
    }
    for weight in learnt.values():
        weight.requires_grad_(True)
    views = network.encode_view(torch.stack([lisa.processor.clip_pixels(i) for i in case.images]))
    counts = torch.tensor([offset[i + 1] - offset[i] for i in range(len(case.images))])
    states = network(ids, views.repeat_interleave(counts, 0), tensors["input.attention_mask"])
    tokens = views.shape[1]
    segs = label_positions(ids, ids == int(tensors["input.seg_token_idx"]), tokens)
    labels = tensors["input.labels"]
    learning = label_positions(ids, labels != IGNORE, tokens)
    result, masks, truth = {}, [], []
    for i, image in enumerate(case.images):
        mine = segs[(segs[:, 0] >= offset[i]) & (segs[:, 0] < offset[i + 1])]
        prompts = network.seg_embeddings(states[mine[:, 0], mine[:, 1]])
        sam = lisa.processor.sam_pixels(image)
        low_res, _ = network.decode_masks(network.encode_frame(sam[None]), prompts[None])
        masks.append(lisa.processor.full_size_masks(low_res[0], image.shape[:2]))
        truth.append(tensors[f"input.gt_masks.{i}"])
        result[f"low_res_masks.{i}"] = low_res[0, :, None].detach()
    targets = labels[:, 1:][labels[:, 1:] != IGNORE]
    logits = network.lm_head(states[learning[:, 0], learning[:, 1]])
    loss = lisa_loss(logits, targets, masks, truth)
    gradients = torch.autograd.grad(loss.total, list(learnt.values()))
    for weight in learnt.values():
        weight.requires_grad_(False)
    norms = {f"grad_norm.{n}": g.norm()[None] for n, g in zip(learnt, gradients, strict=True)}
    parts = {
        "ce_loss": loss.ce,
        "mask_bce_loss": loss.bce,
        "mask_dice_loss": loss.dice,
        "mask_loss": loss.bce + loss.dice,
        "loss": loss.total,
    }
    return result | norms | {name: value.detach()[None] for name, value in parts.items()}


def differences(name: str) -> Iterator[tuple[str, float, float]]:
    """Golden tensor, largest absolute difference, tolerance: for every expected tensor."""
    ours = computed(name)
    for key, expected in read_case(name).tensors.items():
        if key.startswith("expected."):
            tensor = key.removeprefix("expected.")
            value = ours[tensor]
            assert value.shape == expected.shape, f"{tensor}: {value.shape}, not {expected.shape}"
            gap = (value.double() - expected.double()).abs().max().item() if value.numel() else 0.0
            yield tensor, gap, tolerance(tensor)


def tolerance(tensor: str) -> float:
    kind = "loss" if tensor.endswith("loss") else tensor.split(".")[0]
    return TOLERANCES.get(kind, 0.0)


def print_parity() -> None:
    worst: dict[str, tuple[float, str]] = defaultdict(lambda: (-1.0, ""))
    for case_name in CASES:
        for tensor, gap, _ in differences(case_name):
            key = re.sub(r"\.\d+$", "", tensor)
            worst[key] = max(worst[key], (gap, case_name.removeprefix("case_")))
    print("| tensor | largest difference | allowed | seen in |\n|---|---|---|---|")
    for tensor, (gap, where) in worst.items():
        allowed = f"{tolerance(tensor):.0e}" if tolerance(tensor) else "equal"
        print(f"| `{tensor}` | {gap:.1e} | {allowed} | `{where}` |")


def print_quantization() -> None:
    print(
        "| loaded with | "
        + " | ".join(f"`{name.removeprefix('case_')}`" for name in FORWARD)
        + " |"
    )
    print("|---" * (len(FORWARD) + 1) + "|")
    for kwargs in (
        {"dtype": torch.float32},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float16},
        {"quantization": "int8"},
        {"quantization": "fp8"},
        {"quantization": "int4"},
        {"quantization": "nf4"},
    ):
        try:
            found = golden_ious(load(DATA / "checkpoint", **kwargs))
        except CheckpointError as error:
            print(f"| `{kwargs}` | {error} |")
            continue
        title = ", ".join(f"{key}={str(value).split('.')[-1]}" for key, value in kwargs.items())
        print(f"| `{title}` | " + " | ".join(f"{value:.3f}" for value in found.values()) + " |")


if __name__ == "__main__":
    print_quantization() if "quantization" in sys.argv else print_parity()
