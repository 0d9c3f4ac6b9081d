"""How a query can end: the statuses of `lisa_ros/msg/Segmentation` and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Status(IntEnum):
    """The values of `Segmentation.status`."""

    OK = 1
    NOT_FOUND = 2
    TEXT_ONLY = 3
    NO_IMAGE = 4
    STALE_IMAGE = 5
    REJECTED = 6
    CANCELLED = 7
    TIMEOUT = 8
    MODEL_ERROR = 9
    NOT_READY = 10


MEANING: dict[Status, str] = {
    Status.OK: "at least one mask",
    Status.NOT_FOUND: "a mask was asked for, and the model says that the thing is not there, "
    "or its mask is empty",
    Status.TEXT_ONLY: "an answer in words, without a mask",
    Status.NO_IMAGE: "no image has arrived yet",
    Status.STALE_IMAGE: "the newest image is older than `input.max_age`",
    Status.REJECTED: "the instruction or the image cannot be used, or too many queries wait",
    Status.CANCELLED: "the client took the query back, or the node was stopped meanwhile",
    Status.TIMEOUT: "no answer within `query.timeout` or the goal's own limit; "
    "`answer` holds the text so far",
    Status.MODEL_ERROR: "the model failed; the details are in the node's log",
    Status.NOT_READY: "the node is not active, or its model is not loaded, or the server of its "
    "model does not answer",
}

ANSWERED = (Status.OK, Status.NOT_FOUND, Status.TEXT_ONLY)
"""The statuses of queries that the model has answered; all others carry a sentence in `error`."""


class NotAnswered(Exception):
    """A query ends without an answer of the model: the status and the sentence for it."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass
class Readiness:
    """What the node can do now."""

    state: str
    """of the life cycle: unconfigured, inactive, active or finalized"""
    not_ready_reason: str
    """why nothing can be answered; empty while it is active"""
    failure: Exception | None = None
    """what the last transition failed with"""
