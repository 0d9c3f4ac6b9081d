"""Images on their way into the node: missing, stale, broken, changing, lost, compressed."""

from __future__ import annotations

import io
import itertools
import re
import threading
import time
from array import array

import numpy as np
import pytest
import rclpy

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from node_rig import (
    BEST_EFFORT,
    FAKE,
    RELIABLE,
    Manager,
    Process,
    Rig,
    drawn_image,
    image_message,
    rig,
    wait_for,
)
from PIL import Image as PilImage
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from benchmarks.node_bench import arrivals
from lisa_ros.node.inputs.camera import CameraInput
from lisa_ros.node.inputs.subscription import OnDemand
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.node.status import Status


@pytest.fixture(scope="module")
def robot():
    with rig() as robot:
        robot.start("-p", "input.max_age:=1", "-p", "input.warn_after:=1")
        yield robot
        assert "Traceback" not in robot.processes[0].log


@pytest.fixture(autouse=True)
def dark(robot):
    """Every test begins without a running camera."""
    robot.cut()


def test_before_the_first_image(robot):
    result = robot.ask("hello")
    assert result.status == Status.NO_IMAGE and "/lisa/image" in result.error
    assert (result.width, result.header.frame_id) == (0, "")
    log = robot.processes[0]
    words = "1 publisher (RELIABLE), this subscription is RELIABLE: these fit"
    wait_for(lambda: words in log.log, "the reason in the log")


def test_query_waits_for_the_image_that_is_about_to_come(robot):
    wait_for(robot.images.get_subscription_count, "the camera's subscriber")
    robot.say("hello")
    time.sleep(0.1)
    before = len(robot.results)
    robot.show()
    wait_for(lambda: len(robot.results) > before, "the result")
    assert robot.results[-1].status == Status.OK


def test_header_is_the_image_s_byte_for_byte(robot):
    for stamp in ((0, 0), (2**31 - 1, 999_999_999), (-5, 7)):
        message = robot.show(stamp=stamp)
        wait_for(lambda s=stamp: robot.ask("hello").header.stamp.sec == s[0], "the image")
        result = robot.ask("hello")
        assert result.status == Status.OK
        assert serialize_message(result.header) == serialize_message(message.header)


def test_stale_image(robot):
    robot.show()
    wait_for(lambda: robot.ask("hello").status == Status.OK, "the image")
    time.sleep(1.2)
    result = robot.ask("hello")
    assert result.status == Status.STALE_IMAGE
    assert re.search(r"arrived \d\.\d s ago and the limit \(input\.max_age\) is 1 s", result.error)
    assert robot.show() and robot.ask("hello").status == Status.OK


def test_newest_image_wins(robot):
    wait_for(robot.images.get_subscription_count, "the camera's subscriber")
    for second in range(1, 40):
        robot.show(stamp=(second, 0))
    time.sleep(0.2)
    assert robot.ask("hello").header.stamp.sec == 39


def test_clock_that_jumps_back_as_in_a_looped_bag(robot):
    for second in (1000, 1001, 3, 4):
        robot.show(stamp=(second, 0))
        wait_for(lambda s=second: robot.ask("hello").header.stamp.sec == s, "the image")
        assert robot.ask("hello").status == Status.OK


def test_resolution_that_changes_from_image_to_image(robot):
    for width, height in ((64, 48), (320, 240), (17, 16), (640, 480)):
        robot.show(drawn_image(width, height))
        wait_for(lambda w=width: robot.ask("hello").width == w, "the image")
        result = robot.ask("several")
        assert (result.status, result.width, result.height) == (Status.OK, width, height)
        for one in result.instances:
            assert one.roi.x_offset + one.roi.width <= width
            assert len(one.mask.data) == one.roi.width * one.roi.height


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rgb9"}, "rgb9"),
        ({"encoding": "16UC1"}, "depth image"),
        ({"width": 0, "height": 0, "step": 0, "data": array("B")}, "0x0"),
        ({"width": 1, "height": 1, "step": 3, "data": array("B", b"abc")}, "1x1"),
        ({"step": 100}, "step of the image is 100 bytes"),
        ({"data": array("B", bytes(1000))}, "1000 bytes, but 48 rows"),
        ({"width": 2**31, "height": 2**31}, "input.max_pixels"),
    ],
)
def test_images_that_cannot_be_used(robot, change, words):
    message = image_message(drawn_image())
    for name, value in change.items():
        setattr(message, name, value)
    wait_for(robot.images.get_subscription_count, "the camera's subscriber")
    robot.images.publish(message)
    time.sleep(0.1)
    result = robot.ask("hello")
    assert result.status == Status.REJECTED and words in result.error
    assert result.header == message.header and not result.instances
    robot.show()
    wait_for(lambda: robot.ask("hello").status == Status.OK, "the next image")


