"""Where the servers of `lisa-ros web`, `mcp` and `serve` listen: address, port, certificate."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path

from lisa_ros.errors import LisaError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""what this machine calls itself"""


class ListenError(LisaError):
    """A server cannot listen as it was asked to."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, options: str = "--host and --port") -> socket.socket:
    """The socket that a server takes its requests from; port 0: any free one.

    Args:
        options: that the user chooses the two with.

    Raises:
        ListenError: the port is taken or not ours to take, or the machine has no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        dual = host == "::" and socket.has_dualstack_ipv6()  # everybody, by IPv4 too
        return socket.create_server((host, port), family=family, dualstack_ipv6=dual)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if not 0 <= port <= 65535:
            reason = "a port is a number from 0 to 65535"
        raise ListenError(
            f"cannot listen on {host}, port {port}: {reason}; choose with {options}"
        ) from error


def own_address(host: str) -> str:
    """What others call the address that we listen on: of 0.0.0.0 the one that leads outside."""
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing when it connects
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


def link_to(host: str, port: int, *, tls: bool = False) -> str:
    """The link by which a server that listens there is reached."""
    host = own_address(host)
    return f"http{'s' * tls}://{f'[{host}]' if ':' in host else host}:{port}"


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raise `ListenError` if a server could not use the two; it needs both, or neither."""
    if (certificate is None) != (key is None):
        raise ListenError("--tls-cert and --tls-key belong together: name both files or neither")
    if certificate is None or key is None:
        return
    for path in (certificate, key):
        if not path.is_file():
            raise ListenError(
                f"there is no file {path} (--tls-cert and --tls-key name two PEM files)"
            )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        raise ListenError(
            f"{certificate} and {key} are no certificate with its key without a passphrase: {error}"
        ) from error
