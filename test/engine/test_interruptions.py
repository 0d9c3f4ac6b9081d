"""Answers that are broken off, callers that meet, and what an engine leaves behind."""

from __future__ import annotations

import threading
import time
import weakref

import pytest
from engine_samples import drawn_image, engine_saying, speaker

from lisa_ros.engine import Answer, AnswerStatus, Engine, MaskReady, Question, question
from lisa_ros.engine.image_features import StageTimer
from lisa_ros.errors import BusyError, InstructionError


def test_cancel_between_tokens_keeps_what_there_is() -> None:
    engine = engine_saying("It is [SEG]. They can hold water", draft_tokens=0)
    cancel, events = threading.Event(), []
    for event in engine.stream(drawn_image(), "what?", cancel=cancel):
        events.append(event)
        if isinstance(event, MaskReady):
            cancel.set()
    answer = events[-1].answer
    assert answer.status is AnswerStatus.CANCELLED
    assert answer.text == "It is"
    assert len(answer.instances) == 1


def test_cancelled_before_it_began_costs_nothing() -> None:
    engine = engine_saying("It is the mug [SEG].")
    cancel = threading.Event()
    cancel.set()
    answer = engine.segment(drawn_image(), "the mug", cancel=cancel)
    assert answer.status is AnswerStatus.CANCELLED
    assert answer.counters["forwards"] == answer.counters["clip_encodes"] == 0


def test_a_deadline_that_has_passed_is_a_timeout() -> None:
    engine = engine_saying("It is the mug [SEG].")
    answer = engine.segment(drawn_image(), "the mug", deadline=time.monotonic() - 1)
    assert answer.status is AnswerStatus.TIMEOUT


def test_a_mask_that_was_never_decoded_is_in_no_transcript() -> None:
    class Later:
        """Set from the second look on: after the encoders, before the first pass."""

        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 1

    answer = engine_saying("[SEG].").segment(drawn_image(), "the mug", mode="mask", cancel=Later())
    assert (answer.status, answer.instances) == (AnswerStatus.CANCELLED, [])
    assert answer.counters["clip_encodes"] == 1
    assert answer.transcript == ""


