"""The web process's ROS side: live image, questions, tracks and the state of the node.

It runs in a thread of its own. What it learns goes to the pages by `post`; what the pages want
comes in by `ask`, `follow`, `stop` and `watch`, which may be called from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from lisa_ros.action import Follow, Segment
from lisa_ros.errors import ImageError
from lisa_ros.model.prompt import check_text
from lisa_ros.msg import Instance, Segmentation
from lisa_ros.node.client import SentGoal
from lisa_ros.node.inputs.image_conversion import to_rgb
from lisa_ros.node.inputs.subscription import OnDemandSubscription
from lisa_ros.node.results.messages import with_masks
from lisa_ros.node.run import spin
from lisa_ros.node.status import Status

Post = Callable[[str, str, dict[str, Any], bytes], None]
"""Hands a message to the page of this name, or with "" to all; an unsent one with the same key
(the second argument) is replaced. The last is a JPEG that goes with it, or empty."""

NODE = "perception"
LIVE_RATE = 20.0  # live images per second at most
STATE_PERIOD = 0.5  # seconds between two looks at the node
SILENCE = 3.5  # seconds without diagnostics, which come every second, after which the node is gone
KEPT_SECONDS, KEPT_BYTES = 2.0, 64 * 2**20  # images that an answer may still be about
IMAGE_LIMIT = 5.0  # seconds from an answer to the image that it is about, if we had lost that
OPEN_GOALS = 4  # of one page
QUEUE = 30  # images that the middleware keeps between two looks
LIVE_SIDE, LIVE_QUALITY, STILL_QUALITY = 1280, 80, 92
GONE = "the perception node went away before the answer was complete; ask again once it is back"
TRACK_STATES = {
    Instance.UNTRACKED: "",
    Instance.VISIBLE: "visible",
    Instance.OCCLUDED: "hidden",
    Instance.LOST: "lost",
}


@dataclass
class OpenGoal:
    """A goal of one page that has not ended."""

    page: str
    number: int
    """the page's own count of its questions"""
    kind: str
    """ask or follow"""
    servers: frozenset[bytes]
    """the publishers of `mask` when it was sent, by which a restarted node is told"""
    sent: SentGoal | None = None
    stamp: tuple[int, int] | None = None
    """of the image that its answer is about"""
    has_image: bool = False
    """whether the page has been sent the image that the answer is about"""
    answered: float = 0.0
    """when its answer went out, by `time.monotonic()`; it then waits for its image alone"""


