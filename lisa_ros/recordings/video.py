"""Reasoning over a whole clip: ask about a few of its frames, carry the best answer both ways.

As in ViLLa (arXiv 2407.14500) an instruction means something in a clip, not in one image of it:

1. One pass over the clip finds its frames and how much changes from one to the next.
2. Key frames are chosen, evenly over time and change together, and asked as one batch.
3. The answer is taken that most of the others agree with, and of those the surest.
4. A tracker carries its masks from that frame to the end, and another one back to the beginning.
5. A last pass writes the images with their masks.

Frames are never all held (`clip_files.py`); masks are kept as run lengths, about 200 bytes each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lisa_ros.engine.answer import Answer, AnswerStatus
from lisa_ros.engine.question import Question, check_instruction
from lisa_ros.errors import ServerUnreachable
from lisa_ros.recordings.clip_files import FrameSource, Report, write_gif, write_mp4

if TYPE_CHECKING:
    from lisa_ros.engine import Engine
    from lisa_ros.tracking.follow import Follower
    from lisa_ros.tracking.tracker import Track

GIF_WIDTH, GIF_RATE = 320, 7.5


# which frames are asked about, and which answer is taken


def key_frames(changes: Sequence[float], count: int) -> list[int]:
    """Up to `count` frames, evenly over a measure that is half time and half change.

    `changes`: how much each frame differs from the one before. Nothing is chosen twice.
    """
    frames = len(changes)
    total = sum(changes)
    share = np.full(frames, 1 / frames)
    if total > 0:
        share = 0.5 * share + 0.5 * np.array(changes) / total
    passed = np.cumsum(share)
    places = (np.arange(count) + 0.5) / count
    return sorted({min(frames - 1, int(i)) for i in np.searchsorted(passed, places)})


def choose_answer(answers: Sequence[Answer]) -> int | None:
    """The index of the surest answer among those that most agree with; None if all found nothing.

    Answers agree that name the same things: equal words before each [SEG], or equally many masks
    where there are no words. An answer weighs as much as its least sure mask.
    """
    sure = {
        index: min(one.score for one in answer.instances)
        for index, answer in enumerate(answers)
        if answer.status == AnswerStatus.OK
    }
    weights: Counter[tuple] = Counter()
    for index, score in sure.items():
        weights[_named(answers[index])] += score
    return max(sure, key=lambda i: (weights[_named(answers[i])], sure[i]), default=None)


def _named(answer: Answer) -> tuple:
    """What an answer says it shows, whatever the order."""
    return tuple(sorted(one.label for one in answer.instances))


# the whole


@dataclass
class FollowedVideo:
    """What was found: run lengths by frame, and what was said on the way.

    Attributes:
        answers: of the key frames, by their indices.
        chosen: the key frame whose answer was taken, None if nothing was found.
        masks: of each frame, for every thing (id, score, state, COCO's compressed run lengths).
        labels: the words of each thing, by its id.
        asked_again: questions to the model beside those about the key frames.
    """

    source: FrameSource
    instruction: str
    answers: dict[int, Answer]
    chosen: int | None
    masks: list[list[tuple[int, float, str, bytes]]]
    labels: dict[int, str] = field(default_factory=dict)
    asked_again: int = 0

    @property
    def text(self) -> str:
        """The answer that was taken, or the first one if all found nothing."""
        key = self.chosen if self.chosen is not None else min(self.answers)
        return self.answers[key].text

    def as_json(self) -> dict:
        """As plain data; masks in COCO's format."""
        height, width = self.source.size
        return {
            "text": self.text,
            "status": "NOT_FOUND" if self.chosen is None else "OK",
            "instruction": self.instruction,
            "size": [height, width],
            "key_frames": {
                str(key): {"text": answer.text, "status": answer.status.value}
                for key, answer in self.answers.items()
            },
            "chosen": self.chosen,
            "things": [{"id": id, "label": label} for id, label in self.labels.items()],
            "faults": self.source.faults,
            "notes": self.source.notes,
            "frames": [
                {
                    "time": round(time, 4),
                    "masks": [
                        {
                            "id": id,
                            "score": round(score, 3),
                            "state": state,
                            "segmentation": {"size": [height, width], "counts": runs.decode()},
                        }
                        for id, score, state, runs in masks
                    ],
                }
                for time, masks in zip(self.source.times, self.masks, strict=True)
            ],
        }

    def decoded(self, index: int) -> list[np.ndarray]:
        """The masks bool (H,W) of a frame."""
        from pycocotools import mask as coco

        size = list(self.source.size)
        runs = [{"size": size, "counts": one[3]} for one in self.masks[index]]
        return [coco.decode(one).astype(bool) for one in runs]


def follow_video(
    engine: Engine,
    source: FrameSource,
    instruction: str,
    make_follower: Callable[[], Follower],
    *,
    keys: int = 6,
    report: Report = lambda *_: None,
) -> FollowedVideo:
    """Find what an instruction means in a clip, and carry it through all of it.

    Args:
        make_follower: a new follower; one goes forwards, one backwards.
        keys: key frames that are asked about.

    Raises:
        VideoError: the clip has no frame, or is damaged from its beginning.
        InstructionError: the instruction cannot be used.
        ServerError: that of a remote model does not answer.
    """
    check_instruction(instruction)
    # 1. times and changes
    source.scan(report)
    count = len(source.times)
    # 2. the key frames, as one batch
    chosen_keys = key_frames(source.changes, keys)
    questions = []
    for number, key in enumerate(chosen_keys, start=1):
        report("asking", number, len(chosen_keys))
        for rgb in source.read(key, key + 1):
            # with words, by which answers can be compared, and things be named
            name = str(source.path), key
            questions.append(Question(rgb, instruction, mode="explain", key=name))
    answers = dict(zip(chosen_keys, engine.segment_batch(questions), strict=True))
    # 3. the best of them
    best = choose_answer(list(answers.values()))
    chosen = None if best is None else chosen_keys[best]
    found = FollowedVideo(source, instruction, answers, chosen, [[] for _ in range(count)])
    if chosen is None:
        return found
    instances = [one for one in answers[chosen].instances if one.area]
    for forwards in (True, False):
        # 4. both ways from it
        follower = make_follower()
        frames = source.read(chosen, count) if forwards else source.backwards(chosen)
        for step, rgb in enumerate(frames):
            index = chosen + step if forwards else chosen - step
            stamp = abs(source.times[index] - source.times[chosen])
            key = (str(source.path), index)
            if step == 0:
                tracks = follower.begin(
                    rgb, stamp=stamp, key=key, instances=instances, instruction=instruction
                )
                found.labels = {t.id: t.label for t in tracks}
            else:
                tracks = follower.update(rgb, stamp=stamp, key=key)
                if follower.fault:  # of a server; a recording can be done again, whole
                    raise ServerUnreachable(f"frame {index} is not followed: {follower.fault}")
            found.masks[index] = [_packed(track) for track in tracks]
            report("following", step + 1 + (0 if forwards else count - chosen), count + 1)
        found.asked_again += follower.asked
    return found


def _packed(track: Track) -> tuple[int, float, str, bytes]:
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(track.mask.astype(np.uint8)))["counts"]
    return track.id, track.score, track.state.value, runs


