"""Recordings and folders of views: annotated, or asked from several poses and fused."""

from lisa_ros.recordings.views import FusedAnswer, Shot, ask_views

__all__ = ["FusedAnswer", "Shot", "ask_views"]
