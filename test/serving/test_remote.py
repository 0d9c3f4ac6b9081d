"""The robot's side against servers of every kind, each a few lines of sockets in this process."""

from __future__ import annotations

import inspect
import json
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fake_server import (
    ANSWER,
    COUNTERS,
    HEAD,
    IMAGE,
    LINES,
    MASK,
    OURS,
    always,
    hang,
    itself,
    reply,
    server,
)
from hypothesis import given
from hypothesis import strategies as st

from lisa_ros.cli import main
from lisa_ros.engine import Engine, load_engine
from lisa_ros.engine.answer import AnswerStatus, Finished, MaskReady, TextDelta
from lisa_ros.engine.question import MODES, Question
from lisa_ros.errors import (
    BusyError,
    ImageError,
    InstructionError,
    LisaError,
    RemoteFailure,
    ServerError,
    ServerUnreachable,
)
from lisa_ros.serving import remote, wire
from lisa_ros.serving.remote import RemoteEngine, is_address


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_a_mask_comes_back_from_its_run_lengths(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    assert np.array_equal(wire.mask_of(wire.run_lengths(mask), mask.shape), mask)
    with pytest.raises(ValueError):
        wire.mask_of([*wire.run_lengths(mask), 1], mask.shape)


@pytest.mark.parametrize("quality", [0, 90])
def test_a_question_comes_back_from_its_bytes(quality):
    file = wire.encode_image(IMAGE, quality)
    asked = wire.WireQuestion("the mug", "explain", (("a", "b"),), 7, 1.5, "", True, file)
    assert wire.read_question(wire.write_question(asked)) == asked
    decoded = wire.decode_image(file, IMAGE.size)
    assert decoded.shape == IMAGE.shape
    assert np.array_equal(decoded, IMAGE) == (quality == wire.LOSSLESS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"version": 0}\n',
        b'{"version": 1}\n',
        b'{"version": 1, "instruction": 7}\n',
        b'{"version": 1, "instruction": "a", "history": [1]}\n',
        b'{"version": 1, "instruction": "a", "time_left": NaN}\n',
        b'{"version": 1, "instruction": "a", "max_new_tokens": "9"}\n',
        b'{"version": 1, "instruction": "a", "max_new_tokens": true}\n',
        b'{"version": 1, "instruction": "a", "file": "x"}\n',
        b'{"version": 1, "instruction": "' + b"a" * wire.LONGEST_HEAD + b'"}\n',
    ],
)
def test_a_body_that_is_no_question_is_refused(body):
    with pytest.raises(wire.WireError):
        wire.read_question(body)


@pytest.mark.parametrize("file", [b"", b"GIF89a", wire.encode_image(IMAGE, 0)[:-40]])
def test_a_damaged_image_is_refused(file):
    with pytest.raises(ImageError):
        wire.decode_image(file, IMAGE.size)


def test_numbers_of_numpy_and_a_deadline_that_never_comes_are_understood():
    with server(always(reply(*LINES))) as address:
        limits = {"max_new_tokens": np.int64(9), "deadline": np.inf}
        assert RemoteEngine(address).segment(IMAGE, "the mug", **limits).text == "It is here."


def test_an_image_above_the_limit_is_refused_unread():
    with pytest.raises(ImageError, match="at most 100"):
        wire.decode_image(wire.encode_image(IMAGE, 0), 100)


def test_events_and_answer_come_back():
    with server(always(reply(*LINES))) as address:
        *early, last = RemoteEngine(address).stream(IMAGE, "the mug")
    assert [event.text for event in early if isinstance(event, TextDelta)] == ["It is", " here."]
    (mask,) = (event.instance for event in early if isinstance(event, MaskReady))
    assert np.array_equal(mask.mask, MASK) and mask.label == "the mug" and mask.area == 250
    answer = last.answer
    assert (answer.text, answer.status, answer.transcript) == ("It is here.", AnswerStatus.OK, "It")
    assert answer.instances == [mask] and answer.counters == COUNTERS
    assert answer.timings["total"] > answer.timings["network"]


def test_a_known_image_is_named_and_not_sent_again():
    bodies: list[bytes] = []

    def answer(connection, path, body):
        bodies.append(body)
        forgotten = len(bodies) == 3
        unknown = reply(wire.write_refusal(wire.UNKNOWN_FRAME, "send it"), code=404)
        connection.sendall(unknown if forgotten else reply(*LINES))

    with server(answer) as address:
        engine = RemoteEngine(address)
        for key in ("a", "a", "a", "b", None):
            engine.segment(IMAGE, "the mug", key=key)
    sent = [wire.read_question(body) for body in bodies]
    assert [bool(one.file) for one in sent] == [True, False, False, True, True, True]
    assert sent[1].frame == sent[2].frame == wire.frame_name(sent[0].file)
    assert len(bodies[1]) < 1000
    assert [one.keep for one in sent] == [True] * 5 + [False]


