"""The exception of this layer."""

from lisa_ros.errors import LisaError


class DepthError(LisaError):
    """Depth, camera_info or poses cannot be used; the text is a sentence without full stop."""
