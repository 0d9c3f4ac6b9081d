"""A tracker on the server: what the two sides say, the robot's side, the server's side.

Up, to `POST /v1/track`: a line of JSON with the call (`start`, `add`, `update`, `resume`, `drop`)
and, behind it, the image file, coded as for questions. Down: one line with the tracks, their masks
as run lengths. A follower has a session of its own, a `LisaTracker` beside the server's engine.

The robot keeps the last mask of each thing with its image. A server that was started again, or has
forgotten a session, says so, and is given these to begin with. Nothing here needs torch.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lisa_ros.engine.answer import Instance
from lisa_ros.engine.question import Interruption
from lisa_ros.errors import BusyError, LisaError, ServerError, ServerUnreachable, TrackingError
from lisa_ros.serving.remote import RemoteEngine
from lisa_ros.serving.wire import (
    Refused,
    WireError,
    decode_image,
    embedding_as_json,
    embedding_of,
    encode_image,
    join_body,
    mask_of,
    read_answer,
    refusal,
    run_lengths,
    split_body,
)
from lisa_ros.tracking.lisa import LisaTracker
from lisa_ros.tracking.motion import SharedMotion
from lisa_ros.tracking.tracker import LOST_AFTER, MAX_TRACKS, Track, Tracker

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine

TRACK = "/v1/track"
UNKNOWN_SESSION = "unknown_session"  # the kind of refusal after which the robot begins again
ANSWER_LIMIT = 3.0  # seconds for the tracks of one image
RETRY = 0.5  # seconds without a try after a server has not answered
MOST_SESSIONS = 64  # of one replica
MOST_THINGS = 255  # of one session
MOST_PIXELS = 2**27  # of a mask
IDLE_LIMIT = 60.0  # seconds without a call after which a session is forgotten
LONGEST_CALL = 8 * 2**20  # bytes of a call's JSON: masks
CALLS = ("start", "add", "update", "resume", "drop")


def write_call(
    session: str,
    call: str,
    stamp: float,
    things: Sequence[Instance] = (),
    *,
    track: int = 0,
    most: int = 0,
    file: bytes = b"",
) -> bytes:
    """The body of a request; `track`: the server's id of the one that the call is about."""
    fields = {
        "session": session,
        "call": call,
        "stamp": stamp,
        "track": track,
        "most": most,
        "things": [
            {
                "label": one.label,
                "size": list(one.mask.shape),
                "runs": run_lengths(one.mask),
                "embedding": embedding_as_json(one.seg_embedding),
            }
            for one in things
        ],
    }
    return join_body(fields, file)


