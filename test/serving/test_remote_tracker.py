"""A tracker on a server: the robot's side against the server's side, which is stopped and started
as a process is, in this process and without Ray."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drawn_clip import BLUE, RED, draw, instance
from fake_server import itself, reply, server

from lisa_ros.engine.answer import Answer, AnswerStatus
from lisa_ros.errors import ServerError, ServerUnreachable, TrackingError
from lisa_ros.serving import remote_tracker
from lisa_ros.serving.remote import RemoteEngine
from lisa_ros.serving.remote_tracker import RemoteTracker, TrackSessions, read_call, write_call
from lisa_ros.serving.wire import WireError, run_lengths
from lisa_ros.tracking.follow import Follower
from lisa_ros.tracking.lisa import LisaTracker
from lisa_ros.tracking.tracker import TrackState, mask_iou

VISIBLE, OCCLUDED, LOST = TrackState.VISIBLE, TrackState.OCCLUDED, TrackState.LOST
RATE = 15.0
WORDS = "the red thing"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No pause after a server that did not answer: how often it is tried must not need a clock."""
    monkeypatch.setattr(remote_tracker, "RETRY", 0.0)


def new_server(address: str = ":0"):
    """What answers as a replica does, at that address."""
    sessions = TrackSessions(None, 640 * 480)

    def answer(connection, path, body):
        assert path == remote_tracker.TRACK
        code, line = sessions.answer(body)
        connection.sendall(reply(line, code=code))

    return server(itself(answer), int(address.rpartition(":")[2])), sessions


def scene(step: int):
    return draw([(RED, 80 + 3 * step, 120), (BLUE, 60, 200)])


def test_masks_and_states_are_those_of_a_tracker_of_our_own():
    """Through a second in which it is hidden too; things come and go."""
    serving, sessions = new_server()
    image, masks = scene(0)
    given = [instance(mask, label) for mask, label in zip(masks, ("red", "blue"), strict=True)]
    with serving as address:
        ours, theirs = LisaTracker(None), RemoteTracker(RemoteEngine(address))
        for tracker in (ours, theirs):
            first = tracker.start(image, given[:1], stamp=0.0)
            first += tracker.add(image, given[1:], stamp=0.0)
            assert [(t.id, t.label) for t in first] == [(1, "red"), (2, "blue")]
        for step in range(1, 40):
            image, masks = scene(step) if not 10 < step < 26 else draw([(BLUE, 60, 200)])
            for one, other in zip(
                ours.update(image, stamp=step / RATE),
                theirs.update(image, stamp=step / RATE),
                strict=True,
            ):
                assert np.array_equal(one.mask, other.mask) and one.state == other.state
                assert (one.id, one.box, one.label) == (other.id, other.box, other.label)
                assert other.unseen == pytest.approx(one.unseen)
                assert other.age == pytest.approx(one.age)
                assert other.score == pytest.approx(one.score)
        assert one.state == VISIBLE
        theirs.drop(1)
        assert [t.id for t in theirs.update(image, stamp=4.0)] == [2]
        with pytest.raises(TrackingError, match="no track 1"):
            theirs.drop(1)
    assert theirs.counters["sessions"] == 1 == len(sessions.sessions)


class Asked(RemoteEngine):
    """Its model's answer is known; everything else is the server's."""

    runs, mask = 0, None

    def segment(self, image, instruction, **options):
        self.runs += 1
        return Answer("", AnswerStatus.OK, [instance(self.mask, instruction)])


