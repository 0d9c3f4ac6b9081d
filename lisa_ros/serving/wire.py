"""What robot and server say to each other: the one writer and the one reader of every message.

Up, to `POST /v1/segment` and `/v1/prepare`: a line of JSON and, behind it, the image file (JPEG or
PNG). A further question about an image names its `frame`, the SHA-256 of the file, and sends no
image. Down: a line of JSON for every event. Masks are run lengths. Nothing here needs torch.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import PIL.Image

from lisa_ros.engine.answer import (
    Answer,
    AnswerStatus,
    Event,
    Finished,
    Instance,
    MaskReady,
    TextDelta,
)
from lisa_ros.errors import (
    BusyError,
    ImageError,
    InstructionError,
    LisaError,
    TrackingError,
)
from lisa_ros.image_files import to_rgb

VERSION = 1
VERSION_HEADER = "lisa-version"  # in every answer of ours: what has none is another service
SESSION_HEADER = "x-session-id"  # Ray Serve sends equal ones to the same replica
SEGMENT, PREPARE, INFO = "/v1/segment", "/v1/prepare", "/v1/info"
LOSSLESS = 0  # the JPEG quality that stands for PNG
LONGEST_HEAD = 256 * 1024  # bytes of a request's JSON: words and a long history
FORMATS = ("JPEG", "PNG")
UNKNOWN_FRAME = "unknown_frame"  # the kind of refusal after which the image is sent once more


class WireError(LisaError):
    """Bytes that are not what robot and server have agreed on."""


REFUSALS = {  # HTTP's code, and the kind by which the robot raises the same again
    ImageError: (422, "image"),
    InstructionError: (422, "instruction"),
    TrackingError: (422, "tracking"),
    BusyError: (429, "busy"),
}


class Refused(LisaError):
    """A request that is not answered: on the server as it is raised, on the robot as it is read."""

    def __init__(self, kind: str, sentence: str, code: int = 400) -> None:
        """`code`: HTTP's."""
        super().__init__(sentence)
        self.kind, self.code = kind, code


@dataclass(frozen=True)
class WireQuestion:
    """A question on its way to the server, with or without its image."""

    instruction: str
    mode: str = "auto"
    history: tuple[tuple[str, str], ...] = ()
    max_new_tokens: int | None = None
    time_left: float | None = None
    """seconds until the robot's deadline; None: it has none"""
    frame: str = ""
    """name of the image where it is not sent along"""
    keep: bool = True
    """whether the server shall keep the image for further questions"""
    file: bytes = b""
    """the image as JPEG or PNG"""


def frame_name(file: bytes) -> str:
    """The name of an image: equal names, equal bytes, whichever robots they came from."""
    return hashlib.sha256(file).hexdigest()


def encode_image(image: np.ndarray, jpeg_quality: int) -> bytes:
    """An image, uint8 (H, W, 3) RGB, as JPEG of a quality from 1 to 100, or as PNG (0)."""
    if jpeg_quality == LOSSLESS:
        ending, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]  # more saves 5 % and takes 4x
    else:
        ending, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    return cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def decode_image(file: bytes, max_pixels: int) -> np.ndarray:
    """uint8 (H, W, 3) RGB of a JPEG or PNG. Raises `ImageError` for anything else."""
    try:
        with PIL.Image.open(io.BytesIO(file), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"the image is {width}x{height} pixels; this server takes at most {max_pixels}"
                )
            return to_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # a damaged file raises anything from its parser
        raise ImageError(f"the image sent cannot be read as JPEG or PNG: {error}") from None


def join_body(fields: Mapping[str, Any], file: bytes) -> bytes:
    """The body of a request."""
    return json.dumps({"version": VERSION, **fields}).encode() + b"\n" + file


def split_body(body: bytes, longest: int) -> tuple[dict[str, Any], bytes]:
    """Fields (of `longest` bytes at most) and image file of a body. Raises `WireError`."""
    head, newline, file = body.partition(b"\n")
    if not newline or len(head) > longest:
        raise WireError(
            f"the request does not begin with a line of JSON of at most {longest} bytes; "
            "was it cut off?"
        )
    fields = read_line(head)
    version = fields.pop("version", None)
    if version != VERSION:
        raise WireError(
            f"the robot speaks version {version!r:.20} of the format and this server {VERSION}: "
            "install the same lisa_ros on both"
        )
    return fields, file


def write_question(question: WireQuestion) -> bytes:
    """The body of a request."""
    fields = {name: value for name, value in vars(question).items() if name != "file"}
    return join_body(fields, question.file)


def read_question(body: bytes) -> WireQuestion:
    """The other way. Raises `WireError`."""
    fields, file = split_body(body, LONGEST_HEAD)
    try:
        question = WireQuestion(**fields, file=file)
        history = tuple((str(asked), str(said)) for asked, said in question.history)
    except (TypeError, ValueError) as error:
        raise WireError(f"the request's fields are not those of a question: {error}") from None
    _check(isinstance(question.instruction, str), "instruction is no text")
    _check(isinstance(question.mode, str), "mode is no text")
    _check(isinstance(question.frame, str), "frame is no text")
    tokens, left = question.max_new_tokens, question.time_left
    _check(tokens is None or type(tokens) is int, "max_new_tokens is no whole number")
    is_number = type(left) in (int, float) and math.isfinite(left)
    _check(left is None or is_number, "time_left is no number")
    return replace(question, history=history)


