"""The exceptions that speak to the user: what was wrong, where, and what to do."""

import math
import sys


def counted(count: int, noun: str) -> str:
    """A number with its noun, as sentences have them: 1 mask, 3 masks."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def not_installed(module: str) -> str:
    """What to do about a package that is missing, or installed for another Python."""
    return (
        f"the package {module.partition('.')[0]} is missing from {sys.executable}: activate the "
        "environment that lisa_ros was installed into, or source the ROS installation "
        "(docs/install.md)"
    )


class LisaError(Exception):
    """A fault that the user can mend. The command line prints its text and exits with 2."""


def check_number(
    option: str, value: float | None, least: float, most: float = math.inf, *, above: bool = False
) -> None:
    """Raise `LisaError` unless an option's number is finite and within bounds; None: not given.

    `above`: `least` itself is too small.
    """
    if value is None:
        return
    if (least < value if above else least <= value) and value <= most and value < math.inf:
        return
    low, high, given = (str(number).removesuffix(".0") for number in (least, most, value))
    bounds = f"{'above' if above else 'at least'} {low}" + " and finite" * isinstance(value, float)
    if most < math.inf:
        bounds = f"from {low} to {high}"
    raise LisaError(f"{option} must be {bounds}, it is {given}")


class CheckpointError(LisaError):
    """A model folder is missing, damaged, or not what it claims to be."""


class ImageError(LisaError):
    """An image cannot be used: unknown encoding, wrong length, too small, too large."""


class InstructionError(LisaError):
    """An instruction cannot be used: empty or too long."""


class WriteError(LisaError):
    """Something cannot be written: no permission, no folder, no room."""


class DepthError(LisaError):
    """Depth, camera_info or poses cannot be used; the text is a sentence without full stop."""


class BusyError(LisaError):
    """An engine has no room for a question: one of the thread's own streams, or too many wait."""


class ServerError(LisaError):
    """The server of a remote model cannot be asked: wrong address, token or version, no answer."""


class ServerUnreachable(ServerError):
    """Nobody answers at the server's address, or he broke off: this may pass by itself."""


class RemoteFailure(Exception):
    """The model failed on the server, in whose log the details are; nothing here can mend it.

    The command line prints its text as that of a `LisaError`; to the node it is the model's fault.
    """


class TrackingError(LisaError):
    """A thing cannot be followed: nothing or too much to begin with, or no such track."""
