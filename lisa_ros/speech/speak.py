"""A ROS node that says what comes on `answer`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading

from rclpy.node import Node
from std_msgs.msg import Bool, String

from lisa_ros.errors import LisaError
from lisa_ros.speech.listen import LATCHED

LONGEST = 1000  # characters that are said of one answer


class SpeakError(LisaError):
    """There is nothing to speak with."""


class Speaker(Node):
    """Says `answer` and `speech/say`, the newest; is silent while `listen` hears somebody.

    Args:
        command: a program that reads the text on its standard input and says it.

    Raises:
        SpeakError: there is no such program.
    """

    def __init__(self, command: str, namespace: str = "lisa") -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise SpeakError(f"--command {command!r}: {str(error).lower()}") from None
        if not words or shutil.which(words[0]) is None:
            raise SpeakError(
                f"there is no program {words[0] if words else command!r} to speak with: "
                "apt install espeak-ng, or name another by --command"
            )
        super().__init__("speak", namespace=namespace)
        self._command = words
        self._speaking = self.create_publisher(Bool, "speech/speaking", LATCHED)
        self._changed = threading.Condition()
        self._next = ""
        self._listening = False
        self.stopping = threading.Event()
        self._process: subprocess.Popen | None = None
        self.create_subscription(String, "answer", self._on_text, 10)
        self.create_subscription(String, "speech/say", self._on_text, 10)
        self.create_subscription(Bool, "speech/listening", self._on_listening, LATCHED)
        self._thread = threading.Thread(target=self._speak_all, name="voice", daemon=True)
        self._thread.start()

    def _on_text(self, message: String) -> None:
        with self._changed:
            self._next = message.data[:LONGEST].strip() or self._next
            self._hush()
            self._changed.notify()

    def _on_listening(self, message: Bool) -> None:
        with self._changed:
            self._listening = message.data
            if message.data:
                self._hush()
            self._changed.notify()

    def _hush(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _speak_all(self) -> None:
        """The voice's thread: one text after the other, the newest alone."""
        while True:
            try:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self.stopping.is_set() or (self._next and not self._listening)
                    )
                    if self.stopping.is_set():
                        return
                    text, self._next = self._next, ""
                    self._speaking.publish(Bool(data=True))
                    self._process = subprocess.Popen(
                        self._command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                    )
                _, errors = self._process.communicate(text.encode())
                if self._process.returncode > 0:
                    said = errors.decode(errors="replace").strip().splitlines()
                    self._cannot(said[-1] if said else "no reason given")
            except OSError as error:  # an executable, but no program: without a #!, of another CPU
                self._cannot(error.strerror)
            finally:  # `listen` is deaf until it hears this
                self._speaking.publish(Bool(data=False))

    def _cannot(self, reason: str) -> None:
        self.get_logger().warning(f"{self._command[0]} cannot speak: {reason}")

    def close(self) -> None:
        """Fall silent."""
        with self._changed:
            self.stopping.set()
            self._hush()
            self._changed.notify()
        self._thread.join(2.0)
        self.destroy_node()
