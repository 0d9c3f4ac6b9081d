"""`pretrain_sam`: SAM learns to name and outline what every patch holds and to obey mask prompts.

No language is involved: a prompt is a vector of the concept space (concepts.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.losses import BCE_WEIGHT, DICE_WEIGHT, bce_loss, dice_loss
from lisa_ros.model.network import LisaNetwork
from lisa_tabletop.training.augment import (
    IDS,
    Views,
    cut_out,
    load_views,
    mirrored,
    object_areas,
    photograph,
    resize_ids,
    sam_pixels,
)
from lisa_tabletop.training.concepts import KIND_INDEX, ConceptSpace, coverage, encode_places
from lisa_tabletop.training.scenes import HEIGHT, WIDTH, Scenes

PROMPTS = 4  # mask prompts drawn per image
SMALLEST = 60  # pixels of the stored image; smaller objects are not asked for
FORM_SHARES = (0.9, 0.8, 0.6)  # how often a prompt says kind, colour and place
PLACE_NOISE = 0.02  # of the image's width: the language model will not point exactly
FINE = 4  # cells along each side of a patch in which the encoder says what belongs together
QUALITY_WEIGHT = 0.1  # of the error of SAM's guess at its own IoU
HARD_KINDS = ("fork", "knife", "spoon", "wrench", "clock", "scissors", "screwdriver", "pencil")
HARDER = 2.0  # how many times as often those are asked for


class PretrainSam(nn.Module):
    """The loss of the stage and the heads that only training needs."""

    def __init__(self, network: LisaNetwork, scenes: Scenes, batch: int) -> None:
        super().__init__()
        config = network.config
        self.scenes, self.batch = scenes, batch
        self.size = config.sam_vision["image_size"]
        self.concepts = ConceptSpace(config.prompt_size, config.hidden_size)
        self.kind_head = nn.Conv2d(config.prompt_size, len(self.concepts.view_kind), 1)
        self.color_head = nn.Conv2d(config.prompt_size, len(self.concepts.view_color), 1)
        self.outline_head = nn.Conv2d(config.prompt_size, 3 * FINE**2, 1)

    def prepare(self, random: np.random.Generator) -> Views:
        """A batch of views."""
        return load_views(self.scenes, self.scenes.draw(random, self.batch), random)

    def loss(self, network: LisaNetwork, batch: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """Naming and outlining by patch, and LISA's mask losses on concept prompts."""
        # 1. the images through another camera, at SAM's size
        views = cut_out(mirrored(batch))
        pixels = sam_pixels(photograph(views.rgb), self.size)
        views = replace(views, ids=resize_ids(views.ids, self.size * HEIGHT // WIDTH, self.size))
        frames = network.encode_frame(pixels)  # (B,C,g,g)
        # 2. what every patch holds
        square = functional.pad(views.ids, (0, 0, 0, self.size - views.ids.shape[1]))
        naming = self._naming_loss(frames, views, square)
        outline = self._outline_loss(frames, square)
        # 3. masks of concept prompts
        prompts = draw_prompts(views)
        matrix = network.shared_image_embedding.positional_embedding
        place = encode_places((prompts.centres + 0.5) / self.size * 2 - 1, matrix)
        vectors = self.concepts.prompt(
            prompts.kinds, prompts.colors, place * prompts.placed[..., None]
        )
        bce, dice, quality, iou = masks_loss(
            network, frames, vectors, prompts.truth, prompts.weights
        )
        loss = naming + outline + BCE_WEIGHT * bce + DICE_WEIGHT * dice + QUALITY_WEIGHT * quality
        return loss, {"naming": naming, "outline": outline, "bce": bce, "dice": dice, "iou": iou}

    def _naming_loss(self, frames: Tensor, views: Views, square: Tensor) -> Tensor:
        total = frames.new_zeros((), dtype=torch.float32)
        for head, table in ((self.kind_head, views.kinds), (self.color_head, views.colors)):
            target = coverage(square, table, head.out_channels, frames.shape[-1])
            total = total - (target * head(frames).float().log_softmax(1)).sum(1).mean()
        return total

    def _outline_loss(self, frames: Tensor, square: Tensor) -> Tensor:
        """Whether there is an object in every cell, and how far its centre is off, in patches.

        A mask prompt teaches the outline of one object; this teaches those of all in the image.
        """
        said = functional.pixel_shuffle(self.outline_head(frames), FINE).float()
        step = square.shape[-1] // said.shape[-1]
        ids = square[:, step // 2 :: step, step // 2 :: step]
        there = (ids > 0).float()
        error = (said[:, 1:] - offsets_to_centres(ids) / FINE).abs().sum(1)
        presence = functional.binary_cross_entropy_with_logits(said[:, 0], there)
        return presence + (error * there).sum() / there.sum().clamp(min=1)


@dataclass(frozen=True)
class MaskPrompts:
    """N mask prompts for each of B images.

    kinds and colors (B,N) with 0 = not said; centres (B,N,2) in pixels (x, y) and placed (B,N), 1
    where the place is said; truth (B,N,H,W) of 0 and 1; weights (B,N), 0 where an image has no
    object left to ask for.
    """

    kinds: Tensor
    colors: Tensor
    centres: Tensor
    placed: Tensor
    truth: Tensor
    weights: Tensor


@torch.no_grad()
def draw_prompts(views: Views) -> MaskPrompts:
    """Ask for objects by any of kind, colour and place; without the place, for all that fit."""
    ids, kinds, colors = views.ids, views.kinds, views.colors
    count, device = len(ids), ids.device
    areas, centres = object_areas(ids)  # (B,IDS), (B,IDS,2)
    # 1. which objects: present ones at random, the hard kinds more often (Gumbel's top k)
    hard = torch.tensor([HARDER if k in HARD_KINDS else 1.0 for k in (None, *KIND_INDEX)]).to(
        device
    )
    present = (kinds > 0) & (areas >= SMALLEST * ids.shape[2] ** 2 / WIDTH**2)
    noise = -torch.rand(count, IDS, device=device).clamp(1e-9, 1 - 1e-6).log().neg().log()
    score = (hard.log()[kinds] + noise).masked_fill(~present, -1e9)
    chosen = score.topk(PROMPTS, dim=1).indices  # (B,N)
    # 2. in which form
    shares = torch.tensor(FORM_SHARES, device=device)
    by_kind, by_color, placed = (torch.rand(count, PROMPTS, 3, device=device) < shares).unbind(-1)
    by_kind = by_kind | ~(by_color | placed)
    kind, color = kinds.gather(1, chosen), colors.gather(1, chosen)
    # 3. what fits: (B,N,IDS), and its pixels
    fits = (kinds > 0)[:, None] & ((kinds[:, None] == kind[..., None]) | ~by_kind[..., None])
    fits = fits & ((colors[:, None] == color[..., None]) | ~by_color[..., None])
    alone = functional.one_hot(chosen, IDS).bool()
    fits = torch.where(placed[..., None], alone, fits)
    truth = fits.gather(2, ids.flatten(1)[:, None].expand(-1, PROMPTS, -1))
    place = centres.gather(1, chosen[..., None].expand(-1, -1, 2))
    return MaskPrompts(
        kind * by_kind,
        color * by_color,
        place + PLACE_NOISE * ids.shape[2] * torch.randn_like(place),
        placed.float(),
        truth.unflatten(2, ids.shape[1:]).float(),
        present.gather(1, chosen).float(),
    )


def offsets_to_centres(ids: Tensor) -> Tensor:
    """From every cell of id images (B,h,w) to its object's mean cell: (B,2,h,w) as x, y."""
    _, centres = object_areas(ids)  # (B,IDS,2)
    y, x = torch.meshgrid(
        *(torch.arange(n, device=ids.device) for n in ids.shape[1:]), indexing="ij"
    )
    reached = centres.gather(1, ids.flatten(1)[..., None].expand(-1, -1, 2))
    return reached.transpose(1, 2).unflatten(2, ids.shape[1:]) - torch.stack([x, y])


def masks_loss(
    network: LisaNetwork, frames: Tensor, vectors: Tensor, truth: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LISA's BCE and Dice, the error of SAM's quality guess, and the mean IoU reached.

    frames (B,C,g,g); vectors (B,N,C), the prompts' embeddings; truth (B,N,H,W) and weights (B,N)
    as in `MaskPrompts`.
    """
    low, quality = network.decode_masks(frames, vectors)
    height, width = truth.shape[2:]
    logits = functional.interpolate(low.float(), (width, width), mode="bilinear")
    logits, truth = logits[:, :, :height].flatten(0, 1), truth.flatten(0, 1)
    weights = weights.flatten()

    def mean(values: Tensor) -> Tensor:
        return (weights * values).sum() / weights.sum().clamp(min=1)

    with torch.no_grad():
        found, wanted = logits > 0, truth > 0.5
        overlap = (found & wanted).sum((1, 2)) / (found | wanted).sum((1, 2)).clamp(min=1)
    bce, dice = mean(bce_loss(logits, truth)), mean(dice_loss(logits, truth))
    return bce, dice, mean((quality.flatten().float() - overlap).square()), mean(overlap)
