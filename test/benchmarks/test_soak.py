"""A short soak; the long one is `make soak`, its report stands in docs/reliability.md."""

from __future__ import annotations

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from benchmarks import soak


def test_every_query_is_answered_once_and_nothing_piles_up(monkeypatch):
    monkeypatch.setattr(soak, "CHECK", 100)
    report = soak.soak(800, seed=3)
    assert report.results == report.queries + report.goals == 800 + report.goals
    assert report.duplicates == 0
    assert len(report.statuses) >= 5
    assert report.threads[-1] == report.threads[1], "a thread was left over"
    assert report.files[-1] <= report.files[1] + 2, "a file was left open"
    assert report.memory[-1][1] - report.memory[len(report.memory) // 2][1] < 20, "MB"