def write_event(event: Event) -> bytes:
    """One line. A mask is written when it is ready, and not again with the whole answer."""
    if isinstance(event, TextDelta):
        fields: dict[str, Any] = {"text": event.text}
    elif isinstance(event, MaskReady):
        embedding = embedding_as_json(event.instance.seg_embedding)
        fields = {"mask": {**instance_as_json(event.instance), "embedding": embedding}}
    else:
        answer = dict(vars(event.answer), instances=len(event.answer.instances))
        fields = {"answer": answer | {"status": event.answer.status.value}}
    return json.dumps(fields, allow_nan=True).encode() + b"\n"


def is_last(line: bytes) -> bool:
    """Whether nothing comes after a line of an answer."""
    return line.startswith((b'{"answer": ', b'{"error": '))


def write_refusal(kind: str, sentence: str) -> bytes:
    """The line that takes the place of an answer: what was wrong, for the robot and for people."""
    return json.dumps({"error": {"kind": kind, "sentence": sentence}}).encode() + b"\n"


def refusal(fault: LisaError) -> tuple[int, bytes]:
    """HTTP's code and the line for what was wrong with a request."""
    code, kind = REFUSALS.get(type(fault), (400, "request"))
    if isinstance(fault, Refused):
        code, kind = fault.code, fault.kind
    return code, write_refusal(kind, str(fault))


def read_answer(line: bytes) -> dict[str, Any]:
    """One line that a server says. Raises `WireError`, or `Refused` if it is a refusal."""
    fields = read_line(line)
    if "error" not in fields:
        return fields
    try:
        refused = Refused(str(fields["error"]["kind"]), str(fields["error"]["sentence"])[:500])
    except (KeyError, TypeError) as error:
        raise WireError(f"a refusal cannot be understood: {error!r:.100}") from None
    raise refused


class EventReader:
    """Lines of one answer back to events."""

    def __init__(self, hw: tuple[int, int]) -> None:
        """`hw`: height and width of the image that was asked about."""
        self.hw, self.instances = hw, []

    def read(self, line: bytes) -> Event:
        """One line. Raises `WireError` for what is not complete or not ours, and `Refused`."""
        if not line.endswith(b"\n"):
            raise WireError("the answer breaks off in the middle of a line")
        fields = read_answer(line)
        try:
            if "text" in fields:
                return TextDelta(str(fields["text"]))
            if "mask" in fields:
                self.instances.append(self._instance(fields["mask"]))
                return MaskReady(self.instances[-1])
            return Finished(self._answer(fields["answer"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WireError(f"a line of the answer cannot be understood: {error!r:.100}") from None

    def _instance(self, fields: Mapping[str, Any]) -> Instance:
        evidence = {str(name): float(value) for name, value in fields["evidence"].items()}
        return Instance(
            mask=mask_of(fields["runs"], self.hw),
            score=float(fields["score"]),
            seg_probability=float(fields["seg_probability"]),
            label=str(fields["label"]),
            evidence=evidence,
            seg_embedding=embedding_of(fields.get("embedding")),
        )

    def _answer(self, fields: Mapping[str, Any]) -> Answer:
        if fields["instances"] != len(self.instances):
            raise ValueError(f"{fields['instances']} masks told, {len(self.instances)} sent")
        return Answer(
            text=str(fields["text"]),
            status=AnswerStatus(fields["status"]),
            instances=list(self.instances),
            timings={str(name): float(value) for name, value in fields["timings"].items()},
            counters={str(name): int(value) for name, value in fields["counters"].items()},
            stopped_by=str(fields["stopped_by"]),
            transcript=str(fields["transcript"]),
        )


@dataclass(frozen=True)
class ServerInfo:
    """What a server says about itself."""

    version: int
    model: str
    device: str
    max_pixels: int

    def write(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def read(line: bytes) -> ServerInfo:
        """The other way. Raises `WireError`, `Refused`."""
        fields = read_answer(line)
        version = fields.get("version")
        if version != VERSION:
            raise WireError(
                f"the server speaks version {version!r:.20} of the format and this robot "
                f"{VERSION}: install the same lisa_ros on both"
            )
        try:
            model, device = str(fields["model"]), str(fields["device"])
            return ServerInfo(version, model, device, int(fields["max_pixels"]))
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"what it says about itself lacks {error}") from None


def instance_as_json(instance: Instance) -> dict[str, Any]:
    """An instance as plain data."""
    return {
        "label": instance.label,
        "score": instance.score,
        "seg_probability": instance.seg_probability,
        "box": list(instance.box),
        "area": instance.area,
        "size": list(instance.mask.shape),
        "runs": run_lengths(instance.mask),
        "evidence": dict(instance.evidence),
    }


def embedding_as_json(embedding: np.ndarray | None) -> str | None:
    """A `[SEG]` embedding (C,) as text; float32 to the bit."""
    if embedding is None:
        return None
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode()


def embedding_of(text: str | None) -> np.ndarray | None:
    """The other way. Raises `ValueError`, `TypeError`."""
    if text is None:
        return None
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask (H, W), row by row, the first of background (maybe 0)."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def mask_of(runs: list[int], hw: tuple[int, int]) -> np.ndarray:
    """The mask, bool (H, W), of its run lengths. Raises `ValueError` if they do not fill it."""
    lengths = np.array(runs, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != hw[0] * hw[1]:
        raise ValueError(f"run lengths of {lengths.sum()} pixels for an image of {hw[1]}x{hw[0]}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(hw)


def read_line(line: bytes) -> dict[str, Any]:
    """One line of JSON. Raises `WireError`."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise WireError(f"{line[:60]!r} is not what lisa_ros says")
    return fields


def _check(is_right: bool, complaint: str) -> None:
    if not is_right:
        raise WireError(f"the request's {complaint}")
