"""One instruction asked from several poses of the camera, and the answers fused into one object."""

from lisa_ros.recordings.ask_views import Seen, Shot, ask_views

__all__ = ["Seen", "Shot", "ask_views"]
