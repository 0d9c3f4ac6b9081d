"""Voices for the tests of speech: espeak-ng."""

from __future__ import annotations

import shutil

import pytest

needs_voice = pytest.mark.skipif(
    shutil.which("espeak-ng") is None,
    reason="the voices of these tests come from espeak-ng: make system-packages",
)
