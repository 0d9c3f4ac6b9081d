"""From the engine's answer to the messages that go out."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

import cv2
import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, PoseStamped, Quaternion, Vector3
from sensor_msgs.msg import Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import ColorRGBA, Float32MultiArray, Header, MultiArrayDimension

from lisa_ros.action import Segment
from lisa_ros.engine.answer import Instance
from lisa_ros.geometry import XYZRGB, Grasp, Object3D, quaternion
from lisa_ros.msg import Instance as InstanceMessage
from lisa_ros.msg import Segmentation, Timings
from lisa_ros.node.inputs.image_conversion import to_bytes, to_message
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results.objects3d import Objects3D
from lisa_ros.node.results.overlay import COLORS
from lisa_ros.node.status import Status
from lisa_ros.serving.wire import run_lengths

WithInstances = TypeVar("WithInstances", Segmentation, Segment.Feedback)
ENGINE_STAGES = ("clip", "sam", "prefill", "decode", "mask")
COUNTERS = ("sam_encodes", "clip_encodes", "forwards", "tokens", "drafted", "accepted")
SCORES = ("score", "width", "instance")
"""the columns of `grasps/scores`"""
TRANSPARENT, OPAQUE = 0.35, 1.0
LETTERS = 0.03  # metres, height of a label
AXES = np.eye(3)
UNFINISHED = "objects are placed in space once the answer is complete"


def segmentation(query: Query, outcome: Outcome, model: str) -> Segmentation:
    """The one result of a query, but for `timings.total`, which is set when it goes out."""
    answer, frame = outcome.answer, query.frame
    # What a failing model said before it failed is not worth anything.
    partial = outcome.status in (Status.CANCELLED, Status.TIMEOUT)
    message = Segmentation(
        query_id=query.id,
        query=query.instruction,
        mode=query.mode,
        source=query.source,
        query_stamp=query.stamp,
        status=int(outcome.status),
        error=outcome.error,
        answer=answer.text if answer else query.text if partial else "",
        truncated=answer is not None and answer.truncated,
        model=model,
        timings=_timings(query, outcome),
    )
    if frame is not None:
        message.header = frame.header
        message.width, message.height = frame.size
    found = answer.instances if answer else query.instances if partial else []
    objects = outcome.objects or Objects3D.none(len(found), UNFINISHED)
    message.instances = instance_messages(found, message.header, objects)
    for name in COUNTERS:
        setattr(message, name, answer.counters.get(name, 0) if answer else 0)
    return message


def _timings(query: Query, outcome: Outcome) -> Timings:
    """Milliseconds per stage."""
    timings = Timings(convert=query.convert * 1e3)
    if query.started:
        timings.wait = (query.started - query.arrived) * 1e3
    if query.first_mask:
        timings.first_mask = (query.first_mask - query.arrived) * 1e3
    if outcome.answer:
        for stage in ENGINE_STAGES:
            setattr(timings, stage, float(outcome.answer.timings.get(stage, 0.0)))
    if outcome.objects:
        timings.geometry = outcome.objects.seconds * 1e3
    return timings


def since(query: Query) -> float:
    """Milliseconds since the query arrived."""
    return (time.monotonic() - query.arrived) * 1e3


def instance_messages(
    instances: Sequence[Instance], header: Header, found: Objects3D
) -> list[InstanceMessage]:
    """The masks of an answer, each cut out to its box, numbered from 1 and placed in space."""
    messages = []
    for number, (one, obj) in enumerate(zip(instances, found.objects, strict=True), start=1):
        message = _instance(number, one, header)
        _localize(message, obj, Header(stamp=header.stamp, frame_id=found.frame_id))
        messages.append(message)
    return messages


def _instance(number: int, instance: Instance, header: Header) -> InstanceMessage:
    x, y, width, height = (int(value) for value in instance.box)
    cut = instance.mask[y : y + height, x : x + width].astype(np.uint8) * 255
    return InstanceMessage(
        id=number,
        label=instance.label,
        score=float(instance.score),
        seg_probability=float(instance.seg_probability),
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        mask=to_message(cut, "mono8", header),
        area=int(instance.area),
    )


def _localize(message: InstanceMessage, obj: Object3D, header: Header) -> None:
    """Fill in the 3-D part, or why there is none."""
    message.pose_reason, message.has_pose = obj.reason, obj.box is not None
    message.points = len(obj.points)
    message.depth_fraction = float(obj.depth_fraction)
    message.views, message.agreement = len(obj.viewpoints), float(obj.agreement)
    if obj.box is not None:
        message.pose = PoseStamped(
            header=header, pose=pose_message(obj.box.center, obj.box.quaternion)
        )
        message.size = vector_message(obj.box.size)
        message.centroid = point_message(obj.centroid)


def with_masks(message: WithInstances, form: str) -> WithInstances:
    """A message with `instances`, their masks in the form that a goal asked for."""
    if form in ("", "image"):
        return message
    changed = copy(message)
    changed.instances = [_with_mask(one, form, message) for one in message.instances]
    return changed


def _with_mask(one: InstanceMessage, form: str, whole: Any) -> InstanceMessage:
    changed = copy(one)
    changed.mask = Image()
    if form == "none" or not one.area:
        return changed
    if form == "png":
        changed.mask_text = base64.b64encode(cv2.imencode(".png", _cut_mask(one))[1]).decode()
    else:
        mask = full_mask(whole, one)
        changed.mask_text = json.dumps({"size": list(mask.shape), "counts": coco_counts(mask)})
    return changed


def full_mask(message: WithInstances, instance: InstanceMessage) -> np.ndarray:
    """The mask of one instance of a result in pixels of the image, bool (H, W)."""
    whole = np.zeros((message.height, message.width), bool)
    paint(whole, instance, True)
    return whole


def paint(image: np.ndarray, instance: InstanceMessage, value: int) -> None:
    """Set the pixels of an image (H, W) that the mask of an instance holds."""
    roi = instance.roi
    part = image[roi.y_offset :, roi.x_offset :][: roi.height, : roi.width]
    part[_cut_mask(instance) > 0] = value


def _cut_mask(instance: InstanceMessage) -> np.ndarray:
    """uint8 (h, w) of the instance's box, 255 where the mask is."""
    cut = instance.mask
    return np.frombuffer(cut.data, np.uint8).reshape(cut.height, cut.step)[:, : cut.width]


