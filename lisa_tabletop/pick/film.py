"""What people see of the trials: a video and a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lisa_ros.errors import LisaError
from lisa_tabletop.pick.gif import Gif
from lisa_tabletop.pick.grasping import Plan
from lisa_tabletop.pick.trial import Outcome, Reply, Trial
from lisa_tabletop.world.camera import TabletopCamera, View

RATE = 12  # pictures per second of the video
PERIOD = 0.125  # simulated seconds between two of them: the video runs 1.5 times as fast
ASKING, ANSWERED, ENDED = 14, 14, 20  # pictures that these moments last
WIDTH, HEIGHT = 960, 540
SCENE, SEEN = (640, 480), (320, 240)  # places of the film camera's and the robot's pictures
GIF_TRIALS = 4  # keeps it small enough for a page
CODECS = ("vp09", "mp4v")  # browsers show the first; OpenCV without VP9 can write the second
MARK, DIM, FILL = (255, 60, 150), 0.65, 0.5
BACK, BAR, PALE, WHITE, SAID = (
    (22, 24, 28), (33, 36, 42), (140, 146, 156), (255, 255, 255), (160, 225, 190)
)  # fmt: skip
GOOD, BAD, NEITHER = (46, 160, 90), (205, 70, 60), (96, 102, 112)
TILE, COLUMNS, MOST_TILES = (240, 180), 4, 60


@dataclass(frozen=True)
class Tile:
    """A trial on the contact sheet: what the robot saw and what it did, uint8 (H,W,3)."""

    trial: Trial
    seen: np.ndarray
    after: np.ndarray


class Film:
    """Films the first trials and keeps two pictures of each.

    Args:
        folder: takes the video `pick.mp4`, and `pick.gif` of its first `GIF_TRIALS` trials.
        filmed: number of trials in the video.
    """

    def __init__(self, folder: Path, filmed: int) -> None:
        self._folder, self._filmed = folder, filmed
        self._video: cv2.VideoWriter | None = None
        self._gif = Gif(RATE)
        self.tiles: list[Tile] = []
        self._right = 0

    def begin(self, camera: TabletopCamera, view: View, question: dict) -> None:
        """A new trial, before it is asked."""
        self._gif.cut()
        self._camera, self._question = camera, question
        self._seen, self._answer, self._grasp = view.rgb, "", ""
        self._next = 0.0
        if self._rolling:
            self._show(camera.image("film"), ASKING)

    def planned(self, reply: Reply, plan: Plan) -> None:
        """The answer is there, the hand is about to start."""
        self._answer = reply.answer or reply.error
        if reply.mask is not None:
            self._seen = marked(self._seen, reply.mask)
        if plan.grasp is not None:
            self._grasp = f"grasp: {100 * plan.grasp.width:.1f} cm wide, from above"
        elif plan.reason:
            self._grasp = plan.reason
        if self._rolling:
            self._show(self._camera.image("film"), ANSWERED)

    def watch(self, time: float) -> None:
        """Called after every step of the simulation."""
        if self._rolling and time >= self._next:
            self._next = time + PERIOD
            self._show(self._camera.image("film"), 1)

    def end(self, trial: Trial) -> None:
        """The trial is over."""
        after = self._camera.image("film")
        self._right += trial.right
        if self._rolling:
            self._show(after, ENDED, trial)
        self.tiles.append(Tile(trial, self._seen, after))

    def close(self) -> None:
        """Finish the video and write the GIF.

        Raises:
            LisaError: it cannot be written.
        """
        if self._video is not None:
            self._video.release()
            self._gif.save(self._folder / "pick.gif")

    @property
    def _rolling(self) -> bool:
        return len(self.tiles) < self._filmed

    def _show(self, scene: np.ndarray, times: int, trial: Trial | None = None) -> None:
        frame = Image.new("RGB", (WIDTH, HEIGHT), BACK)
        frame.paste(Image.fromarray(scene).resize(SCENE), (0, 0))
        frame.paste(Image.fromarray(self._seen).resize(SEEN), (SCENE[0], 0))
        self._write_words(ImageDraw.Draw(frame), trial)
        pixels = cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR)
        if self._video is None:
            self._video = open_video(self._folder / "pick.mp4")
        for _ in range(times):
            self._video.write(pixels)
        if len(self.tiles) < GIF_TRIALS:
            self._gif.add(frame, times)

    def _write_words(self, draw: ImageDraw.ImageDraw, trial: Trial | None) -> None:
        """Instruction and answer below the robot's picture, the verdict at the bottom."""
        left, top, room = SCENE[0] + 16, SEEN[1] + 14, SEEN[0] - 32
        number, done = len(self.tiles) + 1, len(self.tiles) + (trial is not None)
        kind = self._question["type"].replace("_", " ")
        draw.text((left, top), f"trial {number}  ·  {kind}", fill=PALE, font=_font(16))
        top += 30
        paragraphs = (
            (self._question["instruction"], WHITE, 20),
            (self._answer, SAID, 20),
            (self._grasp, PALE, 16),
        )
        for text, color, size in paragraphs:
            for line in wrapped(text, _font(size), room, 3):
                draw.text((left, top), line, fill=color, font=_font(size))
                top += round(1.3 * size)
            top += 8
        draw.rectangle((0, SCENE[1], SCENE[0], HEIGHT), fill=BAR)
        middle = (SCENE[1] + HEIGHT) // 2
        tally = f"{self._right} of {done} right" if done else ""
        draw.text(
            (20, middle), "instruction  ·  mask  ·  grasp", fill=PALE, font=_font(17), anchor="lm"
        )
        draw.text((SCENE[0] - 20, middle), tally, fill=WHITE, font=_font(17), anchor="rm")
        if trial is not None:
            color = color_of(trial)
            draw.rectangle((SCENE[0], SCENE[1], WIDTH, HEIGHT), fill=color)
            lines = wrapped(verdict(trial), _font(18), room, 2)
            for index, line in enumerate(lines):
                place = (left, middle + 24 * index - 12 * (len(lines) - 1))
                draw.text(place, line, fill=WHITE, font=_font(18), anchor="lm")