def write_video(found: FollowedVideo, path: Path, report: Report = lambda *_: None) -> None:
    """The clip with the masks in colours, as MP4 (H.264), or as a small GIF by the file's name.

    Raises:
        WriteError: it cannot be written.
    """
    count, rate = len(found.masks), found.source.rate

    def images() -> Iterator[np.ndarray]:
        for index, rgb in enumerate(found.source.read(0, count)):
            report("writing", index + 1, count)
            yield _drawn(rgb, found, index)

    if path.suffix.lower() != ".gif":
        return write_mp4(path, images(), rate)
    step = max(1, round(rate / GIF_RATE))
    size = GIF_WIDTH, round(found.source.size[0] * GIF_WIDTH / found.source.size[1])
    small = [
        cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for number, image in enumerate(images())
        if number % step == 0
    ]
    write_gif(path, small, [round(1000 * step / rate)] * len(small))


def _drawn(rgb: np.ndarray, found: FollowedVideo, index: int) -> np.ndarray:
    """A frame as the node's overlay shows an answer, and whether the thing is hidden."""
    from lisa_ros.node.results.overlay import draw_overlay

    hidden = [state for _, _, state, _ in found.masks[index] if state != "visible"]
    said = found.text + (f"  ({hidden[0]})" if hidden else "")
    return draw_overlay(rgb, found.decoded(index), found.instruction, said)
