"""Data sets as people have them: ReasonSeg's published layout, LabelMe's shapes, files by hand."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import draw, read_dataset

WIDTH, HEIGHT = 200, 120
SQUARE = [[40, 30], [100, 30], [100, 90], [40, 90]]


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(points, label="target", **more) -> dict:
    return {"label": label, "points": points, **more}


def entry(**more) -> dict:
    return {"text": ["the cup"], "is_sentence": False, "shapes": [shape(SQUARE)], **more}


def write(folder: Path, content, name: str = "a", suffix: str = ".jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{name}{suffix}")
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / f"{name}.json").write_bytes(raw)
    return folder


def test_the_published_layout_is_read(tmp_path):
    """`explanatory/train.json` has no image beside it and is no question."""
    write(tmp_path / "ReasonSeg" / "train", entry())
    write(tmp_path / "ReasonSeg" / "val", entry(text=[" a Dog "], is_sentence=True))
    (tmp_path / "ReasonSeg" / "explanatory").mkdir()
    outputs = [{"image": "a.jpg", "query": "the cup", "outputs": "because"}]
    (tmp_path / "ReasonSeg" / "explanatory" / "train.json").write_text(json.dumps(outputs))
    items = read_dataset(tmp_path / "ReasonSeg")
    assert [(item.split, item.instruction) for item in items] == [
        ("train", "What is the cup in this image?"),
        ("val", "a Dog"),
    ]


@pytest.mark.parametrize("suffix", [".jpeg", ".JPG", ".png", ".webp"])
def test_images_may_be_of_other_formats(tmp_path, suffix):
    [item] = read_dataset(write(tmp_path, entry(), suffix=suffix))
    assert item.rgb().shape == (HEIGHT, WIDTH, 3)


def test_an_image_is_turned_as_its_camera_says_and_so_is_its_truth(tmp_path):
    write(tmp_path, entry(shapes=[shape([[20, 130], [60, 130], [60, 190], [20, 190]])]))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    [item] = read_dataset(tmp_path)
    assert item.rgb().shape[:2] == item.truth()[0].shape == (WIDTH, HEIGHT)
    assert item.truth()[0].sum() == 41 * 61


def test_labelmes_shapes_are_drawn_as_what_they_are():
    stamp = np.zeros((30, 40), bool)
    stamp[5:25, 10:35] = True
    cases = {
        "rectangle": (shape([[100, 90], [40, 30]], shape_type="rectangle"), 61 * 61),
        "circle": (shape([[90, 60], [90, 90]], shape_type="circle"), np.pi * 30**2),
        "mask": (
            shape([[60, 20], [99, 49]], shape_type="mask", mask=png(stamp)),
            stamp.sum(),
        ),
        "oriented_rectangle": (shape(SQUARE, shape_type="oriented_rectangle"), 61 * 61),
    }
    for kind, (one, area) in cases.items():
        drawn = draw([one], (WIDTH, HEIGHT)) == 1
        assert drawn.sum() == pytest.approx(area, rel=0.02), kind
    drawn = draw([cases["mask"][0]], (WIDTH, HEIGHT)) == 1
    assert np.array_equal(drawn[20:50, 60:100], stamp)


def test_of_shapes_of_equal_area_the_first_lies_on_top_as_the_authors_draw_them():
    target, ignore = shape(SQUARE), shape(SQUARE, "ignore")
    assert (draw([target, ignore], (WIDTH, HEIGHT))[60, 60]) == 1
    assert (draw([ignore, target], (WIDTH, HEIGHT))[60, 60]) == 255
    # and a smaller one on top of both
    small = shape([[60, 50], [70, 50], [70, 60], [60, 60]], "ignored corner")
    assert (draw([small, target], (WIDTH, HEIGHT))[55, 65]) == 255


FAULTS = {
    "text is a string": (entry(text="the cup"), "text must be a list"),
    "text is empty": (entry(text=[]), "text must be a list"),
    "text holds null": (entry(text=[None]), "text must hold only words"),
    "text is half a letter": (entry(text=["the \ud83e mug"]), r"names half a letter, \\ud83e"),
    "text is blank": (entry(text=["  "]), "text must hold only words"),
    "is_sentence is a word": (entry(is_sentence="false"), "is_sentence must be true or false"),
    "no shapes": ({"text": ["x"], "is_sentence": True}, "no 'shapes'"),
    "shapes is a table": (entry(shapes={}), "shapes must be a list"),
    "label is a number": (entry(shapes=[shape(SQUARE, 3)]), r"shapes\[0\].label must be a word"),
    "shares of the size": (
        entry(shapes=[shape([[x / WIDTH, y / HEIGHT] for x, y in SQUARE])]),
        r"shapes\[0\].points lie between 0 and 1",
    ),
    "another size": (
        entry(imageWidth=2 * WIDTH, imageHeight=2 * HEIGHT),
        "imageWidth and imageHeight are 400x240, but a.jpg is 200x120",
    ),
    "outside": (
        entry(shapes=[shape(SQUARE), shape([[500, 500], [510, 500], [510, 510]])]),
        r"shapes\[1\] reaches from .* outside the image of 200x120",
    ),
    "mostly outside": (
        entry(shapes=[shape([[x + 130, y] for x, y in SQUARE])]),
        "outside the image",
    ),
    "a point": (entry(shapes=[shape([[5, 5]], shape_type="point")]), "'point' encloses nothing"),
    "a line": (entry(shapes=[shape(SQUARE, shape_type="linestrip")]), "encloses nothing"),
    "half a circle": (entry(shapes=[shape([[5, 5]], shape_type="circle")]), "too few for a circle"),
    "a mask without pixels": (
        entry(shapes=[shape(SQUARE[:3:2], shape_type="mask", mask=None)]),
        r"shapes\[0\].mask must be the pixels",
    ),
    "a mask of noise": (
        entry(shapes=[shape(SQUARE[:3:2], shape_type="mask", mask="QUJD")]),
        r"shapes\[0\].mask must be the pixels",
    ),
    "words for numbers": (entry(shapes=[shape([["1", "2"]] * 3)]), "must be pairs"),
    "three coordinates": (entry(shapes=[shape([[1, 2, 3]] * 3)]), "must be pairs"),
    "true for a number": (entry(shapes=[shape([[True, 2]] * 3)]), "must be pairs"),
    "endless": (json.dumps(entry()).replace("100", "1e999").encode(), "must be finite"),
    "NaN": (json.dumps(entry()).replace("100", "NaN").encode(), "NaN is no number"),
    "a list": (["x"], "is not ReasonSeg's format"),
    "Chinese of another code page": (
        json.dumps(entry(text=["黄色的杯子"]), ensure_ascii=False).encode("gbk"),
        "save it as UTF-8",
    ),
    "Russian of another code page": (
        json.dumps(entry(text=["жёлтая чашка"]), ensure_ascii=False).encode("cp1251"),
        "save it as UTF-8",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_field_that_means_nothing_is_refused_by_file_and_field(tmp_path, name):
    content, sentence = FAULTS[name]
    folder = write(tmp_path, content)
    with pytest.raises(DatasetError, match=sentence) as caught:
        read_dataset(folder)
    assert "a.json" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + json.dumps(entry()).encode(),
        json.dumps(entry(text=["the café’s cup"]), ensure_ascii=False).encode("cp1252"),
        json.dumps(entry(text=["黄色的杯子"]), ensure_ascii=False).encode(),
        json.dumps(entry(imageWidth=WIDTH, imageHeight=HEIGHT, imageData=None)).encode(),
        json.dumps(entry(shapes=[shape([[5, 5]], "flag", shape_type="point")])).encode(),
        json.dumps(entry(shapes=[shape(SQUARE), {"label": "flag"}])).encode(),
        json.dumps(entry(shapes=[shape([[150, 30], [210, 30], [210, 90]])])).encode(),
    ],
    ids=["byte order mark", "French", "Chinese", "LabelMe's fields", "a flag",
         "a flag without points", "a bit outside"],
)  # fmt: skip
def test_what_is_right_is_read(tmp_path, content):
    [item] = read_dataset(write(tmp_path, content))
    assert item.truth()[0].shape == (HEIGHT, WIDTH)


def test_pairs_that_are_none_are_named(tmp_path):
    write(tmp_path / "one", entry())
    (tmp_path / "one" / "b.json").write_text(json.dumps(entry()))
    with pytest.raises(DatasetError, match=r"b\.json has no b\.jpg beside it"):
        read_dataset(tmp_path)
    (tmp_path / "one" / "b.json").unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "one" / "c.png")
    with pytest.raises(DatasetError, match=r"c\.png has no c\.json beside it"):
        read_dataset(tmp_path)


class Answering:
    """Stands where the engine does: masks the square, and keeps how it was asked."""

    modes = ("auto", "mask", "explain", "text")

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def segment(self, image, instruction, *, mode, history, key):
        from lisa_ros.engine.answer import Answer, AnswerStatus, Instance
        from lisa_ros.engine.question import Question, check_question

        check_question(Question(image, instruction, mode))
        self.asked.append((instruction, mode))
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.rectangle(mask, SQUARE[0], SQUARE[2], 1, -1)
        found = [Instance(mask > 0, 0.9, 1.0, "")]
        return Answer("", AnswerStatus.OK, found, transcript="[SEG].")


@pytest.fixture
def engine(monkeypatch):
    found = Answering()
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **options: found)
    return found


def test_what_cannot_be_asked_is_counted_and_named_and_the_rest_is_not_lost(
    tmp_path, engine, capsys
):
    folder = write(tmp_path / "val", entry(), "a")
    write(folder, entry(shapes=[shape([])]), "empty")
    write(folder, entry(text=["long " * 500]), "long")
    write(folder, entry(), "cut")
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:5000])
    write(folder, entry(shapes=[shape([[5, 1], [9, 1], [9, 3]])]), "slim")
    Image.new("RGB", (2000, 5)).save(folder / "slim.jpg")
    write(folder, entry(), "huge", ".png")
    Image.new("1", (14_000, 14_000)).save(folder / "huge.png")
    report = tmp_path / "r.json"
    assert main(["eval", "--dataset", str(folder), "--json", str(report)]) == 1
    said = capsys.readouterr().out
    assert "5 of 6 questions could not be asked" in said
    for name in ("empty.jpg", "long.jpg", "cut.jpg", "slim.jpg", "huge.png"):
        assert f"val/{name}: " in said
    found = json.loads(report.read_text())
    [rest], [zeros] = (
        list(found[key]["val"].values()) for key in ("results", "results_with_unasked_as_zero")
    )
    assert (rest["samples"], zeros["samples"]) == (1, 6)
    assert rest["giou"] == pytest.approx(1, abs=1e-5)
    assert zeros["giou"] == pytest.approx(1 / 6, abs=1e-5)
    assert zeros["ciou"] < 0.5
    assert len(found["unasked"]) == 5


WITHOUT_PYCOCOTOOLS = f"""
import sys
sys.modules["pycocotools"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
import lisa_ros.engine.load
from test_reasonseg import Answering
lisa_ros.engine.load.load_engine = lambda **options: Answering()
from lisa_ros.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_images_are_evaluated_without_the_extra_of_video(tmp_path):
    command = [sys.executable, "-c", WITHOUT_PYCOCOTOOLS, "eval", "--dataset"]
    folder = write(tmp_path / "val", entry())
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gIoU" in done.stdout


def test_the_mode_reaches_the_model_with_the_authors_words(tmp_path, engine):
    """Their validation has a blank between the image's line and the instruction."""
    folder = str(write(tmp_path / "val", entry()))
    for mode, blank in (("mask", " "), ("auto", ""), ("explain", "")):
        assert main(["eval", "--dataset", folder, "--mode", mode]) == 0
        assert engine.asked[-1] == (f"{blank}What is the cup in this image?", mode)


def test_a_mode_that_the_model_does_not_know_is_refused_once(tmp_path, engine, capsys):
    folder = str(write(tmp_path / "val", entry()))
    assert main(["eval", "--dataset", folder, "--mode", "semantic"]) == 2
    said = capsys.readouterr()
    assert "this model was not trained for mode 'semantic'" in said.err and not said.out
    assert not engine.asked


def test_an_evaluation_asks_first_whether_it_can_write(tmp_path, engine, capsys):
    folder = str(write(tmp_path / "val", entry()))
    (tmp_path / "file").write_text("")
    assert main(["eval", "--dataset", folder, "--json", str(tmp_path / "file" / "r.json")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not engine.asked


def test_the_tabletops_own_sets_are_compared_with_the_fixed_one(dataset, engine, capsys):
    assert main(["eval", "--dataset", str(dataset)]) == 0
    assert "Not the fixed test set" in capsys.readouterr().out


def test_without_the_tabletop_the_defaults_say_how_it_comes(monkeypatch, capsys):
    monkeypatch.setattr("lisa_ros.evaluation.reasonseg.entry_points", lambda **names: [])
    assert main(["eval"]) == 2
    assert "pip install 'lisa_ros[sim]'" in capsys.readouterr().err
