"""A server of a few lines that says what a test wants, and what a right one says."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from node_rig import drawn_image

from lisa_ros.engine.answer import Answer, AnswerStatus, Finished, Instance, MaskReady, TextDelta
from lisa_ros.serving import wire

IMAGE = drawn_image()
MASK = np.zeros(IMAGE.shape[:2], bool)
MASK[10:20, 5:30] = True
INSTANCE = Instance(MASK, 0.9, 0.8, "the mug", {"bias": 1.0})
COUNTERS = {"sam_encodes": 1, "clip_encodes": 1, "forwards": 1, "tokens": 3}
ANSWER = Answer("It is here.", AnswerStatus.OK, [INSTANCE], {"total": 1.0}, COUNTERS, "end", "It")
EVENTS = [TextDelta("It is"), MaskReady(INSTANCE), TextDelta(" here."), Finished(ANSWER)]
LINES = [wire.write_event(event) for event in EVENTS]
HEAD = b"HTTP/1.1 %d X\r\nconnection: close\r\n%s\r\n"
OURS = wire.VERSION_HEADER.encode() + b": 1\r\n"


def reply(*lines: bytes, code: int = 200, header: bytes = OURS) -> bytes:
    """A whole answer, closed by the end of the connection."""
    return HEAD % (code, header) + b"".join(lines)


def read_request(connection: socket.socket) -> tuple[str, bytes]:
    """Path and body of one request."""
    data = b""
    while b"\r\n\r\n" not in data and data[:1] != b"\x16":  # the first byte of TLS
        data += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    while len(body) < int(fields.get(b"content-length", 0)):
        body += connection.recv(65536)
    return head.split(b" ")[1].decode() if b" /" in head else "", body


@contextmanager
def server(
    answer: Callable[[socket.socket, str, bytes], None],
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """A server that hands every request to a function, and its address."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection:
                    answer(connection, *read_request(connection))

        threading.Thread(target=serve, daemon=True).start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def always(answer: bytes) -> Callable[[socket.socket, str, bytes], None]:
    """A server that says the same to everybody."""
    return lambda connection, path, body: connection.sendall(answer)


def itself(answer: Callable[[socket.socket, str, bytes], None]) -> Callable[..., None]:
    """A server that says who it is, and answers otherwise as it is told."""
    info = reply(wire.ServerInfo(wire.VERSION, "distant", "cuda", 10**6).write())

    def respond(connection: socket.socket, path: str, body: bytes) -> None:
        if path.endswith(wire.INFO):
            connection.sendall(info)
        else:
            answer(connection, path, body)

    return respond


def hang(connection: socket.socket, path: str, body: bytes) -> None:
    """A server that never says anything; its thread ends when the robot hangs up."""
    connection.recv(1)
