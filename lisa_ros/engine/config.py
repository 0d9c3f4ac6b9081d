"""How an engine works."""

from __future__ import annotations

from dataclasses import dataclass

from lisa_ros.model.processor import ClipView


@dataclass(frozen=True)
class EngineConfig:
    """Settings of an engine; the defaults suit a robot with one camera."""

    max_new_tokens: int = 256
    """longest answer, in tokens"""
    max_masks: int = 16
    """an answer with more `[SEG]` than this is stopped"""
    cache_bytes: int = 512 * 2**20
    """bound on the features of earlier frames that stay in memory"""
    draft_tokens: int = 128
    """most draft tokens that one pass checks; 0: no drafts"""
    clip_view: ClipView | None = None
    """what the language model sees of an image that is no square: the central square; all of it,
    pressed; or three squares, of which the surest answer is taken. None: as in its training"""
    threads: int | None = None
    """processor threads for torch; None: leave them as they are"""
