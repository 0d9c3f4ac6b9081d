"""Depth messages to arrays.

Messages are only looked at, as in `image.py`.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from lisa_ros.errors import ImageError
from lisa_ros.geometry import DepthError
from lisa_ros.node.inputs.image_conversion import Layout, check_size, samples_of

MILLIMETRES, METRES = ("16UC1", "mono16"), ("32FC1",)
# compressedDepth: an integer and two floats that say how metres were made whole numbers, then a PNG
CONFIGURATION = struct.Struct("<iff")


def to_depth(message: Any, max_pixels: int) -> np.ndarray:
    """The depth image of an Image or CompressedImage message.

    Args:
        message: `sensor_msgs/Image` of encoding 16UC1 or 32FC1, or `sensor_msgs/CompressedImage`
            of image_transport's compressedDepth.
        max_pixels: a larger image is refused before anything is allocated for it.

    Returns:
        (H, W), uint16 in millimetres or float32 in metres, as `lisa_ros.geometry` takes it.

    Raises:
        DepthError: it is no depth image, or damaged; the text is a sentence without full stop.
    """
    try:
        if hasattr(message, "format"):
            return _decompress(message, max_pixels)
        check_size(message.width, message.height, max_pixels)
        kind, bits = _kind(message.encoding)
        samples = samples_of(message, Layout("depth", "", 1, bits), kind)[..., 0]
    except ImageError as error:
        raise DepthError(f"the depth image cannot be used: {error}") from None
    return np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder("="), copy=False))


def _kind(encoding: str) -> tuple[str, int]:
    """NumPy's letter for the samples, and their bits."""
    if encoding in MILLIMETRES:
        return "u", 16
    if encoding in METRES:
        return "f", 32
    raise DepthError(
        f"the depth image has the encoding {encoding[:40]!r}: 16UC1 (millimetres) or 32FC1 "
        "(metres) is needed. Connect `depth` to a depth camera"
    )


def _decompress(message: Any, max_pixels: int) -> np.ndarray:
    """compressedDepth: 16UC1 as it is, 32FC1 as rounded inverse depth."""
    from PIL import Image

    encoding, _, method = message.format.partition(";")
    if "compressedDepth" not in method or "rvl" in method:
        raise DepthError(
            f"the compressed depth image has the format {message.format[:60]!r}: only "
            "compressedDepth with PNG is understood"
        )
    kind, _ = _kind(encoding.strip())
    data = bytes(message.data)
    try:
        _, quantum, offset = CONFIGURATION.unpack_from(data)
        with Image.open(io.BytesIO(data[CONFIGURATION.size :]), formats=("PNG",)) as picture:
            check_size(*picture.size, max_pixels)
            whole = np.asarray(picture).astype(np.uint16)
    except (struct.error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DepthError(f"the compressed depth image is damaged: {error}") from None
    if whole.ndim != 2:
        raise DepthError("the compressed depth image has colours")
    if kind == "u":
        return whole
    with np.errstate(divide="ignore"):
        depth = np.float32(quantum) / (whole.astype(np.float32) - np.float32(offset))
    return np.where(whole > 0, depth, np.float32(np.nan))
