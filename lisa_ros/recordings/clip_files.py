"""Clips: their frames read forwards from any place, and clips with masks written.

A clip is a video file, a folder of images or a recording of ROS 2. Frames are never all held:
what is read backwards is read in pieces of MEMORY bytes.
"""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from lisa_ros.errors import ImageError, LisaError, counted
from lisa_ros.image_files import IMAGE_SUFFIXES, read_image
from lisa_ros.writing import written_beside

if TYPE_CHECKING:
    from lisa_ros.recordings.bag import Bag

MEMORY = 128 * 2**20  # bytes of frames held at once
THUMBNAIL = (48, 36)  # width and height at which changes are seen
FOLDER_RATE = 15.0  # frames a second of a folder of images
LARGEST = 64_000_000  # pixels of a frame
LAST_FRAMES = 3  # times the usual time of a frame that the last one may take
SEEKS = (0, 60, 300)  # frames before the wanted one at which it is looked for
GIF_COLORS, GIF_SAMPLES = 255, 48  # of an animation, and the images that they are taken from
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
        """Frames `start` to before `stop` or the end, uint8 (H,W,3) RGB, all of one size.

        Raises:
            VideoError: there are fewer than `scan` found.
        """
        done, stop = start, min(stop, len(self.times))
        for _, (_, rgb) in zip(range(start, stop), self._decode(start), strict=False):
            if rgb.shape[:2] != self.size:
                rgb = cv2.resize(rgb, self.size[::-1], interpolation=cv2.INTER_AREA)
            done += 1
            yield rgb
        if done < stop:
            raise VideoError(
                f"{self.path} gave {counted(len(self.times), 'frame')} at first, and now only"
                f" {done}: leave it as it is while it is read"
            )

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
        """Time and image of every frame from one on; ends where no more can be read."""
        raise NotImplementedError

    def _fault(self, sentence: str) -> None:
        if sentence not in self.faults:
            self.faults.append(sentence)


class FolderFrames(FrameSource):
    """A folder of images, in the order of their names."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)

    def _decode(self, start: int) -> Iterator[tuple[float, np.ndarray]]:
        for image in self.images[start:]:
            try:
                rgb = read_image(image)
            except ImageError as error:
                self._fault(f"an image is left out: {error}")
                self.images = [one for one in self.images if one != image]
                continue
            yield len(self.times) / FOLDER_RATE, rgb


class FileFrames(FrameSource):
    """A video file, by PyAV.

    Where a seek lands depends on the container (in MPEG-TS often behind the frame), and what is
    decoded from there on the codec (an open group of pictures refers to frames before it). So what
    follows a seek is compared with the first pass, frame by frame, and where it is not the same,
    the file is read from its beginning.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stamps: list[int | None] = []  # of every frame, in units of the stream
        self._sums: list[int] = []  # CRC-32 of every image
        self._seekable = False  # every frame has a stamp of its own, higher than that before it
        self._told = ""  # of how many frames the container tells
        self._rate = FOLDER_RATE  # frames a second, as the container tells

    def scan(self, report: Report) -> None:
        super().scan(report)
        stamps = self._stamps
        in_order = None not in stamps and stamps == sorted(stamps)
        # of a cut file the index may be lost
        self._seekable = in_order and len({*stamps}) == len(stamps) and not self.faults
        if not in_order:
            self.times = [number / self._rate for number in range(len(stamps))]
            self.notes.append(f"its frames have no usable times: taken as {self._rate:g} a second")

    def _decode(self, start: int) -> Iterator[tuple[float, np.ndarray]]:
        import av

        first_pass, number = not self.times, start
        # 1. from the key frame before `start`, or a later seek that lands early enough, as long as
        # what comes is what the first pass saw
        for earlier in SEEKS if start and self._seekable else ():
            with (
                suppress(av.error.FFmpegError, EOFError),
                closing(self._frames(self._stamps[max(0, start - earlier)])) as frames,
            ):
                for frame in frames:
                    if frame.pts is not None and frame.pts < self._stamps[start]:
                        continue
                    if number == len(self._stamps) or frame.pts != self._stamps[number]:
                        break
                    rgb = _image(frame)
                    if zlib.crc32(rgb) != self._sums[number]:
                        break
                    number += 1
                    yield frame.time, rgb
            if number == len(self._stamps):
                return
            if number > start:
                break
        # 2. from the beginning, by count
        try:
            for place, frame in enumerate(self._frames()):
                if place < number:
                    continue
                rgb = _image(frame)
                if first_pass:
                    self._stamps.append(frame.pts)
                    self._sums.append(zlib.crc32(rgb))
                yield frame.time or 0.0, rgb
        except (av.error.FFmpegError, EOFError) as error:
            if not self._stamps:
                raise VideoError(f"{self.path} cannot be read as video: {_reason(error)}") from None
            done = f"{counted(len(self._stamps), 'frame')}{self._told}"
            self._fault(f"it breaks off after {done} ({_reason(error)})")

    def _frames(self, stamp: int | None = None) -> Iterator[Any]:
        """PyAV's frames, from the beginning or from where a seek to `stamp` lands."""
        import av

        first_pass, packets = not self.times, 0
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise VideoError(f"{self.path} holds no video, only other streams")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise VideoError(f"{self.path}: there is no decoder for its video stream here")
                stream.thread_type = "AUTO"
                if stamp is not None:
                    container.seek(stamp, stream=stream)
                self._told = f" of {stream.frames}" if stream.frames else ""
                self._rate = float(stream.average_rate or FOLDER_RATE)
                for packet in container.demux(stream):
                    packets += packet.dts is not None  # the last one only empties the decoder
                    yield from packet.decode()
                if self._stamps and first_pass:
                    self._compare(container, packets)
        except av.error.DecoderNotFoundError as error:
            raise VideoError(
                f"{self.path}: there is no decoder for its video stream: {error}"
            ) from None

    def _compare(self, container: Any, packets: int) -> None:
        """What was read with what the container tells of: a file may end without an error."""
        import av

        stream = container.streams.video[0]
        done = f"it breaks off after {counted(len(self._stamps), 'frame')}"
        if packets < stream.frames and "mp4" not in container.format.name:  # may leave some out
            self._fault(done + self._told)
            return
        told, end = 0.0, (len(self._stamps) - 1) / self._rate
        if None not in self._stamps:
            end = float(max(self._stamps) * stream.time_base)
        if "DURATION" in stream.metadata:  # Matroska's: "00:01:02.500"
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            told = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        elif stream.duration:
            told = float((stream.duration + max(0, stream.start_time or 0)) * stream.time_base)
        elif container.duration and len(container.streams) == 1:
            start = 0 if container.format.name == "flv" else max(0, container.start_time or 0)
            told = (container.duration + start) / av.time_base  # FLV's counts from zero
        if told - end > LAST_FRAMES / self._rate:
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


