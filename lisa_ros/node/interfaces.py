"""The names that the node offers on the ROS graph, with their types and what they are for.

Names are relative: with the default namespace `query` is `/lisa/query`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interface:
    """One topic, service or action of the node."""

    kind: str
    """sub, pub, srv or action"""
    name: str
    type: str
    text: str


# Two lines each: kind, name and type; what it is for.
_TABLE = """
sub image sensor_msgs/msg/Image
    the camera; the newest image is the one that is asked about
sub image/compressed sensor_msgs/msg/CompressedImage
    the camera, if `input.transport` is `compressed`
sub depth sensor_msgs/msg/Image
    16UC1 (mm) or 32FC1 (m), registered to the image; the one nearest by stamp is taken
sub depth/compressedDepth sensor_msgs/msg/CompressedImage
    the same, if `depth.transport` is `compressed`
sub camera_info sensor_msgs/msg/CameraInfo
    intrinsics of the depth image, with each image or latched
sub query std_msgs/msg/String
    an instruction in plain words
action segment lisa_ros/action/Segment
    the same for programs: mode, own image, dialogue, progress with early masks, cancel
action follow lisa_ros/action/Follow
    find a thing once and keep its mask from image to image until cancelled or lost
pub mask lisa_ros/msg/Segmentation
    exactly one for every query, whatever happens; read its `status` first
pub mask/last lisa_ros/msg/Segmentation
    the last of them once more, latched: for people and for who comes late; it may be old
pub mask/summary std_msgs/msg/String
    the last answer in a few lines of text for people, latched: `--field data` prints them
pub mask/image sensor_msgs/msg/Image
    mono8, 255 where any of the masks is; for every answer about an image
pub mask/labels sensor_msgs/msg/Image
    mono8, the number of the mask (`Instance.id`) or 0; for every answer about an image
pub mask/label_names std_msgs/msg/String
    JSON, what the numbers of the last `mask/labels` stand for; latched
pub mask/label_info vision_msgs/msg/LabelInfo
    the same where vision_msgs is installed
pub mask/detections_2d vision_msgs/msg/Detection2DArray
    boxes, labels and scores of every answer about an image, where vision_msgs is installed
pub mask/detections_3d vision_msgs/msg/Detection3DArray
    likewise those that have a pose
pub tracks lisa_ros/msg/Segmentation
    for every image one for each goal of `follow`, `tracked` set: where its things are now
pub tracks/labels sensor_msgs/msg/Image
    mono8, the numbers (`Instance.id`) of all things that are followed; while someone looks
pub tracks/pose geometry_msgs/msg/PoseStamped
    the pose of a goal's first thing that has one, as nav2's following server takes it
pub tracks/detections_2d vision_msgs/msg/Detection2DArray
    what is on `tracks`, where vision_msgs is installed; `id` is `Instance.track_id`
pub tracks/detections_3d vision_msgs/msg/Detection3DArray
    likewise those that have a pose
pub answer std_msgs/msg/String
    what to say: the model's words, or the sentence that says why there are none
pub overlay sensor_msgs/msg/Image
    rgb8 for people: the image with masks, a strip with the words below; while someone looks
pub points sensor_msgs/msg/PointCloud2
    coloured cloud of the objects; like all below only while someone listens, with depth
pub scene/points sensor_msgs/msg/PointCloud2
    the scene without the objects, for maps of obstacles
pub markers visualization_msgs/msg/MarkerArray
    boxes, their axes and labels, for RViz and Foxglove
pub grasps geometry_msgs/msg/PoseArray
    grasps for `grasp.hand`, the best first; z approaches, the fingers close along y
pub grasps/scores std_msgs/msg/Float32MultiArray
    a row for each of them: score 0 to 1, width in metres, `Instance.id`
pub input/image sensor_msgs/msg/Image
    the image that was answered about, once more, in time for exact synchronisers
pub input/depth sensor_msgs/msg/Image
    its depth image, with the header of the image
pub input/camera_info sensor_msgs/msg/CameraInfo
    its camera_info, with the header of the image
pub /diagnostics diagnostic_msgs/msg/DiagnosticArray
    once a second: state, camera and why no image comes, queries, latencies, memory
srv self_test std_srvs/srv/Trigger
    asks the model about a built-in image
"""
_LINES = _TABLE.strip().splitlines()
INTERFACES: tuple[Interface, ...] = tuple(
    Interface(*head.split(), text.strip())
    for head, text in zip(_LINES[::2], _LINES[1::2], strict=True)
)
