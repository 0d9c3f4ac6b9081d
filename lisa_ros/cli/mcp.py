"""`lisa-ros mcp`: eyes for agents, over the Model Context Protocol."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--http",
        action="store_true",
        help="serve streamable HTTP at /mcp (default: standard input and output)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of --http (default: loopback)")
    parser.add_argument("--port", type=int, default=8001, help="of --http (default: 8001)")
    parser.add_argument(
        "--demo", action="store_true", help="bring a perception node and a recorded camera along"
    )
    parser.add_argument("--model", default="nano", help="model of --demo (default: nano)")
    parser.add_argument("--namespace", default="lisa", help="of the node (default: lisa)")
    parser.add_argument("--ros-args", nargs=argparse.REMAINDER, default=[], help="as of `ros2 run`")


def run(args: argparse.Namespace) -> int:
    """Serve until the agent hangs up, SIGINT or SIGTERM."""
    from lisa_ros.agents.mcp_server import Eyes, serve
    from lisa_ros.cli.web import demonstration
    from lisa_ros.errors import LisaError
    from lisa_ros.fastdds import use_large_image_transport
    from lisa_ros.web.access import is_loopback

    if args.http and not is_loopback(args.host):
        raise LisaError(
            "whoever reaches this server sees what the robot sees, and it has no password: let it "
            "listen on 127.0.0.1 and reach it by `ssh -L 8001:127.0.0.1:8001 ROBOT`"
        )
    use_large_image_transport()
    ros_arguments = ["--ros-args", *args.ros_args] if args.ros_args else []
    # what --demo has started must end too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        if args.demo:
            stack.enter_context(demonstration(args.model, args.namespace))
        eyes = Eyes(args.namespace.strip("/"), ros_arguments)
        if args.http:
            print(f"MCP server: http://{args.host}:{args.port}/mcp", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serve(eyes, "http" if args.http else "stdio", args.host, args.port)
    return 0
