"""What people see of the trials: a video, a GIF for pages that cannot show one, a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from lisa_ros.errors import LisaError
from lisa_ros.node.results.overlay import load_font, mark_masks, wrap_words
from lisa_ros.recordings.clip_files import write_gif
from lisa_ros.writing import written_beside
from lisa_tabletop.pick.trial import GraspPlan, PickOutcome, Reply, Trial
from lisa_tabletop.world.camera import SceneView, TabletopCamera

RATE = 12  # images per second of the video
PERIOD = 0.125  # simulated seconds between two of them: the video runs 1.5 times as fast
ASKING, ANSWERED, ENDED = 14, 14, 20  # images that these moments last
WIDTH, HEIGHT = 960, 540
SCENE, SEEN = (640, 480), (320, 240)  # places of the film camera's and the robot's images
GIF_TRIALS = 4  # keeps it small enough for a page
GIF_SIZE = (800, 450)
CODECS = ("vp09", "mp4v")  # browsers show the first; OpenCV without VP9 can write the second
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
    """Films the first trials and keeps two images of each.

    Args:
        folder: takes the video `pick.mp4`, and `pick.gif` of its first `GIF_TRIALS` trials.
        filmed: number of trials in the video.
    """

    def __init__(self, folder: Path, filmed: int) -> None:
        self._folder, self._filmed = folder, filmed
        self._video: cv2.VideoWriter | None = None
        self._unfinished = folder / ".pick.part.mp4"
        self._images: list[np.ndarray] = []  # of the GIF, and how long each stays, ms
        self._durations: list[int] = []
        self.tiles: list[Tile] = []
        self._right = 0

    def begin(
        self, camera: TabletopCamera, view: SceneView, question: dict, hand: str = ""
    ) -> None:
        """A new trial, before it is asked; `hand`: which of `HANDS` it is made with."""
        self._camera, self._question, self._hand = camera, question, hand
        self._seen, self._answer, self._grasp = view.rgb, "", ""
        self._next = 0.0
        if self._rolling:
            self._show(camera.image("film"), ASKING)

    def planned(self, reply: Reply, plan: GraspPlan) -> None:
        """The answer is there, the hand is about to start."""
        self._answer = reply.answer or reply.error
        if reply.mask is not None:
            self._seen = mark_masks(self._seen, [reply.mask])
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
        """Finish the video and write the GIF."""
        if self._video is not None:
            self._video.release()
            self._unfinished.replace(self._folder / "pick.mp4")
            write_gif(self._folder / "pick.gif", self._images, self._durations)

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
            self._video = open_video(self._unfinished)
        for _ in range(times):
            self._video.write(pixels)
        if len(self.tiles) < GIF_TRIALS:
            self._keep(frame, times)

    def _keep(self, frame: Image.Image, times: int) -> None:
        """For the GIF: every other image of what moves."""
        if times == 1 and self._durations[-1:] == [round(1000 / RATE)]:
            self._durations[-1] = round(2000 / RATE)
            return
        self._images.append(np.asarray(frame.resize(GIF_SIZE, Image.Resampling.LANCZOS)))
        self._durations.append(round(times * 1000 / RATE))

    def _write_words(self, draw: ImageDraw.ImageDraw, trial: Trial | None) -> None:
        """Instruction and answer below the robot's image, the verdict at the bottom."""
        left, top, room = SCENE[0] + 16, SEEN[1] + 14, SEEN[0] - 32
        number, done = len(self.tiles) + 1, len(self.tiles) + (trial is not None)
        kind = self._question["type"].replace("_", " ")
        kind += f"  ·  {self._hand}" if self._hand else ""
        draw.text((left, top), f"trial {number}  ·  {kind}", fill=PALE, font=load_font(16))
        top += 30
        asked = (self._question["instruction"], WHITE, 20)
        for text, color, size in (asked, (self._answer, SAID, 20), (self._grasp, PALE, 16)):
            for line in wrap_words(text, load_font(size), room, 3):
                draw.text((left, top), line, fill=color, font=load_font(size))
                top += round(1.3 * size)
            top += 8
        draw.rectangle((0, SCENE[1], SCENE[0], HEIGHT), fill=BAR)
        middle, font = (SCENE[1] + HEIGHT) // 2, load_font(17)
        draw.text((20, middle), "instruction  ·  mask  ·  grasp", PALE, font, anchor="lm")
        tally = f"{self._right} of {done} right" if done else ""
        draw.text((SCENE[0] - 20, middle), tally, WHITE, font, anchor="rm")
        if trial is not None:
            draw.rectangle((SCENE[0], SCENE[1], WIDTH, HEIGHT), fill=color_of(trial))
            lines = wrap_words(verdict(trial), load_font(18), room, 2)
            for index, line in enumerate(lines):
                place = (left, middle + 24 * index - 12 * (len(lines) - 1))
                draw.text(place, line, WHITE, load_font(18), anchor="lm")


def verdict(trial: Trial) -> str:
    """How a trial ended, in words for the image."""
    taken = ", ".join(trial.taken)
    if trial.outcome is PickOutcome.LIFTED:
        return f"lifted: {trial.meant}"
    if trial.outcome is PickOutcome.REFUSED:
        return "rightly refused" if trial.right else f"refused, but there is the {trial.meant}"
    if not trial.meant and trial.outcome is not PickOutcome.FAILED:
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


def open_video(path: Path) -> cv2.VideoWriter:
    """A video in the best codec that there is."""
    for codec in CODECS:
        fourcc = cv2.VideoWriter_fourcc(*codec)
        video = cv2.VideoWriter(str(path), fourcc, RATE, (WIDTH, HEIGHT))
        if video.isOpened():
            return video
    raise LisaError(f"cannot write the video {path}: is the disk full?")


def save_contact_sheet(path: Path, tiles: list[Tile]) -> None:
    """Two images for each of the first trials: the mask, and how it ended."""
    tiles = tiles[:MOST_TILES]
    width, height = 2 * TILE[0] + 12, TILE[1] + 62
    sheet = Image.new("RGB", (COLUMNS * width + 12, -(-len(tiles) // COLUMNS) * height + 12), BACK)
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        x, y = 12 + index % COLUMNS * width, 12 + index // COLUMNS * height
        for side, image in enumerate((tile.seen, tile.after)):
            shown = Image.fromarray(image).resize(TILE, Image.Resampling.LANCZOS)
            sheet.paste(shown, (x + side * TILE[0], y))
        low, font = y + TILE[1], load_font(13)
        asked = wrap_words(tile.trial.instruction, font, 2 * TILE[0] - 8, 1)
        said = f"{tile.trial.hand}: {verdict(tile.trial)}".removeprefix(": ")
        ended = wrap_words(said, font, 2 * TILE[0] - 30, 1)
        draw.text((x, low + 5), "".join(asked), WHITE, font)
        draw.rectangle((x, low + 27, x + 10, low + 37), fill=color_of(tile.trial))
        draw.text((x + 18, low + 24), "".join(ended), PALE, font)
    with written_beside(path) as beside:
        sheet.save(beside, format="JPEG", quality=88)
