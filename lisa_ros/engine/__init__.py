"""Ask a LISA about images: `Engine(lisa).segment(image, "the red mug")`."""

from lisa_ros.engine.answer import (
    Answer,
    Event,
    Finished,
    Instance,
    MaskReady,
    Status,
    TextDelta,
)
from lisa_ros.engine.config import EngineConfig
from lisa_ros.engine.engine import Engine
from lisa_ros.engine.question import Mode, Question

__all__ = [
    "Answer",
    "Engine",
    "EngineConfig",
    "Event",
    "Finished",
    "Instance",
    "MaskReady",
    "Mode",
    "Question",
    "Status",
    "TextDelta",
]