def test_images_that_nobody_asks_about_never_wake_the_executor(monkeypatch):
    """Counted in the executor's wait sets: of a plain subscription each image makes one."""
    waits = []
    decide = OnDemand.can_execute
    counted = lambda group, entity: waits.append(entity) or decide(group, entity)  # noqa: E731
    monkeypatch.setattr(OnDemand, "can_execute", counted)
    values = {"input.transport": "raw", "input.qos": "auto", "input.max_age": 5, "input.wait": 1}
    with rig() as robot:
        context = Context()
        rclpy.init(context=context, domain_id=robot.domain)
        node = rclpy.create_node("watcher", context=context, namespace="lisa")
        camera = CameraInput(node, values)
        camera.open()
        wait_for(robot.images.get_subscription_count, "the subscription")
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        executor.spin_once(timeout_sec=0.5)
        robot.film(rate=100)
        waits.clear()
        wait_for(lambda: executor.spin_once(timeout_sec=0.25) or robot.filmed >= 200, "200 images")
        assert len(waits) < 100, "200 images have come in"
        assert camera.fresh(lambda: False).header.stamp.sec > 20
        rclpy.shutdown(context=context)


def test_images_from_before_the_activation_are_not_counted_as_dropped():
    with rig() as robot:
        context = Context()
        rclpy.init(context=context, domain_id=robot.domain)
        node = rclpy.create_node("watcher", context=context, namespace="lisa")
        values = {name: parameter.default for name, parameter in BY_NAME.items()}
        camera = CameraInput(node, values)
        dropped: list[int] = []

        def arrives(second: int) -> bool:
            """Best effort, so that the first one may be published too early."""
            robot.show(stamp=(second, 0))
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                frame = camera.newest()
                if frame is not None and frame.header.stamp.sec == second:
                    return True
            return False

        for start in (100, 200):
            camera.open()
            wait_for(robot.images.get_subscription_count, "the subscription")
            for second in (start, start + 3):
                wait_for(lambda s=second: arrives(s), "the image")
            camera.close()
            assert camera.newest() is None
            wait_for(lambda: not robot.images.get_subscription_count(), "the end of it")
            for second in range(20):
                robot.images.publish(image_message(drawn_image(), (second, 0)))
            dropped.append(camera.dropped)
        assert dropped == [0, 0]
        rclpy.shutdown(context=context)


def test_auto_takes_what_all_publishers_can_give():
    """One that is not reliable is enough to be heard best effort, one that does not latch likewise.

    The other way round its images would never arrive.
    """
    reliable = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with rig() as robot:
        robot.use_camera(reliable)
        robot.start("-p", "input.max_age:=600.0")

        def quality() -> tuple[str, str] | None:
            infos = robot.node.get_subscriptions_info_by_topic("/lisa/image")
            found = [(i.qos_profile.reliability.name, i.qos_profile.durability.name) for i in infos]
            return found[0] if len(found) == 1 else None

        wait_for(lambda: quality() == ("RELIABLE", "TRANSIENT_LOCAL"), "both, of one publisher")
        second = robot.node.create_publisher(Image, "image", BEST_EFFORT)
        wait_for(lambda: quality() == ("BEST_EFFORT", "VOLATILE"), "neither, of two")

        def heard() -> bool:
            second.publish(image_message(drawn_image(), (44, 0)))
            return robot.ask("hello").header.stamp.sec == 44

        wait_for(heard, "an image of the second")


def test_an_image_from_before_the_deactivation_is_not_answered_about():
    """Also not one that was encoded ahead."""
    with rig() as robot:
        robot.start(
            *("-p", "model.prepare_frames:=true", "-p", "input.max_age:=600.0"),
            *("-p", "input.wait:=0.0"),
        )
        manager = Manager(robot)

        def answered() -> bool:
            robot.show()
            return robot.ask("hello").status == Status.OK

        wait_for(answered, "an answer")
        time.sleep(0.5)  # idle, so that the newest image is encoded ahead
        assert robot.ask("hello").status == Status.OK, "it is not too old"
        assert manager.change("deactivate") and manager.change("activate")
        assert robot.ask("hello").status == Status.NO_IMAGE


