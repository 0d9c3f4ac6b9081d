"""The images of the page: docs/images/web.gif, web_desktop.jpg and web_phone.jpg.

    PYTHONPATH=test python -m benchmarks.web_images [docs/images]

`lisa-ros web --demo` in headless Chromium, asked about its own tables.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np
from node_rig import Process, wait_for
from PIL import Image
from playwright.sync_api import Page
from web_rig import link_of

from benchmarks.web_bench import LIMIT, chromium, frames, open_page
from lisa_ros.recordings.clip_files import write_gif
from lisa_ros.writing import writable_folder, written_beside

PHONE = {"width": 390, "height": 844}
SMALL = (640, 400)  # of the GIF
STILL = (960, 600)  # of the desktop's image
SHOT_PERIOD = 0.2  # seconds between two images of the GIF
PENCILS, MUG = (
    "What can I press flat so that all the water drips out?",
    "Pass me the banana, please.",
)
"""questions of the demonstration, by which a table is found"""
SEVERAL = "What can I write with?"
REASON = "In case there is an object that was once part of a tree at the very back, segment it."
USE = "What can I drink tea from?"


class Screencast:
    """Takes screenshots of a page, to be one GIF."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._shots: list[np.ndarray] = []
        self._durations: list[int] = []

    def shoot(self, seconds: float = SHOT_PERIOD) -> None:
        """One image, which stays so long."""
        shot = Image.open(io.BytesIO(self._page.screenshot())).convert("RGB")
        self._shots.append(np.asarray(shot.resize(SMALL, Image.Resampling.LANCZOS)))
        self._durations.append(round(1000 * seconds))

    def roll(self, seconds: float) -> None:
        """Images for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            self.shoot()
            self._page.wait_for_timeout(1000 * max(0.0, SHOT_PERIOD - (time.monotonic() - begin)))

    def save(self, path: Path) -> None:
        write_gif(path, self._shots, self._durations)


def to_table(page: Page, instruction: str) -> None:
    """The table of this question, with the camera showing it."""
    button = page.locator("#suggestions button", has_text=instruction)
    while not button.count():
        page.click("#next-table")
        page.wait_for_timeout(500)
    seen = frames(page)
    wait_for(lambda: frames(page) > seen + 5, "live images", LIMIT)


def answered(page: Page, number: int) -> None:
    page.wait_for_selector(f"li:nth-child({number}) .turn[data-open=false]")


def point(page: Page) -> None:
    """Onto the first thing that was found: the pixel of its edge that is nearest to its middle."""
    box = page.locator("#still").bounding_box()
    x, y = page.evaluate(
        """() => {
            const c = document.querySelector('#still'), found = [];
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            for (let p = 0; p < d.length; p += 4)
                if (d[p] === 230 && d[p + 1] === 60 && d[p + 2] === 60)
                    found.push([(p / 4) % c.width, Math.floor(p / 4 / c.width)]);
            const mean = (i) => found.reduce((sum, one) => sum + one[i], 0) / found.length;
            const middle = [mean(0), mean(1)];
            const far = (one) => Math.hypot(one[0] - middle[0], one[1] - middle[1]);
            const [x, y] = found.reduce((best, one) => far(one) < far(best) ? one : best);
            return [(x + 0.5) / c.width, (y + 0.5) / c.height];
        }"""
    )
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    page.wait_for_selector("#tip:not([hidden])")


def desktop(page: Page, folder: Path) -> None:
    """The GIF, and the image of two questions."""
    to_table(page, PENCILS)
    film = Screencast(page)
    film.roll(1.0)
    for letter in range(0, len(SEVERAL), 3):
        page.locator("#instruction").press_sequentially(SEVERAL[letter : letter + 3])
        film.shoot(0.1)
    film.shoot(0.6)
    page.press("#instruction", "Enter")
    while not page.locator(".turn[data-open=false]").count():
        film.shoot()
    answered(page, 1)
    film.shoot(0.8)
    point(page)
    film.shoot(2.0)
    page.click("#follow")
    page.wait_for_selector("#badge:has-text('following')")
    film.roll(4.0)
    film.save(folder / "web.gif")
    page.click("#follow")
    page.wait_for_selector("#follow[aria-pressed=false]")
    page.locator(".turn").first.click()
    page.select_option("#mode", "explain")
    page.fill("#instruction", REASON)
    page.press("#instruction", "Enter")
    answered(page, 2)
    page.evaluate("document.querySelector('#notice').hidden = true")
    point(page)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    with written_beside(folder / "web_desktop.jpg") as beside:
        shot.resize(STILL, Image.Resampling.LANCZOS).save(beside, format="JPEG", quality=88)


def phone(page: Page, folder: Path) -> None:
    to_table(page, MUG)
    page.fill("#instruction", USE)
    page.locator("#send").tap()
    answered(page, 1)
    page.wait_for_timeout(300)
    with written_beside(folder / "web_phone.jpg") as beside:
        beside.write_bytes(page.screenshot(type="jpeg", quality=88))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    folder = writable_folder(parser.parse_args().folder)
    command = [sys.executable, "-m", "lisa_ros.cli", "web", "--demo", "--port", "0"]
    process = Process(command, 0)  # the demonstration has a ROS domain of its own
    try:
        link = link_of(process)
        with chromium() as browser:
            page = open_page(browser, link)
            desktop(page, folder)
            page.close()
            look = {"color_scheme": "dark", "has_touch": True, "is_mobile": True}
            phone(open_page(browser, link, viewport=PHONE, **look), folder)
    finally:
        process.stop()


if __name__ == "__main__":
    main()