def test_a_deadline_counts_from_its_very_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a moment before; and who has cancelled is told so, whatever the time."""
    now = [99.9]
    monkeypatch.setattr(question.time, "monotonic", lambda: now[0])
    cancel = threading.Event()
    interrupted = question.Interruption(cancel, 100.0)
    assert interrupted() == ""
    now[0] = 100.0
    assert interrupted() == "deadline"
    cancel.set()
    assert interrupted() == "cancel"


def test_an_abandoned_stream_leaves_the_engine_usable() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    stream = engine.stream(drawn_image(), "the mug", key=1)
    next(stream)
    stream.close()
    assert engine.features.nbytes <= engine.config.cache_bytes
    assert engine.segment(drawn_image(), "the mug", key=1).status is AnswerStatus.OK


def test_two_questions_about_a_frame_whose_first_answer_was_broken_off() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    frame = engine.features.get("a", (48, 64))
    engine.vision.encode_views([frame], [drawn_image()], StageTimer(engine.device))
    questions = [
        Question(drawn_image(), "the mug", key="a"),
        Question(drawn_image(), "it", key="a"),
    ]
    answers = engine.segment_batch(questions)
    assert [a.text for a in answers] == ["It is the red mug."] * 2
    assert len(frame.prefix_kv) == 1


def test_warming_up_leaves_nothing_behind() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    engine.warm_up()
    assert engine.features.nbytes == 0
    assert engine.segment(drawn_image(), "the mug").text == "It is the red mug."


@pytest.mark.parametrize("script", ["It is red.", "It is the red mug [SEG]."])
def test_warming_up_passes_every_stage_whatever_the_model_says(script: str) -> None:
    engine, passed = engine_saying(script), set()
    for name in ("clip_encoder", "sam_encoder", "low_res"):
        run = getattr(engine.vision, name)
        setattr(engine.vision, name, lambda *a, name=name, run=run: passed.add(name) or run(*a))
    engine.warm_up()
    assert passed == {"clip_encoder", "sam_encoder", "low_res"}


SCRIPT = "It is the red mug [SEG] that can hold water."


def test_callers_in_several_threads_take_turns() -> None:
    """Eighteen questions from three threads are answered as if they were asked one by one."""
    engine = engine_saying(SCRIPT, draft_tokens=0)
    expected = [engine.segment(drawn_image(n), "what?") for n in range(6)]
    answers: dict[tuple[int, int], Answer] = {}

    def ask(caller: int) -> None:
        for n in range(6):
            answers[caller, n] = engine.segment(drawn_image(n), "what?", key=(caller, n))

    callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(answers) == 18
    for (_, n), answer in answers.items():
        assert answer.transcript == expected[n].transcript
        assert (answer.instances[0].mask == expected[n].instances[0].mask).all()


def test_a_stream_that_is_open_says_so_to_its_own_thread() -> None:
    engine = engine_saying(SCRIPT, draft_tokens=0)
    stream = engine.stream(drawn_image(), "what?")
    next(stream)
    for ask in (
        lambda: engine.segment(drawn_image(1), "what?"),
        lambda: engine.prepare(drawn_image(1), "key"),
        lambda: next(engine.stream(drawn_image(1), "what?")),
    ):
        with pytest.raises(BusyError, match="close the stream"):
            ask()
    *_, last = stream  # it was not disturbed
    assert last.answer.transcript == engine.segment(drawn_image(), "what?").transcript


def test_who_waits_for_a_stream_of_another_thread_keeps_his_deadline_and_gets_his_turn() -> None:
    engine = engine_saying(SCRIPT, draft_tokens=0)
    stream, answers = engine.stream(drawn_image(), "what?"), []
    next(stream)
    cancel = threading.Event()

    def ask(**limits: object) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: answers.append(engine.segment(drawn_image(), "what?", **limits))
        )
        thread.start()
        return thread

    ask(deadline=time.monotonic() + 0.05).join()
    patient, fickle = ask(), ask(cancel=cancel)
    cancel.set()
    fickle.join()
    assert [a.status for a in answers] == [AnswerStatus.TIMEOUT, AnswerStatus.CANCELLED]
    assert all(a.counters["forwards"] == 0 for a in answers)
    stream.close()
    patient.join()
    assert answers[-1].status is AnswerStatus.OK


def test_a_question_that_fails_gives_its_turn_back() -> None:
    engine = engine_saying(SCRIPT, max_repeats=0)
    with pytest.raises(InstructionError):
        engine.segment(drawn_image(), "mug " * 490)
    assert engine.segment(drawn_image(), "the mug").status is AnswerStatus.OK


def test_no_gradients_no_references_no_garbage() -> None:
    """An engine that is dropped frees its model at once, not at some garbage collection."""
    lisa = speaker("It is the red mug [SEG].")
    lisa.network.requires_grad_(True)
    engine = Engine(lisa)
    engine.segment(drawn_image(), "the mug", key=1)
    frame = next(iter(engine.features.entries.values()))
    assert not frame.sam.requires_grad
    assert not engine.decoder.cache.data.requires_grad
    gone = weakref.ref(lisa.network), weakref.ref(engine)
    del engine, lisa, frame
    assert [ref() for ref in gone] == [None, None]


def test_an_engine_works_in_another_thread_than_it_was_made_in() -> None:
    engine, answers = engine_saying("It is the red mug [SEG]."), []
    engine.segment(drawn_image(), "the mug", key=1)
    worker = threading.Thread(
        target=lambda: answers.append(engine.segment(drawn_image(), "the mug", key=1))
    )
    worker.start()
    worker.join()
    assert answers[0].status is AnswerStatus.OK