class NodeClient:
    """A ROS node `web` beside the perception node."""

    def __init__(self, namespace: str, ros_arguments: Sequence[str], post: Post) -> None:
        self._post = post
        self._context = rclpy.Context()
        rclpy.init(
            args=list(ros_arguments),
            context=self._context,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._node = node = rclpy.create_node("web", namespace=namespace, context=self._context)
        self.namespace = node.get_namespace().strip("/")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._segment = ActionClient(node, Segment, "segment")
        self._follow = ActionClient(node, Follow, "follow")
        self._camera = OnDemandSubscription(node, {"qos": "auto"}, "qos", QUEUE)
        self._answers: list[Any] = []  # subscriptions of `mask` and `input/image`, while watched
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        node.create_timer(1 / LIVE_RATE, self._on_live)
        node.create_timer(STATE_PERIOD, self._on_state)
        self._goals: dict[tuple[str, int], OpenGoal] = {}
        self._images: OrderedDict[tuple[int, int], tuple[Any, float]] = OrderedDict()
        self._wishes: deque[Callable[[], Any]] = deque()
        self._watched = False
        self._reports: dict[str, DiagnosticStatus] = {}
        self._heard = -math.inf  # when the last diagnostics came
        self._image_fault = ""
        self._seen = -math.inf  # when the last image came
        self.state: dict[str, Any] = self._state()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=spin, args=(self._executor, node, self._stopping), name="ros", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Take back what is open and leave the graph."""
        if self._thread.is_alive():
            self._do(lambda: [goal.sent.cancel() for goal in self._goals.values()])
            self._do(self._stopping.set)
            self._thread.join(2.0)
        self._executor.shutdown(1.0)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    # --- what pages want ---------------------------------------------------------------------

    def watch(self, watched: bool) -> None:
        """Whether any page looks at the live image; nothing is subscribed to while none does."""
        if watched != self._watched:
            self._watched = watched
            self._do(self._subscribe)

    def ask(self, page: str, number: int, words: dict[str, str]) -> None:
        """Ask a question. `words`: instruction, mode and dialogue.

        Raises:
            InstructionError: here as in `follow`, for an instruction that ROS cannot carry.
        """
        check_text(words["instruction"])
        goal = Segment.Goal(masks=Segment.Goal.MASKS_RLE, **words)
        self._do(lambda: self._send(page, number, "ask", self._segment, goal))

    def follow(self, page: str, number: int, what: dict[str, Any]) -> None:
        """Follow a thing. `what`: instruction, or query_id and instance_id of an answer."""
        check_text(what.get("instruction", ""))
        goal = Follow.Goal(masks=Segment.Goal.MASKS_RLE, **what)
        self._do(lambda: self._send(page, number, "follow", self._follow, goal))

    def stop(self, page: str, number: int | None = None) -> None:
        """Take back one question of a page, or everything that it has open."""
        self._do(
            lambda: [
                goal.sent.cancel()
                for goal in list(self._goals.values())
                if goal.page == page and number in (None, goal.number)
            ]
        )

    def _do(self, call: Callable[[], Any]) -> None:
        # rclpy's action client registers a request after it has sent it: on another thread the
        # response can come too early, and is then ignored
        self._wishes.append(call)
        self._executor.create_task(self._fulfil)

    def _fulfil(self) -> None:
        # the executor begins with the task that was made last
        while self._wishes:
            self._wishes.popleft()()

    # --- goals -------------------------------------------------------------------------------

    def _send(self, page: str, number: int, kind: str, client: ActionClient, goal: Any) -> None:
        # the graph still shows the action of a node that was killed
        if not self.state["alive"] or not client.server_is_ready():
            reason = self.state["follow"] if self.state["ready"] else self.state["node"]
            self._end(page, number, reason or "the perception node is not there yet; ask again")
            return
        if sum(one.page == page and not one.answered for one in self._goals.values()) >= OPEN_GOALS:
            sentence = f"this page has {OPEN_GOALS} questions open: wait for an answer, or stop one"
            self._end(page, number, sentence)
            return
        opened = OpenGoal(page, number, kind, self._servers())
        self._goals[page, number] = opened
        opened.sent = SentGoal(
            client,
            goal,
            lambda feedback: self._on_feedback(opened, feedback),
            lambda: self._on_end(opened),
        )

    def _on_feedback(self, goal: OpenGoal, wrapped: Any) -> None:
        if (goal.page, goal.number) not in self._goals or goal.answered:
            return
        feedback = wrapped.feedback
        if goal.kind == "follow":
            self._show_track(goal, feedback.segmentation)
            return
        self._show_image(goal, feedback.header.stamp)
        progress = {
            "type": "progress",
            "ask": goal.number,
            "text": feedback.text,
            "width": feedback.width,
            "height": feedback.height,
            "instances": [instance_json(one, feedback.header) for one in feedback.instances],
        }
        self._post(goal.page, f"answer {goal.number}", progress, b"")

    def _on_end(self, goal: OpenGoal) -> None:
        if (goal.page, goal.number) not in self._goals:
            return
        if goal.sent.refused:
            self._forget(goal, "the perception node does not take the question")
            return
        result = goal.sent.result
        message = result.segmentation
        if goal.kind == "follow":
            ended = {"type": "follow_ended", "ask": goal.number, "reason": result.reason}
            if not message.status:  # a node that stops hands out an empty result
                ended["reason"] = ended["reason"] or GONE
            self._post(goal.page, f"answer {goal.number}", ended, b"")
            self._forget(goal)
            return
        if not message.status:
            self._forget(goal, GONE)
            return
        if message.width:
            self._show_image(goal, message.header.stamp)
        answer = {"type": "answer", "ask": goal.number} | segmentation_json(message)
        self._post(goal.page, f"answer {goal.number}", answer, b"")
        goal.answered = time.monotonic()
        if goal.has_image or not message.width:
            self._forget(goal)

    def _show_image(self, goal: OpenGoal, stamp: Any) -> None:
        """Send the image that an answer is about, once, if it is at hand."""
        goal.stamp = (stamp.sec, stamp.nanosec)
        if not goal.has_image:
            self._send_image(goal, self._jpeg_of(stamp, live=False))

    def _send_image(self, goal: OpenGoal, jpeg: bytes) -> None:
        if jpeg:
            goal.has_image = True
            told = {"type": "image", "ask": goal.number}
            self._post(goal.page, f"image {goal.number}", told, jpeg)

    def _on_answered_image(self, image: Image) -> None:
        """`input/image`: what an answer was about, for those whose image we had lost."""
        for goal in list(self._goals.values()):
            if goal.stamp == (image.header.stamp.sec, image.header.stamp.nanosec):
                if not goal.has_image:
                    self._send_image(goal, self._jpeg(image, live=False))
                if goal.answered:
                    self._forget(goal)

    def _on_mask(self, message: Segmentation) -> None:
        """What was asked on the topic `query`, by a voice for example, is for all pages."""
        if message.source != Segmentation.SOURCE_TOPIC or message.tracked:
            return
        jpeg = self._jpeg_of(message.header.stamp, live=False)
        answer = segmentation_json(with_masks(message, Segment.Goal.MASKS_RLE))
        self._post("", f"overheard {message.query_id}", {"type": "overheard"} | answer, jpeg)

    def _show_track(self, goal: OpenGoal, message: Segmentation) -> None:
        """The image that the masks belong to, and the masks, as one live image of its page."""
        jpeg = self._jpeg_of(message.header.stamp, live=True)
        if jpeg:
            track = {"type": "live", "ask": goal.number} | segmentation_json(message)
            self._post(goal.page, "live", track, jpeg)

    def _end(self, page: str, number: int, sentence: str) -> None:
        ended = {"type": "failed", "ask": number, "error": sentence}
        self._post(page, f"answer {number}", ended, b"")

    def _forget(self, goal: OpenGoal, sentence: str = "") -> None:
        """A goal has ended; with a sentence, before it had an answer."""
        if self._goals.pop((goal.page, goal.number), None) is not None and sentence:
            self._end(goal.page, goal.number, sentence)

    # --- images ------------------------------------------------------------------------------

    def _on_live(self) -> None:
        """Take the newest image and show it to all pages."""
        if not self._watched or not self._camera.topic:
            return
        newest = self._take_images()
        if newest is not None:
            jpeg = self._jpeg(newest, live=True)
            if jpeg:
                self._post("", "live", {"type": "live"}, jpeg)

    def _take_images(self) -> Any:
        """Everything that has come from the camera goes to the kept images; the newest, if any."""
        newest, now = None, time.monotonic()
        while (taken := self._camera.take()) is not None:
            newest, self._seen = taken[0], now
            stamp = newest.header.stamp
            self._images[stamp.sec, stamp.nanosec] = (newest, now)
            self._images.move_to_end((stamp.sec, stamp.nanosec))
        size = sum(len(image.data) for image, _ in self._images.values())
        while self._images:
            key, (image, since) = next(iter(self._images.items()))
            if len(self._images) == 1 or (size <= KEPT_BYTES and now - since <= KEPT_SECONDS):
                break
            size -= len(image.data)
            del self._images[key]
        return newest

    def _jpeg_of(self, stamp: Any, *, live: bool) -> bytes:
        """The image of a stamp as JPEG; empty if it is not at hand or cannot be shown."""
        self._take_images()
        image, _ = self._images.get((stamp.sec, stamp.nanosec), (None, 0.0))
        return self._jpeg(image, live=live) if image is not None else b""

    def _jpeg(self, image: Any, *, live: bool) -> bytes:
        """An image as JPEG, one that is a JPEG as it came; empty if it cannot be shown."""
        try:
            if isinstance(image, CompressedImage) and image.data[:2].tobytes() == b"\xff\xd8":
                data = image.data.tobytes()
                if not live or len(data) < LIVE_SIDE * LIVE_SIDE // 4:
                    self._image_fault = ""
                    return data
            pixels = to_rgb(image)[..., ::-1]  # (H, W, 3) BGR
        except ImageError as error:
            self._image_fault = str(error)
            return b""
        self._image_fault = ""
        side = max(pixels.shape[:2])
        if live and side > LIVE_SIDE:
            scale = LIVE_SIDE / side
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        quality = LIVE_QUALITY if live else STILL_QUALITY
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()

    # --- the node ----------------------------------------------------------------------------

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        start = f"{self.namespace}/{NODE}: "
        for status in array.status:
            if status.name.startswith(start):
                self._reports[status.name.removeprefix(start)] = status
                self._heard = time.monotonic()
        self._on_state()

    def _servers(self) -> frozenset[bytes]:
        topic = self._node.resolve_topic_name("mask")
        infos = self._node.get_publishers_info_by_topic(topic)
        return frozenset(bytes(info.endpoint_gid) for info in infos)

    def _on_state(self) -> None:
        """Look after the node: end what a node that is gone cannot end; tell the pages."""
        self.state, before = self._state(), self.state
        servers = self._servers()
        for goal in list(self._goals.values()):
            if goal.answered:
                if time.monotonic() - goal.answered > IMAGE_LIMIT:
                    self._forget(goal)
            elif goal.servers != servers or not self.state["alive"]:
                self._forget(goal, GONE)
        self._subscribe()
        if self.state != before:
            self._post("", "state", self.state, b"")

    def _subscribe(self) -> None:
        """Hear the topics that the node hears, while a page looks."""
        topic = self._value("camera", "topic") if self._watched else ""
        types = dict(self._node.get_topic_names_and_types()).get(topic, [])
        kind = CompressedImage if "sensor_msgs/msg/CompressedImage" in types else Image
        if topic != self._camera.topic or (topic and kind is not self._camera.kind):
            self._camera.close()
            self._images.clear()
            self._camera.topic = ""
            if topic and types:
                self._camera.open(kind, topic)
        elif topic:
            self._camera.follow_publishers()
        if self._watched and not self._answers:
            subscribe = self._node.create_subscription
            self._answers = [
                subscribe(Image, "input/image", self._on_answered_image, 2),
                subscribe(Segmentation, "mask", self._on_mask, 10),
            ]
        while not self._watched and self._answers:
            self._node.destroy_subscription(self._answers.pop())

    def _state(self) -> dict[str, Any]:
        """What pages show of the node; empty sentences where all is well."""
        model, camera = self._reports.get("model"), self._reports.get("camera")
        alive = time.monotonic() - self._heard < SILENCE
        place = f"/{self.namespace}/{NODE}"
        node = camera_fault = ""
        if not alive:
            node = f"no perception node answers as {place}: start it with `lisa-ros node`"
        elif model is not None and model.level != DiagnosticStatus.OK:
            node = model.message
        elif camera is not None:
            # a node that has just begun looks once a second: we may see the camera before it does
            waiting = camera.message == "waiting for the first image" and (
                time.monotonic() - self._seen > STATE_PERIOD
            )
            bad = camera.level != DiagnosticStatus.OK or waiting
            camera_fault = camera.message if bad else self._image_fault
        follow = ""
        if not self._follow.server_is_ready():
            follow = "this perception node cannot follow: it has no action `follow`"
        return {
            "type": "state",
            "namespace": self.namespace,
            "alive": alive,
            "ready": alive and not node,
            "node": node,
            "camera": camera_fault,
            "topic": self._value("camera", "topic"),
            "model": self._value("model", "model"),
            "device": self._value("model", "device"),
            "follow": follow,
        }

    def _value(self, part: str, key: str) -> str:
        report = self._reports.get(part)
        values = {one.key: one.value for one in report.values} if report else {}
        return values.get(key, "")


def segmentation_json(message: Segmentation) -> dict[str, Any]:
    """An answer for the page and for who downloads it."""
    fields = message.timings.get_fields_and_field_types()
    return {
        "query_id": message.query_id,
        "query": message.query,
        "mode": message.mode,
        "status": Status(message.status).name if message.status else "",
        "error": message.error,
        "answer": message.answer,
        "truncated": message.truncated,
        "stamp": message.header.stamp.sec + message.header.stamp.nanosec / 1e9,
        "frame_id": message.header.frame_id,
        "width": message.width,
        "height": message.height,
        "tracked": message.tracked,
        "model": message.model,
        "instances": [instance_json(one, message.header) for one in message.instances],
        "timings": {name: finite(getattr(message.timings, name)) for name in fields},
    }


def instance_json(one: Instance, header: Any) -> dict[str, Any]:
    """One mask: run lengths as in COCO, and where the object is, in metres."""
    roi = one.roi
    found: dict[str, Any] = {
        "id": one.id,
        "label": one.label,
        "score": finite(one.score),
        "box": [roi.x_offset, roi.y_offset, roi.width, roi.height],
        "area": one.area,
        "mask": one.mask_text,
        "pose_reason": one.pose_reason,
        "track": TRACK_STATES.get(one.track_state, ""),
    }
    if one.has_pose:
        place, frame = one.pose.pose.position, one.pose.header.frame_id
        found["position"] = [finite(place.x), finite(place.y), finite(place.z)]
        found["size"] = [finite(one.size.x), finite(one.size.y), finite(one.size.z)]
        found["frame_id"] = frame
        if frame == header.frame_id:
            found["distance"] = finite(math.hypot(place.x, place.y, place.z))
    return found


def finite(value: float) -> float | None:
    """The number, rounded to what means something; None where it is none (JSON knows no NaN)."""
    return round(value, 4) if math.isfinite(value) else None
