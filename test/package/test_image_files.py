"""The one reader of image files: what a person sees in any viewer, or a sentence."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lisa_ros.errors import ImageError
from lisa_ros.evaluation.reasonseg import read_dataset
from lisa_ros.image_files import image_size, read_image, read_samples

# 60x40, every corner of another colour, so that no turn or mirror image looks like another.
CORNERS = np.full((40, 60, 3), 128, np.uint8)
CORNERS[:20, :20], CORNERS[:20, 40:] = (250, 10, 10), (10, 250, 10)
CORNERS[20:, :20], CORNERS[20:, 40:] = (10, 10, 250), (240, 240, 20)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""how a camera stores an upright image under each EXIF orientation"""


def near(found: np.ndarray, wanted: np.ndarray, tolerance: int = 12) -> bool:
    return found.shape == wanted.shape and np.abs(found.astype(int) - wanted).mean() < tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_upright(tmp_path, kind, orientation):
    path, tag = tmp_path / "a.jpg", Image.Exif()
    tag[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(TURNS[orientation](CORNERS))).save(path, kind, exif=tag)
    assert near(read_image(path), CORNERS)
    assert image_size(path) == (60, 40)
    assert read_samples(path).shape == CORNERS.shape


def test_polygons_lie_on_the_upright_image(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(CORNERS)))
    lying.save(tmp_path / "a.jpg", quality=95, exif=tag)
    square = [[40, 0], [59, 0], [59, 19], [40, 19]]
    question = {"text": ["green"], "is_sentence": True}
    question["shapes"] = [{"label": "target", "points": square}]
    (tmp_path / "a.json").write_text(json.dumps(question))
    [item] = read_dataset(tmp_path)
    mask, _ = item.truth()
    assert mask.shape == item.rgb().shape[:2] == (40, 60)
    assert near(item.rgb()[mask == 1], np.tile([10, 250, 10], (400, 1)))


RAMP = np.linspace(0, 1, 60 * 40).reshape(40, 60)
SHADES = np.rint(RAMP * 255).astype(np.uint8)
DEEP = np.rint(RAMP * 65535).astype(np.uint16)
GREYS = {
    "16-bit.png": DEEP,
    "16-bit.tif": DEEP,
    "16-bit.pgm": DEEP,
    "32-bit.tif": DEEP.astype(np.int32),
    "float.tif": RAMP.astype(np.float32),
    "8-bit.png": SHADES,
    "8-bit.gif": SHADES,
}


@pytest.mark.parametrize("name", GREYS)
def test_grey_of_any_depth_keeps_its_shades(tmp_path, name):
    Image.fromarray(GREYS[name]).save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert np.abs(found.astype(int) - SHADES[..., None]).max() <= 1
    assert found.shape == (40, 60, 3)


def test_samples_come_as_they_are_stored(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "depth.png")
    assert np.array_equal(read_samples(tmp_path / "depth.png"), DEEP)
    ids = Image.fromarray((CORNERS[..., 0] // 60).astype(np.uint8), "L").convert("P")
    ids.putpalette([7, 7, 7] * 256)
    ids.save(tmp_path / "ids.png")
    assert np.array_equal(read_samples(tmp_path / "ids.png"), CORNERS[..., 0] // 60)


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "YCbCr", "1", "LA"])
def test_every_mode_shows_its_colours(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    image = Image.fromarray(CORNERS)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(path)
    wanted = CORNERS if mode not in ("1", "LA") else np.asarray(image.convert("RGB"))
    assert near(read_image(path), wanted)


def test_transparent_places_are_white_paper_and_not_the_colour_below(tmp_path):
    rgba = np.dstack([CORNERS, np.full((40, 60), 255, np.uint8)])
    rgba[:20, :20, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found[:20, :20] == 255).all() and np.array_equal(found[:, 20:], CORNERS[:, 20:])
    palette = Image.fromarray((np.arange(60 * 40).reshape(40, 60) % 2).astype(np.uint8), "P")
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.save(tmp_path / "b.png", transparency=0)
    found = read_image(tmp_path / "b.png")
    assert (found[0, 0] == 255).all() and found[0, 1].tolist() == [0, 0, 200]
    rgba[..., 3] = 0  # what some simulators write: a fourth channel that means nothing
    Image.fromarray(rgba).save(tmp_path / "c.png")
    assert np.array_equal(read_image(tmp_path / "c.png"), CORNERS)


def huge_png() -> bytes:
    """A small file that says it is 60,000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    for name, body in chunks:
        file.write(struct.pack(">I", len(body)) + name + body)
        file.write(struct.pack(">I", zlib.crc32(name + body)))
    return file.getvalue()


def encoded(array: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


FLAWED = {
    "missing": (None, "is missing"),
    "empty": (b"", "no image"),
    "text": (b"the mug is red", "no image"),
    "cut JPEG": (encoded(CORNERS, "JPEG")[:-60], "truncated"),
    "cut PNG": (encoded(CORNERS, "PNG")[:80], "cannot be read"),
    "cut TIFF": (encoded(CORNERS, "TIFF")[:3000], "cannot be read"),
    "cut WEBP": (encoded(CORNERS, "WEBP")[:60], "cannot be read"),
    "decompression bomb": (huge_png(), "exceeds limit"),
    "metres": (encoded((3 * RAMP).astype(np.float32), "TIFF"), "from 0 to 3"),
    "not a number": (encoded((np.nan * RAMP).astype(np.float32), "TIFF"), "nan"),
    "24 bits": (encoded((RAMP * 2**24).astype(np.int32), "TIFF"), "to 16777216"),
    "negative": (encoded((RAMP * 100).astype(np.int32) - 5, "TIFF"), "from -5"),
}


@pytest.mark.parametrize("flaw", FLAWED)
def test_what_cannot_be_shown_is_one_sentence_with_the_files_name(tmp_path, flaw):
    content, words = FLAWED[flaw]
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def test_damaged_exif_does_not_cost_the_image(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(CORNERS).save(path, quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense")
    assert near(read_image(path), CORNERS) and image_size(path) == (60, 40)
