"""The web page's server as its pages and strangers meet it: a node, a camera, one web process."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import re
import ssl
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from lisa_ros.msg import Instance, Segmentation
from node_rig import Process, Rig, drawn_image, wait_for
from sensor_msgs.msg import CompressedImage
from web_rig import HEIGHT, LIMIT, WIDTH, Visitor, start_web, visit
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lisa_ros.cli import main
from lisa_ros.node.status import Status
from lisa_ros.web.node_client import GONE, instance_json
from lisa_ros.web.pages import Page


def fetch(
    address: str, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(address, timeout=LIMIT)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read().decode()


def runs_of(text: str) -> tuple[list[int], np.ndarray]:
    """A mask out of COCO's run lengths, written here once more as its definition has it."""
    mask = json.loads(text)
    counts, runs, at = mask["counts"], [], 0
    while at < len(counts):
        value = shift = 0
        while True:
            bits = ord(counts[at]) - 48
            at += 1
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                break
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    return mask["size"], flat.reshape(mask["size"][::-1]).T


def test_a_question_brings_image_mask_and_words(address: str) -> None:
    with visit(address) as page:
        page.next("live")
        answer = page.answer("the red mug long:30")
        assert (answer["status"], answer["error"]) == ("OK", "")
        assert answer["answer"].startswith("Sure, it is here.") and "word29" in answer["answer"]
        [one] = answer["instances"]
        size, mask = runs_of(one["mask"])
        assert size == [HEIGHT, WIDTH] and mask.sum() == one["area"]
        x, y, width, height = one["box"]
        assert mask[y : y + height, x : x + width].all()
        kinds = page.kinds
        # the mask is there before the words are finished, and its image before the mask
        assert kinds.index("image") < kinds.index("progress") < kinds.index("answer")
        early = next(m for m, _ in page.heard if m["type"] == "progress" and m["instances"])
        assert early["instances"][0]["mask"] == one["mask"] and "word29" not in early["text"]
        [jpeg] = [jpeg for message, jpeg in page.heard if message["type"] == "image"]
        assert jpeg.startswith(b"\xff\xd8")


def test_two_pages_ask_at_once_and_each_hears_its_own(address: str) -> None:
    with visit(address) as one, visit(address) as other:
        first, second = one.ask("words long:20"), other.ask("nothing long:20")
        assert one.next("answer", ask=first)["status"] == "TEXT_ONLY"
        assert other.next("answer", ask=second)["status"] == "NOT_FOUND"
        for page, words in ((one, "words long:20"), (other, "nothing long:20")):
            assert {m["query"] for m, _ in page.heard if m["type"] == "answer"} == {words}


def test_instructions_that_are_no_instructions(address: str) -> None:
    with visit(address) as page:
        script = "<script>alert(1)</script> words"
        assert page.answer(script)["query"] == script
        long = page.answer("x" * 10_000)
        assert long["status"] == "REJECTED" and "1000" in long["error"]
        assert page.answer("\x00\ud800 words")["type"] == "answer"
        empty = page.answer("")
        assert empty["status"] == "REJECTED" and empty["error"]


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ("no JSON {", "does not understand this page"),
        ("[1]", "does not understand this page"),
        ('{"type": ["ask"]}', "does not understand this page"),
        ('{"type": "ask", "ask": "1", "mode": "auto"}', "`ask` must be of the type int"),
        ('{"type": "ask", "ask": -1, "mode": "auto"}', "`ask` must lie in"),
        ('{"type": "ask", "mode": "sing"}', "the mode must be one of auto, mask"),
        ('{"type": "follow", "instance_id": 70000}', "`instance_id` must lie in"),
        ("[" * 30_000, "does not understand this page"),
        ("", "does not understand this page"),
        (b"\xff\x00", "does not understand this page"),
    ],
)
def test_messages_that_no_page_sends(address: str, sent: str | bytes, sentence: str) -> None:
    with visit(address) as page:
        page.socket.send(sent)
        assert sentence in page.next("fault")["error"]
        assert page.answer("words")["status"] == "TEXT_ONLY"


