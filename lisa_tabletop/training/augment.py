"""Batches of rendered views, and what is done to them on the device that learns.

Every time a view is seen through another camera: mirrored, cut out, out of focus or shaken, at
another exposure and white balance, noisy (the effects of `world/camera_model.py`, for a batch).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lisa_ros.model.processor import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD
from lisa_tabletop.training.scenes import HEIGHT, MAX_OBJECTS, WIDTH, Scenes
from lisa_tabletop.world.camera_model import DEFOCUS, MOTION, NOISE

SMALLEST_CUT = 0.6  # of the image's width and height
KERNEL = 9  # pixels along each side of a blur
IDS = MAX_OBJECTS + 1


@dataclass(frozen=True)
class Views:
    """B rendered views.

    rgb uint8 (B,H,W,3), without rows where nobody looks at pixels; ids uint8 (B,H,W), the object of
    every pixel; classes uint8 (B,2,IDS), kind and colour of every object; mirrored bool (B,).
    """

    rgb: Tensor
    ids: Tensor
    classes: Tensor
    mirrored: Tensor

    @property
    def kinds(self) -> Tensor:
        """The kind of every object id, (B,IDS); 0 where there is none."""
        return self.classes[:, 0].long()

    @property
    def colors(self) -> Tensor:
        """The colour of every object id, (B,IDS); 0 where there is none."""
        return self.classes[:, 1].long()


def load_views(
    scenes: Scenes, chosen: np.ndarray, random: np.random.Generator, *, pixels: bool = True
) -> Views:
    """Read the `chosen` views; half of them will be mirrored."""
    index = torch.from_numpy(chosen)
    arrays = (scenes.rgb if pixels else scenes.rgb[:, :0], scenes.ids, scenes.classes)
    # torch copies on several cores, and lets the training go on meanwhile
    rgb, ids, classes = (torch.from_numpy(array)[index] for array in arrays)
    return Views(rgb, ids, classes, torch.from_numpy(random.random(len(chosen)) < 0.5))


@torch.no_grad()
def mirrored(views: Views) -> Views:
    """The views with those turned round that are to be; pixels float (B,3,H,W), ids int64."""
    turn, ids = views.mirrored[:, None, None], views.ids.long()
    ids = torch.where(turn, ids.flip(-1), ids)
    rgb = views.rgb.permute(0, 3, 1, 2).float()
    rgb = torch.where(turn[..., None], rgb.flip(-1), rgb)
    return replace(views, rgb=rgb, ids=ids)


@torch.no_grad()
def cut_out(views: Views) -> Views:
    """A random window of each view (float pixels, see `mirrored`), enlarged to its size."""
    count, device = len(views.ids), views.ids.device
    size = SMALLEST_CUT + (1 - SMALLEST_CUT) * torch.rand(count, 2, device=device)
    size = torch.where(torch.rand(count, 1, device=device) < 0.3, 1.0, size)  # some are whole
    shift = (1 - size) * (2 * torch.rand(count, 2, device=device) - 1)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = size[:, 0], size[:, 1], shift
    with torch.autocast(device.type, enabled=False):
        grid = functional.affine_grid(theta, [count, 1, HEIGHT, WIDTH], align_corners=False)
        rgb = functional.grid_sample(views.rgb, grid, padding_mode="border", align_corners=False)
        ids = functional.grid_sample(
            views.ids[:, None].float(), grid, mode="nearest", align_corners=False
        )
    return replace(views, rgb=rgb, ids=ids[:, 0].long())


@torch.no_grad()
def photograph(rgb: Tensor) -> Tensor:
    """Images (B,3,H,W) in 0..255 as cameras of differing lens, setting and noise take them."""
    count, device = len(rgb), rgb.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = low + (high - low) * torch.rand(count, channels, device=device)
        return drawn[..., None, None]  # (B,channels,1,1)

    with torch.autocast(device.type, enabled=False):
        # 1. the lens: every image has a kernel of its own
        kernels = _blur_kernels(count, rgb.shape[2], device).repeat_interleave(3, 0)
        padded = functional.pad(rgb, [KERNEL // 2] * 4, mode="replicate")
        blurred = functional.conv2d(
            padded.flatten(0, 1)[None], kernels[:, None], groups=3 * count
        ).view_as(rgb)
        # 2. the sensor: gamma, contrast about the mean, white balance, exposure, vignette
        level = 255 * (blurred.clamp(0, 255) / 255) ** uniform(0.85, 1.2)
        mean = rgb.mean((1, 2, 3), keepdim=True)
        level = mean + (level - mean) * uniform(0.8, 1.2)
        warmth, green = uniform(-0.09, 0.09), uniform(-0.03, 0.03)
        level = level * (1 + torch.cat([warmth, green, -warmth], dim=1)) * uniform(0.72, 1.3)
        y = torch.linspace(-1, 1, rgb.shape[2], device=device)[:, None] ** 2
        x = torch.linspace(-1, 1, rgb.shape[3], device=device) ** 2
        level = level * (1 - uniform(0, 0.35) ** 1.5 / 2 * (x + y))
        # 3. noise: by pixel, or the blotches that a camera's denoiser leaves
        deviation = NOISE * uniform(0, 1) ** 2
        blotched = (uniform(0, 1) < 0.3).float()
        level = level + torch.randn_like(rgb) * deviation * (1 - blotched)
        coarse = torch.randn(count, 3, rgb.shape[2] // 2, rgb.shape[3] // 2, device=device)
        coarse = functional.interpolate(coarse, rgb.shape[2:], mode="bilinear")
        return (level + coarse * deviation * blotched).clamp(0, 255)


def _blur_kernels(count: int, height: int, device: torch.device) -> Tensor:
    """Out of focus, shaken, sharpened by the camera's own processor, or as it was: (B,k,k)."""
    along = torch.arange(KERNEL, device=device) - KERNEL // 2
    choice = torch.rand(count, 1, 1, device=device)
    draw = torch.rand(count, 2, device=device)

    def gauss(sigma: Tensor) -> Tensor:  # (B,) to (B,k,k)
        line = (-0.5 * (along / sigma[:, None]) ** 2).exp()
        line = line / line.sum(1, keepdim=True)
        return line[:, :, None] * line[:, None, :]

    amount = 0.2 + 0.8 * draw[:, 0]
    defocused = gauss(amount * DEFOCUS * height)
    # a streak: 16 points on a line, each shared out to the four pixels around it
    length, angle = amount * MOTION * height, torch.pi * draw[:, 1]
    steps = torch.linspace(-0.5, 0.5, 16, device=device) * length[:, None]  # (B,16)
    near_x = (1 - (along - steps[..., None] * angle.cos()[:, None, None]).abs()).clamp(min=0)
    near_y = (1 - (along - steps[..., None] * angle.sin()[:, None, None]).abs()).clamp(min=0)
    streak = torch.einsum("bny,bnx->byx", near_y, near_x) / 16
    sharp = torch.zeros_like(streak)
    sharp[:, KERNEL // 2, KERNEL // 2] = 1
    over = (0.1 + 0.7 * draw[:, :1, None]) * (sharp - gauss(torch.full_like(amount, 0.8)))
    kernels = torch.where(choice < 0.3, defocused, torch.where(choice < 0.55, streak, sharp))
    return torch.where(choice > 0.8, sharp + over, kernels)


def sam_pixels(rgb: Tensor, size: int) -> Tensor:
    """As `Processor.sam_pixels` makes them of images (B,3,H,W), W the longer side: (B,3,S,S)."""
    height = round(size * rgb.shape[2] / rgb.shape[3])
    small = functional.interpolate(rgb, (height, size), mode="bilinear", antialias=True)
    return functional.pad(_normalised(small, SAM_MEAN, SAM_STD), (0, 0, 0, size - height))


def clip_pixels(rgb: Tensor, size: int) -> Tensor:
    """As `Processor.clip_views` squashes images (B,3,H,W) of 0..255: (B,3,size,size)."""
    squashed = functional.interpolate(rgb, (size, size), mode="bicubic", antialias=True)
    return _normalised(squashed.clamp(0, 255) / 255, CLIP_MEAN, CLIP_STD)


def resize_ids(ids: Tensor, height: int, width: int) -> Tensor:
    """Ids (B,H,W) at the pixels nearest to those of another size."""
    return functional.interpolate(ids[:, None].float(), (height, width), mode="nearest-exact")[
        :, 0
    ].long()


def object_areas(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (B,IDS) and centres (B,IDS,2) as x, y of every object in ids (B,H,W)."""
    flat = ids.flatten(1)
    y, x = torch.meshgrid(
        *(torch.arange(n, device=ids.device, dtype=torch.float32) for n in ids.shape[1:]),
        indexing="ij",
    )
    sums = [
        torch.zeros(len(ids), IDS, device=ids.device).scatter_add_(
            1, flat, value.flatten().expand(flat.shape)
        )
        for value in (torch.ones_like(x), x, y)
    ]
    return sums[0], torch.stack(sums[1:], dim=-1) / sums[0].clamp(min=1)[..., None]


def _normalised(rgb: Tensor, mean: np.ndarray, std: np.ndarray) -> Tensor:
    mean, std = (torch.from_numpy(v).to(rgb.device).view(1, 3, 1, 1) for v in (mean, std))
    return (rgb - mean) / std
