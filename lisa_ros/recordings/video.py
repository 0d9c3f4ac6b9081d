"""Reasoning over a whole clip: ask about a few of its frames, carry the best answer both ways.

As in ViLLa (arXiv 2407.14500) an instruction means something in a clip, not in one picture of it:

1. One pass over the clip finds its frames and how much changes from one to the next.
2. Key frames are chosen, evenly over time and change together, and asked as one batch.
3. The answer is taken that most of the others agree with, and of those the surest.
4. A tracker carries its masks from that frame to the end, and another one back to the beginning.
5. A last pass writes the pictures with their masks.

Frames are never all held: what is read backwards is read in pieces of MEMORY bytes. Masks are kept
as run lengths, about 200 bytes each.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from lisa_ros.engine.answer import Answer, AnswerStatus
from lisa_ros.engine.question import Question, check_instruction
from lisa_ros.errors import ImageError, LisaError, ServerUnreachable
from lisa_ros.image_files import read_image
from lisa_ros.writing import written_beside

if TYPE_CHECKING:
    from lisa_ros.engine import Engine
    from lisa_ros.recordings.bag import Bag
    from lisa_ros.tracking.follow import Follower
    from lisa_ros.tracking.tracker import Track

MEMORY = 128 * 2**20  # bytes of frames held at once
THUMBNAIL = (48, 36)  # width and height at which changes are seen
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
FOLDER_RATE = 15.0  # frames a second of a folder of pictures
LARGEST = 64_000_000  # pixels of a frame
LAST_FRAMES = 3  # times the usual time of a frame that the last one may take
GIF_WIDTH, GIF_RATE = 320, 7.5
Report = Callable[[str, int, int], None]
"""told what is being done, how far it is, and how far it will go (0: not known yet)"""


class VideoError(LisaError):
    """A clip cannot be read, or has nothing in it."""


class FrameSource:
    """The frames of a clip, to be read forwards from any place; `scan` comes first.

    Attributes:
        times: seconds of each frame from the first one.
        size: height and width of the first frame; others are scaled to it.
        faults: what could not be read, each a sentence without full stop.
        notes: what else should be known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: list[float] = []
        self.changes: list[float] = []
        self.size = (0, 0)
        self.faults: list[str] = []
        self.notes: list[str] = []

    def scan(self, report: Report) -> None:
        """Go through the clip once: times, and how much each frame differs from the one before.

        Raises:
            VideoError: there is not one frame in it.
        """
        last = None
        for number, (time, rgb) in enumerate(self._decode(0), start=1):
            if not self.times:
                self.size = rgb.shape[:2]
            elif rgb.shape[:2] != self.size and not self.notes:
                self.notes.append("frames of another size are scaled to that of the first one")
            small = cv2.resize(rgb, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
            self.changes.append(0.0 if last is None else float(np.abs(small - last).mean()))
            self.times.append(time)
            last = small
            report("reading", number, 0)
        if not self.times:
            why = f": {self.faults[0]}" if self.faults else ""
            raise VideoError(f"{self.path} has no frames{why}")
        self.times = [time - self.times[0] for time in self.times]

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames `start` to before `stop`, uint8 (H,W,3) RGB, all of one size."""
        for _, (_, rgb) in zip(range(start, stop), self._decode(start), strict=False):
            if rgb.shape[:2] != self.size:
                rgb = cv2.resize(rgb, self.size[::-1], interpolation=cv2.INTER_AREA)
            yield rgb

    def backwards(self, start: int) -> Iterator[np.ndarray]:
        """Frames from `start` back to the first one, read in pieces of MEMORY bytes."""
        piece = max(1, MEMORY // (3 * self.size[0] * self.size[1]))
        for stop in range(start + 1, 0, -piece):
            yield from reversed(list(self.read(max(0, stop - piece), stop)))

    @property
    def rate(self) -> float:
        """Frames a second, in the middle."""
        steps = np.diff(self.times)
        return float(1 / np.median(steps)) if len(steps) and np.median(steps) > 0 else FOLDER_RATE

    def _decode(self, start: int) -> Iterator[tuple[float, np.ndarray]]:
        """Time and picture of every frame from one on; ends where no more can be read."""
        raise NotImplementedError

    def _fault(self, sentence: str) -> None:
        if sentence not in self.faults:
            self.faults.append(sentence)


class FolderFrames(FrameSource):
    """A folder of pictures, in the order of their names."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)

    def _decode(self, start: int) -> Iterator[tuple[float, np.ndarray]]:
        for picture in self.pictures[start:]:
            try:
                rgb = read_image(picture)
            except ImageError as error:
                self._fault(f"a picture is left out: {error}")
                self.pictures = [one for one in self.pictures if one != picture]
                continue
            yield len(self.times) / FOLDER_RATE, rgb


class FileFrames(FrameSource):
    """A video file, by PyAV."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stamps: list[int] = []  # of every frame, in units of the stream
        self._told = ""  # of how many frames the container tells

    def _decode(self, start: int) -> Iterator[tuple[float, np.ndarray]]:
        import av

        known, packets = bool(self.times), 0
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise VideoError(f"{self.path} holds no video, only other streams")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise VideoError(f"{self.path}: there is no decoder for its video stream here")
                stream.thread_type = "AUTO"
                if start and not self.faults:  # of a cut file the index may be lost
                    container.seek(self._stamps[start], stream=stream)
                self._told = f" of {stream.frames}" if stream.frames else ""
                for packet in container.demux(stream):
                    packets += packet.dts is not None  # the last one only empties the decoder
                    for frame in packet.decode():
                        stamp = len(self._stamps) if frame.pts is None else frame.pts
                        if start and stamp < self._stamps[start]:
                            continue  # the seek went to the key frame before it
                        if not known:
                            self._stamps.append(stamp)
                        rgb = frame.to_ndarray(format="rgb24")
                        yield float(stamp * stream.time_base), _upright(frame, rgb)
                if self._stamps and not known:
                    self._compare(container, packets)
        except av.error.DecoderNotFoundError as error:
            raise VideoError(
                f"{self.path}: there is no decoder for its video stream: {error}"
            ) from None
        except (av.error.FFmpegError, EOFError) as error:
            if not self.times and not self._stamps:
                raise VideoError(f"{self.path} cannot be read as video: {_reason(error)}") from None
            done = f"{len(self._stamps)} frames{self._told}"
            self._fault(f"it breaks off after {done} ({_reason(error)})")

    def _compare(self, container: Any, packets: int) -> None:
        """What was read with what the container tells of: a file may end without an error."""
        import av

        stream = container.streams.video[0]
        done = f"it breaks off after {len(self._stamps)} frames"
        if packets < stream.frames and "mp4" not in container.format.name:  # may leave some out
            self._fault(done + self._told)
            return
        told, end = 0.0, float(self._stamps[-1] * stream.time_base)
        if "DURATION" in stream.metadata:  # Matroska's: "00:01:02.500"
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            told = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        elif stream.duration:
            told = float((stream.duration + max(0, stream.start_time or 0)) * stream.time_base)
        elif container.duration and len(container.streams) == 1:
            told = (container.duration + max(0, container.start_time or 0)) / av.time_base
        if told - end > LAST_FRAMES / float(stream.average_rate or FOLDER_RATE):
            self._fault(f"{done}{self._told}, at {end:.1f} of {told:.1f} s")


class BagFrames(FrameSource):
    """The images of a topic in a recording of ROS 2."""

    def __init__(self, bag: Bag, topic: str) -> None:
        super().__init__(bag.path)
        self.bag, self.topic = bag, topic
        self._recorded: list[int] = []

    def _decode(self, start: int) -> Iterator[tuple[float, np.ndarray]]:
        from lisa_ros.node.inputs.image_conversion import to_rgb

        known = bool(self.times)
        begin = self._recorded[start] if start else -(2**62)
        # of several that were recorded at one instant, those before `start`
        skip = start - bisect.bisect_left(self._recorded, begin) if start else 0
        for recorded in self.bag.messages([self.topic], begin):
            message = self.bag.decode(recorded)
            if message is None:
                continue
            try:
                rgb = to_rgb(message, LARGEST)
            except ImageError as error:
                self._fault(f"an image is left out: {error}")
                continue
            if skip:
                skip -= 1
                continue
            if not known:
                self._recorded.append(recorded.time)
            yield recorded.time / 1e9, rgb
        for fault in self.bag.faults:
            self._fault(fault)


def _upright(frame: Any, rgb: np.ndarray) -> np.ndarray:
    """A phone's video is stored lying, with the turn that makes it upright beside it."""
    return np.ascontiguousarray(np.rot90(rgb, round(getattr(frame, "rotation", 0) / 90)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def open_frames(path: Path, topic: str = "") -> Iterator[FrameSource]:
    """The frames of a video file, a folder of pictures, or a recording of ROS 2.

    Raises:
        VideoError, RecordingError: there is nothing of the kind; the text says what there is.
    """
    if not path.exists():
        raise VideoError(f"there is no clip {path}")
    is_recording = path.suffix in (".mcap", ".db3", ".bag") or (path / "metadata.yaml").exists()
    if topic and not is_recording:
        raise VideoError(f"{path} is no recording of ROS 2 and has no topic {topic}")
    if is_recording:
        from lisa_ros.recordings.bag import Bag, choose_camera

        with Bag(path) as bag:
            yield BagFrames(bag, choose_camera(bag, topic, ()))
    elif path.is_dir():
        source = FolderFrames(path)
        if not source.pictures:
            raise VideoError(f"{path} holds no pictures ({', '.join(PICTURES)})")
        yield source
    else:
        yield FileFrames(path)


# which frames are asked about, and which answer is taken


def key_frames(changes: Sequence[float], count: int) -> list[int]:
    """Up to `count` frames, evenly over a measure that is half time and half change.

    `changes`: how much each frame differs from the one before. Nothing is chosen twice.
    """
    frames = len(changes)
    total = sum(changes)
    share = np.full(frames, 1 / frames)
    if total > 0:
        share = 0.5 * share + 0.5 * np.array(changes) / total
    passed = np.cumsum(share)
    places = (np.arange(count) + 0.5) / count
    return sorted({min(frames - 1, int(i)) for i in np.searchsorted(passed, places)})


def choose_answer(answers: Sequence[Answer]) -> int | None:
    """The index of the surest answer among those that most agree with; None if all found nothing.

    Answers agree that name the same things: equal words before each [SEG], or equally many masks
    where there are no words. An answer weighs as much as its least sure mask.
    """
    sure = {
        index: min(one.score for one in answer.instances)
        for index, answer in enumerate(answers)
        if answer.status == AnswerStatus.OK
    }
    weights: Counter[tuple] = Counter()
    for index, score in sure.items():
        weights[_named(answers[index])] += score
    return max(sure, key=lambda i: (weights[_named(answers[i])], sure[i]), default=None)


def _named(answer: Answer) -> tuple:
    """What an answer says it shows, whatever the order."""
    return tuple(sorted(one.label for one in answer.instances))


# the whole


@dataclass
class FollowedVideo:
    """What was found: run lengths by frame, and what was said on the way.

    Attributes:
        answers: of the key frames, by their indices.
        chosen: the key frame whose answer was taken, None if nothing was found.
        masks: of each frame, for every thing (id, score, state, COCO's compressed run lengths).
        labels: the words of each thing, by its id.
        asked_again: questions to the model beside those about the key frames.
    """

    source: FrameSource
    instruction: str
    answers: dict[int, Answer]
    chosen: int | None
    masks: list[list[tuple[int, float, str, bytes]]]
    labels: dict[int, str] = field(default_factory=dict)
    asked_again: int = 0

    @property
    def text(self) -> str:
        """The answer that was taken, or the first one if all found nothing."""
        key = self.chosen if self.chosen is not None else min(self.answers)
        return self.answers[key].text

    def as_json(self) -> dict:
        """As plain data; masks in COCO's format."""
        height, width = self.source.size
        return {
            "text": self.text,
            "status": "NOT_FOUND" if self.chosen is None else "OK",
            "instruction": self.instruction,
            "size": [height, width],
            "key_frames": {
                str(key): {"text": answer.text, "status": answer.status.value}
                for key, answer in self.answers.items()
            },
            "chosen": self.chosen,
            "things": [{"id": id, "label": label} for id, label in self.labels.items()],
            "faults": self.source.faults,
            "notes": self.source.notes,
            "frames": [
                {
                    "time": round(time, 4),
                    "masks": [
                        {
                            "id": id,
                            "score": round(score, 3),
                            "state": state,
                            "segmentation": {"size": [height, width], "counts": runs.decode()},
                        }
                        for id, score, state, runs in masks
                    ],
                }
                for time, masks in zip(self.source.times, self.masks, strict=True)
            ],
        }

    def decoded(self, index: int) -> list[np.ndarray]:
        """The masks bool (H,W) of a frame."""
        from pycocotools import mask as coco

        size = list(self.source.size)
        runs = [{"size": size, "counts": one[3]} for one in self.masks[index]]
        return [coco.decode(one).astype(bool) for one in runs]


def follow_video(
    engine: Engine,
    source: FrameSource,
    instruction: str,
    make_follower: Callable[[], Follower],
    *,
    keys: int = 6,
    report: Report = lambda *_: None,
) -> FollowedVideo:
    """Find what an instruction means in a clip, and carry it through all of it.

    Args:
        make_follower: a new follower; one goes forwards, one backwards.
        keys: key frames that are asked about.

    Raises:
        VideoError: the clip has no frame, or is damaged from its beginning.
        InstructionError: the instruction cannot be used.
        ServerError: that of a remote model does not answer.
    """
    check_instruction(instruction)
    # 1. times and changes
    source.scan(report)
    count = len(source.times)
    # 2. the key frames, as one batch
    chosen_keys = key_frames(source.changes, keys)
    questions = []
    for number, key in enumerate(chosen_keys, start=1):
        report("asking", number, len(chosen_keys))
        for rgb in source.read(key, key + 1):
            # with words, by which answers can be compared, and things be named
            name = str(source.path), key
            questions.append(Question(rgb, instruction, mode="explain", key=name))
    answers = dict(zip(chosen_keys, engine.segment_batch(questions), strict=True))
    # 3. the best of them
    best = choose_answer(list(answers.values()))
    chosen = None if best is None else chosen_keys[best]
    found = FollowedVideo(source, instruction, answers, chosen, [[] for _ in range(count)])
    if chosen is None:
        return found
    instances = [one for one in answers[chosen].instances if one.area]
    for forwards in (True, False):
        # 4. both ways from it
        follower = make_follower()
        frames = source.read(chosen, count) if forwards else source.backwards(chosen)
        for step, rgb in enumerate(frames):
            index = chosen + step if forwards else chosen - step
            stamp = abs(source.times[index] - source.times[chosen])
            key = (str(source.path), index)
            if step == 0:
                tracks = follower.begin(
                    rgb, stamp=stamp, key=key, instances=instances, instruction=instruction
                )
                found.labels = {t.id: t.label for t in tracks}
            else:
                tracks = follower.update(rgb, stamp=stamp, key=key)
                if follower.fault:  # of a server; a recording can be done again, whole
                    raise ServerUnreachable(f"frame {index} is not followed: {follower.fault}")
            found.masks[index] = [_packed(track) for track in tracks]
            report("following", step + 1 + (0 if forwards else count - chosen), count + 1)
        found.asked_again += follower.asked
    return found


def _packed(track: Track) -> tuple[int, float, str, bytes]:
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(track.mask.astype(np.uint8)))["counts"]
    return track.id, track.score, track.state.value, runs


def write_video(found: FollowedVideo, path: Path, report: Report = lambda *_: None) -> None:
    """The clip with the masks in colours, as MP4 (H.264), or as a small GIF by the file's name.

    Raises:
        WriteError: it cannot be written.
    """
    count = len(found.masks)

    def pictures() -> Iterator[np.ndarray]:
        for index, rgb in enumerate(found.source.read(0, count)):
            report("writing", index + 1, count)
            yield _drawn(rgb, found, index)

    with written_beside(path) as beside:
        if path.suffix.lower() == ".gif":
            _write_gif(beside, pictures(), found.source.rate)
        else:
            _write_mp4(beside, pictures(), found.source.rate)


def _drawn(rgb: np.ndarray, found: FollowedVideo, index: int) -> np.ndarray:
    """A frame as the node's overlay shows an answer, and whether the thing is hidden."""
    from lisa_ros.node.results.overlay import draw_overlay

    hidden = [state for _, _, state, _ in found.masks[index] if state != "visible"]
    said = found.text + (f"  ({hidden[0]})" if hidden else "")
    return draw_overlay(rgb, found.decoded(index), found.instruction, said)


def _write_mp4(path: Path, pictures: Iterator[np.ndarray], rate: float) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if number == 0:
                stream.height, stream.width = even.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_gif(path: Path, pictures: Iterator[np.ndarray], rate: float) -> None:
    step = max(1, round(rate / GIF_RATE))
    frames = []
    for number, picture in enumerate(pictures):
        if number % step == 0:
            height = round(picture.shape[0] * GIF_WIDTH / picture.shape[1])
            small = Image.fromarray(picture).resize((GIF_WIDTH, height), Image.Resampling.LANCZOS)
            frames.append(small.quantize(64, dither=Image.Dither.NONE))
    duration = round(1000 * step / rate)
    frames[0].save(
        path, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0
    )
