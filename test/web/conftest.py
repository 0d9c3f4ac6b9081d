"""One node, one camera and one web process for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from node_rig import Rig, drawn_image, rig
from web_rig import HEIGHT, WIDTH, start_web


@pytest.fixture(scope="module")
def robot() -> Iterator[Rig]:
    with rig() as made:
        made.start("-p", "input.warn_after:=1.0")
        made.film(15.0, drawn_image(WIDTH, HEIGHT))
        yield made


@pytest.fixture(scope="module")
def address(robot: Rig) -> Iterator[str]:
    """host:port of the page."""
    process, link = start_web(robot)
    yield link.removeprefix("http://").strip("/")
    assert process.stop() == 0
    assert "Traceback" not in process.log
