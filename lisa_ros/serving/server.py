"""The engine as a Ray Serve application: what is checked, and what is started.

Ray Serve has the HTTP server, the batches, the queue and its limits, the routing, the health
checks, the metrics and, on a cluster, the replicas on other machines. replica.py is what it runs.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lisa_ros.errors import LisaError, WriteError, check_number, counted
from lisa_ros.listening import LOOPBACK, check_certificate, is_loopback, listen
from lisa_ros.serving.remote import TOKEN
from lisa_ros.writing import writable_folder

REQUEST_LIMIT = 3600.0  # seconds: the longest that any robot waits
ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


class ServeError(LisaError):
    """The server cannot be started as it was asked for."""


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs; `lisa-ros serve --help` explains each."""

    model: dict[str, Any]
    """arguments of `load_engine`"""
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    max_replicas: int = 0
    """with more than `replicas`, Ray Serve adds and removes them by the questions in flight"""
    threads: int = 0
    batch: int = 8
    window: float = 3.0
    """milliseconds that the first question of a batch waits for others"""
    queue: int = 200
    """questions that may wait; further ones are refused"""
    max_pixels: int = 8_294_400
    metrics_port: int = 9464
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ray_address: str = "local"


def check_options(options: ServeOptions, token: str) -> None:
    """Refuse what cannot or must not be, before Ray starts, which takes seconds.

    Raises:
        LisaError: with the reason.
        WriteError: Ray's token cannot be kept.
    """
    for name, value, least, most in (
        ("--port", options.port, 1, 65535),
        ("--metrics-port", options.metrics_port, 1, 65535),
        ("--replicas", options.replicas, 1, 10_000),
        ("--threads", options.threads, 0, 10_000),
        ("--batch", options.batch, 1, 10_000),
        ("--window", options.window, 0, 10_000),
        ("--queue", options.queue, 1, 1_000_000),
        ("--max-pixels", options.max_pixels, 1, 2**31),
    ):
        check_number(name, value, least, most)
    if options.max_replicas and not options.replicas <= options.max_replicas <= 10_000:
        raise ServeError(
            f"--max-replicas must be from {options.replicas} (--replicas) to 10000, or be left out:"
            f" it is {options.max_replicas}"
        )
    if not token and not is_loopback(options.host):
        raise ServeError(
            f"without a token a server listens on the loopback alone, and not on {options.host}: "
            f"put a long random text into {TOKEN}, here and on the robots"
        )
    check_certificate(options.tls_cert, options.tls_key)
    listen(options.host, options.port).close()
    listen(LOOPBACK[0], options.metrics_port, "--metrics-port").close()
    if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        try:
            writable_folder(Path.home() / ".ray")
        except (WriteError, RuntimeError) as error:
            raise WriteError(
                f"Ray keeps the token of its own ports in HOME: {error}; set HOME to a folder "
                "that can be written, or RAY_AUTH_TOKEN to a long random text"
            ) from None


def start(options: ServeOptions, token: str) -> str:
    """Start Ray, unless `ray_address` names a cluster, and the application; gives Ray's address.

    Raises:
        ServeError: it does not start.
    """
    check_options(options, token)
    # Ray's ports are open on all interfaces: nobody talks to them without its token
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE", "100")
    ours = options.ray_address == "local"
    if ours:
        # as on macOS: a Ray of one machine, whose own ports are on the loopback alone
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions, RequestRouterConfig

    from lisa_ros.serving.replica import USERS_THREADS, EngineReplica

    if "OMP_NUM_THREADS" in os.environ:
        os.environ[USERS_THREADS] = os.environ["OMP_NUM_THREADS"]
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    # 1. Ray itself, if it is ours
    ray.init(
        address=options.ray_address,
        include_dashboard=False if ours else None,
        log_to_driver=False,
        logging_level="warning",
        namespace="lisa",
        **({"_metrics_export_port": options.metrics_port} if ours else {}),
    )
    # 2. the HTTP server
    serve.start(
        http_options=HTTPOptions(
            host=options.host,
            port=options.port,
            request_timeout_s=REQUEST_LIMIT,
            ssl_keyfile=str(options.tls_key) if options.tls_key else None,
            ssl_certfile=str(options.tls_cert) if options.tls_cert else None,
        ),
        logging_config={"enable_access_log": False},
    )
    # 3. the replicas
    device = options.model["device"]
    gpus = device.startswith("cuda") or (
        device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
    )
    most = max(options.replicas, options.max_replicas)
    if gpus and ours and (there := ray.cluster_resources().get("GPU", 0)) < most:
        stop(options)
        raise ServeError(
            f"a GPU is needed for each of {counted(most, 'replica')}, and Ray finds {there:g} here"
        )
    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if most > options.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": options.replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": options.batch,
            }
        }
    engine = EngineReplica.options(
        **scaling,
        max_ongoing_requests=4 * options.batch,
        max_queued_requests=options.queue,
        ray_actor_options={
            "num_cpus": 0 if gpus or ours else 1,  # those of one machine share what there is
            "num_gpus": int(gpus),
        },
        # a robot's images lie on one replica, and its questions go there
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        graceful_shutdown_timeout_s=5,
        logging_config={"enable_access_log": False},
    ).bind(
        options.model,
        token,
        threads=options.threads,
        max_pixels=options.max_pixels,
        batch=options.batch,
        window=options.window / 1000,
    )
    try:
        serve.run(engine, name="lisa", route_prefix="/")
    except RuntimeError as error:
        stop(options)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        ours_first = [line for line in lines if line.startswith("lisa_ros.")] + lines[-1:]
        raise ServeError(
            f"the engine does not start: {ours_first[0].partition(': ')[2] or ours_first[0]} "
            "(Ray's log is below /tmp/ray/session_latest/logs/serve)"
        ) from None
    return ray.get_runtime_context().gcs_address


def stop(options: ServeOptions) -> None:
    """End the application and, if it is ours, Ray."""
    import ray
    from ray import serve

    if options.ray_address != "local":
        serve.delete("lisa")
    ray.shutdown()