def coco_counts(mask: np.ndarray) -> str:
    """A mask, bool (H,W), as COCO writes it: its runs column by column, the first of background.

    From the third on the difference to the run before the last is written, in groups of five bits,
    the lowest first; a sixth bit says that more follow, and 48 makes a letter of it.
    """
    runs, letters = run_lengths(mask.T), []
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            letters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(letters)


def words(message: Segmentation) -> str:
    """What is said about a result: the answer, or why there is none.

    What the model says about a mask that is not shown would mislead.
    """
    not_shown = message.status == Status.NOT_FOUND and message.error
    return not_shown or message.answer or message.error


def summary(message: Segmentation) -> str:
    """An answer in a few lines for people."""
    header = f"query {message.query_id} {message.query!r:.100}: {Status(message.status).name}"
    lines = [f"{header}, {message.timings.total:.0f} ms"]
    lines += [line for line in (message.answer, message.error) if line]
    for one in message.instances:
        roi = one.roi
        box = f"{roi.width}x{roi.height} at {roi.x_offset},{roi.y_offset}"
        lines.append(f"{one.id}. {one.label}: score {one.score:.2f}, box {box}")
        if one.has_pose:
            place, size = one.pose.pose.position, one.size
            lines.append(
                f"   at {place.x:.3f}, {place.y:.3f}, {place.z:.3f} m in "
                f"{one.pose.header.frame_id}, size {size.x:.3f} x {size.y:.3f} x {size.z:.3f} m"
            )
        else:
            lines.append(f"   no pose: {one.pose_reason}")
        if one.grasps_reason:
            lines.append(f"   no grasps: {one.grasps_reason}")
    return "\n".join(lines)


def pose_message(position: np.ndarray, quaternion: np.ndarray) -> Pose:
    """A pose of a position (3,) in metres and a quaternion (x, y, z, w)."""
    turn = Quaternion(**dict(zip("xyzw", quaternion.tolist(), strict=True)))
    return Pose(position=point_message(position), orientation=turn)


def point_message(position: np.ndarray) -> Point:
    """A point of a position (3,)."""
    return Point(**dict(zip("xyz", position.tolist(), strict=True)))


def vector_message(values: np.ndarray) -> Vector3:
    """A vector of three numbers."""
    return Vector3(**dict(zip("xyz", values.tolist(), strict=True)))


def union_image(message: Segmentation) -> Image:
    """mono8 of the image's size: 255 where any of the masks is."""
    union = np.zeros((message.height, message.width), np.uint8)
    for instance in message.instances:
        paint(union, instance, 255)
    return to_message(union, "mono8", message.header)


def label_image(
    instances: Sequence[InstanceMessage], size: tuple[int, int], header: Header
) -> Image:
    """mono8 of `size` (width, height): the number of the mask, 0 beside all of them.

    Where two masks overlap, the smaller one is on top: it is the part, the other one the whole.
    """
    labels = np.zeros(size[::-1], np.uint8)
    for one in sorted(instances, key=lambda one: -one.area):
        paint(labels, one, min(one.id, 255))
    return to_message(labels, "mono8", header)


def label_names(message: Segmentation) -> str:
    """JSON: what the numbers of the label image stand for, and the image that they belong to."""
    stamp = message.header.stamp
    names: dict[str, Any] = {str(one.id): one.label for one in message.instances}
    return json.dumps(
        {
            "query_id": message.query_id,
            "query": message.query,
            "stamp": {"sec": stamp.sec, "nanosec": stamp.nanosec},
            "labels": {"0": "background", **names},
        }
    )


