"""Image messages become the right pixels, and unusable ones a sentence."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Image

from lisa_ros.errors import ImageError
from lisa_ros.node.inputs import image_conversion as image

PIXELS = 4_000_000
rng = np.random.default_rng(5)


def message(encoding: str, samples: np.ndarray, step: int | None = None, big: bool = False):
    """An Image message of samples (rows, width, channels), rows padded with noise up to `step`."""
    rows, width, channels = samples.shape
    order = ">" if big else "<"
    packed = samples.astype(f"{order}u{samples.dtype.itemsize}")
    row_bytes = width * channels * samples.dtype.itemsize
    step = step or row_bytes
    padded = rng.integers(0, 256, (rows, step), dtype=np.uint8)
    padded[:, :row_bytes] = packed.reshape(rows, -1).view(np.uint8).reshape(rows, row_bytes)
    height = rows * 2 // 3 if encoding.startswith("nv") else rows
    return SimpleNamespace(
        encoding=encoding,
        width=width,
        height=height,
        step=step,
        is_bigendian=int(big),
        data=padded.tobytes(),
    )


@settings(max_examples=60, deadline=None)
@given(
    order=st.sampled_from(["rgb", "bgr", "rgba", "bgra", "mono"]),
    bits=st.sampled_from([8, 16]),
    width=st.integers(16, 33),
    height=st.integers(16, 20),
    padding=st.integers(0, 7),
    big=st.booleans(),
)
def test_color_orders_depths_steps_and_byte_orders(order, bits, width, height, padding, big):
    channels = 1 if order == "mono" else len(order)
    samples = rng.integers(0, 2**bits, (height, width, channels)).astype(f"u{bits // 8}")
    step = width * channels * bits // 8 + padding
    pixels = image.to_rgb(message(f"{order}{bits}", samples, step, big), PIXELS)
    expected = samples if bits == 8 else np.rint(samples / 257.0)
    index = [0, 0, 0] if order == "mono" else [order.index(c) for c in "rgb"]
    assert pixels.dtype == np.uint8 and pixels.shape == (height, width, 3)
    np.testing.assert_array_equal(pixels, expected[..., index].astype(np.uint8))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("color", [(250, 0, 0), (0, 250, 0), (0, 0, 250)])
def test_bayer_patterns_show_a_plain_color(pattern, bits, color):
    scale = 1 if bits == 8 else 257
    tile = np.array([color["rgb".index(c)] for c in pattern]).reshape(2, 2) * scale
    samples = np.tile(tile, (10, 12)).astype(f"u{bits // 8}")[..., None]
    pixels = image.to_rgb(message(f"bayer_{pattern}{bits}", samples, 24 * bits // 8 + 3), PIXELS)
    assert pixels.shape == (20, 24, 3)
    np.testing.assert_allclose(pixels[4:-4, 4:-4], np.broadcast_to(color, (12, 16, 3)), atol=2)


def yuv_of(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """BT.601 studio swing, which is what cameras send."""
    r, g, b = (c / 255 for c in rgb)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return round(y), round(u), round(v)


@pytest.mark.parametrize("color", [(200, 30, 30), (20, 180, 60), (40, 60, 210)])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_yuv422(encoding, order, color):
    y, u, v = yuv_of(color)
    pair = [{"y": y, "u": u, "v": v}[c] for c in order]
    samples = np.tile(np.array(pair, np.uint8).reshape(1, 2, 2), (18, 10, 1))
    pixels = image.to_rgb(message(encoding, samples, 45), PIXELS)
    assert pixels.shape == (18, 20, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(color, pixels.shape), atol=4)


@pytest.mark.parametrize("color", [(200, 30, 30), (40, 60, 210)])
@pytest.mark.parametrize(("encoding", "order"), [("nv12", "uv"), ("nv21", "vu")])
def test_yuv420(encoding, order, color):
    y, u, v = yuv_of(color)
    samples = np.full((27, 20, 1), y, np.uint8)
    samples[18:, 0::2] = u if order == "uv" else v
    samples[18:, 1::2] = v if order == "uv" else u
    pixels = image.to_rgb(message(encoding, samples, 23), PIXELS)
    assert pixels.shape == (18, 20, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(color, pixels.shape), atol=4)


def drawn_image(mode: str, kind: str) -> bytes:
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:20] = (220, 40, 30)
    file = io.BytesIO()
    if mode == "16":
        grey = np.full((40, 50), 40_000, np.uint16)
        Image.fromarray(grey).save(file, kind)
    else:
        Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def compressed(data: bytes, kind: str = "rgb8; jpeg compressed bgr8"):
    return SimpleNamespace(format=kind, data=np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG")])
def test_compressed_color(mode, kind):
    pixels = image.to_rgb(compressed(drawn_image(mode, kind), kind.lower()), PIXELS)
    assert pixels.shape == (40, 50, 3)
    np.testing.assert_allclose(pixels[10, 25], (220, 40, 30), atol=6)
    np.testing.assert_allclose(pixels[35, 25], 0, atol=6)


def test_compressed_grey_and_16_bit():
    grey = image.to_rgb(compressed(drawn_image("L", "JPEG")), PIXELS)
    assert grey.shape == (40, 50, 3) and np.ptp(grey[5, 5]) == 0
    deep = image.to_rgb(compressed(drawn_image("16", "PNG")), PIXELS)
    np.testing.assert_array_equal(deep, np.full((40, 50, 3), round(40_000 / 257), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_compressed_images_that_are_damaged(kind):
    data = drawn_image("RGB", kind)
    for broken in (data[: len(data) // 2], data[:30], b"", b"GIF89a" + data, rng.bytes(500)):
        with pytest.raises(ImageError):
            image.to_rgb(compressed(broken), PIXELS)


def test_compressed_depth_is_named():
    with pytest.raises(ImageError, match="depth"):
        image.to_rgb(compressed(b"x", "16UC1; compressedDepth png"), PIXELS)


def test_large_compressed_image_is_refused_before_it_is_decoded():
    with pytest.raises(ImageError, match=r"input\.max_pixels"):
        image.to_rgb(compressed(drawn_image("RGB", "PNG")), 1000)


GOOD = np.zeros((20, 24, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "16UC1"}, "depth"),
        ({"encoding": "32FC1"}, "depth"),
        ({"encoding": "rgb9"}, "rgb9.*supported are"),
        ({"encoding": "%s{0}" * 100}, "not supported"),
        ({"encoding": ""}, "not supported"),
        ({"width": 0, "step": 0}, "0x20"),
        ({"height": 0}, "24x0"),
        ({"width": 1, "height": 1}, "1x1"),
        ({"step": 71}, "step of the image is 71"),
        ({"step": 0}, "step of the image is 0"),
        ({"data": bytes(100)}, "100 bytes, but 20 rows with a step of 72 take 1440"),
        ({"data": b""}, "ends early"),
        ({"width": 2**31, "height": 2**31}, r"input\.max_pixels"),
        ({"encoding": "yuv422", "width": 23}, "even"),
        ({"encoding": "nv12", "height": 19}, "even"),
    ],
)
def test_unusable_images_get_a_sentence(change, words):
    broken = message("rgb8", GOOD)
    vars(broken).update(change)
    with pytest.raises(ImageError, match=words) as caught:
        image.to_rgb(broken, PIXELS)
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)


def test_own_messages_have_the_same_header_and_read_back():
    messages = pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
    from rclpy.serialization import deserialize_message, serialize_message
    from std_msgs.msg import Header

    header = Header(frame_id="camera_optical")
    header.stamp.sec, header.stamp.nanosec = 12, 345
    pixels = rng.integers(0, 256, (33, 47, 3), dtype=np.uint8)
    for array, encoding in ((pixels, "rgb8"), (pixels[..., 0], "mono8"), (pixels[:, ::2], "rgb8")):
        sent = serialize_message(image.to_message(array, encoding, header))
        received = deserialize_message(sent, messages.Image)
        assert serialize_message(received.header) == serialize_message(header)
        back = image.to_rgb(received, PIXELS)
        np.testing.assert_array_equal(back if encoding == "rgb8" else back[..., 0], array)


def test_rgb8_is_not_copied():
    source = message("rgb8", GOOD)
    assert np.shares_memory(image.to_rgb(source, PIXELS), np.frombuffer(source.data, np.uint8))


def test_agrees_with_cv_bridge():
    reason = "cv_bridge is part of a ROS installation and not on this machine"
    bridge = pytest.importorskip("cv_bridge", reason=reason).CvBridge()
    from sensor_msgs.msg import Image

    for encoding in image.SUPPORTED:
        if encoding.startswith("nv"):
            continue  # not known to cv_bridge
        layout = image.layout_of(encoding)
        shape = (24, 32, layout.channels)
        samples = rng.integers(0, np.iinfo(layout.dtype).max, shape, layout.dtype, endpoint=True)
        source = message(encoding, samples)
        ours = image.to_rgb(source, PIXELS)
        # cv_bridge converts no encoding without a meaning: it is asked about what we take it for
        source.encoding = image.ALIASES.get(encoding, encoding)
        theirs = bridge.imgmsg_to_cv2(Image(**vars(source)), "rgb8")
        np.testing.assert_allclose(ours, theirs, atol=1, err_msg=encoding)
