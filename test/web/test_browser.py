"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_rig import Rig, drawn_image
from playwright.sync_api import Browser, Page, sync_playwright
from web_rig import HEIGHT, LIMIT, WIDTH

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
)
PHONE = {"width": 360, "height": 740}

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="there is no /usr/bin/chromium: `make system-packages` brings it"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, ready and with a live image; nothing goes wrong in its script."""
    made = browser.new_page()
    faults: list[str] = []
    made.set_default_timeout(LIMIT * 1000)
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    made.goto(f"http://{address}/")
    made.wait_for_selector("#state[data-level=good]")
    until(lambda: frames(made) > 2, "live images")
    yield made
    made.close()
    assert faults == []


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


def frames(page: Page) -> int:
    """Live images that were drawn."""
    return int(page.evaluate("document.querySelector('#live').dataset.frames ?? 0"))


def ask(page: Page, instruction: str, status: str) -> None:
    """Type and press Enter; wait for the end of the answer."""
    count = page.locator(".turn").count()
    page.fill("#instruction", instruction)
    page.press("#instruction", "Enter")
    page.locator(".turn").nth(count).wait_for()
    page.wait_for_selector(f"li:nth-child({count + 1}) .turn[data-status={status}]")


def pixel(page: Page, x: float, y: float, canvas: str = "#still") -> list[int]:
    """The colour of the shown answer, or the live image, at a part of its width and height."""
    script = """([x, y, canvas]) => { const c = document.querySelector(canvas);
        return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data]; }"""
    return page.evaluate(script, [x, y, canvas])


def test_a_question_by_keyboard_alone(page: Page, tmp_path: Path) -> None:
    page.keyboard.type("the red mug long:20")
    page.keyboard.press("Enter")
    turn = page.locator(".turn")
    page.wait_for_selector(".turn[data-status=OK]")
    assert "Sure, it is here." in turn.inner_text() and "word19" in turn.inner_text()
    # the answered image has the camera's size; its masks' edges are painted, the live one goes on
    assert page.evaluate("[document.querySelector('#still').width, 0][0]") == WIDTH
    assert pixel(page, 0.25, 0.5)[:3] == [230, 60, 60]
    seen = frames(page)
    until(lambda: frames(page) > seen, "the live image beside the answer")
    # what was found is a button that says what is known
    thing = page.locator("#things button")
    assert thing.inner_text().split() == ["it", "score", "0.90"]
    page.locator("#save-json").focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / "answer.json")
    saved = json.loads((tmp_path / "answer.json").read_text())
    assert saved["query"] == "the red mug long:20" and saved["instances"][0]["area"] > 0
    with page.expect_download() as download:
        page.click("#save-png")
    download.value.save_as(tmp_path / "overlay.png")
    from PIL import Image

    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size == (WIDTH, HEIGHT)
        assert overlay.getpixel((WIDTH // 4, HEIGHT // 2))[:3] == (230, 60, 60)
    page.keyboard.press("/")
    page.keyboard.press("ArrowUp")
    assert page.locator("#instruction").input_value() == "the red mug long:20"
    page.keyboard.press("Escape")
    assert page.locator("#still").is_hidden()


def test_what_is_pointed_at_is_told(page: Page) -> None:
    ask(page, "several", "OK")
    box = page.locator("#still").bounding_box()  # the image fills its height, not its width
    for x, y, label in ((0.5, 0.5, "the left one"), (0.5, 0.25, "the right one")):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        # the smaller mask lies on top of the larger one
        page.wait_for_selector(f"#tip:has-text('{label}')")
        assert "score 0.90" in page.locator("#tip").inner_text()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.wait_for_selector("#tip", state="hidden")


def test_words_are_never_html(page: Page) -> None:
    words = "<script>document.title='x'</script><img src=x onerror=\"document.title='x'\"> words"
    ask(page, words, "TEXT_ONLY")
    assert page.locator(".turn .asked").inner_text() == words
    assert page.locator(".turn img, .turn script").count() == 0
    assert page.title() != "x"


def test_sentences_instead_of_silence(page: Page) -> None:
    page.press("#instruction", "Enter")
    assert "Type an instruction" in page.locator("#notice").inner_text()
    page.click("#save-png", force=True)  # it is off, and says why
    assert "Ask something first" in page.locator("#notice").inner_text()
    page.fill("#instruction", "y" * 30_000)
    page.press("#instruction", "Enter")
    assert "30000 characters" in page.locator("#notice").inner_text()
    ask(page, "x" * 10_000, "REJECTED")
    fault = page.locator(".turn .fault").inner_text()
    assert "1000" in fault and fault.startswith("Refused. The instruction")
    page.fill("#instruction", "endless")
    page.press("#instruction", "Enter")
    page.wait_for_selector(".turn[data-open=true]")
    page.click("#stop")
    page.wait_for_selector(".turn[data-status=CANCELLED]")
    for button in page.locator("button").all():
        assert (button.inner_text() or button.get_attribute("aria-label")).strip() or (
            button.is_hidden()
        )


def test_the_microphone_of_the_browser(page: Page) -> None:
    """Chromium's own pretended one beeps: a sentence, and nothing is asked."""
    page.click("#speak")
    page.wait_for_selector("#speak[aria-pressed=true]")
    time.sleep(1.0)
    page.click("#speak")
    page.wait_for_selector("#notice:has-text('again')")
    assert page.locator(".turn").count() == 0
    assert page.locator("#speak").get_attribute("aria-pressed") == "false"


