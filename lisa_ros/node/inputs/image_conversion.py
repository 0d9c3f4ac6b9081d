"""Image messages to arrays and back: colour and depth, with NumPy, OpenCV and Pillow.

Messages are only looked at (`encoding`, `data`, ...), so the ones of rclpy and those that rosbags
reads from a recording serve alike.
"""

from __future__ import annotations

import io
import math
import struct
import sys
from array import array
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lisa_ros import image_files
from lisa_ros.errors import ImageError
from lisa_ros.geometry import DepthError

SMALLEST_SIDE = 16  # pixels; less shows nothing
LARGEST = 2**28  # pixels, where nobody has set a limit
# By the order of the colours, the conversion of OpenCV; rgb needs none.
COLORS = {"mono": "GRAY2RGB", "rgb": "", "bgr": "BGR2RGB", "rgba": "RGBA2RGB", "bgra": "BGRA2RGB"}
# OpenCV's numeric encodings carry no meaning; in ROS they are understood as OpenCV's own order.
ALIASES = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
ALIASES |= {"16UC3": "bgr16", "16UC4": "bgra16"}
# compressedDepth: an integer and two floats that say how metres were made whole numbers, then a PNG
DEPTH_HEADER = struct.Struct("<iff")
# ROS names a Bayer pattern after its first two rows, OpenCV after the pixel one down and one right.
BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}
# Two pixels in four bytes: where the brightness stands, first (YUYV) or second (UYVY).
YUV422 = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2"}
YUV420 = {"nv12": "NV12", "nv21": "NV21"}
SUPPORTED = (
    *(f"{order}{bits}" for bits in (8, 16) for order in COLORS),
    *(f"bayer_{pattern}{bits}" for bits in (8, 16) for pattern in BAYER),
    *YUV422,
    *YUV420,
    *ALIASES,
)


@dataclass(frozen=True)
class Layout:
    """How the samples of an encoding lie in memory, and what makes RGB of them."""

    channels: int
    dtype: str
    """of a sample for NumPy, without the order of the bytes"""
    conversion: str = ""
    """of OpenCV, without its `COLOR_`; empty: none is needed"""
    block: tuple[int, int] = (1, 1)
    """columns and rows of neighbours that share their colour"""


DEPTH = {"16UC1": Layout(1, "u2"), "mono16": Layout(1, "u2"), "32FC1": Layout(1, "f4")}
"""millimetres, millimetres, metres"""


def layout_of(encoding: str) -> Layout:
    """The memory layout of an encoding of `sensor_msgs/Image`.

    Raises:
        ImageError: the encoding cannot be shown in colour or is unknown.
    """
    name = ALIASES.get(encoding, encoding)
    if name in YUV422:
        return Layout(2, "u1", f"YUV2RGB_{YUV422[name]}", (2, 1))
    if name in YUV420:
        return Layout(1, "u1", f"YUV2RGB_{YUV420[name]}", (2, 2))
    stem, dtype = (name[:-2], "u2") if name.endswith("16") else (name.removesuffix("8"), "u1")
    if name in SUPPORTED and stem.startswith("bayer_"):
        return Layout(1, dtype, f"Bayer{BAYER[stem.removeprefix('bayer_')]}2RGB")
    if name in SUPPORTED:
        return Layout(1 if stem == "mono" else len(stem), dtype, COLORS[stem])
    if name in DEPTH:
        raise ImageError(
            f"the encoding {name} is a depth image: connect `image` to a colour camera"
        )
    # The name comes from outside: quoted and cut, it can do no harm in a log.
    raise ImageError(
        f"the encoding {encoding[:40]!r} is not supported; supported are {', '.join(SUPPORTED)}"
    )


