"""Where servers listen: every link that is printed leads to its server."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from lisa_ros.listening import ListenError, is_loopback, link_to, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_link_leads_to_who_listens(host: str) -> None:
    with listen(host, 0) as listening:
        link = urlsplit(link_to(host, listening.getsockname()[1]))
        assert link.hostname != "0.0.0.0"
        socket.create_connection((link.hostname, link.port), 10.0).close()


def test_links_of_ipv6_addresses_have_brackets_and_those_of_all_name_one() -> None:
    assert link_to("::1", 8000) == "http://[::1]:8000"
    assert link_to("fd00::7", 8443, tls=True) == "https://[fd00::7]:8443"
    assert link_to("::", 8000) == link_to("0.0.0.0", 8000)
    assert is_loopback("::1") and is_loopback("127.8.0.1")
    assert not is_loopback("::") and not is_loopback("robot.example")


@pytest.mark.parametrize("port", [-1, 65536, 10**20])
def test_what_is_no_port_is_told_with_what_is(port: int) -> None:
    with pytest.raises(ListenError, match=f"port {port}: a port is a number from 0 to 65535;"):
        listen("127.0.0.1", port)
