"""Ask a LISA about images: `load_engine().segment(image, "the red mug")`.

Names are looked up when they are used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lisa_ros.engine.answer import Answer as Answer
    from lisa_ros.engine.answer import AnswerStatus as AnswerStatus
    from lisa_ros.engine.answer import Event as Event
    from lisa_ros.engine.answer import Finished as Finished
    from lisa_ros.engine.answer import Instance as Instance
    from lisa_ros.engine.answer import MaskReady as MaskReady
    from lisa_ros.engine.answer import TextDelta as TextDelta
    from lisa_ros.engine.engine import Engine as Engine
    from lisa_ros.engine.load import load_engine as load_engine
    from lisa_ros.engine.question import EngineConfig as EngineConfig
    from lisa_ros.engine.question import Mode as Mode
    from lisa_ros.engine.question import Question as Question

_HOMES = {
    "answer": ("Answer", "Event", "Finished", "Instance", "MaskReady", "AnswerStatus", "TextDelta"),
    "engine": ("Engine",),
    "load": ("load_engine",),
    "question": ("EngineConfig", "Mode", "Question"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