def read_call(body: bytes) -> tuple[dict[str, Any], list[Instance], bytes]:
    """The other way: fields, things, image file. Raises `WireError`."""
    fields, file = split_body(body, LONGEST_CALL)
    if fields.get("call") not in CALLS:
        raise WireError(f"there is no call {fields.get('call')!r:.20} of a tracker")
    try:
        things = []
        for one in fields["things"]:
            height, width = (int(side) for side in one["size"])
            if not 0 < height * width <= MOST_PIXELS:
                raise ValueError(f"a mask of {width}x{height} pixels")
            mask = mask_of(one["runs"], (height, width))
            embedding = embedding_of(one["embedding"])
            things.append(Instance(mask, 1.0, 1.0, str(one["label"]), seg_embedding=embedding))
        kinds = {"session": str, "stamp": float, "track": int, "most": int}
        known = {name: kind(fields[name]) for name, kind in kinds.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WireError(f"the request cannot be understood: {error!r:.100}") from None
    return known | {"call": fields["call"]}, things, file


# the robot's side


@dataclass(eq=False)
class _Kept:
    """A thing, and what is needed to begin with it again."""

    id: int
    label: str
    remote: int
    """its id on the server"""
    began: float
    last_seen: float
    embedding: np.ndarray | None
    mask: np.ndarray
    """the last one that was not empty; of the image `file`, shown at `stamp`"""
    file: bytes
    stamp: float


class RemoteTracker(Tracker):
    """Follows things by a tracker on a server; see `Tracker` for the methods.

    Beside what these raise: `ServerUnreachable` where the server does not answer, which may pass:
    no thing has changed then. `counters`: frames; sessions (begun on the server); and what the
    server's tracker has counted.
    """

    def __init__(
        self,
        engine: RemoteEngine,
        *,
        max_tracks: int = MAX_TRACKS,
        lost_after: float = LOST_AFTER,
    ) -> None:
        super().__init__(max_tracks, lost_after)
        self.engine, self.session = engine, ""
        self.coded: tuple[np.ndarray, bytes] | None = None  # the newest image and its file
        self.not_before, self.fault = 0.0, ""  # the next try by time.monotonic(), and why not now

    def _forget(self, stamp: float) -> None:
        self.session = ""

    def _begin(
        self, image: np.ndarray, instances: Sequence[Instance], stamp: float, key: Hashable | None
    ) -> list[Track]:
        """With numbers of our own."""
        file, call = self._file(image), "add" if self.things else "start"
        if call == "start":
            self.session = uuid.uuid4().hex
        shown = self._call(call, stamp, instances, file=file)
        if len(shown) != len(instances):
            raise ServerError(f"the server {self.engine.address} has begun {len(shown)} tracks")
        new = []
        for instance, (remote, fields) in zip(instances, shown.items(), strict=True):
            self.last_id += 1
            self.things[self.last_id] = thing = _Kept(
                self.last_id, instance.label, remote, self.clock, self.clock,
                instance.seg_embedding, instance.mask, file, stamp,
            )  # fmt: skip
            new.append(self._track(thing, fields, image.shape[:2], file))
        return new

    def _update(self, image: np.ndarray, stamp: float, key: Hashable | None) -> list[Track]:
        file = self._file(image)
        shown = self._call("update", stamp, file=file) if self.things else {}
        return [
            self._track(thing, shown.get(thing.remote), image.shape[:2], file)
            for thing in self.things.values()
        ]

    def _resume(
        self,
        thing: _Kept,
        image: np.ndarray,
        instance: Instance,
        stamp: float,
        key: Hashable | None,
    ) -> Track | None:
        """If the server's tracker finds that the mask looks like the thing."""
        file = self._file(image)
        found = self._call("resume", stamp, [instance], thing=thing, file=file)
        if thing.remote not in found:
            return None
        if instance.seg_embedding is not None:
            thing.embedding = instance.seg_embedding
        return self._track(thing, found[thing.remote], image.shape[:2], file)

    def drop(self, track_id: int) -> None:
        """Let go of a thing, here and on the server."""
        thing = self._thing(track_id)
        super().drop(track_id)
        try:
            self._call("drop", self.stamp, thing=thing)
        except (ServerUnreachable, TrackingError):
            self.session = ""  # it begins again without it

    def _file(self, image: np.ndarray) -> bytes:
        if self.coded is None or self.coded[0] is not image:
            self.coded = image, encode_image(image, self.engine.jpeg_quality)
        return self.coded[1]

    def _begin_again(self) -> None:
        """A new session on the server, from the last mask of each thing, the oldest first."""
        kept = sorted(self.things.values(), key=lambda one: one.last_seen)
        call, session = "start", uuid.uuid4().hex
        while kept:
            file = kept[0].file
            group = [one for one in kept if one.file is file]
            kept = [one for one in kept if one.file is not file]
            things = [
                Instance(one.mask, 1.0, 1.0, one.label, seg_embedding=one.embedding)
                for one in group
            ]
            shown = self._exchange(session, call, group[0].stamp, things, file=file)
            for one, remote in zip(group, shown, strict=False):
                one.remote = remote
            call = "add"
        self.session = session

    def _call(
        self,
        call: str,
        stamp: float,
        things: Sequence[Instance] = (),
        *,
        thing: _Kept | None = None,
        file: bytes = b"",
    ) -> dict[int, Any]:
        """Fields of the server's tracks by its ids; begins again where it knows of nothing."""
        if time.monotonic() < self.not_before:
            raise ServerUnreachable(self.fault)
        try:
            if self.engine.server.lost:  # while a replica starts, Ray holds its calls back
                self.engine.connect()
            for _ in range(2):
                try:
                    if not self.session:
                        self._begin_again()
                    track = thing.remote if thing else 0
                    return self._exchange(self.session, call, stamp, things, track=track, file=file)
                except Refused as refused:
                    if refused.kind != UNKNOWN_SESSION:
                        raise self.engine.explained(refused) from None
                    self.session = ""
        except ServerUnreachable as error:
            self.not_before, self.fault = time.monotonic() + RETRY, str(error)
            raise
        raise ServerError(f"the server {self.engine.address} forgets what it follows at once")

    def _exchange(
        self,
        session: str,
        call: str,
        stamp: float,
        things: Sequence[Instance],
        *,
        track: int = 0,
        file: bytes,
    ) -> dict[int, Any]:
        """One request and its answer. Raises `Refused`."""
        address = self.engine.address
        body = write_call(
            session, call, stamp, things, track=track, most=self.max_tracks, file=file
        )
        self.engine.bytes_up += len(body)
        self.counters["sessions"] += call == "start"
        interrupted = Interruption(None, time.monotonic() + ANSWER_LIMIT)
        line = next(self.engine.server.lines("POST", TRACK, body, interrupted), None)
        if line is None:
            self.engine.server.lost = True
            raise ServerUnreachable(f"the server {address} does not answer")
        try:
            fields = read_answer(line)
            self.counters.update({str(k): int(v) for k, v in fields["counters"].items()})
            return {int(one["id"]): one for one in fields["tracks"]}
        except (WireError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerError(f"the server {address}: {error}") from None

    def _track(self, thing: _Kept, fields: Any, hw: tuple[int, int], file: bytes) -> Track:
        """What the server says of a thing (None: nothing), with ages and states of our own."""
        try:
            mask, score = np.zeros(hw, bool), 0.0
            if fields is not None:
                mask, score = mask_of(fields["runs"], hw), float(fields["score"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            where = f"the server {self.engine.address}"
            raise ServerError(f"{where}: a track cannot be understood: {error!r:.100}") from None
        if mask.any():
            thing.mask, thing.file, thing.stamp = mask, file, self.stamp
            thing.last_seen = self.clock
        return self._shown(thing, mask, score)


# the server's side


class _Session:
    """One follower's tracker."""

    def __init__(self, tracker: LisaTracker) -> None:
        self.tracker, self.lock, self.used = tracker, threading.Lock(), time.monotonic()


class TrackSessions:
    """The trackers of a replica's followers. Calls may come from several threads."""

    def __init__(self, engine: Engine | None, max_pixels: int) -> None:
        self.engine, self.max_pixels = engine, max_pixels
        self.sessions: OrderedDict[str, _Session] = OrderedDict()
        self.lock = threading.Lock()

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """HTTP's code and the line that answers a call."""
        try:
            fields, things, file = read_call(body)
            session = self._session(fields)
            if session is None:
                raise Refused(UNKNOWN_SESSION, "nothing is followed under this name", 404)
            image = decode_image(file, self.max_pixels) if fields["call"] != "drop" else None
            with session.lock:
                before = Counter(session.tracker.counters)
                tracks = self._run(session.tracker, fields, things, image)
                counters = session.tracker.counters - before
        except LisaError as error:
            return refusal(error)
        counters.pop("frames", None)  # the robot counts its own
        shown = [
            {"id": one.id, "score": one.score, "runs": run_lengths(one.mask)} for one in tracks
        ]
        return 200, json.dumps({"tracks": shown, "counters": counters}).encode() + b"\n"

    def _session(self, fields: dict[str, Any]) -> _Session | None:
        now, name = time.monotonic(), fields["session"]
        with self.lock:
            for other in [n for n, s in self.sessions.items() if now - s.used > IDLE_LIMIT]:
                del self.sessions[other]
            if fields["call"] == "start":
                if len(self.sessions) >= MOST_SESSIONS:
                    raise BusyError(
                        f"the server follows for {MOST_SESSIONS} goals already: end one of them"
                    )
                most = min(max(1, fields["most"]), MOST_THINGS)
                self.sessions[name] = _Session(LisaTracker(self.engine, max_tracks=most))
            session = self.sessions.get(name)
            if session is not None:
                session.used = now
            return session

    def _run(
        self,
        tracker: LisaTracker,
        fields: dict[str, Any],
        things: Sequence[Instance],
        image: np.ndarray | None,
    ) -> Sequence[Track]:
        call, stamp = fields["call"], fields["stamp"]
        if call == "drop":
            tracker.drop(fields["track"])
            return []
        if call == "update":
            return tracker.update(image, stamp=stamp)
        if call == "resume":
            if len(things) != 1:
                raise WireError("resume is about one thing")
            again = tracker.resume(fields["track"], image, things[0], stamp=stamp)
            return [] if again is None else [again]
        begin = tracker.start if call == "start" else tracker.add
        return begin(image, things, stamp=stamp)


NewTracker = Callable[[int], Tracker]
"""makes a tracker for so many things at most, one for each goal that follows"""


def new_tracker(engine: Engine | RemoteEngine, sam2: Any) -> NewTracker:
    """Makes trackers: SAM 2's way where its network is given, else `lisa`, where the engine is."""
    remote = isinstance(engine, RemoteEngine)
    if sam2 is not None:
        from lisa_ros.tracking.sam2 import Sam2Tracker

        sam2 = sam2 if remote else sam2.to(engine.device)
        return lambda most: Sam2Tracker(sam2, max_tracks=most)
    if remote:
        return lambda most: RemoteTracker(engine, max_tracks=most)
    shared = SharedMotion()
    return lambda most: LisaTracker(engine, max_tracks=most, shared=shared)