def verdict(trial: Trial) -> str:
    """How a trial ended, in words for the picture."""
    taken = ", ".join(trial.taken)
    if trial.outcome is Outcome.LIFTED:
        return f"lifted: {trial.meant}"
    if trial.outcome is Outcome.REFUSED:
        return "rightly refused" if trial.right else f"refused, but there is the {trial.meant}"
    if not trial.meant and trial.outcome is not Outcome.FAILED:
        return f"not there, but lifted: {taken}" if taken else "not there, but reached for"
    if taken:
        return f"{trial.outcome.value}: {taken}"
    if not trial.can_be_held:
        return f"too big for the hand: {trial.meant}"
    return trial.outcome.value


def color_of(trial: Trial) -> tuple[int, int, int]:
    """Green where it is right, grey where the gripper could not, red where it is wrong."""
    if trial.right:
        return GOOD
    return BAD if trial.can_be_held else NEITHER


def marked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture (H,W,3) with the mask (H,W) in colour and everything else darker."""
    picture = cv2.convertScaleAbs(image, alpha=DIM)
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, lines, -1, (255, 255, 255), 4, cv2.LINE_AA)
    picture[mask] = (image[mask] * (1 - FILL) + np.array(MARK) * FILL).astype(np.uint8)
    return picture


def open_video(path: Path) -> cv2.VideoWriter:
    """A video in the best codec that there is.

    Raises:
        LisaError: it cannot be written.
    """
    for codec in CODECS:
        fourcc = cv2.VideoWriter_fourcc(*codec)
        video = cv2.VideoWriter(str(path), fourcc, RATE, (WIDTH, HEIGHT))
        if video.isOpened():
            return video
    raise LisaError(
        f"cannot write the video {path}: is the folder writable, and the disk not full?"
    )


def save_contact_sheet(path: Path, tiles: list[Tile]) -> None:
    """Two pictures for each of the first trials: the mask, and how it ended.

    Raises:
        LisaError: it cannot be written.
    """
    tiles = tiles[:MOST_TILES]
    width, height = 2 * TILE[0] + 12, TILE[1] + 62
    sheet = Image.new("RGB", (COLUMNS * width + 12, -(-len(tiles) // COLUMNS) * height + 12), BACK)
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        x, y = 12 + index % COLUMNS * width, 12 + index // COLUMNS * height
        for side, picture in enumerate((tile.seen, tile.after)):
            shown = Image.fromarray(picture).resize(TILE, Image.Resampling.LANCZOS)
            sheet.paste(shown, (x + side * TILE[0], y))
        for row, line in enumerate(wrapped(tile.trial.instruction, _font(13), 2 * TILE[0] - 8, 1)):
            draw.text((x, y + TILE[1] + 5 + 17 * row), line, fill=WHITE, font=_font(13))
        color = color_of(tile.trial)
        words = wrapped(verdict(tile.trial), _font(13), 2 * TILE[0] - 30, 1)
        draw.rectangle((x, y + TILE[1] + 27, x + 10, y + TILE[1] + 37), fill=color)
        draw.text((x + 18, y + TILE[1] + 24), "".join(words), fill=PALE, font=_font(13))
    try:
        sheet.save(path, quality=88)
    except OSError as error:
        raise LisaError(f"cannot write {path}: {error}") from error


def wrapped(text: str, font: ImageFont.FreeTypeFont, room: int, most: int) -> list[str]:
    """At most `most` lines of at most `room` pixels; what is cut off ends in dots."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= room:
            line += f" {words.pop(0)}"
        lines.append(line)
    if words:
        lines[-1] += " …"
    return lines


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
