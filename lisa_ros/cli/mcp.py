"""`lisa-ros mcp`: eyes for agents, over the Model Context Protocol."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # what `mcp` guards against pages of other origins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--http",
        action="store_true",
        help="serve streamable HTTP at /mcp (default: standard input and output)",
    )
    add(
        "--host",
        default=LOOPBACK[0],
        help=f"of --http: one of {', '.join(LOOPBACK)} (default: %(default)s)",
    )
    add("--port", type=int, default=8001, help="of --http (default: 8001); 0: any free one")
    add("--demo", action="store_true", help="bring a perception node and a recorded camera along")
    add("--model", default="nano", help="model of --demo (default: nano)")
    add("--namespace", default="lisa", help="of the node (default: lisa)")
    add("--ros-args", nargs=argparse.REMAINDER, default=[], help="as of `ros2 run`")


def run(args: argparse.Namespace) -> int:
    """Serve until the agent hangs up, SIGINT or SIGTERM."""
    from lisa_ros.agents.mcp_server import Eyes, serve
    from lisa_ros.cli.web import demonstration
    from lisa_ros.errors import LisaError
    from lisa_ros.fastdds import use_large_image_transport
    from lisa_ros.web.access import listen, own_address

    port = args.port
    if args.http:
        if args.host not in LOOPBACK:
            raise LisaError(
                "whoever reaches this server sees what the robot sees, and it has no password: "
                f"--host takes {', '.join(LOOPBACK)}; from elsewhere reach it by "
                f"`ssh -L {port}:127.0.0.1:{port} ROBOT`"
            )
        with listen(args.host, port) as free:  # what is wrong with them is said before all else
            port = free.getsockname()[1]
    use_large_image_transport()
    ros_arguments = ["--ros-args", *args.ros_args] if args.ros_args else []
    # what --demo has started must end too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        if args.demo:
            stack.enter_context(demonstration(args.model, args.namespace))
        eyes = Eyes(args.namespace.strip("/"), ros_arguments)
        if args.http:
            place = f"{own_address(args.host)}:{port}"
            print(f"MCP server: http://{place}/mcp", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serve(eyes, "http" if args.http else "stdio", args.host, port)
    return 0