def test_of_many_images_the_newest_are_named_and_another_shape_is_another_image(monkeypatch):
    monkeypatch.setattr(remote, "KEPT_FRAMES", 2)
    bodies: list[bytes] = []

    def answer(connection, path, body):
        bodies.append(body)
        connection.sendall(reply(wire.write_event(Finished(replace(ANSWER, instances=[])))))

    with server(answer) as address:
        engine = RemoteEngine(address)
        for key in ("a", "b", "c", "c", "a"):
            engine.segment(IMAGE, "the mug", key=key)
        engine.segment(IMAGE[:-1], "the mug", key="a")
    sent = [bool(wire.read_question(body).file) for body in bodies]
    assert sent == [True, True, True, False, True, True]


def test_a_batch_is_asked_together_and_answered_in_its_order():
    together = threading.Barrier(2)

    def answer(connection, path, body):
        asked = wire.read_question(body)
        together.wait(180)  # so that one alone would never be answered
        said = replace(ANSWER, text=asked.instruction, instances=[])
        connection.sendall(reply(wire.write_event(Finished(said))))

    modes = list(MODES)[:6]
    questions = [Question(IMAGE, f"{mode} {n}", mode, key=n) for n, mode in enumerate(modes)]
    with server(answer) as address:
        answers = RemoteEngine(address).segment_batch(questions)
    assert [one.text for one in answers] == [one.instruction for one in questions]


def test_it_has_what_is_called_of_an_engine():
    """What only a replica and its trackers call aside; with equal names of all arguments."""
    for name, method in vars(Engine).items():
        if callable(method) and name not in ("stream_batch", "sam_features", "decode_masks"):
            if name.startswith("_"):
                continue
            ours = inspect.signature(getattr(RemoteEngine, name)).parameters
            assert list(ours) == list(inspect.signature(method).parameters), name


@pytest.mark.parametrize("command", [["serve"], ["calibrate"]])
def test_a_server_is_no_model_that_could_be_served_or_taught(command, capsys):
    assert main([*command, "--model", "http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9 is an address" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([command[0], "--help"])
    said = capsys.readouterr().out
    assert "hub id" in said and "server's address" not in said


@pytest.mark.parametrize(
    "option", [{"device": "cpu"}, {"dtype": "mixed"}, {"quantization": "int8"}]
)
def test_how_a_server_loads_its_model_is_not_chosen_here(option):
    with pytest.raises(LisaError, match=f"{next(iter(option))} can be chosen where"):
        load_engine("http://127.0.0.1:9", **option)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", ServerError, "https?://"),
        (b"", ServerError, "closed the connection"),
        (reply(b"<html>", header=b""), ServerError, "no lisa-ros serve"),
        (reply(b"x", header=b"", code=404), ServerError, "HTTP 404"),
        (reply(b"x", header=b"", code=503), BusyError, "too many questions"),
        (reply(b"x", header=b"", code=500), ServerUnreachable, "another takes its place"),
        (reply(b"<html>\n"), ServerError, "not what lisa_ros says"),
        (reply(*LINES[:2]), ServerError, "broke off"),
        (reply(LINES[0], LINES[1][:-9]), ServerError, "middle of a line"),
        (reply(*LINES[::2], LINES[3]), ServerError, "1 masks told, 0 sent"),
        (reply(LINES[1].replace(b"[645,", b"[646,")), ServerError, "run lengths"),
        (reply(b'{"text": "a", "mask"\n'), ServerError, "not what lisa_ros says"),
        (reply(b'{"answer": {}}\n'), ServerError, "cannot be understood"),
        (reply(b'{"error": 7}\n'), ServerError, "cannot be understood"),
        (reply(wire.write_refusal("token", "wrong token"), code=401), ServerError, "wrong token"),
        (reply(wire.write_refusal("image", "too dark"), code=422), ImageError, "too dark"),
        (reply(wire.write_refusal("instruction", "no")), InstructionError, "no"),
        (reply(wire.write_refusal("busy", "8 of them"), code=429), BusyError, "8 of them"),
        (reply(LINES[0], wire.write_refusal("model", "it broke")), RemoteFailure, "it broke"),
        (reply(wire.write_refusal(wire.UNKNOWN_FRAME, "send")), ServerError, "send"),
    ],
)
def test_whatever_a_server_says_is_told_in_a_sentence(answer, kind, sentence):
    with server(always(answer)) as address, pytest.raises(kind, match=sentence):
        RemoteEngine(address).segment(IMAGE, "the mug", deadline=time.monotonic() + 180)


def test_a_server_of_another_version_is_told_apart():
    line = json.dumps({"version": 0, "model": "nano"}).encode() + b"\n"
    with server(always(reply(line))) as address, pytest.raises(ServerError, match="version 0"):
        RemoteEngine(address).connect()


def test_nobody_at_the_address():
    with server(hang) as address:
        pass
    with pytest.raises(ServerError, match="cannot be reached: Connection refused"):
        RemoteEngine(address).segment(IMAGE, "the mug")


