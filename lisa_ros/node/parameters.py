"""The node's parameters: one table, from which everything that mentions them is made.

The ROS descriptors, the validation, `config/perception.yaml` and the table in the README come from
`PARAMETERS`. The table itself needs no ROS.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from lisa_ros.errors import LisaError
from lisa_ros.model.config import Quantization
from lisa_ros.model.prompt import MODE_SUFFIXES

Value = bool | int | float | str


class ParameterError(LisaError):
    """A parameter has a value that the node cannot use."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, its default, what it may be and what it is for."""

    name: str
    default: Value
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """regular expression that the whole of a text must match, explained by `text`"""
    change: str = "live"
    """live (at once) | unconfigured (while the node holds no model) | start (never again)"""

    def check(self, value: Any) -> Value:
        """The value in the parameter's own type; whole numbers are taken where floats are meant.

        Raises:
            ParameterError: with a sentence that says what is allowed.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(self.default):
            raise ParameterError(f"{self.name} must be {self.kind}, not {value!r:.60}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(f"{self.name} must be a finite number")
        if self.low is not None and not self.low <= value <= self.high:
            raise ParameterError(f"{self.name} must lie in {self.allowed}, not {value}")
        if self.choices and value not in self.choices:
            raise ParameterError(f"{self.name} must be one of {self.allowed}, not {value!r:.60}")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise ParameterError(f"{self.name} cannot be {value!r:.60}: {self.text}")
        return value

    @property
    def kind(self) -> str:
        """The type in words."""
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        return names[type(self.default)]

    @property
    def allowed(self) -> str:
        """Range or choices in words; empty if anything of the type is allowed."""
        if self.low is not None:
            return f"{self.low:.15g} .. {self.high:.15g}"
        return ", ".join(self.choices)


# One parameter after the other as in a table: head, then text.
# fmt: off
PARAMETERS: tuple[Parameter, ...] = (
    Parameter("autostart", True, change="start", text=
        "configure and activate without being asked; false where a lifecycle manager does it"),
    Parameter("target_frame", "", change="unconfigured", text=
        "frame of poses, clouds and grasps, by tf2 at the image's stamp; empty: the camera's"),
    Parameter("model.path", "nano", change="unconfigured", text=
        "name of a shipped model, a folder with a native or official LISA checkpoint, the id of "
        "one that `lisa-ros fetch` has brought into the hub's cache, or the address of a "
        "`lisa-ros serve` (http://host:port, https://host:port)"),
    Parameter("model.jpeg_quality", 90, low=0, high=100, change="unconfigured", text=
        "quality of the images that are sent to a server, 1 to 100; 0: PNG, which loses nothing"),
    Parameter("model.device", "auto", pattern=r"auto|cpu|cuda(:\d+)?", change="unconfigured", text=
        "auto, cpu, cuda or cuda:N; auto takes the first GPU, or the processor where there is "
        "none"),
    Parameter("model.dtype", "auto", choices=("auto", "float32", "bfloat16", "float16", "mixed"),
        change="unconfigured", text=
        "number format of the weights; auto: bfloat16 on a GPU, float32 on a processor; mixed: "
        "float32, SAM's image encoder in bfloat16 if the processor multiplies that natively"),
    Parameter("model.quantization", "none", choices=("none", "auto", *get_args(Quantization)),
        change="unconfigured", text=
        "compress the language model's weights; auto: as far as a GPU's memory asks for it"),
    Parameter("model.threads", 0, low=0, high=1024, change="unconfigured", text=
        "processor threads that the model computes with; 0: chosen for the model's size"),
    Parameter("model.prepare_frames", False, text=
        "encode the newest image while nobody asks: a query is then about the last one so "
        "encoded while input.max_age allows it, and answered sooner; an idle robot computes "
        "all the time"),
    Parameter("model.vision_tower", "", change="unconfigured", text=
        "folder or hub id of the CLIP tower, for official checkpoints, which do not hold it; "
        "empty: the one that the checkpoint names, beside it or in the hub's cache"),
    Parameter("input.transport", "raw", choices=("raw", "compressed"), change="unconfigured", text=
        "raw: subscribe to `image`; compressed: subscribe to `image/compressed` (JPEG or PNG)"),
    Parameter("input.qos", "auto", choices=("auto", "sensor_data", "reliable"),
        change="unconfigured", text=
        "reliability of the image subscription: the publisher's, best effort, or reliable"),
    Parameter("input.max_age", 1.0, low=0.01, high=3600.0, text=
        "seconds since an image arrived after which it is too old to answer about"),
    Parameter("input.wait", 0.5, low=0.0, high=60.0, text=
        "seconds that a query waits for an image when there is none that is fresh enough"),
    Parameter("input.warn_after", 3.0, low=0.5, high=3600.0, text=
        "seconds without an image after which the log and the diagnostics say why"),
    Parameter("input.max_pixels", 8_294_400, low=256, high=268_435_456, text=
        "largest image that is accepted, width times height"),
    Parameter("depth.transport", "raw", choices=("raw", "compressed"), change="unconfigured", text=
        "raw: subscribe to `depth`; compressed: subscribe to `depth/compressedDepth` (PNG)"),
    Parameter("depth.qos", "auto", choices=("auto", "sensor_data", "reliable"),
        change="unconfigured", text=
        "reliability of the subscriptions to `depth` and `camera_info`: as input.qos"),
    Parameter("depth.slop", 0.1, low=0.0, high=10.0, text=
        "seconds by which the stamps of image and depth image may differ"),
    Parameter("depth.rectified", False, text=
        "the images are rectified: take `p` of camera_info, and no distortion, instead of `k`, "
        "`d`"),
    Parameter("depth.box", "support", choices=("support", "target_frame", "free"),
        change="unconfigured", text=
        "how boxes stand: upright on what carries the object, along target_frame's z, or freely"),
    Parameter("grasp.hand", "parallel", choices=("parallel", "suction"), text=
        "the hand that `grasps` are for: two fingers or a suction cup"),
    Parameter("grasp.opening", 0.08, low=0.001, high=1.0, text=
        "largest distance between the fingers in metres"),
    Parameter("grasp.finger_length", 0.04, low=0.001, high=1.0, text=
        "how deep a thing may reach between the fingers in metres"),
    Parameter("grasp.cup_diameter", 0.02, low=0.001, high=1.0, text=
        "diameter of the suction cup's lip in metres"),
    Parameter("score.min", 0.25, low=0.0, high=1.0, text=
        "an instance with a lower score is left out; without any other the answer is "
        "NOT_FOUND. By calibrated scores a mask below 0.25 is wrong three times out of four"),
    Parameter("query.mode", "auto", choices=tuple(MODE_SUFFIXES), text=
        "what queries on the topic ask for: what the words say, a mask, a mask and a reason, "
        "words"),
    Parameter("query.max_length", 1000, low=1, high=2000, text=
        "longest instruction in characters"),
    Parameter("query.queue_size", 10, low=1, high=1000, text=
        "queries that may wait; further ones are rejected"),
    Parameter("query.timeout", 30.0, low=0.1, high=3600.0, text=
        "seconds from the arrival of a query to its answer; then it ends as TIMEOUT"),
    Parameter("query.max_new_tokens", 256, low=1, high=4096, text=
        "longest answer in tokens"),
    Parameter("follow.tracker", "lisa", change="unconfigured", text=
        "what keeps a thing from image to image: lisa, or a folder with the weights of SAM 2 or "
        "EdgeTAM for video"),
    Parameter("follow.lost_timeout", 3.0, low=0.1, high=3600.0, text=
        "seconds that everything a goal follows may be gone, or the camera, before it ends; a "
        "goal may bring its own limit"),
    Parameter("follow.max_things", 16, low=1, high=255, text=
        "things that are followed at the same time, those of all goals together"),
    Parameter("follow.ask_interval", 1.0, low=0.1, high=3600.0, text=
        "seconds at least between two questions to the model about a thing that is lost or "
        "doubtful"),
    Parameter("standing.instruction", "", text=
        "an instruction that the node asks again by itself; empty: none"),
    Parameter("standing.period", 1.0, low=0.0, high=86_400.0, text=
        "seconds between two standing queries; 0: one for every image that differs from the last"),
    Parameter("standing.follow", False, text=
        "follow what the standing query finds, and ask it again when that is lost"),
)
# fmt: on
BY_NAME: dict[str, Parameter] = {parameter.name: parameter for parameter in PARAMETERS}


class Parameters(dict[str, Any]):
    """The parameters of a running node; `parameters["query.timeout"]` is its present value."""

    def __init__(self, node: Any, is_unconfigured: Callable[[], bool]) -> None:
        """Declare all of them on a node; `is_unconfigured`: whether it holds no model.

        Raises:
            ParameterError: a value from the command line or a file cannot be used.
        """
        from rclpy.exceptions import ParameterException

        super().__init__()
        self._is_unconfigured = is_unconfigured
        for parameter in PARAMETERS:
            try:
                declared = node.declare_parameter(
                    parameter.name, parameter.default, _descriptor(parameter)
                )
            except ParameterException as error:
                raise ParameterError(f"{parameter.name}: {error}") from None
            self[parameter.name] = parameter.check(declared.value)
        node.add_on_set_parameters_callback(self._on_set)
        # A misspelt name in a parameter file would otherwise be ignored without a word.
        # rclpy offers no public view of the values from the command line and the parameter files.
        for name in getattr(node, "_parameter_overrides", {}):
            if not node.has_parameter(name) and not name.startswith("qos_overrides."):
                close = difflib.get_close_matches(name, BY_NAME, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                node.get_logger().warning(f"there is no parameter {name}{hint}")

    def _on_set(self, changes: list[Any]) -> Any:
        """Accept or refuse a change from outside as a whole, with the reason."""
        from rcl_interfaces.msg import SetParametersResult

        accepted: dict[str, Value] = {}
        for change in changes:
            parameter = BY_NAME.get(change.name)
            if parameter is None:
                continue
            try:
                accepted[change.name] = parameter.check(change.value)
                if parameter.change == "unconfigured" and not self._is_unconfigured():
                    raise ParameterError(
                        f"{change.name} can change only while the node is unconfigured: "
                        "clean up first"
                    )
            except ParameterError as error:
                return SetParametersResult(successful=False, reason=str(error))
        self.update(accepted)
        return SetParametersResult(successful=True)


def _descriptor(parameter: Parameter) -> Any:
    """The ROS descriptor; with dynamic typing, so that `1` passes for `1.0` (`check` is strict)."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=parameter.text,
        additional_constraints=parameter.allowed or parameter.kind,
        read_only=parameter.change == "start",
        dynamic_typing=True,
    )
    if isinstance(parameter.default, float):
        low, high = float(parameter.low), float(parameter.high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif type(parameter.default) is int:
        descriptor.integer_range = [
            IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))
        ]
    return descriptor