def test_a_phone_in_the_dark_needs_no_sideways_scrolling(browser: Browser, address: str) -> None:
    phone = browser.new_page(viewport=PHONE, color_scheme="dark", has_touch=True, is_mobile=True)
    phone.set_default_timeout(LIMIT * 1000)
    phone.goto(f"http://{address}/")
    phone.wait_for_selector("#state[data-level=good]")
    until(lambda: frames(phone) > 2, "live images")
    ask(phone, "the red mug", "OK")
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#still", "#instruction", "#send", "#mode", "#stop", "#anew"):
        box = phone.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name
        assert box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"], name
    ask(phone, "several", "OK")
    view, talk = (phone.locator(name).bounding_box() for name in ("#view", "#talk"))
    assert view["y"] + view["height"] <= talk["y"], "the image and its buttons cover the dialogue"
    image, stage = (phone.locator(name).bounding_box() for name in ("#still", "#stage"))
    assert image["height"] <= stage["height"], "the image is cut off"
    for button in phone.locator("button:visible, select:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], button.inner_text()
    back = phone.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == "rgb(20, 22, 26)"
    box = phone.locator("#still").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    phone.wait_for_selector("#tip:has-text('score 0.90')")
    phone.close()


def blue_thing(x: int) -> np.ndarray:
    """A blue box on grey with its left edge at x, which the fake tracker knows by its colour."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[30:90, x : x + 80] = 0, 0, 255
    return image


def test_a_mask_moves_with_the_live_image(page: Page, robot: Rig) -> None:
    seen = frames(page)
    robot.film(15.0, blue_thing(40), anew=False)
    until(lambda: frames(page) > seen + 10, "the blue thing")
    ask(page, "it", "OK")
    page.click("#follow")
    page.wait_for_selector("#badge:has-text('following it')")
    edge = [230, 60, 60]
    until(lambda: pixel(page, 40 / WIDTH, 0.5, "#live")[:3] == edge, "the mask on the thing")
    robot.film(15.0, blue_thing(70), anew=False)
    until(lambda: pixel(page, 70 / WIDTH, 0.5, "#live")[:3] == edge, "the mask to move along")
    assert page.locator("#things button").count() == 1
    page.click("#follow")
    page.wait_for_selector("#notice:has-text('Following has ended: the client ended it')")
    until(lambda: pixel(page, 70 / WIDTH, 0.5, "#live")[0] < 120, "a live image without mask")
    robot.film(15.0, drawn_image(WIDTH, HEIGHT), anew=False)


def test_what_a_voice_asks_is_shown_too(page: Page, robot: Rig) -> None:
    robot.say("the red mug, said a voice")
    page.wait_for_selector(".turn[data-status=OK]:has-text('asked elsewhere')")
    assert "said a voice" in page.locator(".turn").inner_text()
    page.wait_for_selector("#things button")
    assert pixel(page, 0.25, 0.5)[:3] == [230, 60, 60]


def test_the_page_comes_back_with_the_node(page: Page, robot: Rig) -> None:
    page.fill("#instruction", "endless")
    page.press("#instruction", "Enter")
    page.wait_for_selector(".turn[data-open=true]")
    next(process for process in robot.processes if process.alive).stop()
    page.wait_for_selector("#state[data-level=bad]")
    page.wait_for_selector(".turn[data-open=false]")
    assert page.locator(".turn .fault").inner_text()
    # until then it says that the node has been shut down, as the node itself did
    until(lambda: "no perception node" in page.locator("#why").inner_text(), "that it is gone")
    robot.start()
    page.wait_for_selector("#state[data-level=good]")
    seen = frames(page)
    until(lambda: frames(page) > seen + 2, "live images")
    ask(page, "the red mug", "OK")


def test_why_no_image_comes_stands_where_it_is_missed(page: Page, robot: Rig) -> None:
    robot.cut()
    page.wait_for_selector("#why:not([hidden])")
    assert "image" in page.locator("#why").inner_text()
    robot.film(15.0, drawn_image(WIDTH, HEIGHT))
    page.wait_for_selector("#why", state="hidden")