def test_tls_where_there_is_none():
    def greets(connection, path, body):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with server(greets) as address:
        engine = RemoteEngine(address.replace("http:", "https:"))
        with pytest.raises(ServerError, match="does not speak TLS"):
            engine.segment(IMAGE, "the mug")


def test_tls(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with server(always(reply(*LINES)), tls=context) as address:
        with pytest.raises(ServerError, match="SSL_CERT_FILE"):
            RemoteEngine(address).segment(IMAGE, "the mug")
        with pytest.raises(ServerError, match="speaks TLS does so"):
            RemoteEngine(address.replace("https", "http")).segment(IMAGE, "the mug")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert RemoteEngine(address).segment(IMAGE, "the mug").status == AnswerStatus.OK


@pytest.mark.parametrize(
    "address", ["http://", "http://a:b", "http://robot:secret@host:1", "https://host/?a=1"]
)
def test_an_address_that_is_none(address):
    assert is_address(address) and not is_address("nano")
    with pytest.raises(ServerError, match="no address of a server"):
        RemoteEngine(address)


def test_a_token_that_no_header_can_hold(monkeypatch):
    monkeypatch.setenv("LISA_ROS_TOKEN", "a\nb")
    with pytest.raises(LisaError, match="LISA_ROS_TOKEN"):
        RemoteEngine("http://127.0.0.1:1")


def test_a_hanging_server_ends_at_the_deadline_with_what_there_is():
    def half(connection, path, body):
        connection.sendall(reply(*LINES[:2]))
        connection.recv(1)

    with server(half) as address:
        began = time.monotonic()
        answer = RemoteEngine(address).segment(IMAGE, "the mug", deadline=began + 2)
    assert (answer.status, answer.text) == (AnswerStatus.TIMEOUT, "It is")
    assert len(answer.instances) == 1


def test_cancelling_hangs_up():
    hung_up = threading.Event()

    def answer(connection, path, body):
        connection.sendall(reply(LINES[0]))
        assert connection.recv(1) == b""
        hung_up.set()

    cancel = threading.Event()
    with server(answer) as address:
        events = RemoteEngine(address).stream(IMAGE, "the mug", cancel=cancel)
        assert next(events) == TextDelta("It is")
        cancel.set()
        assert next(events).answer.status == AnswerStatus.CANCELLED
        assert next(events, None) is None
        assert hung_up.wait(180)


def test_a_server_that_comes_back_is_asked_again_at_once(monkeypatch):
    with server(itself(always(reply(*LINES)))) as address:
        engine, port = RemoteEngine(address), int(address.rpartition(":")[2])
        engine.segment(IMAGE, "the mug")
    with pytest.raises(ServerError):
        engine.segment(IMAGE, "the mug")
    with server(always(reply(b"x", header=b"", code=404)), port):  # its proxy is there alone
        for _ in range(2):
            with pytest.raises(ServerError, match="still starting"):
                engine.segment(IMAGE, "the mug")
    with (
        monkeypatch.context() as patience,
        server(hang, port),
    ):  # it holds back what it is asked until its model is loaded
        patience.setattr(remote, "INFO_LIMIT", 0.5)
        for _ in range(2):
            with pytest.raises(ServerUnreachable, match="it is starting"):
                engine.segment(IMAGE, "the mug")
        deadline = time.monotonic() + 0.1
        assert engine.segment(IMAGE, "the mug", deadline=deadline).status == AnswerStatus.TIMEOUT
    with server(itself(always(reply(*LINES))), port):
        assert engine.segment(IMAGE, "the mug").status == AnswerStatus.OK
    assert engine.name == "distant"


def test_a_machine_that_falls_silent_is_noticed_without_a_deadline():
    with server(hang) as address:
        connection = RemoteEngine(address).server.connect()
        for level, name, value in remote.KEEPALIVE:
            assert connection.sock.getsockopt(level, name) == value
        connection.close()


def test_a_kept_connection_that_was_closed_costs_no_question():
    chunked = HEAD.replace(b"connection: close", b"transfer-encoding: chunked") % (200, OURS)
    requests: list[str] = []

    def once(connection, path, body):
        requests.append(path)
        content = b"".join(LINES)
        connection.sendall(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))

    with server(once) as address:
        engine = RemoteEngine(address)
        for _ in range(3):
            assert engine.segment(IMAGE, "the mug").status == AnswerStatus.OK
            time.sleep(0.1)  # so that the connection is kept, and found closed
    assert len(requests) == 3


def test_the_robot_imports_no_torch():
    code = (
        "import sys; from lisa_ros.node.loading import load_model; "
        "from lisa_ros.node.parameters import PARAMETERS; "
        "p = {one.name: one.default for one in PARAMETERS}; "
        "load_model(p | {'model.path': 'http://127.0.0.1:9'}); "
        "print(sorted({'torch', 'transformers', 'ray', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
