"""Masks, depth and intrinsics to objects in space: clouds, boxes, several views, grasps.

    obj = locate(mask, depth, Intrinsics.from_matrix(k, 640, 480), up="support")
    obj.box.center, obj.box.size, parallel_grasps(obj)

NumPy and OpenCV only: neither ROS nor torch.
"""
# ruff: noqa: F401  what others import from here

from lisa_ros.errors import DepthError
from lisa_ros.geometry.box import Box
from lisa_ros.geometry.camera import Intrinsics
from lisa_ros.geometry.depth import without_object
from lisa_ros.geometry.fusion import Sighting, fuse
from lisa_ros.geometry.grasp import Grasp, Gripper, parallel_grasps, suction_grasps
from lisa_ros.geometry.object3d import Object3D, cloud, locate
from lisa_ros.geometry.pointcloud import XYZRGB, Plane, colors_at, pack, ply
from lisa_ros.geometry.transforms import quaternion, rigid, transform_points
