"""Answers that are broken off, and what an engine leaves behind."""

from __future__ import annotations

import threading
import time
import weakref

from engine_samples import engine_saying, picture, speaker

from lisa_ros.engine import Engine, MaskReady, Question, Status
from lisa_ros.engine.image_features import StageTimer


def test_cancel_between_tokens_keeps_what_there_is() -> None:
    engine = engine_saying("It is [SEG]. They can hold water", draft_tokens=0)
    cancel, events = threading.Event(), []
    for event in engine.stream(picture(), "what?", cancel=cancel):
        events.append(event)
        if isinstance(event, MaskReady):
            cancel.set()
    answer = events[-1].answer
    assert answer.status is Status.CANCELLED
    assert answer.text == "It is"
    assert len(answer.instances) == 1


def test_cancelled_before_it_began_costs_nothing() -> None:
    engine = engine_saying("It is the mug [SEG].")
    cancel = threading.Event()
    cancel.set()
    answer = engine.segment(picture(), "the mug", cancel=cancel)
    assert answer.status is Status.CANCELLED
    assert answer.counters["forwards"] == answer.counters["clip_encodes"] == 0


def test_a_deadline_that_has_passed_is_a_timeout() -> None:
    engine = engine_saying("It is the mug [SEG].")
    answer = engine.segment(picture(), "the mug", deadline=time.monotonic() - 1)
    assert answer.status is Status.TIMEOUT


def test_an_abandoned_stream_leaves_the_engine_usable() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    stream = engine.stream(picture(), "the mug", key=1)
    next(stream)
    stream.close()
    assert engine.features.nbytes <= engine.config.cache_bytes
    assert engine.segment(picture(), "the mug", key=1).status is Status.OK


def test_two_questions_about_a_frame_whose_first_answer_was_broken_off() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    frame = engine.features.get("a", (48, 64))
    engine.vision.encode_views([frame], [picture()], StageTimer(engine.device))
    questions = [Question(picture(), "the mug", key="a"), Question(picture(), "it", key="a")]
    answers = engine.segment_batch(questions)
    assert [a.text for a in answers] == ["It is the red mug."] * 2
    assert len(frame.prefix_kv) == 1


def test_warming_up_leaves_nothing_behind() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    engine.warm_up()
    assert engine.features.nbytes == 0
    assert engine.segment(picture(), "the mug").text == "It is the red mug."


def test_no_gradients_no_references_no_garbage() -> None:
    """An engine that is dropped frees its model at once, not at some garbage collection."""
    lisa = speaker("It is the red mug [SEG].")
    lisa.network.requires_grad_(True)
    engine = Engine(lisa)
    engine.segment(picture(), "the mug", key=1)
    frame = next(iter(engine.features.entries.values()))
    assert not frame.sam.requires_grad
    assert not engine.decoder.cache.data.requires_grad
    gone = weakref.ref(lisa.network), weakref.ref(engine)
    del engine, lisa, frame
    assert [ref() for ref in gone] == [None, None]


def test_an_engine_works_in_another_thread_than_it_was_made_in() -> None:
    engine, answers = engine_saying("It is the red mug [SEG]."), []
    engine.segment(picture(), "the mug", key=1)
    worker = threading.Thread(
        target=lambda: answers.append(engine.segment(picture(), "the mug", key=1))
    )
    worker.start()
    worker.join()
    assert answers[0].status is Status.OK
