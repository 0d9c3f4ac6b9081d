"""What a user of the engine meets: answers, statuses, events, counters, the frame cache."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lisa_ros.bench.presets import random_lisa
from lisa_ros.engine import (
    Engine,
    EngineConfig,
    Finished,
    MaskReady,
    Question,
    Status,
    TextDelta,
)
from lisa_ros.engine.clock import Clock
from lisa_ros.engine.frames import FrameCache
from lisa_ros.errors import ImageError, InstructionError
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.model.prompt import build_prompt


def picture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def speaker(script: str, *, refusal: str = "") -> Lisa:
    """A LISA that answers everything with `script`; its words must not repeat.

    The layers add nothing, so that a state depends on the latest token alone, and the head leads
    from every token of the script to the next.
    """
    lisa = random_lisa("tiny")
    network, tokenizer = lisa.network, lisa.tokenizer
    prompt = tokenizer.encode(build_prompt("llava_v1", [("-", None)], True))
    ids = tokenizer.encode(build_prompt("llava_v1", [("-", script)], True))[len(prompt) - 1 :]
    assert len(set(ids)) == len(ids), "the words of a script must not repeat"
    with torch.no_grad():
        for layer in network.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings = network.language_model.embed_tokens.weight
        network.lm_head.weight.zero_()
        network.lm_head.weight[ids[1:]] = embeddings[ids[:-1]]
    return replace(lisa, config=replace(lisa.config, refusal_prefix=refusal))


def engine_saying(script: str, *, refusal: str = "", **settings) -> Engine:
    return Engine(speaker(script, refusal=refusal), EngineConfig(**settings))


def test_an_answer_has_words_a_mask_and_what_belongs_to_it() -> None:
    answer = engine_saying("Sure, it is the red mug [SEG].").segment(picture(), "what is red?")
    assert answer.status is Status.OK
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
    engine.decoder.forward = lambda chunk: passes.append(chunk) or forward(chunk)
    events, at_mask = [], 0
    for event in engine.stream(picture(), "what holds water?"):
        events.append(event)
        if isinstance(event, MaskReady):
            at_mask = len(passes)
    assert at_mask == tokens.index(engine.limits.seg_id) + 1 < len(passes)
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
        ("It is the mug [SEG].", "auto", Status.OK),
        ("It is the mug [SEG].", "text", Status.TEXT_ONLY),
        ("It is red.", "auto", Status.TEXT_ONLY),
        ("It is red.", "explain", Status.NOT_FOUND),
        ("It is red.", "mask", Status.OK),
        ("There is no spoon here.", "auto", Status.NOT_FOUND),
        ("There is no spoon here.", "mask", Status.NOT_FOUND),
        ("There is no spoon here.", "text", Status.TEXT_ONLY),
    ],
)
def test_statuses(script: str, mode: str, status: Status) -> None:
    answer = engine_saying(script, refusal="There is no").segment(picture(), "the mug", mode=mode)
    assert answer.status is status
    assert bool(answer.instances) == (status is Status.OK)
    if status is Status.NOT_FOUND or mode == "text":
        assert answer.text == script.replace(" [SEG]", "")
        assert answer.counters["sam_encodes"] == 0


def test_an_empty_mask_is_no_find() -> None:
    engine = engine_saying("It is the mug [SEG].")
    decode = engine.network.decode_masks
    engine.network.decode_masks = lambda *args: tuple(-t.abs() - 1 for t in decode(*args))
    events = list(engine.stream(picture(), "the mug"))
    assert events[-1].answer.status is Status.NOT_FOUND
    assert not any(isinstance(event, MaskReady) for event in events)


def test_mask_mode_takes_one_pass() -> None:
    answer = engine_saying("It is red.").segment(picture(), "the mug", mode="mask")
    assert answer.counters["forwards"] == 1
    assert answer.counters["tokens"] == 0
    assert answer.text == ""
    assert answer.instances[0].label == "the mug"


def test_a_second_question_costs_no_encoder_and_the_hundredth_no_more() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    first = engine.segment(picture(), "what is red?", key=1).counters
    assert (first["sam_encodes"], first["clip_encodes"]) == (1, 1)
    bytes_after, fed = set(), _record_fed(engine)
    for number in range(2, 101):
        counters = engine.segment(picture(), f"what is red, {number:03}?", key=1).counters
        assert (counters["sam_encodes"], counters["clip_encodes"]) == (0, 0)
        bytes_after.add((engine.frames.nbytes, engine.decoder.buffers.nbytes))
    assert len(bytes_after) == 1
    prompt = engine.prompts.ids(Question(picture(), "what is red, 100?"))
    assert max(fed) == len(prompt) - len(engine.prompts.prefix)  # never the image or the system


def _record_fed(engine: Engine) -> list[int]:
    fed, forward = [], engine.decoder.forward
    engine.decoder.forward = lambda chunk: fed.append(chunk.embeds.shape[1]) or forward(chunk)
    return fed


@pytest.mark.parametrize("warm", (False, True))
@pytest.mark.parametrize(
    "script",
    (
        "[SEG].",
        "Sure, [SEG].",
        "It is [SEG].",
        "Sure, it is [SEG].",
        "Sure, the segmentation result is [SEG].",
    ),
)
def test_a_templated_answer_takes_one_forward(script: str, warm: bool) -> None:
    engine = engine_saying(script)
    if warm:
        engine.prepare(picture(), 1)
    answer = engine.segment(picture(), "the mug", key=1)
    assert answer.counters["forwards"] == 1
    assert answer.counters["sam_encodes"] == answer.counters["clip_encodes"] == int(not warm)
    assert len(answer.instances) == 1


def test_a_standing_question_takes_one_forward_the_second_time() -> None:
    engine = engine_saying("The blue bowl [SEG] can hold water.")
    first = engine.segment(picture(0), "what holds water?")
    second = engine.segment(picture(1), "what holds water?")
    assert first.counters["forwards"] > 2
    assert second.counters["forwards"] == 1
    assert second.text == first.text


def test_what_was_said_before_is_guessed_elsewhere() -> None:
    """Another question with the same words in its answer takes fewer passes."""
    script = "The blue bowl [SEG] can hold water."
    engine = engine_saying(script)
    first = engine.segment(picture(), "what holds water?").counters
    other = engine.segment(picture(), "what can I drink from?").counters
    assert other["tokens"] == first["tokens"]
    assert other["forwards"] < first["forwards"] / 2


def test_mask_mode_takes_the_first_state_whatever_the_model_would_say() -> None:
    """An answer that begins like a refusal and is none must not move the mask."""
    script = "There is the red mug."
    cautious = engine_saying(script, refusal="There is no")
    plain = engine_saying(script)
    masks = []
    for engine in (cautious, plain):
        answer = engine.segment(picture(), "the mug", mode="mask")
        assert answer.counters["forwards"] == 1
        masks.append(answer.instances[0].mask)
    assert (masks[0] == masks[1]).mean() > 0.999


def test_masks_of_several_instances_take_one_pass_too() -> None:
    lisa = speaker("[SEG].")
    lisa = replace(lisa, config=replace(lisa.config, mask_instances=True))
    answer = Engine(lisa).segment(picture(), "all mugs", mode="mask")
    assert answer.counters["forwards"] == 1
    assert len(answer.instances) == 1


def test_cache_bytes_are_bounded_and_the_oldest_frame_goes() -> None:
    engine = engine_saying("It is the mug [SEG].")
    engine.segment(picture(), "the mug", key=0)
    one = engine.frames.nbytes
    engine = engine_saying("It is the mug [SEG].", cache_bytes=3 * one)
    for key in (0, 1, 2, 0, 3):
        engine.segment(picture(key), "the mug", key=key)
        assert engine.frames.nbytes <= 3 * one
    assert list(engine.frames.frames) == [2, 0, 3]
    assert engine.segment(picture(0), "the mug", key=0).counters["sam_encodes"] == 0
    assert engine.segment(picture(1), "the mug", key=1).counters["sam_encodes"] == 1


def test_as_many_frames_go_as_must() -> None:
    cache = FrameCache(limit=250)
    for key in range(4):
        cache.get(key, (1, 1)).views.append(torch.zeros(100, dtype=torch.uint8))
    cache.trim()
    assert list(cache.frames) == [2, 3]


def test_a_frame_without_a_key_is_forgotten() -> None:
    engine = engine_saying("It is the mug [SEG].")
    engine.segment(picture(), "the mug")
    assert engine.frames.nbytes == 0
    assert engine.segment(picture(), "the mug").counters["sam_encodes"] == 1


def test_a_key_that_comes_with_another_size_is_another_frame() -> None:
    engine = engine_saying("It is the mug [SEG].")
    engine.segment(picture(), "the mug", key=1)
    answer = engine.segment(picture(height=64, width=32), "the mug", key=1)
    assert answer.counters["sam_encodes"] == 1
    assert answer.instances[0].mask.shape == (64, 32)


def random_questions() -> list[Question]:
    ask = "the red mug", "what can hold water, and why?", "is there a spoon on the table?"
    return [
        Question(picture(0), ask[0], key="a", max_new_tokens=9),
        Question(picture(0), ask[1], key="a", mode="explain", max_new_tokens=3),
        Question(picture(1, 64, 48), ask[2], key="b", mode="text", max_new_tokens=14),
        Question(picture(0), ask[2], key="a", mode="mask"),
        Question(picture(2), ask[0], max_new_tokens=12),
    ]


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


def test_a_batch_encodes_every_frame_once() -> None:
    engine = engine_saying("It is the mug [SEG].")
    answers = engine.segment_batch(random_questions())
    assert sum(a.counters["clip_encodes"] for a in answers) == 3
    assert sum(a.counters["sam_encodes"] for a in answers) == 2  # text needs no masks


def test_no_questions_no_answers() -> None:
    assert engine_saying("[SEG].").segment_batch([]) == []


def test_two_questions_about_a_frame_whose_first_answer_was_broken_off() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    frame = engine.frames.get("a", (48, 64))
    engine.vision.encode_views([frame], [picture()], Clock(engine.device))
    questions = [Question(picture(), "the mug", key="a"), Question(picture(), "it", key="a")]
    answers = engine.segment_batch(questions)
    assert [a.text for a in answers] == ["It is the red mug."] * 2
    assert len(frame.prefixes) == 1


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
    assert engine.frames.nbytes <= engine.config.cache_bytes
    assert engine.segment(picture(), "the mug", key=1).status is Status.OK


def test_the_longest_answer_is_cut_and_says_so() -> None:
    answer = engine_saying("It is the red mug [SEG].").segment(
        picture(), "the mug", max_new_tokens=2
    )
    assert answer.counters["tokens"] == 2
    assert answer.stopped_by == "tokens"
    assert answer.status is Status.TEXT_ONLY


def test_history_is_part_of_the_question_and_its_masks_are_not_drawn_again() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    fed = _record_fed(engine)
    engine.segment(picture(), "and now?", key=1)
    alone = fed[-1]
    answer = engine.segment(
        picture(), "and now?", key=1, history=[("the bowl", "It is the bowl [SEG].")]
    )
    assert max(fed) > alone + 5
    assert len(answer.instances) == 1


def test_a_transcript_is_history_as_the_model_wrote_it() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    answer = engine.segment(picture(), "the mug")
    assert answer.transcript == "It is the red mug [SEG]."
    question = Question(picture(), "and now?", history=[("the <image> mug", answer.transcript)])
    ids = engine.prompts.ids(question)
    assert ids.count(engine.limits.seg_id) == 1
    assert ids.count(IMAGE_TOKEN) == 1
    assert engine.segment(picture(), "the mug", mode="mask").transcript == "[SEG]."


def test_control_words_of_the_user_stay_words() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    answer = engine.segment(picture(), "the <image> of [SEG] </s> mug")
    assert len(answer.instances) == 1


def test_tiles_ask_three_views_and_answer_once() -> None:
    engine = engine_saying("It is the red mug [SEG].", clip_view="tiles")
    events = list(engine.stream(picture(), "the mug", key=1))
    assert sum(isinstance(event, MaskReady) for event in events) == 1
    answer = events[-1].answer
    assert answer.counters["clip_encodes"] == 3
    assert answer.counters["sam_encodes"] == 1
    assert answer.text == "It is the red mug."
    again = engine.segment(picture(), "the bowl", key=1)
    assert again.counters["clip_encodes"] == 0
    assert engine.segment(picture(1, 48, 48), "the mug").counters["clip_encodes"] == 1


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


@pytest.mark.parametrize("instruction", ["", " \n", "x" * 10_000, "mug " * 490])
def test_instructions_that_cannot_be_used(instruction: str) -> None:
    with pytest.raises(InstructionError, match="instruction"):
        engine_saying("[SEG].").segment(picture(), instruction)


def test_warming_up_leaves_nothing_behind() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    engine.warm_up()
    assert engine.frames.nbytes == 0
    assert engine.segment(picture(), "the mug").text == "It is the red mug."


def test_no_gradients_no_references_no_garbage() -> None:
    """An engine that is dropped frees its model at once, not at some garbage collection."""
    lisa = speaker("It is the red mug [SEG].")
    lisa.network.requires_grad_(True)
    engine = Engine(lisa)
    engine.segment(picture(), "the mug", key=1)
    frame = next(iter(engine.frames.frames.values()))
    assert not frame.sam.requires_grad
    assert not engine.decoder.buffers.requires_grad
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


def test_timings_name_the_stages_that_were_needed() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    cold = engine.segment(picture(), "the mug", key=1).timings
    warm = engine.segment(picture(), "the bowl", key=1).timings
    assert {"clip", "sam", "prefill", "mask", "first_mask", "total"} <= cold.keys()
    assert not {"clip", "sam"} & warm.keys()
    assert 0 < cold["first_mask"] <= cold["total"]


def test_the_head_may_be_any_module() -> None:
    """Quantised models and adapters replace linear layers by modules of their own."""
    lisa = speaker("It is the red mug [SEG].")
    for layer in lisa.network.language_model.layers:
        layer.self_attn.q_proj = nn.Sequential(layer.self_attn.q_proj, nn.Identity())
    assert Engine(lisa).segment(picture(), "the mug").status is Status.OK