def to_rgb(message: Any, max_pixels: int = LARGEST) -> np.ndarray:
    """The pixels of an Image or CompressedImage message.

    Args:
        message: `sensor_msgs/Image` or `sensor_msgs/CompressedImage`, or anything with its fields.
        max_pixels: a larger image is refused before anything is allocated for it.

    Returns:
        uint8 (H, W, 3) RGB; for rgb8 without a copy, and then it may be read-only.

    Raises:
        ImageError: the image cannot be used; the text says why.
    """
    if hasattr(message, "format"):
        return _decompress(message, max_pixels)
    check_size(message.width, message.height, max_pixels)
    layout = layout_of(message.encoding)
    pixels = np.ascontiguousarray(_to_8_bit(samples_of(message, layout)))
    if not layout.conversion:
        return pixels
    # OpenCV's loops are several times faster here than NumPy's fancy indexing.
    return cv2.cvtColor(pixels, getattr(cv2, f"COLOR_{layout.conversion}"))


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `ImageError` for an image that is empty, too small to show anything, or too large."""
    if min(width, height) < SMALLEST_SIDE:
        raise ImageError(
            f"the image is {width}x{height} pixels; each side must have at least {SMALLEST_SIDE}"
        )
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width}x{height} pixels, more than the limit of {max_pixels}: "
            "use a smaller one or raise the parameter input.max_pixels"
        )


def samples_of(message: Any, layout: Layout) -> np.ndarray:
    """View of the buffer, (rows, W, channels), that skips what pads the rows."""
    if message.width % layout.block[0] or message.height % layout.block[1]:  # there is no half one
        raise ImageError(
            f"an image of encoding {message.encoding} must have even sides; "
            f"this one is {message.width}x{message.height}"
        )
    # below the brightness of all pixels lie the colours, two samples for each block of four
    rows = message.height * 3 // 2 if layout.block == (2, 2) else message.height
    size = np.dtype(layout.dtype).itemsize
    row_bytes = message.width * layout.channels * size
    if message.step < row_bytes:
        raise ImageError(
            f"the step of the image is {message.step} bytes, but {message.width} pixels of "
            f"{message.encoding} take {row_bytes}: the camera driver fills the message wrongly"
        )
    buffer = memoryview(message.data).cast("B")
    needed = message.step * (rows - 1) + row_bytes
    if len(buffer) < needed:
        raise ImageError(
            f"the buffer of the image ends early: {len(buffer)} bytes, but {rows} rows "
            f"with a step of {message.step} take {needed}"
        )
    order = ">" if message.is_bigendian else "<"
    return np.ndarray(
        (rows, message.width, layout.channels),
        dtype=order + layout.dtype,
        buffer=buffer,
        strides=(message.step, layout.channels * size, size),
    )


def _to_8_bit(samples: np.ndarray) -> np.ndarray:
    """16-bit samples scaled to 0..255, rounded; 8-bit ones as they are."""
    if samples.dtype.itemsize == 1:
        return samples
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _decompress(message: Any, max_pixels: int) -> np.ndarray:
    """Pixels of a JPEG or PNG. Pillow refuses a truncated one, OpenCV would show it half grey."""
    from PIL import Image, UnidentifiedImageError

    if "compressedDepth" in message.format:
        raise ImageError("this is a compressed depth image: connect `image` to a colour camera")
    try:
        # Only these two: every further format would be one more parser open to the network.
        with Image.open(io.BytesIO(message.data), formats=("JPEG", "PNG")) as pil:
            check_size(*pil.size, max_pixels)
            return image_files.to_rgb(pil)
    except UnidentifiedImageError:
        raise ImageError(
            f"the compressed image (format {message.format[:40]!r}) is neither JPEG nor PNG"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"the compressed image is damaged: {error}") from None


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
            return _decompress_depth(message, max_pixels)
        check_size(message.width, message.height, max_pixels)
        samples = samples_of(message, _depth_layout(message.encoding))[..., 0]
    except ImageError as error:
        raise DepthError(f"the depth image cannot be used: {error}") from None
    return np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder("="), copy=False))


def _depth_layout(encoding: str) -> Layout:
    if encoding in DEPTH:
        return DEPTH[encoding]
    raise DepthError(
        f"the depth image has the encoding {encoding[:40]!r}: 16UC1 (millimetres) or 32FC1 "
        "(metres) is needed. Connect `depth` to a depth camera"
    )


def _decompress_depth(message: Any, max_pixels: int) -> np.ndarray:
    """compressedDepth: 16UC1 as it is, 32FC1 as rounded inverse depth."""
    from PIL import Image

    encoding, _, method = message.format.partition(";")
    if "compressedDepth" not in method or "rvl" in method:
        raise DepthError(
            f"the compressed depth image has the format {message.format[:60]!r}: only "
            "compressedDepth with PNG is understood"
        )
    layout = _depth_layout(encoding.strip())
    data = bytes(message.data)
    try:
        _, quantum, offset = DEPTH_HEADER.unpack_from(data)
        with Image.open(io.BytesIO(data[DEPTH_HEADER.size :]), formats=("PNG",)) as pil:
            check_size(*pil.size, max_pixels)
            whole = np.asarray(pil).astype(np.uint16)
    except (struct.error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DepthError(f"the compressed depth image is damaged: {error}") from None
    if whole.ndim != 2:
        raise DepthError("the compressed depth image has colours")
    if layout.dtype == "u2":
        return whole
    with np.errstate(divide="ignore"):
        depth = np.float32(quantum) / (whole.astype(np.float32) - np.float32(offset))
    return np.where(whole > 0, depth, np.float32(np.nan))


def to_message(pixels: np.ndarray, encoding: str, header: Any) -> Any:
    """A `sensor_msgs/Image` of `pixels`.

    They are uint8 (H, W) for mono8, (H, W, 3) for rgb8, uint16 (H, W) for 16UC1, float32 for 32FC1.
    """
    from sensor_msgs.msg import Image

    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding)
    message.header = header
    message.step = width * math.prod(pixels.shape[2:]) * pixels.itemsize
    message.is_bigendian = int(sys.byteorder == "big")
    message.data = to_bytes(pixels)
    return message


def to_bytes(samples: np.ndarray) -> array:
    """What a message's field of bytes takes at once.

    Assigning the array itself walks over it byte by byte (66 ms at 640x480); this copies once.
    """
    data = array("B")
    if samples.size:  # a view of nothing cannot be cast
        data.frombytes(memoryview(np.ascontiguousarray(samples)).cast("B"))
    return data
