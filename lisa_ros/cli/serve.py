"""`lisa-ros serve`: one engine for many robots, as a Ray Serve application."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from lisa_ros.cli import add_model_arguments, model_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, remote=False)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; others need a token")
    add("--port", type=int, default=8000, help="default: 8000")
    add("--replicas", type=int, default=1, help="engines; on GPUs one for each (default: 1)")
    add("--max-replicas", type=int, default=0, help="add engines up to so many under load")
    add("--threads", type=int, default=0, help="processor threads of each; 0: by the model's size")
    add("--batch", type=int, default=8, help="most questions answered together (default: 8)")
    add("--window", type=float, default=3.0, metavar="MS", help="wait for others (default: 3 ms)")
    add("--queue", type=int, default=200, help="questions that may wait (default: 200)")
    add("--max-pixels", type=int, default=8_294_400, help="largest image that is taken")
    add("--metrics-port", type=int, default=9464, help="Ray's Prometheus metrics (default: 9464)")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM): speak https")
    add("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--ray-address", default="local", help="a running Ray cluster; default: one of our own")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from lisa_ros.model.config import find
    from lisa_ros.serving.remote import TOKEN
    from lisa_ros.serving.server import ServeOptions, start, stop

    find(args.model)
    options = ServeOptions(
        model=model_options(args),
        host=args.host,
        port=args.port,
        replicas=args.replicas,
        max_replicas=args.max_replicas,
        threads=args.threads,
        batch=args.batch,
        window=args.window / 1000,
        queue=args.queue,
        max_pixels=args.max_pixels,
        metrics_port=args.metrics_port,
        cert=args.tls_cert,
        key=args.tls_key,
        ray_address=args.ray_address,
    )
    stopping = threading.Event()
    ray_at = start(options, os.environ.get(TOKEN, "").strip())
    for number in (signal.SIGINT, signal.SIGTERM):  # now, in the place of Ray's handlers
        signal.signal(number, lambda *_: stopping.set())
    address = f"{'https' if args.tls_cert else 'http'}://{args.host}:{args.port}"
    print(f"{args.model} answers at {address}; on a robot: lisa-ros node --model {address}")
    print(f"Ray's own head is at {ray_at}; stop with Ctrl-C", flush=True)
    stopping.wait()
    stop(options)
    return 0
