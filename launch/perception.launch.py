"""The perception node beside a camera.

ros2 launch lisa_ros perception.launch.py image:=/camera/color/image_raw
ros2 launch lisa_ros perception.launch.py --show-args
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from launch import LaunchContext, LaunchDescription
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.resources import shared_file

COMPRESSED, COMPRESSED_DEPTH = "/compressed", "/compressedDepth"
ARGUMENTS = {
    "model": ("", "a shipped model's name, a folder, a hub id, or a server; empty: params_file's"),
    "device": ("", "auto, cpu, cuda or cuda:N; empty: params_file's"),
    "quantization": ("", f"{BY_NAME['model.quantization'].allowed}; empty: params_file's"),
    "vision_tower": ("", "CLIP's folder, for released checkpoints; empty: params_file's"),
    "image": ("image", "the camera's topic; .../compressed for JPEG or PNG"),
    "depth": ("depth", "the depth image, registered to the camera; .../compressedDepth for PNG"),
    "camera_info": ("camera_info", "the intrinsics that are published beside the depth image"),
    "target_frame": ("", "frame for poses and clouds, by tf; empty: params_file's"),
    "namespace": ("lisa", "where the node's names lie; one for each robot"),
    "params_file": (str(shared_file("config/perception.yaml")), "parameters (YAML)"),
    "use_sim_time": ("false", "take the time from /clock"),
    "autostart": ("true", "configure and activate at once; false with a lifecycle manager"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "use_respawn": ("false", "start the node again when it has died"),
}


def perception(context: LaunchContext) -> list[Node]:
    """The node; here the arguments have become text, which the choice of the topic needs."""

    def text(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    logger = ".".join([*text("namespace").strip("/").split("/"), "perception"]).lstrip(".")
    camera, depth = text("image"), text("depth")
    topic, depth_topic = camera.removesuffix(COMPRESSED), depth.removesuffix(COMPRESSED_DEPTH)
    given = {
        "model.path": text("model"),
        "model.device": text("device"),
        "model.quantization": text("quantization"),
        "model.vision_tower": text("vision_tower"),
        "target_frame": text("target_frame"),
    }
    if camera.endswith(COMPRESSED):
        given["input.transport"] = "compressed"
    if depth.endswith(COMPRESSED_DEPTH):
        given["depth.transport"] = "compressed"
    parameters = {
        name: ParameterValue(value, value_type=str) for name, value in given.items() if value
    }
    for name in ("use_sim_time", "autostart"):
        parameters[name] = ParameterValue(LaunchConfiguration(name), value_type=bool)
    return [
        Node(
            package="lisa_ros",
            executable="lisa-ros",
            arguments=["node"],
            name="perception",
            namespace=text("namespace"),
            parameters=[ParameterFile(text("params_file"), allow_substs=True), parameters],
            remappings=[
                ("image", topic),
                (f"image{COMPRESSED}", f"{topic}{COMPRESSED}"),
                ("depth", depth_topic),
                (f"depth{COMPRESSED_DEPTH}", f"{depth_topic}{COMPRESSED_DEPTH}"),
                ("camera_info", text("camera_info")),
            ],
            ros_arguments=["--log-level", f"{logger}:={text('log_level')}"],
            respawn=text("use_respawn").lower() == "true",
            respawn_delay=2.0,
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments named as in nav2, and the node."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=perception)])