def label_info(message: Segmentation) -> Any:
    """vision_msgs/LabelInfo: the same for programs that know this type."""
    from vision_msgs.msg import LabelInfo, VisionClass

    found = [VisionClass(class_id=one.id, class_name=one.label) for one in message.instances]
    return LabelInfo(header=message.header, class_map=found)


def detections_2d(message: Segmentation) -> Any:
    """vision_msgs/Detection2DArray: box, label and score of every mask that is not empty."""
    from vision_msgs.msg import Detection2D, Detection2DArray

    array = Detection2DArray(header=message.header)
    for one in message.instances:
        if not one.area:
            continue
        found = Detection2D(header=message.header, results=[_hypothesis(one)])
        found.id = str(one.track_id or one.id)
        roi, box = one.roi, found.bbox
        box.center.position.x = roi.x_offset + roi.width / 2
        box.center.position.y = roi.y_offset + roi.height / 2
        box.size_x, box.size_y = float(roi.width), float(roi.height)
        array.detections.append(found)
    return array


def detections_3d(message: Segmentation) -> Any:
    """vision_msgs/Detection3DArray: box, label and score of everything that has a pose."""
    from vision_msgs.msg import Detection3D, Detection3DArray

    placed = [one for one in message.instances if one.has_pose]
    # all of them are in one frame, which may be another than the image's
    header = placed[0].pose.header if placed else message.header
    array = Detection3DArray(header=header)
    for one in placed:
        found = Detection3D(header=header, results=[_hypothesis(one)])
        found.id = str(one.track_id or one.id)
        found.results[0].pose.pose = one.pose.pose
        found.bbox.center, found.bbox.size = one.pose.pose, one.size
        array.detections.append(found)
    return array


def _hypothesis(one: InstanceMessage) -> Any:
    from vision_msgs.msg import ObjectHypothesisWithPose

    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = one.label, float(one.score)
    return result


def cloud_message(points: np.ndarray, header: Header) -> PointCloud2:
    """A cloud of coloured points (N,), dtype `XYZRGB`."""
    fields = [
        PointField(name=name, offset=XYZRGB.fields[name][1], datatype=PointField.FLOAT32, count=1)
        for name in XYZRGB.names
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        point_step=XYZRGB.itemsize,
        row_step=XYZRGB.itemsize * len(points),
        data=to_bytes(points.view(np.uint8)),
        is_dense=True,
    )


def grasp_messages(
    found: Sequence[tuple[int, Grasp]], header: Header, query_id: str
) -> tuple[PoseArray, Float32MultiArray]:
    """The poses, and one row of `SCORES` for each of them."""
    poses = [pose_message(one.pose[:3, 3], quaternion(one.pose[:3, :3])) for _, one in found]
    rows = [[one.score, one.width, float(number)] for number, one in found]
    scores = Float32MultiArray(data=[value for row in rows for value in row])
    columns = len(SCORES)
    # A MultiArray has no header; its labels say which answer it belongs to and what is in it.
    scores.layout.dim = [
        MultiArrayDimension(label=query_id, size=len(rows), stride=len(rows) * columns),
        MultiArrayDimension(label=",".join(SCORES), size=columns, stride=columns),
    ]
    return PoseArray(header=header, poses=poses), scores


def marker_array(objects: Sequence[Object3D], labels: Sequence[str], header: Header) -> Any:
    """visualization_msgs/MarkerArray: a box, its axes and a label for each object.

    The first marker takes away those of the answer before.
    """
    from visualization_msgs.msg import Marker, MarkerArray

    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for number, (obj, label) in enumerate(zip(objects, labels, strict=True), start=1):
        if obj.box is None:
            continue
        box = obj.box
        given: dict[str, Any] = {"header": header, "id": number, "action": Marker.ADD}
        placed = given | {"pose": pose_message(box.center, box.quaternion)}
        red, green, blue = (value / 255 for value in COLORS[(number - 1) % len(COLORS)])
        color = ColorRGBA(r=red, g=green, b=blue, a=TRANSPARENT)
        size = vector_message(np.maximum(box.size, 1e-3))
        markers.append(Marker(ns="boxes", type=Marker.CUBE, scale=size, color=color, **placed))
        axes = Marker(ns="axes", type=Marker.LINE_LIST, **placed)
        axes.scale.x = max(0.002, 0.02 * float(box.size.max()))
        for axis, length in zip(AXES, box.size, strict=True):
            axes.points += [point_message(np.zeros(3)), point_message(axis * length * 0.75)]
            axes.colors += [ColorRGBA(**dict(zip("rgb", axis.tolist(), strict=True)), a=OPAQUE)] * 2
        markers.append(axes)
        text = Marker(ns="labels", type=Marker.TEXT_VIEW_FACING, text=f"{number} {label}", **given)
        up = obj.up if obj.up is not None else np.array([0.0, -1.0, 0.0])
        above = float(np.abs(up @ box.rotation) @ box.size) / 2 + LETTERS
        text.pose.position = point_message(box.center + up * above)
        text.scale.z, text.color = LETTERS, ColorRGBA(r=1.0, g=1.0, b=1.0, a=OPAQUE)
        markers.append(text)
    return MarkerArray(markers=markers)
