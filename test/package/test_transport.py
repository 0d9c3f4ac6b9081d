"""Large images arrive whole: the transport profile, and how it is chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lisa_ros.resources import PROFILE_VARIABLES, shared_file, use_large_image_transport

pytest.importorskip("rclpy", reason="rclpy is not installed")

from lisa_ros.node.client import claimed_domain

FRAMES = 30
SENDER = """
import sys, time
from lisa_ros.resources import use_large_image_transport
use_large_image_transport()
import rclpy
from array import array
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("sender")
publisher = node.create_publisher(Image, "large", 10)
image = Image(height=720, width=1280, encoding="rgb8", step=3840)
image.data = array("B", bytes(720 * 3840))
while not publisher.get_subscription_count():
    time.sleep(0.02)
time.sleep(0.5)
for _ in range(int(sys.argv[1])):
    publisher.publish(image)
    time.sleep(0.1)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", PROFILE_VARIABLES)
def test_a_chosen_profile_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"FASTDDS_STATISTICS": "x", name: "mine.xml"}
    monkeypatch.setattr(os, "environ", environment)
    use_large_image_transport()
    assert environment == {"FASTDDS_STATISTICS": "x", name: "mine.xml"}


def test_without_a_choice_ours_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    use_large_image_transport()
    ours = str(shared_file("config/fastdds_large_images.xml"))
    assert environment == dict.fromkeys(PROFILE_VARIABLES, ours)


def test_large_images_arrive_over_best_effort() -> None:
    """Without the profile about a quarter of them do."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    received: list[int] = []
    with claimed_domain() as domain:
        environment = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
        environment["ROS_DOMAIN_ID"] = str(domain)
        command = [sys.executable, "-c", SENDER, str(FRAMES)]
        sender = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("receiver", context=context)
        quality = QoSProfile(depth=FRAMES, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(
            Image, "large", lambda image: received.append(len(image.data)), quality
        )
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        quiet = 0  # looks since the last image, or since the start, in which nothing came
        while quiet < (100 if received else 1200) and len(received) < FRAMES:
            before = len(received)
            executor.spin_once(timeout_sec=0.1)
            quiet = 0 if len(received) > before else quiet + 1
            assert sender.poll() is None
        sender.communicate(timeout=400)
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    assert set(received) == {1280 * 720 * 3}
    assert len(received) >= 0.9 * FRAMES
