"""From the node's parameters to an engine that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lisa_ros.engine.load import ModelUnavailable, load_engine
from lisa_ros.engine.question import EngineConfig
from lisa_ros.errors import ServerUnreachable, not_installed

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine
    from lisa_ros.serving.remote import RemoteEngine
    from lisa_ros.serving.remote_tracker import NewTracker

Loader = Callable[[Mapping[str, Any]], tuple["Engine | RemoteEngine", "NewTracker"]]
"""Makes the model that the parameters `model.*` describe; raises `LisaError` with a sentence."""


def load_model(parameters: Mapping[str, Any]) -> tuple[Engine | RemoteEngine, NewTracker]:
    """The model of `model.path`, or of the server that it names, and what follows things with it.

    A model of our own imports torch, which takes seconds, and reads no network. A server that does
    not answer now may do so later: each query tries anew, and says what is the matter.
    """
    from lisa_ros.serving.remote import RemoteEngine, is_address
    from lisa_ros.serving.remote_tracker import new_tracker

    config = EngineConfig(
        max_new_tokens=parameters["query.max_new_tokens"],
        threads=parameters["model.threads"] or None,
    )
    path, sam2 = parameters["model.path"], None
    if parameters["follow.tracker"] != "lisa":
        try:
            from lisa_ros.tracking.sam2 import load_sam2_network
        except ModuleNotFoundError as error:
            raise ModelUnavailable(not_installed(error.name or "")) from None
        sam2 = load_sam2_network(parameters["follow.tracker"])
    if is_address(path):
        remote = RemoteEngine(path, jpeg_quality=parameters["model.jpeg_quality"], config=config)
        with suppress(ServerUnreachable):
            remote.connect()
        return remote, new_tracker(remote, sam2)
    try:
        engine = load_engine(
            path,
            device=parameters["model.device"],
            dtype=parameters["model.dtype"],
            quantization=parameters["model.quantization"],
            vision_tower=parameters["model.vision_tower"] or None,
            config=config,
        )
    except ModuleNotFoundError as error:
        raise ModelUnavailable(not_installed(error.name or "")) from None
    return engine, new_tracker(engine, sam2)