def test_a_still_image_that_was_published_once_is_received():
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with rig() as robot:
        robot.use_camera(latched)
        message = image_message(drawn_image(), (5, 0))
        robot.images.publish(message)
        robot.start("-p", "input.max_age:=600.0")
        wait_for(lambda: robot.ask("hello").status == Status.OK, "the still image")
        assert robot.results[-1].header == message.header


def test_a_missing_camera_is_not_looked_for_among_our_own_outputs():
    """Neither this node's masks and overlays nor those of another of its kind."""
    with rig() as robot:
        renamed = ("--ros-args", "-r", "__ns:=/other", "-r", "mask/image:=/their/mask")
        robot.processes.append(Process([*FAKE, *renamed], robot.domain))
        wait_for(lambda: robot.node.count_publishers("/their/mask"), "the other node")
        process = robot.start("-p", "input.warn_after:=0.5", "-r", "image:=/camera/image")
        words = "remap image to one of these: /lisa/image\n"
        wait_for(lambda: words in process.log, "the hint")


def test_a_second_node_of_the_same_name_is_warned_of():
    with rig() as robot:
        first = robot.start()
        assert "another node is called" not in first.log
        robot.start()
        words = "another node is called /lisa/perception too"
        wait_for(lambda: words in first.log, "the warning")


def test_half_the_images_lost(robot):
    """Of thirty a second each is withheld with a chance of one half: answers go on all the same."""
    chance, lost, stop = np.random.default_rng(5), [], threading.Event()
    message = image_message(drawn_image())

    def film() -> None:
        for count in itertools.count(1):
            if stop.wait(1 / 30):
                return
            lost.append(bool(chance.random() < 0.5))
            message.header.stamp.sec = count
            if not lost[-1]:
                robot.images.publish(message)

    camera = threading.Thread(target=film)
    camera.start()
    try:
        wait_for(lambda: robot.ask("ready").status == Status.OK, "the first image")
        results = [robot.ask("hello") for _ in range(20)]
    finally:
        stop.set()
        camera.join()
    assert [one.status for one in results] == [Status.OK] * 20
    assert not any(lost[one.header.stamp.sec - 1] for one in results)
    assert any(lost)


