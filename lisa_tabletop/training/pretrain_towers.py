"""`pretrain_sam` and `pretrain_vision_tower`: both encoders learn what every patch holds.

SAM learns to name and outline it and to obey mask prompts (1). No language is involved: a prompt is
a vector of the concept space (concepts.py). CLIP's tower and the projector learn to say it in that
space (2). The tower is small beside the rest of the network, and what the language model knows of
the image is what this tower says; so it gets a stage of its own and many more images.
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
    clip_pixels,
    cut_out,
    load_views,
    mirrored,
    object_areas,
    photograph,
    resize_ids,
    sam_pixels,
)
from lisa_tabletop.training.concepts import (
    KIND_INDEX,
    VIEW_SCALE,
    ConceptSpace,
    cell_sums,
    coverage,
    encode_places,
    loudness,
)
from lisa_tabletop.training.scenes import HEIGHT, WIDTH, Scenes

# 1. pretrain_sam
PROMPTS = 4  # mask prompts drawn per image
SMALLEST = 60  # pixels of the stored image; smaller objects are not asked for
FORM_SHARES = (0.9, 0.8, 0.6)  # how often a prompt says kind, colour and place
PLACE_NOISE = 0.02  # of the image's width: the language model will not point exactly
FINE = 4  # cells along each side of a patch in which the encoder says what belongs together
QUALITY_WEIGHT = 0.1  # of the error of SAM's guess at its own IoU
HARD_KINDS = ("fork", "knife", "spoon", "wrench", "clock", "scissors", "screwdriver", "pencil")
HARDER = 2.0  # how many times as often those are asked for
# 2. pretrain_vision_tower
NAMING_WEIGHT = 0.1  # of naming kinds and colours, beside the distance of the embeddings
SHARPNESS = 8.0  # of the names, whose shares lie between 0 and 1
BACKGROUND = 0.15  # weight of a patch without any object beside one that is full of one
USUAL_AREA = 0.02  # of the view: objects smaller than that weigh more in each of their patches
MOST_WEIGHT = 4.0
CELLS = 8  # along each side of a patch, in which it is counted what it holds


class ViewStage(nn.Module):
    """What all stages of nano have: rendered views, and the concept space.

    `side`: patches along each side of the language model's view.
    """

    def __init__(self, network: LisaNetwork, scenes: Scenes, batch: int) -> None:
        super().__init__()
        self.config, self.scenes, self.batch = network.config, scenes, batch
        self.side = self.config.clip["image_size"] // self.config.clip["patch_size"]
        self.concepts = ConceptSpace(self.config.prompt_size, self.config.hidden_size)

    def prepare(self, random: np.random.Generator) -> Views:
        """A batch of views."""
        return load_views(self.scenes, self.scenes.draw(random, self.batch), random)


# 1. pretrain_sam


class PretrainSam(ViewStage):
    """The loss of the stage and the heads that only training needs."""

    def __init__(self, network: LisaNetwork, scenes: Scenes, batch: int) -> None:
        super().__init__(network, scenes, batch)
        self.size, channels = self.config.sam_vision["image_size"], self.config.prompt_size
        self.kind_head = nn.Conv2d(channels, len(self.concepts.view_kind), 1)
        self.color_head = nn.Conv2d(channels, len(self.concepts.view_color), 1)
        self.outline_head = nn.Conv2d(channels, 3 * FINE**2, 1)

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


# 2. pretrain_vision_tower


class PretrainVisionTower(ViewStage):
    """Distance of the view's embeddings from what the view holds, in the concept space."""

    def loss(self, network: LisaNetwork, batch: Views) -> tuple[Tensor, dict[str, Tensor]]:
        views = cut_out(mirrored(batch))
        said = network.encode_view(
            clip_pixels(photograph(views.rgb), self.config.clip["image_size"])
        ).float()
        kinds, colors = view_shares(self.concepts, views, self.side)
        weight = patch_weights(views.ids, self.side)
        view, objects = view_error(self.concepts, said, kinds, colors, weight)
        naming, right = naming_error(self.concepts, said, kinds, colors, weight)
        logs = {"view": view, "objects": objects, "naming": naming, "right": right}
        return view + NAMING_WEIGHT * naming, logs


@torch.no_grad()
def view_shares(concepts: ConceptSpace, views: Views, side: int) -> tuple[Tensor, Tensor]:
    """Kind and colour shares (B,K,side,side) of the patches of the view, which is all of ids."""
    ids = view_ids(views.ids, side)
    return (
        coverage(ids, views.kinds, len(concepts.view_kind), side),
        coverage(ids, views.colors, len(concepts.view_color), side),
    )


def view_ids(ids: Tensor, side: int) -> Tensor:
    """Ids (B,H,W) squashed as the view is, CELLS to a patch: (B,n,n)."""
    return resize_ids(ids, side * CELLS, side * CELLS)


@torch.no_grad()
def patch_weights(ids: Tensor, side: int) -> Tensor:
    """What each patch counts, (B,P): more where there are objects, and most where they are small.

    A book covers twenty patches and a fork five; both are one thing to be asked for.
    """
    small = view_ids(ids, side)
    areas, _ = object_areas(small)
    weights = (USUAL_AREA * small[0].numel() / areas.clamp(min=1)).sqrt().clamp(0.5, MOST_WEIGHT)
    weights[:, 0] = 0
    values = weights.gather(1, small.flatten(1))
    sums = cell_sums(torch.zeros_like(small.flatten(1)), values, small.shape[1:], 1, side)
    return BACKGROUND + sums.flatten(1) / CELLS**2


def view_error(
    concepts: ConceptSpace, said: Tensor, kinds: Tensor, colors: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """How far embeddings (B,P,H) are from what the view holds, and how far where there are objects.

    kinds and colors: shares of the patches, (B,K,s,s); weight (B,P).
    """
    error = (said - concepts.view(loudness(kinds), loudness(colors))).square().mean(-1)
    covered = 1 - kinds[:, 0].flatten(1)
    objects = (error * covered).sum() / covered.sum().clamp(min=1)
    return (error * weight).sum() / weight.sum(), objects


def naming_error(
    concepts: ConceptSpace, said: Tensor, kinds: Tensor, colors: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the kinds and colours that embeddings (B,P,H) are most like; and how often
    the likeliest kind of object is the one that covers most of a patch.

    A distance is content with the mean of what a patch may be; this asks which it is.
    """
    total, alike = said.new_zeros(()), said
    for vectors, shared in ((concepts.view_color, colors), (concepts.view_kind, kinds)):
        alike = said @ vectors.T / (VIEW_SCALE * vectors.square().sum(1))  # (B,P,K)
        wanted = loudness(shared).flatten(2).transpose(1, 2).clamp(min=0)
        wanted = wanted / wanted.sum(-1, keepdim=True)
        total = total - (wanted * (SHARPNESS * alike).log_softmax(-1)).sum(-1)
    objects = kinds[:, 1:].flatten(2)  # (B,K-1,P), after the loop `alike` is that of the kinds
    there = (objects.sum(1) > 0.3).float()
    right = (alike[..., 1:].argmax(-1) == objects.argmax(1)).float()
    return (total * weight).sum() / weight.sum(), (right * there).sum() / there.sum().clamp(min=1)