def _image(frame: Any) -> np.ndarray:
    """A phone's video is stored lying, with the turn that makes it upright beside it."""
    rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, round(getattr(frame, "rotation", 0) / 90)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def open_frames(path: Path, topic: str = "") -> Iterator[FrameSource]:
    """The frames of a video file, a folder of images, or a recording of ROS 2.

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
            yield BagFrames(bag, choose_camera(bag, topic, (), "--topic"))
    elif path.is_dir():
        source = FolderFrames(path)
        if not source.images:
            raise VideoError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        yield source
    else:
        yield FileFrames(path)


def write_mp4(path: Path, images: Iterable[np.ndarray], rate: float) -> None:
    """Images uint8 (H,W,3) RGB as H.264, with even sides as it must have.

    Raises:
        WriteError: it cannot be written.
    """
    import av

    with written_beside(path) as beside, av.open(str(beside), "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
            if number == 0:
                stream.height, stream.width = even.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_gif(path: Path, images: Sequence[np.ndarray], durations: Sequence[int]) -> None:
    """Images uint8 (H,W,3) RGB, each for so many milliseconds, over and over.

    One palette for all, so that what stands still costs nothing. A colour counts by the root of
    its pixels: a carrot is small beside a table.

    Raises:
        WriteError: it cannot be written.
    """
    samples = images[:: -(-len(images) // GIF_SAMPLES)]
    packed = (np.stack(samples) & 0xFC).astype("<u4") @ np.array([1, 2**8, 2**16], "<u4")
    colors, counts = np.unique(packed, return_counts=True)
    weighed = np.repeat(colors, np.ceil(np.sqrt(counts)).astype(int))
    swatches = Image.fromarray(weighed.view(np.uint8).reshape(1, -1, 4)[..., :3])
    palette = swatches.quantize(GIF_COLORS, Image.Quantize.MEDIANCUT, kmeans=2)
    first, *others = (
        Image.fromarray(one).quantize(palette=palette, dither=Image.Dither.NONE) for one in images
    )
    look = {"append_images": others, "duration": [*durations], "loop": 0}
    with written_beside(path) as beside:
        first.save(beside, format="GIF", save_all=True, **look)