def test_a_page_that_floods_is_told_and_one_that_sends_too_much_is_cut_off(address: str) -> None:
    with visit(address) as page:
        for _ in range(60):
            page.send(type="stop")
        assert "too many messages" in page.next("fault")["error"]
        page.socket.send("x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            page.next("never")
        assert closed.value.rcvd.code == 1009
    with visit(address) as page:
        assert page.answer("words")["status"] == "TEXT_ONLY"


def test_more_questions_than_a_page_may_have_open(address: str) -> None:
    with visit(address) as page:
        numbers = [page.ask("endless") for _ in range(5)]
        assert "4 questions open" in page.next("failed", ask=numbers[-1])["error"]
        page.send(type="stop")
        ended = {page.next("answer")["status"] for _ in numbers[:-1]}
        assert ended == {"CANCELLED"}


def test_a_page_that_is_closed_takes_its_question_back(address: str, robot: Rig) -> None:
    with visit(address) as page:
        number = page.ask("endless goodbye")
        page.next("progress", ask=number)
    wait_for(
        lambda: any(
            one.query == "endless goodbye" and one.status == Status.CANCELLED
            for one in robot.results
        ),
        "the end of the question",
        LIMIT,
    )


def test_a_slow_page_sees_less_and_not_later(address: str) -> None:
    with visit(address) as page:
        page.next("live")
        page.next("live")
        # not one of them is confirmed: no third is sent, but all else is
        for _ in range(10):
            assert page.answer("words")["status"] == "TEXT_ONLY"
        assert page.kinds.count("live") == 2
        page.send(type="drawn")
        page.next("live")


def test_a_page_that_sleeps_all_night_is_not_waited_for() -> None:
    """Its connection lasts, it takes nothing, and others go on asking."""
    page = Page()
    page.put("answer 1", {"type": "answer", "ask": 1})
    for number in range(5_000):
        page.put(f"overheard {number}", {"type": "overheard", "number": number}, b"JPEG")
        page.put("live", {"type": "live"}, b"JPEG")
        page.put("state", {"type": "state"})
    sent: list[dict] = []

    class Socket:
        async def send_text(self, text: str) -> None:
            sent.append(json.loads(text))

        async def send_bytes(self, data: bytes) -> None:
            sent.append(json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")]))

    with contextlib.suppress(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(page.send_all(Socket()), 1.0))
    kinds = [message["type"] for message in sent]
    assert kinds.count("answer") == kinds.count("live") == kinds.count("state") == 1
    numbers = [message["number"] for message in sent if message["type"] == "overheard"]
    assert len(numbers) < 20 and numbers[-1] == 4_999


def test_a_hidden_page_is_sent_no_images(address: str) -> None:
    with visit(address) as page:
        page.next("live")
        page.send(type="drawn")
        page.send(type="watch", on=False)
        page.answer("words")
        seen = page.kinds.count("live")
        for _ in range(10):
            page.answer("words")
        assert page.kinds.count("live") <= seen + 1
        page.send(type="watch", on=True)
        page.next("live")


def test_strangers_are_told_why_they_are_not_let_in(address: str) -> None:
    for origin in ("https://evil.example", f"http://{address}.evil.example", "null", "http://["):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{address}/socket", origin=origin)
        assert refused.value.response.status_code == 403
        status, _, text = fetch(address, "/speech", "POST", b"", Origin=origin)
        assert status == 403 and "comes from another page" in text
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "[", ""):
        status, _, text = fetch(address, Host=host)
        assert status == 403 and "to this machine alone" in text
    assert fetch(address, Host="localhost:8080")[0] == 200
    with connect(f"ws://{address}/socket", origin=f"http://{address}"):
        pass


def test_the_page_loads_nothing_from_elsewhere(address: str) -> None:
    for path in ("/", "/page.css", "/page.js"):
        status, headers, text = fetch(address, path)
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        assert not re.search(r"(src|href)\s*=\s*[\"']?https?:|url\(|import\s|innerHTML", text)
    assert fetch(address, "/nothing")[0] == 404
    assert fetch(address, "/../pages.py")[0] == 404


def wav(rate: int, channels: int, samples: int) -> bytes:
    """A silent recording."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(bytes(2 * channels * samples))
    return file.getvalue()


@pytest.mark.parametrize(
    ("recording", "status", "sentence"),
    [
        (wav(16_000, 1, 16_000), 200, "Nothing was understood"),
        (wav(8_000, 2, 8_000), 200, "Nothing was understood"),
        (wav(16_000, 1, 0), 422, "the recording has no sound in it"),
        (wav(16_000, 1, 16_000)[:-16_000], 422, "the recording is cut off: 0.5 s of the 1.0 s"),
        (wav(4_000, 1, 4_000), 422, "4000 samples a second cannot be used"),
        (b"no sound", 422, "the recording is no WAV file"),
        (b"", 422, "the recording is no WAV file"),
        (bytes(5 * 2**20), 413, "the recording is too long"),
    ],
    ids=["silence", "8 kHz stereo", "zero length", "cut off", "4 kHz", "text", "nothing", "long"],
)
def test_recordings_that_say_nothing(
    address: str, recording: bytes, status: int, sentence: str
) -> None:
    answered, _, text = fetch(address, "/speech", "POST", recording)
    assert answered == status and sentence in json.loads(text)["error"]


def test_no_camera_is_told_with_its_reason(address: str, robot: Rig) -> None:
    with visit(address) as page:
        robot.cut()
        while not page.state["camera"]:
            page.next("state")
        assert page.state["ready"] and "image" in page.state["camera"]
        assert "image" in page.answer("it")["error"]
        robot.film(15.0, drawn_image(WIDTH, HEIGHT))
        page.until("camera", "")


def test_a_node_that_goes_away_in_the_middle_and_comes_back(address: str, robot: Rig) -> None:
    with visit(address) as page:
        number = page.ask("endless")
        page.next("progress", ask=number)
        node = next(process for process in robot.processes if process.alive)
        node.process.kill()
        assert page.next("failed", ask=number)["error"] == GONE
        page.until("ready", False)
        assert "no perception node answers as /lisa/perception" in page.state["node"]
        assert "no perception node" in page.answer("the mug")["error"]
        robot.start("-p", "input.warn_after:=1.0")
        page.until("ready", True)
        page.until("camera", "")
        # on a busy machine the newest image may be too old by now: that is no answer yet
        wait_for(lambda: page.answer("the mug")["status"] == "OK", "an answer of the new node")


def test_a_compressed_camera_is_shown_as_it_came(robot: Rig) -> None:
    """JPEG in, the same JPEG out; a node of another name, in another namespace."""
    import cv2

    pixels = cv2.imencode(".jpg", drawn_image(WIDTH, HEIGHT, seed=5))[1].tobytes()
    topic = "/other/image/compressed"
    publisher = robot.do(lambda: robot.node.create_publisher(CompressedImage, topic, 5))
    command = [sys.executable, str(Path(__file__).parents[1] / "fake_engine.py"), "--ros-args"]
    words = "-r __ns:=/other -p input.transport:=compressed"
    other = Process([*command, *words.split()], robot.domain)
    robot.processes.append(other)
    process, link = start_web(robot, "--namespace", "/other")
    with connect(f"ws://{link.removeprefix('http://')}socket", max_size=None) as socket:
        page = Visitor(socket)
        page.until("ready", True)
        stop = time.monotonic() + LIMIT
        while "live" not in page.kinds:
            assert time.monotonic() < stop
            message = CompressedImage(format="jpeg", data=pixels)
            message.header.stamp = robot.node.get_clock().now().to_msg()
            publisher.publish(message)
            page.send(type="drawn")
            page.next("state", "live", "fault")
        assert page.heard[-1][1] == pixels
    assert process.stop() == 0 and other.stop() == 0


def test_others_need_the_token(robot: Rig) -> None:
    process, link = start_web(robot, "--host", "0.0.0.0", "--tls")
    found = re.fullmatch(r"https://([\d.]+|\S+):(\d+)/\?token=(\S+)", link)
    assert found and "▄" in process.log  # the QR code
    port, token = int(found[2]), found[3]
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    shown = re.search(r"SHA-256 of its certificate: (\S+)", process.log)[1]

    def get(path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
        made = http.client.HTTPSConnection("127.0.0.1", port, context=trusting, timeout=LIMIT)
        made.request("GET", path, headers=headers)
        reply = made.getresponse()
        return reply.status, reply.headers, reply.read().decode()

    import hashlib

    pem = ssl.get_server_certificate(("127.0.0.1", port))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    assert shown.replace(":", "") == digest

    for path, headers in (("/", {}), ("/page.js", {}), ("/", {"Cookie": "§=;;,"})):
        status, _, text = get(path, **{k: v.encode() for k, v in headers.items()})
        assert status == 401 and "needs the link" in text
    status, _, text = get("/?token=wrong")
    assert status == 401 and "not the present one" in text
    status, headers, _ = get(f"/?token={token}")
    assert status == 303 and headers["Location"] == "/"
    cookie = headers["Set-Cookie"]
    assert {"httponly", "secure", "samesite=lax"} <= {
        part.strip().lower() for part in cookie.split(";")
    }
    kept = cookie.split(";")[0]
    assert get("/", Cookie=kept)[0] == 200
    place = f"wss://127.0.0.1:{port}/socket"
    with pytest.raises(InvalidStatus):
        connect(place, ssl=trusting)
    with connect(place, ssl=trusting, additional_headers={"Cookie": kept}) as socket:
        assert json.loads(socket.recv(timeout=LIMIT))["type"] == "state"
    with pytest.raises(InvalidStatus):
        connect(place, ssl=trusting, additional_headers={"Cookie": f"{kept}x"})
    assert token not in process.log.replace(link, "")
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tls-cert", "a.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "there is no file a.pem"),
        (["--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
    ],
)
def test_what_cannot_be_offered(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_port_that_is_taken_and_files_that_are_no_certificate(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", "--port", address.rpartition(":")[2]]) == 2
    assert "choose with --host and --port" in capsys.readouterr().err
    (tmp_path / "a.pem").write_text("no certificate")
    words = ["--tls-cert", str(tmp_path / "a.pem"), "--tls-key", str(tmp_path / "a.pem")]
    assert main(["web", *words]) == 2
    assert "are no certificate with its key" in capsys.readouterr().err


def test_an_object_in_space_is_told_in_metres() -> None:
    one = Instance(id=2, label="the mug", score=float("nan"), has_pose=True)
    place = one.pose.pose.position
    place.x, place.y, place.z = 0.3, 0.0, 0.4
    one.size.x, one.size.y, one.size.z = 0.08, 0.09, 0.1
    message = Segmentation()
    message.header.frame_id = one.pose.header.frame_id = "camera"
    told = instance_json(one, message.header)
    assert (told["distance"], told["size"]) == (0.5, [0.08, 0.09, 0.1])
    assert told["score"] is None and json.dumps(told, allow_nan=False)
    one.pose.header.frame_id = "base_link"
    told = instance_json(one, message.header)
    assert "distance" not in told and told["frame_id"] == "base_link"


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; from lisa_ros.cli import main; main(['web'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    assert done.stderr.endswith("pip install 'lisa_ros[web]'\n") and done.stderr.count("\n") == 1