def test_a_server_that_dies_and_returns_goes_on_from_the_last_mask():
    serving, _ = new_server()
    with serving as address:
        engine = Asked(address)
        image, masks = scene(0)
        engine.mask = masks[0]
        follower = Follower(engine, RemoteTracker(engine))
        follower.begin(image, stamp=0.0, instruction=WORDS)
        for step in range(1, 6):
            (track,) = follower.update(scene(step)[0], stamp=step / RATE)
        assert track.state == VISIBLE and not follower.fault
    # 1. it is away: no mask anywhere, a sentence, no question, and nothing hangs
    for step in range(6, 12):
        image, masks = scene(step)
        (track,) = follower.update(image, stamp=step / RATE)
        assert (track.id, track.state) == (1, OCCLUDED) and not track.mask.any()
        assert "cannot be reached" in follower.fault
    assert track.unseen == pytest.approx(6 / RATE) and engine.runs == 1
    (track,) = follower.update(scene(12)[0], stamp=6.0)
    assert track.state == LOST
    # 2. another process at the same address, which knows of nothing
    serving, sessions = new_server(address)
    with serving:
        (track,) = follower.update(scene(13)[0], stamp=6.1)
        image, masks = scene(14)
        (track,) = follower.update(image, stamp=6.2)
        assert (track.id, track.state, track.label) == (1, VISIBLE, WORDS)
        assert mask_iou(track.mask, masks[0]) > 0.8 and not follower.fault
        assert track.age == pytest.approx(6.2)
        # 3. it forgets the session, as after a long pause
        sessions.sessions.clear()
        image, masks = scene(15)
        (track,) = follower.update(image, stamp=6.3)
        assert track.id == 1 and mask_iou(track.mask, masks[0]) > 0.8
    assert engine.runs <= 2 and follower.tracker.counters["sessions"] == 3


def test_a_thing_whose_server_is_away_is_lost_after_the_trackers_own_limit():
    serving, _ = new_server()
    image, masks = scene(0)
    with serving as address:
        tracker = RemoteTracker(RemoteEngine(address), lost_after=0.5)
        follower = Follower(None, tracker)
        follower.begin(image, stamp=0.0, instances=[instance(masks[0])])
    states = [follower.update(image, stamp=stamp)[0].state for stamp in (0.4, 0.6)]
    assert states == [OCCLUDED, LOST]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"{}\n", "counters"),
        (b"<html>\n", "not what lisa_ros says"),
        (b'{"tracks": [{"id": 1, "score": 0.5, "runs": [7]}], "counters": {}}\n', "run lengths"),
        (b'{"error": {"kind": "path", "sentence": "there is no such place"}}\n', "no such place"),
        (b'{"error": {"kind": "unknown_session", "sentence": "x"}}\n', "forgets"),
    ],
)
def test_whatever_a_server_says_is_told_in_a_sentence(said, sentence):
    image, masks = scene(0)
    begun = {"id": 1, "score": 1, "runs": run_lengths(masks[0])}
    right = json.dumps({"tracks": [begun], "counters": {}}).encode() + b"\n"

    def answer(connection, path, body):
        connection.sendall(reply(right if read_call(body)[0]["call"] == "start" else said))

    with server(itself(answer)) as address:
        tracker = RemoteTracker(RemoteEngine(address))
        tracker.start(image, [instance(masks[0])], stamp=0.0)
        with pytest.raises(ServerError, match=sentence):
            tracker.update(image, stamp=0.1)


def test_a_server_that_is_full_or_lets_wait_holds_nobody(monkeypatch):
    monkeypatch.setattr(remote_tracker, "MOST_SESSIONS", 1)
    monkeypatch.setattr(remote_tracker, "IDLE_LIMIT", 1e6)
    image, masks = scene(0)
    serving, sessions = new_server()
    with serving as address:
        first, second = (RemoteTracker(RemoteEngine(address)) for _ in range(2))
        first.start(image, [instance(masks[0])], stamp=0.0)
        with pytest.raises(Exception, match="follows for 1 goals already"):
            second.start(image, [instance(masks[0])], stamp=0.0)
        monkeypatch.setattr(remote_tracker, "IDLE_LIMIT", -1.0)
        second.start(image, [instance(masks[0])], stamp=0.0)
        assert len(sessions.sessions) == 1, "who is silent for long makes room"
    monkeypatch.setattr(remote_tracker, "ANSWER_LIMIT", 0.2)
    with server(lambda connection, path, body: connection.recv(1)) as address:
        tracker = RemoteTracker(RemoteEngine(address))
        with pytest.raises(ServerUnreachable, match="does not answer"):
            tracker.start(image, [instance(masks[0])], stamp=0.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"{}\n",
        b"\xff\n",
        write_call("a", "start", 0.0).replace(b"start", b"stare"),
        write_call("a", "start", 0.0).replace(b"0.0", b'"x"'),
        write_call("a", "start", 0.0, [instance(np.ones((4, 4), bool))]).replace(b"16]", b"17]"),
    ],
)
def test_a_body_that_is_no_call_is_refused(body):
    with pytest.raises(WireError):
        read_call(body)
    assert TrackSessions(None, 100).answer(body)[0] == 400
