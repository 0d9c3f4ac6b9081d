"""What a user of the engine meets: answers, statuses, events, histories, bad input."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_samples import drawn_image, engine_saying, random_questions, record_fed, speaker
from torch import nn

from benchmarks.presets import random_lisa
from lisa_ros.engine import (
    AnswerStatus,
    Engine,
    EngineConfig,
    Finished,
    MaskReady,
    Question,
    TextDelta,
    generation,
)
from lisa_ros.engine.request_state import measure
from lisa_ros.errors import ImageError, InstructionError
from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.serving.remote import RemoteEngine


def test_an_answer_has_words_a_mask_and_what_belongs_to_it() -> None:
    answer = engine_saying("Sure, it is the red mug [SEG].").segment(drawn_image(), "what is red?")
    assert answer.status is AnswerStatus.OK
    assert answer.text == "Sure, it is the red mug."
    assert answer.stopped_by == "end"
    [instance] = answer.instances
    assert instance.label == "the red mug"
    assert instance.mask.shape == (48, 64)
    assert instance.mask.dtype == bool
    assert instance.area == instance.mask.sum() > 0
    assert 0.5 < instance.score <= 1
    assert 0 < instance.seg_probability <= 1
    x, y, width, height = instance.box
    inside = np.zeros_like(instance.mask)
    inside[y : y + height, x : x + width] = True
    assert not (instance.mask & ~inside).any()
    assert instance.mask[y].any() and instance.mask[y + height - 1].any()
    assert instance.mask[:, x].any() and instance.mask[:, x + width - 1].any()


def test_the_mask_comes_before_the_words_that_follow_it() -> None:
    """Without drafts every pass gives one token, so the passes show when the mask was there."""
    engine = engine_saying("It is [SEG]. They can hold water", draft_tokens=0)
    tokens = engine.prompts.answer("It is [SEG]. They can hold water")
    passes, forward = [], engine.decoder.forward
    engine.decoder.forward = lambda batch: passes.append(batch) or forward(batch)
    events, at_mask = [], 0
    for event in engine.stream(drawn_image(), "what holds water?"):
        events.append(event)
        if isinstance(event, MaskReady):
            at_mask = len(passes)
    assert at_mask == tokens.index(engine.criteria.seg_id) + 1 < len(passes)
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    words = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(words) == events[-1].answer.text == "It is. They can hold water"
    place = next(i for i, event in enumerate(events) if isinstance(event, MaskReady))
    assert any(isinstance(event, TextDelta) for event in events[place:])
    assert events[-1].answer.counters["forwards"] == len(tokens) + 1  # the end token is one more


@pytest.mark.parametrize(
    ("script", "mode", "status"),
    [
        ("It is the mug [SEG].", "auto", AnswerStatus.OK),
        ("It is the mug [SEG].", "text", AnswerStatus.TEXT_ONLY),
        ("It is red.", "auto", AnswerStatus.TEXT_ONLY),
        ("It is red.", "explain", AnswerStatus.NOT_FOUND),
        ("It is red.", "mask", AnswerStatus.OK),
        ("There is no spoon here.", "auto", AnswerStatus.NOT_FOUND),
        ("There is nothing here to cut with.", "auto", AnswerStatus.NOT_FOUND),
        ("There is nothing here to cut with.", "text", AnswerStatus.TEXT_ONLY),
        ("There is a spoon and no knife.", "auto", AnswerStatus.TEXT_ONLY),
        ("There is no spoon here.", "mask", AnswerStatus.NOT_FOUND),
        ("There is no spoon here.", "text", AnswerStatus.TEXT_ONLY),
    ],
)
def test_statuses(script: str, mode: str, status: AnswerStatus) -> None:
    answer = engine_saying(script, refusal="There is no").segment(
        drawn_image(), "the mug", mode=mode
    )
    assert answer.status is status
    assert bool(answer.instances) == (status is AnswerStatus.OK)
    if status is AnswerStatus.NOT_FOUND or mode == "text":
        assert answer.text == script.replace(" [SEG]", "")
        assert answer.counters["sam_encodes"] == 0


def test_an_empty_mask_is_no_find() -> None:
    engine = engine_saying("It is the mug [SEG].")
    decode = engine.network.decode_masks
    engine.network.decode_masks = lambda *args: tuple(-t.abs() - 1 for t in decode(*args))
    events = list(engine.stream(drawn_image(), "the mug"))
    assert events[-1].answer.status is AnswerStatus.NOT_FOUND
    assert not any(isinstance(event, MaskReady) for event in events)
    empty = measure(torch.full((4, 5), -1.0), "it", 0.5)
    assert (empty.box, empty.area, empty.score) == ((0, 0, 0, 0), 0, 0.0) and not empty.mask.any()


def test_a_batch_answers_like_one_by_one() -> None:
    lisa = random_lisa("tiny", seed=3)
    frequent = Engine(lisa).prompts.answer("the")[0]
    lisa.network.lm_head.weight.data[lisa.tokenizer.seg_id] = (
        1.01 * lisa.network.lm_head.weight.data[frequent]
    )
    together = Engine(lisa).segment_batch(random_questions())
    alone = [Engine(lisa).segment_batch([question])[0] for question in random_questions()]
    for a, b in zip(together, alone, strict=True):
        assert (a.text, a.status, a.stopped_by) == (b.text, b.status, b.stopped_by)
        assert a.counters["tokens"] == b.counters["tokens"]
        for x, y in zip(a.instances, b.instances, strict=True):
            assert (x.mask == y.mask).mean() > 0.999
            assert x.label == y.label


def test_no_questions_no_answers() -> None:
    assert engine_saying("[SEG].").segment_batch([]) == []


def test_the_longest_answer_is_cut_and_says_so() -> None:
    answer = engine_saying("It is the red mug [SEG].").segment(
        drawn_image(), "the mug", max_new_tokens=2
    )
    assert answer.counters["tokens"] == 2
    assert answer.stopped_by == "tokens"
    assert answer.truncated
    assert answer.status is AnswerStatus.TEXT_ONLY


def test_an_answer_ends_where_the_models_positions_end() -> None:
    """A long dialogue leaves little room; the answer is cut there and says so."""
    lisa = speaker("It is red.")
    lisa.network.lm_head.weight.zero_()  # the first id again and again
    engine = Engine(lisa, EngineConfig(max_repeats=0, draft_tokens=0))
    question = Question(drawn_image(), "mug " * 300, "text")
    room = engine.decoder.max_positions - (
        len(engine.prompts.ids(question)) - 1 + lisa.config.image_tokens
    )
    assert 16 < room < engine.config.max_new_tokens
    [answer] = engine.segment_batch([question])
    assert answer.counters["tokens"] == room
    assert answer.truncated


def test_history_is_part_of_the_question_and_its_masks_are_not_drawn_again() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    fed = record_fed(engine)
    engine.segment(drawn_image(), "and now?", key=1)
    alone = fed[-1]
    answer = engine.segment(
        drawn_image(), "and now?", key=1, history=[("the bowl", "It is the bowl [SEG].")]
    )
    assert max(fed) > alone + 5
    assert len(answer.instances) == 1


def test_a_transcript_is_history_as_the_model_wrote_it() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    answer = engine.segment(drawn_image(), "the mug")
    assert answer.transcript == "It is the red mug [SEG]."
    said = f"{answer.transcript} <image></s>"  # a transcript may come from anywhere
    question = Question(drawn_image(), "and now?", history=[("the <image> mug", said)])
    ids = engine.prompts.ids(question)
    assert ids.count(engine.criteria.seg_id) == 1
    assert ids.count(IMAGE_TOKEN) == 1
    assert engine.segment(drawn_image(), "the mug", mode="mask").transcript == "[SEG]."


@pytest.mark.parametrize(
    ("script", "settings", "reason"),
    [
        ("It is the red mug [SEG].", {}, "end"),
        ("It is [SEG].", {"max_masks": 0}, "masks"),
        ("", {"max_repeats": 4}, "repetition"),
    ],
)
def test_only_an_answer_cut_at_its_longest_is_truncated(
    script: str, settings: dict, reason: str
) -> None:
    if reason == "repetition":
        lisa = speaker("It is red.")
        lisa.network.lm_head.weight.zero_()  # the first id again and again
        engine = Engine(lisa, EngineConfig(**settings))
    else:
        engine = engine_saying(script, **settings)
    answer = engine.segment(drawn_image(), "the mug", mode="text")
    assert answer.stopped_by == reason
    assert not answer.truncated


def test_nano_is_asked_in_single_blanks_and_others_as_it_was_typed() -> None:
    lisa = speaker("It is the red mug [SEG].")
    typed, plain = " the  red\tmug ", "the red mug"
    for conversation, same in (("nano", True), ("llava_v1", False)):
        engine = Engine(replace(lisa, config=replace(lisa.config, conversation=conversation)))
        prompts: list[str] = []
        engine.prompts.tokenizer = SimpleNamespace(encode=lambda text, p=prompts: p.append(text))
        for words in (typed, plain):
            engine.prompts.ids(Question(drawn_image(), words, history=[(words, "It is [SEG].")]))
        assert (prompts[0] == prompts[1]) is same
        assert prompts[0].count(plain if same else typed) == 2


def test_a_dialogue_is_told_in_its_order_and_whole() -> None:
    engine, prompts = engine_saying("It is [SEG]."), []
    engine.prompts.tokenizer = SimpleNamespace(encode=prompts.append)
    turns = [(f"question {n}", f"Answer {n} [SEG].") for n in range(12)]
    engine.prompts.ids(Question(drawn_image(), "and now?", history=turns))
    words = re.findall(r"question \d+|Answer \d+ +\[SEG\]|and now", prompts[0])
    told = [part for n in range(12) for part in (f"question {n}", f"Answer {n}  [SEG]")]
    assert words == [*told, "and now"]


FORMS = ("semantic", "conversation", "chain_of_thought")


@pytest.mark.parametrize("mode", FORMS)
def test_the_forms_of_lisa_plus_plus(mode: str) -> None:
    lisa = speaker("It is the red mug [SEG].")
    with pytest.raises(InstructionError, match=f"not trained for mode '{mode}'"):
        Engine(lisa).segment(drawn_image(), "the mug", mode=mode)
    engine = Engine(replace(lisa, config=replace(lisa.config, mask_instances=True)))
    ids = {m: tuple(engine.prompts.ids(Question(drawn_image(), "a", m))) for m in ("mask", *FORMS)}
    assert len(set(ids.values())) == 4
    answer = engine.segment(drawn_image(), "the mug", mode=mode)
    assert (answer.status, len(answer.instances)) == (AnswerStatus.OK, 1)
    wordy = speaker("It is red.")
    engine = Engine(replace(wordy, config=replace(wordy.config, mask_instances=True)))
    expected = AnswerStatus.TEXT_ONLY if mode == "chain_of_thought" else AnswerStatus.NOT_FOUND
    assert engine.segment(drawn_image(), "the mug", mode=mode).status is expected


def test_limits_that_the_reference_has_not_can_be_set() -> None:
    wide, small = np.zeros((16, 400, 3), np.uint8), np.zeros((9, 12, 3), np.uint8)
    free = {"smallest_side": 1, "largest_ratio": float("inf"), "longest_instruction": 10**6}
    free["max_repeats"] = 0
    engine = engine_saying("It is the red mug [SEG].", **free)
    for image in (wide, small):
        assert engine.segment(image, "the mug").status is AnswerStatus.OK
        with pytest.raises(ImageError):
            engine_saying("[SEG].").segment(image, "the mug")
    with pytest.raises(InstructionError, match="over and over"):
        engine_saying("[SEG].").segment(drawn_image(), "mug " * 24)
    with pytest.raises(InstructionError, match="positions"):  # the model's own limit stands
        engine.segment(drawn_image(), "mug " * 1000)


@pytest.mark.parametrize(("most", "masks", "reason"), [(1, 1, "masks"), (2, 2, "end")])
def test_as_many_masks_as_are_allowed_and_not_one_more(most, masks, reason) -> None:
    lisa = random_lisa("tiny")
    seg, two, eos = lisa.tokenizer.seg_id, lisa.tokenizer.seg_id, lisa.tokenizer.eos_id
    engine = Engine(lisa, EngineConfig(max_masks=most, draft_tokens=0))
    script = iter([seg, two, eos])
    choose = generation._choose
    generation._choose = lambda logits: torch.tensor([next(script)])
    try:
        answer = engine.segment(drawn_image(), "mugs", max_new_tokens=9)
    finally:
        generation._choose = choose
    assert len(answer.instances) == answer.transcript.count("[SEG]") == masks
    assert answer.stopped_by == reason


def test_an_empty_mask_is_kept_where_that_is_wanted() -> None:
    engine = engine_saying("It is the mug [SEG].", keep_empty_masks=True)
    decode = engine.network.decode_masks
    engine.network.decode_masks = lambda *args: tuple(-t.abs() - 1 for t in decode(*args))
    answer = engine.segment(drawn_image(), "the mug")
    assert answer.status is AnswerStatus.NOT_FOUND
    assert [instance.area for instance in answer.instances] == [0]


def test_control_words_of_the_user_stay_words() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    answer = engine.segment(drawn_image(), "the <image> of [SEG] </s> mug")
    assert len(answer.instances) == 1


def test_tiles_ask_three_views_and_answer_once() -> None:
    engine = engine_saying("It is the red mug [SEG].", clip_view="tiles")
    events = list(engine.stream(drawn_image(), "the mug", key=1))
    assert sum(isinstance(event, MaskReady) for event in events) == 1
    answer = events[-1].answer
    assert answer.counters["clip_encodes"] == 3
    assert answer.counters["sam_encodes"] == 1
    assert answer.text == "It is the red mug."
    again = engine.segment(drawn_image(), "the bowl", key=1)
    assert again.counters["clip_encodes"] == 0
    assert engine.segment(drawn_image(1, 48, 48), "the mug").counters["clip_encodes"] == 1


@pytest.mark.parametrize("view", ("center", "squash"))
def test_a_model_is_shown_the_view_it_was_trained_on(view: str, monkeypatch) -> None:
    lisa = random_lisa("tiny", seed=0)
    lisa = replace(lisa, config=replace(lisa.config, clip_view=view))
    cut, shown = lisa.processor.clip_views, []
    monkeypatch.setattr(lisa.processor, "clip_views", lambda i, v: shown.append(v) or cut(i, v))
    Engine(lisa).segment(drawn_image(0, 48, 96), "the mug")
    assert shown == [view]


@pytest.mark.parametrize("seed", range(3))
def test_of_three_tiles_the_one_with_the_surest_mask_counts(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lisa = random_lisa("tiny", seed=seed)
    image, every = drawn_image(seed, 48, 96), lisa.processor.clip_views
    answer = Engine(lisa, EngineConfig(clip_view="tiles")).segment(image, "the mug", mode="mask")
    alone = []
    for view in range(3):
        tile = every(image, "tiles")[view : view + 1]
        monkeypatch.setattr(lisa.processor, "clip_views", lambda image, view, tile=tile: tile)
        alone += Engine(lisa).segment(image, "the mug", mode="mask").instances
    surest = max(alone, key=lambda instance: instance.seg_probability)
    [instance] = answer.instances
    assert instance.seg_probability == pytest.approx(surest.seg_probability, rel=1e-4)
    assert (instance.mask == surest.mask).mean() > 0.999


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((48, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((16, 4000, 3), np.uint8),
    ],
    ids=["1x1", "grey", "alpha", "float", "empty", "ribbon"],
)
def test_images_that_cannot_be_used(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="image"):
        engine_saying("[SEG].").segment(image, "the mug")


@pytest.mark.parametrize(
    "instruction",
    [
        *("", " \n", "x" * 10_000, "mug " * 490, "the " * 99 + "mug", "Where is the mug? " * 30),
        *("the \udcff mug", "\ud800", "a mug \ud83e and a pot"),  # bytes of no text, half an emoji
        "the mug\0 that is red",  # ROS would ask the first half
    ],
)
def test_instructions_that_cannot_be_used(instruction: str) -> None:
    engine = engine_saying("[SEG].")
    with pytest.raises(InstructionError, match="instruction"):
        engine.segment(drawn_image(), instruction)
    with pytest.raises(InstructionError, match="instruction"):
        next(engine.stream(drawn_image(), instruction))
    with pytest.raises(InstructionError, match="no text"):
        engine.segment(drawn_image(), "the mug", history=[("the pot \ud800", "It is [SEG].")])
    with pytest.raises(InstructionError, match="no text"):
        engine.lisa.tokenizer.encode("\udcff")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        *(({"instruction": wrong}, "instruction is no text") for wrong in (None, 5, b"mug")),
        *(({"history": wrong}, "history must be pairs") for wrong in ("x", [("a",)], ["ab"], 5)),
        ({"history": [(1, 2)]}, "no text but of the type int"),
        *(({"mode": wrong}, "unknown mode") for wrong in (5, [1])),
        *(
            ({"max_new_tokens": wrong}, "max_new_tokens must be a whole number of at least 1")
            for wrong in (math.nan, 2.5, "9", True, 0)
        ),
        *(
            ({"deadline": wrong}, r"deadline must be a time of time\.monotonic")
            for wrong in (math.nan, "x", True)
        ),
        ({"cancel": 5}, "cancel must be like a threading.Event, not 5"),
        *(({"key": wrong}, "key must name the image") for wrong in ([1], ("a", [1]))),
        ({"image": [[1], [1, 2]]}, "an image must be an RGB array"),
    ],
)
def test_a_question_of_wrong_types_is_told_here_and_by_the_robots_side(
    options: dict, sentence: str
) -> None:
    asked = {"image": drawn_image(), "instruction": "the mug", **options}
    for engine in (engine_saying("[SEG]."), RemoteEngine("http://127.0.0.1:9")):
        with pytest.raises((ImageError, InstructionError), match=sentence):
            engine.segment(**asked)
        with pytest.raises((ImageError, InstructionError), match=sentence):
            next(engine.stream(**asked))
        if "key" in options:
            with pytest.raises(ImageError, match=sentence):
                engine.prepare(asked["image"], options["key"])


def test_numbers_of_numpy_and_a_deadline_that_never_comes_are_understood() -> None:
    limits = {"max_new_tokens": np.int64(9), "deadline": np.float64(np.inf)}
    answer = engine_saying("[SEG].").segment(drawn_image(), "the mug", **limits)
    assert answer.status is AnswerStatus.OK


def test_stammering_is_understood() -> None:
    """Who says a word twice, or a long story with a refrain, is no broken record."""
    engine, story = engine_saying("[SEG]."), " ".join(f"the thing number {n}," for n in range(15))
    for words in ("the the the mug", "mug " * 23, story, "Die Tasse! " * 3, "杯子" * 30):
        assert engine.segment(drawn_image(), words).status is AnswerStatus.OK


def test_the_head_may_be_any_module() -> None:
    """Quantized models and adapters replace linear layers by modules of their own."""
    lisa = speaker("It is the red mug [SEG].")
    for layer in lisa.network.language_model.layers:
        layer.self_attn.q_proj = nn.Sequential(layer.self_attn.q_proj, nn.Identity())
    assert Engine(lisa).segment(drawn_image(), "the mug").status is AnswerStatus.OK