def test_every_second_image_truncated(robot):
    """A query meets a whole image or a damaged one; each is told which, and none is left over."""
    whole, short = image_message(drawn_image()), image_message(drawn_image())
    short.data = short.data[: len(short.data) // 2]
    wait_for(robot.images.get_subscription_count, "the camera's subscriber")
    for count in range(1, 13):
        message = short if count % 2 else whole
        message.header.stamp.sec = count
        robot.images.publish(message)
        result = wait_for(lambda n=count: about(robot, n), "the image")
        assert result.status == (Status.REJECTED if count % 2 else Status.OK), result.error
        assert len(result.instances) == (count + 1) % 2


def about(robot: Rig, second: int):
    result = robot.ask("hello")
    return result if result.header.stamp.sec == second else None


def test_publisher_comes_back_with_another_reliability(robot):
    for profile in (BEST_EFFORT, RELIABLE, BEST_EFFORT):
        robot.use_camera(profile)
        robot.film()
        time.sleep(1.0)
        wait_for(lambda: robot.ask("hello").status == Status.OK, "images from the new publisher")
        robot.cut()


def test_reasons_for_missing_images():
    with rig() as robot:
        process = robot.start(
            *("-p", "input.qos:=reliable", "-p", "input.warn_after:=0.5"),
            *("-r", "image:=/camera/image", "-p", "input.wait:=0.0"),
        )
        wait_for(lambda: "nobody publishes it" in process.log, "the reason: no publisher")
        elsewhere = robot.node.create_publisher(Image, "/other/image", 1)
        words = "remap image to one of these: /lisa/image, /other/image"
        wait_for(lambda: words in process.log, "topics that could be meant")
        twin = robot.node.create_publisher(CompressedImage, "/camera/image/compressed", 1)
        words = "/camera/image/compressed is published: set input.transport to compressed"
        wait_for(lambda: words in process.log, "the reason: only compressed")
        stranger = Rig(robot.domain, "stranger")
        stranger.node.create_publisher(CompressedImage, "/camera/image", 1)
        words = "its publishers send sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image"
        wait_for(lambda: words in process.log, "the reason: wrong type")
        stranger.close()
        robot.node.create_publisher(Image, "/camera/image", BEST_EFFORT)
        words = "1 publisher (BEST_EFFORT), this subscription is RELIABLE: these do not fit"
        wait_for(lambda: words in process.log, "the reason: QoS")
        assert elsewhere and twin and robot.ask("hello").status == Status.NO_IMAGE


def compressed_message(kind: str) -> CompressedImage:
    """A JPEG or PNG of 64x48 pixels."""
    file = io.BytesIO()
    PilImage.fromarray(np.full((48, 64, 3), (200, 60, 30), np.uint8)).save(file, kind)
    message = CompressedImage(format=f"rgb8; {kind.lower()} compressed bgr8")
    message.header.frame_id = kind
    message.data = array("B", file.getvalue())
    return message


def test_compressed_images():
    with rig() as robot:
        robot.start("-p", "input.transport:=compressed")
        camera = robot.node.create_publisher(CompressedImage, "image/compressed", BEST_EFFORT)
        wait_for(camera.get_subscription_count, "the node's subscription")
        for kind in ("JPEG", "PNG"):
            message = compressed_message(kind)

            def answer(message=message):
                camera.publish(message)  # best effort, and soon too old: one may get lost
                result = robot.ask("hello")
                return result if result.header == message.header else None

            result = wait_for(answer, "the image")
            assert result.status == Status.OK and result.header == message.header
            assert (result.width, result.height) == (64, 48)
        message.data = message.data[: len(message.data) // 2]

        def refusal():
            camera.publish(message)
            return robot.ask("hello").status == Status.REJECTED

        wait_for(refusal, "the damaged image")
        assert "damaged" in robot.results[-1].error


def test_a_fault_while_encoding_ahead_is_told_once_and_queries_go_on():
    with rig() as robot:
        prepare = ("-p", "model.prepare_frames:=true")
        process = robot.start("-p", "model.path:=unprepared", *prepare)
        robot.film()
        wait_for(lambda: "not encoded ahead any more" in process.log, "the warning")
        time.sleep(1.0)
        assert robot.ask("hello").status == Status.OK
        assert process.log.count("the model failed") == 1


def test_overridden_quality_of_service():
    with rig() as robot:
        override = "qos_overrides./lisa/image.subscription.reliability:=best_effort"
        process = robot.start("-p", override, "-p", "input.qos:=reliable")
        robot.film()
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        offered = robot.node.get_subscriptions_info_by_topic("/lisa/image")
        assert [one.qos_profile.reliability.name for one in offered] == ["BEST_EFFORT"]
        assert "Traceback" not in process.log


def test_large_images_from_the_node_reach_a_best_effort_subscriber():
    """Without the transport profile two of three of them would be lost on the way."""
    hd = drawn_image(1280, 720)
    profile = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    with rig() as robot:
        robot.start()
        with (
            robot.hearing(Image, "mask/image", profile) as masks,
            robot.hearing(Image, "overlay", profile) as overlays,
        ):
            robot.film(rate=5, pixels=hd)
            wait_for(lambda: robot.ask("ready").status == Status.OK, "the image")
            wait_for(lambda: masks and overlays, "subscriptions on the node's side")
            time.sleep(0.5)
            masks.clear(), overlays.clear()
            for count in range(1, 16):  # one by one, because a newer overlay takes an older's place
                assert robot.ask("hello").status == Status.OK
                wait_for(lambda n=count: len(masks) == len(overlays) == n, "mask and overlay")
            assert len(masks[0].data) == 1280 * 720 and len(overlays[0].data) > 1280 * 720 * 3


@pytest.mark.parametrize("policy", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
def test_our_cameras_lose_nothing(policy):
    """1280x720 from a process with our transport profile.

    Slower than a camera, because a busy machine loses images for want of time; `make bench` has
    the figures at 30 Hz.
    """
    profile = QoSProfile(depth=10, reliability=policy.reliability)
    numbers, _ = arrivals(profile, frames=15, rate=6)
    sent = numbers[-1] - numbers[0] + 1
    assert len(numbers) == sent, f"{len(numbers)} of {sent}"


@pytest.mark.slow
@pytest.mark.parametrize("policy", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
def test_our_cameras_at_full_rate(policy):
    """1280x720 at 30 Hz, 83 MB a second; it needs a machine with a core to spare."""
    profile = QoSProfile(depth=10, reliability=policy.reliability)
    numbers, late = arrivals(profile, frames=300, rate=30)
    sent = numbers[-1] - numbers[0] + 1
    print(f"{len(numbers)} of {sent} arrived, {np.median(late):.1f} ms on the way")
    assert len(numbers) >= 0.99 * sent, f"{len(numbers)} of {sent}"
