"""A camera whose image a test changes, and goals that follow what it shows, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from lisa_ros.action import Follow
from lisa_ros.msg import Segmentation
from node_rig import WAIT, Rig, image_message, wait_for
from rclpy.action import ActionClient

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
CANCELED, ABORTED = 5, 6  # action_msgs/GoalStatus
LIMIT = 0.6  # seconds that a thing may be gone, where the end is what a test waits for
LONG = 100.0


def scene(**places: tuple[int, int]) -> np.ndarray:
    """Squares of ten pixels at (x, y) by their colour's name, on grey; uint8 (48, 64, 3)."""
    image = np.full((48, 64, 3), 90, np.uint8)
    for name, (x, y) in places.items():
        image[y : y + 10, x : x + 10] = {"red": RED, "blue": BLUE, "green": GREEN}[name]
    return image


class Goal:
    """One goal of the action, with everything that comes back for it."""

    def __init__(self, robot: Rig, client: ActionClient, **fields: Any) -> None:
        self.robot, self.feedback = robot, []
        fields = {"lost_timeout": LONG} | fields
        sent = robot.do(
            lambda: client.send_goal_async(
                Follow.Goal(**fields), lambda one: self.feedback.append(one.feedback.segmentation)
            )
        )
        self.handle = wait_for(sent.result, "the goal to be accepted")
        self._ended = robot.do(self.handle.get_result_async)

    @property
    def ended(self) -> bool:
        return self._ended.done()

    def end(self) -> tuple[int, Any]:
        """State and result, once there is one."""
        reply = wait_for(self._ended.result, f"the end of the goal; {self.robot.condition()}")
        return reply.status, reply.result

    def cancel(self) -> tuple[int, Any]:
        self.robot.do(self.handle.cancel_goal_async)
        return self.end()

    def next(self) -> Segmentation:
        """The first message about an image that is shown from now on."""
        count = len(self.feedback)
        return wait_for(lambda: self.feedback[count + 1 :], "another message")[0]


class Stage:
    """A camera whose image the test changes, and the goals."""

    def __init__(self, robot: Rig) -> None:
        self.robot = robot
        self.client = ActionClient(robot.node, Follow, "follow")
        assert self.client.wait_for_server(WAIT)
        self.message = image_message(scene())

    def show(self, image: np.ndarray) -> None:
        """From now on the camera sees this, and the node knows it."""
        before = self.robot.filmed
        self.robot.film(20.0, image, anew=False)

        def known() -> bool:
            return self.robot.ask("ready").header.stamp.sec > before

        wait_for(known, "the node to have the new image")

    def follow(self, **fields: Any) -> Goal:
        return Goal(self.robot, self.client, **fields)

    def followed(self, **fields: Any) -> Goal:
        """A goal that has begun."""
        goal = self.follow(**fields)
        wait_for(lambda: goal.feedback or goal.ended, "the first message")
        assert goal.feedback, goal.end()[1].reason
        return goal

    def set(self, **values: Any) -> None:
        assert self.robot.set(**values).successful


@contextmanager
def following(stage: Stage, **fields: Any) -> Iterator[Goal]:
    goal = stage.followed(**fields)
    try:
        yield goal
    finally:
        if not goal.ended:
            goal.cancel()
