"""What people see: masks, contours, numbers and words over the image. Needs no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Distinct on photographs and for the color-blind; after the palette of Okabe and Ito.
COLORS = (
    (230, 60, 60),
    (0, 158, 220),
    (255, 190, 0),
    (0, 180, 120),
    (204, 121, 200),
    (240, 130, 0),
)
FILL = 0.45  # how much of the color the inside of a mask takes
DIM = 0.72  # brightness of what is not meant
BAR = (22, 24, 28)
LINES, ASKED_LINES = 4, 2  # in the strip, and of these at most for the instruction
ASKED, SAID, FAILED = (255, 255, 255), (170, 220, 190), (255, 150, 130)


def draw_overlay(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    instruction: str,
    answer: str,
    *,
    failed: bool = False,
) -> np.ndarray:
    """Show an answer.

    Args:
        image: uint8 (H, W, 3) RGB.
        masks: bool (H, W) each.
        instruction: what was asked.
        answer: the model's words, or the reason why there are none.
        failed: draw the answer in a warning colour.

    Returns:
        uint8 (H + h, W, 3) RGB: the image, and below it a strip with the words, which hides
        nothing. `h` depends on the size of the image alone, so that a video keeps its size.
    """
    canvas = Image.fromarray(mark_masks(image, masks) if masks else image)
    if len(masks) > 1:
        for index, mask in enumerate(masks):
            if mask.any():
                _badge(canvas, mask, index)
    strip = _caption(canvas, instruction, answer, failed)
    return np.concatenate([np.asarray(canvas), np.asarray(strip)])


def mark_masks(image: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Darken what is not meant, draw the contours, then fill the masks with their colors.

    Filled last, a thin thing is not hidden under its own contour.
    """
    canvas = cv2.convertScaleAbs(image, alpha=DIM)
    width = max(1, round(min(canvas.shape[:2]) / 240))
    for index, mask in enumerate(masks):
        kind = cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
        contours, _ = cv2.findContours(mask.astype(np.uint8), *kind)
        cv2.drawContours(canvas, contours, -1, (255, 255, 255), 2 * width + 3, cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, _color(index), 2 * width, cv2.LINE_AA)
    return fill_masks(image, masks, canvas)


def fill_masks(
    image: np.ndarray, masks: Sequence[np.ndarray], around: np.ndarray | None = None
) -> np.ndarray:
    """The image with every mask tinted in a color of its own, beside them the pixels of `around`.

    `around`: the image itself unless another one of its size is given.
    """
    canvas = (image if around is None else around).copy()
    for index, mask in enumerate(masks):
        inside = image[mask].astype(np.float32) * (1 - FILL)
        canvas[mask] = (inside + np.array(_color(index), np.float32) * FILL).astype(np.uint8)
    return canvas


def _color(index: int) -> tuple[int, int, int]:
    return COLORS[index % len(COLORS)]


def _badge(canvas: Image.Image, mask: np.ndarray, index: int) -> None:
    """The number of the mask in the middle of its thickest part."""
    padded = np.pad(mask.astype(np.uint8), 1)
    _, _, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(padded, cv2.DIST_L2, 3))
    size = _font_size(canvas)
    radius = round(size * 0.75)
    draw = ImageDraw.Draw(canvas)
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, fill=_color(index), outline=(255, 255, 255), width=2)
    draw.text((x, y), str(index + 1), fill=(255, 255, 255), font=load_font(size), anchor="mm")


def _caption(canvas: Image.Image, instruction: str, answer: str, failed: bool) -> Image.Image:
    """A strip as wide as the image: the instruction, and the answer in what room is left."""
    size = _font_size(canvas)
    margin, step, font = size // 2, round(size * 1.35), load_font(size)
    room = canvas.width - 2 * margin
    lines = [(line, ASKED) for line in wrap_words(instruction, font, room, ASKED_LINES)]
    said = wrap_words(answer, font, room, LINES - len(lines))
    lines += [(line, FAILED if failed else SAID) for line in said]
    height = step * LINES + margin
    strip = Image.new("RGB", (canvas.width, height + height % 2), BAR)
    draw = ImageDraw.Draw(strip)
    for number, (line, color) in enumerate(lines):
        place = (margin, margin // 2 + number * step)
        draw.text(place, line, fill=color, font=font)
    return strip


def wrap_words(text: str, font: ImageFont.FreeTypeFont, room: int, most: int) -> list[str]:
    """At most `most` lines, each of at most `room` pixels; what is cut off ends in dots."""
    lines: list[str] = []
    words = text[:600].split()
    while words and len(lines) < most:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= room:
            line += f" {words.pop(0)}"
        lines.append(line)
    if lines and (words or font.getlength(lines[-1]) > room):
        lines[-1] += " …"
        while len(lines[-1]) > 3 and font.getlength(lines[-1]) > room:
            lines[-1] = lines[-1][:-3] + "…"
    return lines


def _font_size(canvas: Image.Image) -> int:
    return max(11, round(min(canvas.width / 36, canvas.height / 22)))


@lru_cache(maxsize=8)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; older Pillow has only a small one of fixed size."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()
