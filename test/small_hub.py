"""A Hugging Face hub on the loopback: the answers of the real one, with faults to order.

Files of weights are behind a redirect to another host, as the real ones lie in a CDN.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_ENDPOINT",
    "XDG_CACHE_HOME",
)
WEIGHTS = (".bin", ".safetensors", ".model")


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str
    token: str


@dataclass
class SmallHub:
    """Folders served as models, and what is to go wrong."""

    models: dict[str, Path]
    commit: str = "5a" * 20
    gated: str = ""
    """a model whose files need the token"""
    token: str = "hf_right"
    damaged: str = ""
    """a file in which one byte is another"""
    cut: dict[str, int] = field(default_factory=dict)
    """how many bytes of a file are sent before the line breaks, once"""
    stall: str = ""
    """a file of which half is sent, and nothing after that until the client has gone"""
    claimed: dict[str, int] = field(default_factory=dict)
    """sizes that files are said to have"""
    requests: list[Request] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ranges(self, file: str) -> list[str]:
        """The ranges in which a file was asked for; empty for the whole."""
        return [r.range for r in self.requests if r.method == "GET" and r.path.endswith(file)]


class Handler(BaseHTTPRequestHandler):
    """One request; `server.hub` says what there is."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub: SmallHub = self.server.hub
        path = self.path.partition("?")[0].strip("/")
        heard = self.headers
        hub.requests.append(
            Request(self.command, path, heard["Range"] or "", heard["Authorization"] or "")
        )
        parts = path.split("/")
        cdn = parts[0] == "cdn"
        parts = parts[1:] if cdn or parts[0] == "resolve-cache" else parts
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in hub.models:
            return self.refuse(401, "RepoNotFound")
        revision = parts[5] if parts[0] == "api" and len(parts) > 5 else "main"
        if parts[0] != "api":
            revision = parts[3]
        if revision not in ("main", hub.commit):
            return self.refuse(404, "RevisionNotFound")
        if parts[0] == "api":
            return self.send_json(self.listing(hub, name))
        if not cdn and name == hub.gated and heard["Authorization"] != f"Bearer {hub.token}":
            return self.refuse(401, "GatedRepo")
        file = hub.models[name] / "/".join(parts[4:])
        if not file.is_file():
            return self.refuse(404, "EntryNotFound")
        self.send_file(hub, file, redirect=not cdn and file.suffix in WEIGHTS)

    def listing(self, hub: SmallHub, name: str) -> dict:
        files = []
        for file in sorted(p for p in hub.models[name].iterdir() if p.is_file()):
            content = file.read_bytes()
            size = hub.claimed.get(file.name, len(content))
            entry = {"rfilename": file.name, "size": size, "blobId": git_hash(content)}
            if file.suffix in WEIGHTS:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 130}
            files.append(entry)
        card = {"license": "apache-2.0"}
        return {"id": name, "sha": hub.commit, "siblings": files, "cardData": card, "tags": []}

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, hub: SmallHub, file: Path, *, redirect: bool) -> None:
        content = file.read_bytes()
        large = file.suffix in WEIGHTS
        tag = hashlib.sha256(content).hexdigest() if large else git_hash(content)
        if file.name == hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int((self.headers["Range"] or "bytes=0-")[6:].partition("-")[0])
        self.send_response(302 if redirect else 206 if start else 200)
        self.send_header("X-Repo-Commit", hub.commit)
        self.send_header("ETag", f'"{tag}"')
        if redirect:
            self.send_header("X-Linked-Etag", f'"{tag}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Location", f"http://localhost:{hub.port}/cdn{self.path}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if file.name == hub.stall:
            self.wfile.write(content[start : len(content) // 2])
            self.wfile.flush()
            hub.stalled.set()
            self.connection.recv(1)  # until the client goes
            self.close_connection = True
            return None
        end = start + hub.cut.pop(file.name, len(content))
        self.wfile.write(content[start:end])
        self.close_connection = end < len(content)
        return None


class Server(ThreadingHTTPServer):
    """Does not print a client's leaving."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


def git_hash(content: bytes) -> str:
    """What git calls a file, which the hub sends as the ETag of small ones."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextmanager
def small_hub(**models: Path) -> Iterator[SmallHub]:
    """Serve folders, by `owner__name`, until the end of the block."""
    hub = SmallHub({name.replace("__", "/"): folder for name, folder in models.items()})
    server = Server(("127.0.0.1", 0), Handler)
    server.hub, hub.port = hub, server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def start_fetch(
    hub: SmallHub,
    home: Path,
    *words: str,
    prepare: Callable[[], None] | None = None,
    **more: str,
) -> subprocess.Popen:
    """`lisa-ros fetch` with this hub and this HF_HOME."""
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = clean | {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint} | more
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "lisa_ros.cli", "fetch", *words],
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=prepare,
    )


def fetch(hub: SmallHub, home: Path, *words: str, **more) -> tuple[int, str, str]:
    """Its exit code, output and errors."""
    process = start_fetch(hub, home, *words, **more)
    out, err = process.communicate(timeout=400)
    assert "Traceback" not in err, err
    return process.returncode, out, err
