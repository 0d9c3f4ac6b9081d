"""The perception node: a life cycle around one camera, one model and many queries."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partialmethod
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String

from lisa_ros.errors import LisaError
from lisa_ros.msg import Segmentation
from lisa_ros.node.follow_loop import FollowLoop
from lisa_ros.node.inputs.camera import CameraInput
from lisa_ros.node.inputs.camera_watchdog import CameraWatchdog
from lisa_ros.node.inputs.depth import DepthInput
from lisa_ros.node.inputs.subscription import arrival, reliable_qos
from lisa_ros.node.loading import Loader, load_model
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.actions import FollowAction, SegmentAction
from lisa_ros.node.requests.queries import Queries
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.requests.self_test import SelfTest
from lisa_ros.node.requests.standing_query import StandingQuery
from lisa_ros.node.results.diagnostics import Diagnostics
from lisa_ros.node.results.objects3d import Localizer
from lisa_ros.node.results.publishers import ResultPublishers
from lisa_ros.node.status import Readiness, Status
from lisa_ros.node.worker import ModelWorker

QUERIES_KEPT = 1000  # instructions that the middleware keeps while the node is busy
UNLOAD_LIMIT = 5.0  # seconds that a clean-up waits for a model that is still at work
UNCONFIGURED = "the node is not configured yet"
FAILED = "the last transition failed, and the log says why: mend it and configure again"
INACTIVE = "the node is inactive: activate it to ask"


class Stopped(LisaError):
    """The process was told to stop while the node waited for its model."""


class PerceptionNode(LifecycleNode):
    """Everything here runs on the executor's thread."""

    def __init__(self, load: Loader = load_model, **arguments: Any) -> None:
        """`load` makes the model; tests put a fake in its place."""
        super().__init__("perception", **arguments)
        self._has_namesake = False
        self.stopping = threading.Event()
        """set from a signal: whatever waits for the model gives up"""
        self.readiness = readiness = Readiness("unconfigured", UNCONFIGURED)
        self.parameters = parameters = Parameters(self, lambda: readiness.state == "unconfigured")
        self._steady = steady = Clock(clock_type=ClockType.STEADY_TIME)
        # Requests are taken up while a transition waits and holds up everything else.
        requests = MutuallyExclusiveCallbackGroup()
        self.camera = CameraInput(self, parameters)
        self.depth = DepthInput(self, parameters)
        self.localizer = Localizer(self, self.depth, parameters)
        self.worker = worker = ModelWorker(
            load, self.camera, self.localizer, parameters, self.get_logger()
        )
        self.outputs = ResultPublishers(self, parameters)
        self.queries = queries = Queries(
            self, parameters, self.outputs, worker, readiness, steady, self._on_result
        )
        self.following = FollowLoop(
            self, parameters, self.camera, self.localizer, worker, readiness
        )
        watchdog = CameraWatchdog(self, self.camera, self.depth, parameters)
        self.diagnostics = Diagnostics(self, watchdog, queries, self.following, worker, readiness)
        self.standing = StandingQuery(
            self, parameters, self.camera, queries, self.following, worker, readiness, steady
        )
        self.self_test = SelfTest(self, queries, worker, readiness)
        self.action = SegmentAction(self, parameters, queries, requests)
        self.follow_action = FollowAction(
            self, parameters, queries, self.following, readiness, requests
        )
        self.create_subscription(
            String, "query", self._on_query, reliable_qos(QUERIES_KEPT), callback_group=requests
        )
        self.create_timer(1.0, self._each_second, clock=steady)
        # An impossible transition would raise out of the executor, and its caller wait forever.
        service = self._service_change_state
        service.callback = self._always_answered(service.callback)

    def start(self) -> None:
        """Have the executor configure and activate, as a lifecycle manager would."""

        def once() -> None:
            timer.cancel()
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

        timer = self.create_timer(0.0, once, clock=self._steady)

    def _transition(
        self, name: str, step: Callable[[PerceptionNode], None], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Run one transition. Without this rclpy swallows exceptions and nobody learns why."""
        try:
            step(self)
        except Stopped as error:  # an ordered end is no fault
            self.get_logger().info(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        except LisaError as error:
            self.readiness.failure = error
            self.get_logger().error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.readiness.failure = error
            self.get_logger().error(f"cannot {name}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self.get_logger().info(f"{name}: done, now {self.readiness.state}")
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        path, began = self.parameters["model.path"], time.monotonic()
        self.get_logger().info(f"loading the model {path}")
        self._enter("unconfigured", f"the model {path} is being loaded")
        try:
            self.localizer.configure()
            self._await_model(self.worker.load())
        except LisaError as error:
            self.readiness.not_ready_reason = f"the node could not be configured: {error}"
            raise
        engine = self.worker.engine
        seconds = time.monotonic() - began
        self.get_logger().info(f"{engine.name} on {engine.device} is ready after {seconds:.1f} s")
        self._enter("inactive", INACTIVE)

    def _activate(self) -> None:
        self.camera.open()
        self.depth.open()
        self._enter("active", "")
        asked, told = (self.resolve_topic_name(name) for name in ("query", "mask"))
        self.get_logger().info(
            f"ask on {asked}, results on {told}, images from {self.camera.topic}"
        )

    def _deactivate(self) -> None:
        self._enter("inactive", INACTIVE)
        self._end_requests("the node was deactivated")
        self.camera.close()
        self.depth.close()

    def _clean_up(self) -> None:
        self._enter("unconfigured", UNCONFIGURED)
        self._let_go("the node was cleaned up")

    def _recover(self) -> None:
        self._enter("unconfigured", FAILED, self.readiness.failure)
        self._let_go("the node has failed")

    def _shut_down(self) -> None:
        self._enter("finalized", "the node has been shut down")
        self._let_go("the node was shut down")

    on_configure = partialmethod(_transition, "configure", _configure)
    on_activate = partialmethod(_transition, "activate", _activate)
    on_deactivate = partialmethod(_transition, "deactivate", _deactivate)
    on_cleanup = partialmethod(_transition, "clean up", _clean_up)
    on_shutdown = partialmethod(_transition, "shut down", _shut_down)
    on_error = partialmethod(_transition, "recover", _recover)

    def _enter(self, state: str, not_ready_reason: str, failure: Exception | None = None) -> None:
        readiness = self.readiness
        readiness.state, readiness.not_ready_reason = state, not_ready_reason
        readiness.failure = failure
        self.diagnostics.publish_soon()

    def _let_go(self, sentence: str) -> None:
        """End all queries, free the camera and the model's memory."""
        self._end_requests(sentence)
        self.camera.close()
        self.depth.close()
        self.localizer.close()
        self._await_model(self.worker.unload(), UNLOAD_LIMIT)

    def _await_model(self, future: Future[None], limit: float | None = None) -> None:
        """Wait for the model's thread, which holds up the transition; a signal ends it.

        Meanwhile the diagnostics go on, and queries and goals hear at once why not.
        """
        began, executor = time.monotonic(), self.executor
        future.add_done_callback(lambda _: executor.wake())
        while not future.done():
            if self.stopping.is_set():
                raise Stopped("the process is stopping")
            if limit is not None and time.monotonic() - began > limit:
                self.get_logger().warning("the model is still busy; its memory is freed afterwards")
                return
            self.diagnostics.publish_if_due()
            executor.spin_once(timeout_sec=0.1)
        future.result()

    def end_queries(self) -> None:
        """First step to the end of the process: take nothing more, answer what is there."""
        self._enter("finalized", "the node has been shut down")
        self._end_requests("the node was stopped")

    @property
    def goals_ended(self) -> bool:
        """Whether no goal of an action waits for its result."""
        return self.action.idle and self.follow_action.idle

    def _end_requests(self, sentence: str) -> None:
        """Each query gets its result, everything that is followed its end."""
        self.queries.finish_all(Status.CANCELLED, sentence)
        self.following.end_all(Status.CANCELLED, sentence)

    def release(self, seconds: float) -> bool:
        """Last step: let go of everything; False if the model's thread still hangs."""
        self.outputs.close(seconds / 2)
        self.camera.close()
        self.depth.close()
        self.localizer.close()
        free = wait([self.worker.unload()], timeout=seconds / 2).done
        self.worker.close()
        return bool(free)

    def _on_result(self, query: Query, outcome: Outcome, message: Segmentation) -> None:
        """Any query has ended; on the thread that ended it."""
        self.diagnostics.results.append(message)
        of_camera = query.frame is not None and query.frame.key is not None
        if of_camera and outcome.status == Status.OK:
            self.following.answers.append((query, outcome))

    def _on_query(self, message: String, details: Mapping[str, Any]) -> None:
        """The time of a query counts from its arrival, however late the executor gets to it."""
        arrived, source = arrival(details), Segmentation.SOURCE_TOPIC
        self.queries.ask(self.queries.new(message.data, source, arrived=arrived))

    def _each_second(self) -> None:
        self._warn_about_namesake()
        if self.readiness.state == "active":
            self.camera.newest()
            self.camera.subscription.follow_publishers()
            self.depth.follow_publishers()
        self.standing.wake()
        self.self_test.give_up_if_overdue()
        self.diagnostics.publish_if_due()

    def _warn_about_namesake(self) -> None:
        """Two nodes of one name answer every query twice, and share services at random."""
        name = self.get_name(), self.get_namespace()
        twice = self.get_node_names_and_namespaces().count(name) > 1
        if twice and not self._has_namesake:
            self.get_logger().warning(
                f"another node is called {self.get_fully_qualified_name()} too, so every query is "
                "answered twice: stop one of them, or give it a namespace of its own"
            )
        self._has_namesake = twice

    def _always_answered(self, change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The service callback, but what raises is answered with `success` false."""

        def answer(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except Exception as error:
                self.get_logger().error(f"transition refused while {self.readiness.state}: {error}")
                response.success = False
                return response

        return answer
