"""A small animation for a page that cannot show a video."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lisa_ros.errors import LisaError

SIZE, COLORS = (800, 450), 255


class Gif:
    """Takes the pictures of a film, every other one of what moves.

    The pictures of one trial share their colours, so that what stands still costs nothing.

    Args:
        rate: pictures per second of the film.
    """

    def __init__(self, rate: float) -> None:
        self._period = 1000 / rate
        self._done: list[Image.Image] = []
        self._trial: list[Image.Image] = []
        self._durations: list[int] = []

    def add(self, picture: Image.Image, times: int) -> None:
        """The next picture; it stays for `times` periods of the film."""
        single = round(self._period)
        if times == 1 and self._trial and self._durations[-1] == single:
            self._durations[-1] = round(2 * self._period)
            return
        self._trial.append(picture.resize(SIZE, Image.Resampling.LANCZOS))
        self._durations.append(round(times * self._period))

    def cut(self) -> None:
        """The trial is over: reduce its pictures to its own colours."""
        if not self._trial:
            return
        samples = [self._trial[index] for index in (0, len(self._trial) // 2, -1)]
        strip = Image.new("RGB", (SIZE[0], SIZE[1] * len(samples)))
        for row, sample in enumerate(samples):
            strip.paste(sample, (0, row * SIZE[1]))
        # an octree keeps small patches of a colour of their own, such as the mask
        palette = strip.quantize(COLORS, method=Image.Quantize.FASTOCTREE)
        self._done += [
            picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in self._trial
        ]
        self._trial = []

    def save(self, path: Path) -> None:
        """Write what there is; it runs for ever.

        Raises:
            LisaError: it cannot be written.
        """
        self.cut()
        first, *others = self._done
        try:
            first.save(path, save_all=True, append_images=others, duration=self._durations, loop=0)
        except OSError as error:
            raise LisaError(f"cannot write {path}: {error}") from error
