"""Stage `see`: SAM learns to name and outline what every patch holds and to obey mask prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.config import LisaConfig
from lisa_ros.model.losses import bce_loss, dice_loss
from lisa_ros.model.network import LisaNetwork
from lisa_tabletop.training.concepts import ConceptSpace, encode_places, shares
from lisa_tabletop.training.image_batches import (
    MAX_OBJECTS,
    Maps,
    Pictures,
    central_square,
    load_pictures,
)
from lisa_tabletop.training.scenes import Scenes

PROMPTS = 4  # mask prompts drawn per picture
SMALLEST = 25  # pixels of the stored picture; smaller objects are not asked for
FORM_SHARES = (0.9, 0.8, 0.6)  # how often a prompt says kind, colour and place
FINE = 5  # cells along each side of a patch in which the encoder says what belongs together
PLACE_NOISE = 2.5  # pixels of the stored picture: the language model will not point exactly


class See(nn.Module):
    """The loss of the stage and the heads that only training needs."""

    def __init__(self, network: LisaNetwork, scenes: Scenes, batch: int) -> None:
        super().__init__()
        config = network.config
        self.scenes, self.batch, self.config = scenes, batch, config
        self.concepts = ConceptSpace(config.prompt_size, config.hidden_size)
        self.kind_head = nn.Conv2d(config.prompt_size, len(self.concepts.view_kind), 1)
        self.color_head = nn.Conv2d(config.prompt_size, len(self.concepts.view_color), 1)
        self.outline_head = nn.Conv2d(config.prompt_size, 3 * FINE**2, 1)

    def prepare(self, random: np.random.Generator) -> tuple[Pictures, Draws]:
        """One augmented batch and the mask prompts drawn for it."""
        chosen = random.integers(len(self.scenes), size=self.batch)
        pictures = load_pictures(self.scenes, chosen, self.config, random)
        return pictures, draw_prompts(pictures.maps, random)

    def loss(
        self, network: LisaNetwork, batch: tuple[Pictures, Draws]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Naming and outlining by patch, and LISA's mask losses on concept prompts."""
        pictures, draws = batch
        frames = network.encode_frame(pictures.sam)
        naming = self._naming_loss(frames, pictures.maps)
        outline = self._outline_loss(frames, pictures.maps)
        prompts = self._prompt_vectors(network, draws)
        bce, dice, quality, iou = masks_loss(network, frames[draws.rows], prompts, draws.targets)
        loss = naming + outline + 2.0 * bce + 0.5 * dice + 0.1 * quality
        return loss, {
            "naming": naming,
            "outline": outline,
            "bce": bce,
            "dice": dice,
            "iou": iou,
        }

    def _naming_loss(self, frames: Tensor, maps: Maps) -> Tensor:
        side = frames.shape[-1]
        padded = _pad_ids(maps.ids)
        total = frames.new_zeros(())
        for head, table in ((self.kind_head, maps.kinds), (self.color_head, maps.colors)):
            target = shares(padded, table, head.out_channels, side)
            total = total - (target * head(frames).log_softmax(1)).sum(1).mean()
        return total

    def _outline_loss(self, frames: Tensor, maps: Maps) -> Tensor:
        """Whether there is an object in every cell, and how far its centre is off, in patches.

        A mask prompt teaches the outline of one object; this teaches those of all in the picture.
        """
        said = functional.pixel_shuffle(self.outline_head(frames), FINE)
        ids = _pad_ids(maps.ids)
        step = ids.shape[-1] // said.shape[-1]
        ids = ids[:, step // 2 :: step, step // 2 :: step]
        there = (ids > 0).float()
        error = (said[:, 1:] - offsets_to_centres(ids) / FINE).abs().sum(1)
        presence = functional.binary_cross_entropy_with_logits(said[:, 0], there)
        return presence + (error * there).sum() / there.sum().clamp(min=1)

    def _prompt_vectors(self, network: LisaNetwork, draws: Draws) -> Tensor:
        size = self.config.sam_vision["image_size"]
        matrix = network.shared_image_embedding.positional_embedding
        place = encode_places((draws.centres + 0.5) / size * 2 - 1, matrix)
        return self.concepts.prompt(draws.kinds, draws.colors, place * draws.placed[:, None])


@dataclass(frozen=True)
class Draws:
    """N mask prompts: rows (N,) of the batch, kinds and colors (N,) with 0 = not said,
    centres (N,2) in stored pixels (x, y), placed (N,) 1 where the place is said,
    targets (N,H,W)."""

    rows: Tensor
    kinds: Tensor
    colors: Tensor
    centres: Tensor
    placed: Tensor
    targets: Tensor


def draw_prompts(maps: Maps, random: np.random.Generator) -> Draws:
    """Ask for objects by any of kind, colour and place; without the place, for all that fit."""
    rows, kinds, colors, centres, placed, targets = [], [], [], [], [], []
    areas = functional.one_hot(maps.ids, MAX_OBJECTS + 1).sum((1, 2))
    for row, ids in enumerate(maps.ids):
        present = [i for i in range(1, MAX_OBJECTS + 1) if areas[row, i] >= SMALLEST]
        for identity in random.permutation(present)[:PROMPTS]:
            use_kind, use_color, use_place = random.random(3) < FORM_SHARES
            use_kind |= not (use_color or use_place)
            kind, color = maps.kinds[row], maps.colors[row]
            same = kind > 0
            if use_kind:
                same = same & (kind == kind[identity])
            if use_color:
                same = same & (color == color[identity])
            alone = ids == int(identity)
            y, x = alone.nonzero().float().mean(0)
            rows.append(row)
            kinds.append(int(kind[identity]) * int(use_kind))
            colors.append(int(color[identity]) * int(use_color))
            centres.append((float(x), float(y)))
            placed.append(float(use_place))
            targets.append(alone if use_place else same[ids])
    noise = torch.from_numpy(random.normal(0, PLACE_NOISE, (len(rows), 2)).astype(np.float32))
    return Draws(
        torch.tensor(rows),
        torch.tensor(kinds),
        torch.tensor(colors),
        torch.tensor(centres) + noise,
        torch.tensor(placed),
        torch.stack(targets).float(),
    )


def view_shares(concepts: ConceptSpace, maps: Maps, config: LisaConfig) -> tuple[Tensor, Tensor]:
    """Kind and colour shares of the patches of the view: the central square of the picture."""
    side = config.clip["image_size"] // config.clip["patch_size"]
    ids = central_square(maps.ids)
    return (
        shares(ids, maps.kinds, len(concepts.view_kind), side),
        shares(ids, maps.colors, len(concepts.view_color), side),
    )


def offsets_to_centres(ids: Tensor) -> Tensor:
    """From every cell of id pictures (B,h,w) to its object's mean cell: (B,2,h,w) as x, y."""
    one_hot = functional.one_hot(ids.flatten(1), MAX_OBJECTS + 1).float()
    y, x = torch.meshgrid(
        *(torch.arange(n, device=ids.device) for n in ids.shape[1:]), indexing="ij"
    )
    cells = torch.stack([x, y]).flatten(1).float()
    sums = cells @ one_hot
    centres = sums / one_hot.sum(1, keepdim=True).clamp(min=1)
    offsets = centres.gather(2, ids.flatten(1)[:, None].expand(-1, 2, -1)) - cells
    return offsets.view(len(ids), 2, *ids.shape[1:])


def _pad_ids(ids: Tensor) -> Tensor:
    height, width = ids.shape[1:]
    return functional.pad(ids, (0, 0, 0, width - height))


def masks_loss(
    network: LisaNetwork, frames: Tensor, prompts: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LISA's BCE and Dice, the error of SAM's quality guess, and the mean IoU reached.

    frames (N,C,g,g) one per prompt; prompts (N,C); targets (N,H,W) with W the longer side.
    """
    low, quality = network.decode_masks(frames, prompts[:, None])
    height, width = targets.shape[1:]
    logits = functional.interpolate(low, (width, width), mode="bilinear", align_corners=False)
    logits = logits[:, 0, :height]
    bce, dice = bce_loss(logits, targets).mean(), dice_loss(logits, targets).mean()
    with torch.no_grad():
        found, wanted = logits > 0, targets > 0.5
        overlap = (found & wanted).sum((1, 2)) / (found | wanted).sum((1, 2)).clamp(min=1)
    return bce, dice, functional.mse_loss(quality[:, 0], overlap), overlap.mean()
