"""From objects in space to the messages of other packages: clouds, markers, grasps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Float32MultiArray, Header, MultiArrayDimension

from lisa_ros.geometry import XYZRGB, Grasp, Object3D, quaternion
from lisa_ros.node.inputs.image_conversion import to_bytes
from lisa_ros.node.results.messages import point_message, pose_message
from lisa_ros.node.results.overlay import COLORS

SCORES = ("score", "width", "instance")
"""the columns of `grasps/scores`"""
TRANSPARENT, OPAQUE = 0.35, 1.0
LETTERS = 0.03  # metres, height of a label
AXES = np.eye(3)


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


def marker_array(things: Sequence[Object3D], labels: Sequence[str], header: Header) -> Any:
    """visualization_msgs/MarkerArray: a box, its axes and a label for each object.

    The first marker takes away those of the answer before.
    """
    from visualization_msgs.msg import Marker, MarkerArray

    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for number, (thing, label) in enumerate(zip(things, labels, strict=True), start=1):
        if thing.box is None:
            continue
        box = thing.box
        given: dict[str, Any] = {"header": header, "id": number, "action": Marker.ADD}
        placed = given | {"pose": pose_message(box.center, box.quaternion)}
        red, green, blue = (value / 255 for value in COLORS[(number - 1) % len(COLORS)])
        color = ColorRGBA(r=red, g=green, b=blue, a=TRANSPARENT)
        size = _vector(np.maximum(box.size, 1e-3))
        markers.append(Marker(ns="boxes", type=Marker.CUBE, scale=size, color=color, **placed))
        axes = Marker(ns="axes", type=Marker.LINE_LIST, **placed)
        axes.scale.x = max(0.002, 0.02 * float(box.size.max()))
        for axis, length in zip(AXES, box.size, strict=True):
            axes.points += [point_message(np.zeros(3)), point_message(axis * length * 0.75)]
            axes.colors += [ColorRGBA(**dict(zip("rgb", axis.tolist(), strict=True)), a=OPAQUE)] * 2
        markers.append(axes)
        text = Marker(ns="labels", type=Marker.TEXT_VIEW_FACING, text=f"{number} {label}", **given)
        up = thing.up if thing.up is not None else np.array([0.0, -1.0, 0.0])
        above = float(np.abs(up @ box.rotation) @ box.size) / 2 + LETTERS
        text.pose.position = point_message(box.center + up * above)
        text.scale.z, text.color = LETTERS, ColorRGBA(r=1.0, g=1.0, b=1.0, a=OPAQUE)
        markers.append(text)
    return MarkerArray(markers=markers)


def _vector(values: np.ndarray) -> Vector3:
    return Vector3(**dict(zip("xyz", values.tolist(), strict=True)))
