"""Image files to arrays: the one reader of images, depth images and index masks.

Right for everything that Pillow opens, or refused with a sentence: EXIF orientation (a phone's
upright image is often stored lying), 16 bits a channel, floating point, palettes, transparency,
CMYK, damaged files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lisa_ros.errors import ImageError, WriteError
from lisa_ros.writing import written_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORIENTATION = 0x0112  # the EXIF tag; values from 5 on lay rows along columns
WHITE = (255, 255, 255, 255)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings by which a folder's images are known."""


def read_image(path: Path) -> np.ndarray:
    """An image as a person sees it: uint8 (H,W,3) RGB, upright, of several frames the first.

    Raises:
        ImageError: there is no such file, it is damaged, or its values have no agreed brightness.
    """
    with _opened(path) as image:
        return to_rgb(_upright(image))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of what `read_image` returns, from the header alone.

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned it already
            return width, height
        return (height, width) if _orientation(image) >= 5 else (width, height)


def read_samples(path: Path) -> np.ndarray:
    """The numbers of a file as they are stored, (H,W) or (H,W,C): depth images, index masks.

    Turned upright as `read_image` turns images; a palette's indices stay indices.

    Raises:
        ImageError: there is no such file, or it is damaged.
    """
    with _opened(path) as image:
        return np.asarray(_upright(image))


def to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of an opened image, uint8 (H,W,3) RGB.

    What is transparent shows white paper, unless all of it is: such a channel says nothing.

    Raises:
        ImageError: floating point outside 0 to 1, or whole numbers of more than 16 bits.
    """
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would clip these at 255
        return np.repeat(_grey(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1]:
            image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return np.asarray(image.convert("RGB"))


def _grey(samples: np.ndarray) -> np.ndarray:
    """Brightness uint8 (H,W) of samples of 16 bits, or of floating point from 0 to 1."""
    low, high = samples.min(), samples.max()
    if samples.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # NaN too
            raise ImageError(
                f"it holds floating point from {low:g} to {high:g}, and only 0 to 1 has an agreed "
                "brightness: scale it, or save it with 8 or 16 bits"
            )
        return np.rint(samples * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ImageError(
            f"it holds whole numbers from {low} to {high}, which no image of 16 bits does: "
            "save it with 8 or 16 bits"
        )
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (as stored) where EXIF data are damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # an image is not worse for what some program wrote beside it
        return 1


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # turns a TIFF, and takes its tag away
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file; whatever is wrong with it becomes an `ImageError` that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise ImageError(f"{path} is missing: there is no file of that name") from None
    except IsADirectoryError:
        raise ImageError(
            f"{path} cannot be read as an image: it is a folder; name an image in it"
        ) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} cannot be read as an image: it is no image in a known format (PNG, JPEG)"
        ) from None
    except Exception as error:  # a damaged file raises anything from its parser
        raise ImageError(
            f"{path} cannot be read as an image: {str(error) or type(error).__name__}"
        ) from None


def image_format(path: Path) -> str:
    """The format that a file's name asks for, such as PNG.

    Raises:
        WriteError: it is none that can be written.
    """
    kind = Image.registered_extensions().get(path.suffix.lower(), "")
    if kind not in Image.SAVE:
        raise _no_format(path, ".png, .jpg")
    return kind


def _no_format(path: Path, endings: str) -> WriteError:
    return WriteError(f"cannot write {path}: its ending names no image format ({endings})")


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H,W,3) RGB or (H,W) in the format that the file's name asks for.

    Raises:
        WriteError: the name's ending is that of no format, or the file cannot be written.
    """
    kind = image_format(path)
    with written_beside(path) as beside:
        Image.fromarray(pixels).save(beside, format=kind)


def figure_format(path: Path) -> str:
    """The format of matplotlib that a file's name asks for, such as svg; png without an ending.

    Raises:
        WriteError: it is none that can be written.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kind = path.suffix.lstrip(".").lower() or "png"
    if kind not in FigureCanvasBase.filetypes:
        raise _no_format(path, ".png, .jpg, .svg")
    return kind


def save_figure(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Write a figure of matplotlib in the format that the file's name asks for.

    Raises:
        WriteError: as `write_image`.
    """
    kind = figure_format(path)
    with written_beside(path) as beside:
        figure.savefig(beside, dpi=dpi, format=kind)
