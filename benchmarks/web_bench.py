"""The page beside its promises: Enter to overlay, live images, processor time, a restarted node.

    PYTHONPATH=test python -m benchmarks.web_bench [--write docs/web.md]

A node with nano, a raw camera of 640x480 at 30 images a second, the web process, and two pages in
headless Chromium, all on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import psutil
from node_rig import Process, wait_for
from node_rig import rig as made_rig
from playwright.sync_api import Browser, Page, sync_playwright
from web_rig import start_web

from benchmarks.generated_tables import page_option, show
from lisa_ros.demo.recorded_camera import IMAGE, read_questions, read_recording
from lisa_ros.text_tables import markdown_table

DESKTOP = {"width": 1280, "height": 800}
CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
CAMERA_RATE, SECONDS, QUESTIONS, RESTARTS = 30.0, 10.0, 20, 3
LIMIT = 120.0


def processor_seconds(process: Process) -> float:
    """Processor time that a process has used so far, all its threads."""
    times = psutil.Process(process.process.pid).cpu_times()
    return times.user + times.system


def frames(page: Page) -> int:
    return int(page.evaluate("document.querySelector('#live').dataset.frames ?? 0"))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's own, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, link: str, **look: object) -> Page:
    """The page, of the desktop's size unless `look` says otherwise, when it shows the camera."""
    page = browser.new_page(**{"viewport": DESKTOP, **look})
    page.set_default_timeout(LIMIT * 1000)
    page.goto(link)
    page.wait_for_selector("#state[data-level=good]")
    wait_for(lambda: frames(page) > 5, "live images", LIMIT)
    return page


def overlay_overheads(page: Page, instruction: str) -> list[float]:
    """Milliseconds from Enter to the painted mask, less those that the node took to the mask."""
    overheads = []
    for number in range(1, QUESTIONS + 1):
        page.fill("#instruction", instruction)
        page.press("#instruction", "Enter")
        page.wait_for_selector(f"li:nth-child({number}) .turn[data-status=OK][data-overlay]")
        data = page.evaluate("({...[...document.querySelectorAll('.turn')].at(-1).dataset})")
        overheads.append(float(data["overlay"]) - float(data["firstMask"]))
    return overheads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    page_option(parser, "--write", "web")
    args = parser.parse_args()
    recorded = read_recording()[0]
    question = next(one for one in read_questions() if one.seed == recorded.seed)
    data = np.asarray(recorded.frames[0][IMAGE].data, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]  # (480, 640, 3) RGB
    rows: list[list[str]] = []
    with made_rig() as robot, chromium() as browser:
        robot.film(CAMERA_RATE, np.ascontiguousarray(pixels))
        command = [sys.executable, "-m", "lisa_ros.cli", "node"]
        node = robot.start(command=command, seconds=LIMIT)
        web, link = start_web(robot)
        pages = [open_page(browser, link) for _ in range(2)]
        before, used, begin = [frames(one) for one in pages], processor_seconds(web), time.time()
        time.sleep(SECONDS)
        elapsed = time.time() - begin
        share = (processor_seconds(web) - used) / elapsed
        rates = [(frames(one) - old) / elapsed for one, old in zip(pages, before, strict=True)]
        rows.append(["live images a second, the slower of two pages", f"{min(rates):.1f}", "10"])
        rows.append(["processor time of the web process, cores", f"{share:.2f}", "0.5"])
        overheads = sorted(overlay_overheads(pages[0], question.instruction))
        middle, high = statistics.median(overheads), overheads[int(0.95 * len(overheads))]
        text = f"median {middle:.0f}, 95 % {high:.0f}"
        rows.insert(0, ["Enter to overlay less the node's time to the mask, ms", text, "150"])
        waits = []
        for _ in range(RESTARTS):
            node.stop()
            pages[0].wait_for_selector("#state[data-level=bad]")
            node = robot.start(command=command, seconds=LIMIT)
            begin, seen = time.time(), frames(pages[0])
            pages[0].wait_for_selector("#state[data-level=good]")
            wait_for(lambda seen=seen: frames(pages[0]) > seen, "live images", LIMIT)
            waits.append(time.time() - begin)
        text = f"{statistics.median(waits):.1f}, longest {max(waits):.1f}"
        rows.append(["from the restarted node's readiness to a page that is ready, s", text, "3"])
    show(markdown_table(["what", "measured", "promised"], rows), args.write, "web")


if __name__ == "__main__":
    main()
