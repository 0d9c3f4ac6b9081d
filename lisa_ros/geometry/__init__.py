"""Masks, depth and intrinsics to objects in space: clouds, boxes, several views, grasps.

    thing = locate(mask, depth, Intrinsics.from_matrix(k, 640, 480), up="support")
    thing.box.center, thing.box.size, parallel_grasps(thing)

NumPy (and OpenCV to resize masks) only: neither ROS nor torch.
"""

from lisa_ros.geometry.box import Box
from lisa_ros.geometry.camera import Intrinsics
from lisa_ros.geometry.depth import without_object
from lisa_ros.geometry.faults import DepthError
from lisa_ros.geometry.fusion import Sighting, fuse
from lisa_ros.geometry.grasp import Grasp, Gripper, parallel_grasps
from lisa_ros.geometry.object3d import ObjectInSpace, cloud, locate
from lisa_ros.geometry.plane import Plane
from lisa_ros.geometry.pointcloud import XYZRGB, colors_at, pack
from lisa_ros.geometry.suction import suction_grasps
from lisa_ros.geometry.transforms import moved, quaternion, rigid

__all__ = [
    "XYZRGB",
    "Box",
    "DepthError",
    "Grasp",
    "Gripper",
    "Intrinsics",
    "ObjectInSpace",
    "Plane",
    "Sighting",
    "cloud",
    "colors_at",
    "fuse",
    "locate",
    "moved",
    "pack",
    "parallel_grasps",
    "quaternion",
    "rigid",
    "suction_grasps",
    "without_object",
]
