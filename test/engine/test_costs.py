"""What an answer costs, in counters: encoders, passes, bytes that are kept."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from engine_samples import drawn_image, engine_saying, random_questions, record_fed, speaker

from lisa_ros.engine import Engine, Question
from lisa_ros.engine.image_features import ImageFeatureCache, StageTimer


def test_mask_mode_takes_one_pass() -> None:
    answer = engine_saying("It is red.").segment(drawn_image(), "the mug", mode="mask")
    assert answer.counters["forwards"] == 1
    assert answer.counters["tokens"] == 0
    assert answer.text == ""
    assert answer.instances[0].label == "the mug"


def test_a_second_question_costs_no_encoder_and_the_hundredth_no_more() -> None:
    engine = engine_saying("It is the red mug [SEG].", draft_tokens=0)
    first = engine.segment(drawn_image(), "what is red?", key=1).counters
    assert (first["sam_encodes"], first["clip_encodes"]) == (1, 1)
    bytes_after, fed = set(), record_fed(engine)
    for number in range(2, 101):
        counters = engine.segment(drawn_image(), f"what is red, {number:03}?", key=1).counters
        assert (counters["sam_encodes"], counters["clip_encodes"]) == (0, 0)
        bytes_after.add((engine.features.nbytes, engine.decoder.cache.data.nbytes))
    assert len(bytes_after) == 1
    prompt = engine.prompts.ids(Question(drawn_image(), "what is red, 100?"))
    assert max(fed) == len(prompt) - len(engine.prompts.prefix)  # never the image or the system


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
        engine.prepare(drawn_image(), 1)
    answer = engine.segment(drawn_image(), "the mug", key=1)
    assert answer.counters["forwards"] == 1
    assert answer.counters["sam_encodes"] == answer.counters["clip_encodes"] == int(not warm)
    assert len(answer.instances) == 1


def test_a_standing_question_takes_one_forward_the_second_time() -> None:
    engine = engine_saying("The blue bowl [SEG] can hold water.")
    first = engine.segment(drawn_image(0), "what holds water?")
    second = engine.segment(drawn_image(1), "what holds water?")
    assert first.counters["forwards"] > 2
    assert second.counters["forwards"] == 1
    assert second.text == first.text


def test_an_answer_that_was_cut_is_a_guess_as_well() -> None:
    engine = engine_saying("The blue bowl [SEG] can hold water.")
    counts = [
        engine.segment(drawn_image(n), "what holds water?", max_new_tokens=6).counters["forwards"]
        for n in range(2)
    ]
    assert counts[0] > 2
    assert counts[1] == 1


def test_what_was_said_before_is_guessed_elsewhere() -> None:
    """Another question with the same words in its answer takes fewer passes."""
    script = "The blue bowl [SEG] can hold water."
    engine = engine_saying(script)
    first = engine.segment(drawn_image(), "what holds water?").counters
    other = engine.segment(drawn_image(), "what can I drink from?").counters
    assert other["tokens"] == first["tokens"]
    assert other["forwards"] < first["forwards"] / 2


def test_mask_mode_takes_the_first_state_whatever_the_model_would_say() -> None:
    """An answer that begins like a refusal and is none must not move the mask."""
    script = "There is the red mug."
    cautious = engine_saying(script, refusal="There is no")
    plain = engine_saying(script)
    masks = []
    for engine in (cautious, plain):
        answer = engine.segment(drawn_image(), "the mug", mode="mask")
        assert answer.counters["forwards"] == 1
        masks.append(answer.instances[0].mask)
    assert (masks[0] == masks[1]).mean() > 0.999


def test_masks_of_several_instances_take_one_pass_too() -> None:
    lisa = speaker("[SEG].")
    lisa = replace(lisa, config=replace(lisa.config, mask_instances=True))
    answer = Engine(lisa).segment(drawn_image(), "all mugs", mode="mask")
    assert answer.counters["forwards"] == 1
    assert len(answer.instances) == 1


def test_cache_bytes_are_bounded_and_the_oldest_frame_goes() -> None:
    engine = engine_saying("It is the mug [SEG].")
    engine.segment(drawn_image(), "the mug", key=0)
    one = engine.features.nbytes
    engine = engine_saying("It is the mug [SEG].", cache_bytes=3 * one)
    for key in (0, 1, 2, 0, 3):
        engine.segment(drawn_image(key), "the mug", key=key)
        assert engine.features.nbytes <= 3 * one
    assert list(engine.features.entries) == [2, 0, 3]
    assert engine.segment(drawn_image(0), "the mug", key=0).counters["sam_encodes"] == 0
    assert engine.segment(drawn_image(1), "the mug", key=1).counters["sam_encodes"] == 1


def test_as_many_frames_go_as_must() -> None:
    cache = ImageFeatureCache(max_bytes=250)
    for key in range(4):
        cache.get(key, (1, 1)).views.append(torch.zeros(100, dtype=torch.uint8))
    cache.trim()
    assert list(cache.entries) == [2, 3]


def test_a_frame_without_a_key_is_forgotten() -> None:
    engine = engine_saying("It is the mug [SEG].")
    engine.segment(drawn_image(), "the mug")
    assert engine.features.nbytes == 0
    assert engine.segment(drawn_image(), "the mug").counters["sam_encodes"] == 1


def test_a_key_that_comes_with_another_size_is_another_frame() -> None:
    engine = engine_saying("It is the mug [SEG].")
    engine.segment(drawn_image(), "the mug", key=1)
    answer = engine.segment(drawn_image(height=64, width=32), "the mug", key=1)
    assert answer.counters["sam_encodes"] == 1
    assert answer.instances[0].mask.shape == (64, 32)


def test_a_batch_encodes_every_frame_once() -> None:
    engine = engine_saying("It is the mug [SEG].")
    answers = engine.segment_batch(random_questions())
    assert sum(a.counters["clip_encodes"] for a in answers) == 3
    assert sum(a.counters["sam_encodes"] for a in answers) == 2  # text needs no masks


def test_timings_name_the_stages_that_were_needed() -> None:
    engine = engine_saying("It is the red mug [SEG].")
    cold = engine.segment(drawn_image(), "the mug", key=1).timings
    warm = engine.segment(drawn_image(), "the bowl", key=1).timings
    assert {"clip", "sam", "prefill", "mask", "first_mask", "total"} <= cold.keys()
    assert not {"clip", "sam"} & warm.keys()
    assert 0 < cold["first_mask"] <= cold["total"]


def test_what_a_second_stream_reads_or_made_is_known_to_both_streams(monkeypatch) -> None:
    """Else the allocator hands the pixels' memory out again while SAM still reads them."""
    engine = engine_saying("It is the red mug [SEG].")
    main, side = SimpleNamespace(), SimpleNamespace(wait_stream=lambda stream: None)
    main.wait_stream = side.wait_stream
    read, recorded, encode = [], [], engine.vision.sam_encoder
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: recorded.append((self, stream))
    )
    engine.vision.sam_encoder = lambda pixels: read.append(pixels) or encode(pixels)
    engine.vision.side_stream = side
    features = engine.features.get("key", (48, 64))
    with torch.inference_mode():
        engine.vision.encode_sam([features], [drawn_image()], StageTimer(engine.device))
    users = {stream: tensor for tensor, stream in ((t, id(s)) for t, s in recorded)}
    assert users[id(side)] is read[0]
    assert users[id(main)].data_ptr() == features.sam.data_ptr()
