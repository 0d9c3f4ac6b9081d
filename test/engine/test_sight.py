"""No image, view, prefix or word is taken for another: with a model whose answers depend on each.

A tiny model with ordinary random weights hardly sees its image: exchanged images would pass.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_samples import blocks, sighted, speaker

from lisa_ros.engine import Answer, Engine, EngineConfig, Question
from lisa_ros.model.config import SCORE_TERMS
from lisa_ros.model.network import IMAGE_TOKEN

NEAR, FAR = 1e-4, 1e-3  # relative: rounding stays below, another input is beyond


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(sighted())


def certainty(answer: Answer) -> float:
    """The probability of `[SEG]`, in which everything that the model saw shows."""
    [instance] = answer.instances
    return instance.seg_probability


def same(one: Answer, other: Answer) -> bool:
    return (
        abs(certainty(one) / certainty(other) - 1) < NEAR
        and (one.instances[0].mask == other.instances[0].mask).mean() > 0.999
    )


def mask_question(seed: int, **more: object) -> Question:
    return Question(blocks(seed), "the red mug", "mask", **more)


@torch.inference_mode()
def test_the_model_sees_every_position_of_its_image(engine: Engine) -> None:
    """What the other tests here rest on."""
    network, processor = engine.network, engine.lisa.processor
    ids = torch.tensor([engine.prompts.ids(mask_question(0))])
    view = network.encode_view(processor.clip_pixels(blocks(0))[None])
    whole = network(ids, view)[0, -1]
    for place in range(view.shape[1]):
        blind = view.clone()
        blind[0, place] = 0
        assert (network(ids, blind)[0, -1] - whole).abs().max() > 0.01 * whole.abs().max()
    for other in range(1, 5):
        a, b = engine.segment_batch([mask_question(0), mask_question(other)])
        assert abs(certainty(a) / certainty(b) - 1) > FAR
        assert (a.instances[0].mask != b.instances[0].mask).mean() > 0.02


def test_a_frame_is_the_same_however_it_came_into_the_cache(engine: Engine) -> None:
    """Asked new, known, prepared, in company, without a key, after a broken answer."""
    fresh = engine.segment_batch([mask_question(1)])[0]
    first = engine.segment_batch([mask_question(1, key="a")])[0]
    known = engine.segment_batch([mask_question(1, key="a")])[0]
    engine.prepare(blocks(1), "b")
    prepared = engine.segment_batch([mask_question(1, key="b")])[0]
    shared = engine.segment_batch([mask_question(1, key="c"), mask_question(1, key="c")])
    for answer in (first, known, prepared, *shared):
        assert same(answer, fresh)
    ways = [answer.counters["clip_encodes"] for answer in (first, known, prepared)]
    assert ways == [1, 0, 0]


def test_a_prefix_is_as_long_as_the_prompt_up_to_the_image(engine: Engine) -> None:
    engine.segment(blocks(1), "the red mug", key="long")
    for features in engine.features.entries.values():
        for prefix in features.prefix_kv:
            expected = engine.prompts.prefix.index(IMAGE_TOKEN) + engine.lisa.config.image_tokens
            assert prefix.shape[3] == expected == engine.prefix_length


@pytest.mark.parametrize("known", (False, True), ids=("new", "known"))
def test_images_of_a_batch_keep_their_answers(known: bool, engine: Engine) -> None:
    """In order, out of order, two questions to one of them, some of them known already."""
    order = [2, 0, 3, 2, 1]
    alone = {n: engine.segment_batch([mask_question(n)])[0] for n in set(order)}
    keys = {n: (known, n) for n in order}
    if known:
        for n in (3, 2):
            engine.segment_batch([mask_question(n, key=keys[n])])
    answers = engine.segment_batch([mask_question(n, key=keys[n]) for n in order])
    for n, answer in zip(order, answers, strict=True):
        assert same(answer, alone[n])
        assert not any(same(answer, alone[other]) for other in alone if other != n)


def test_answers_of_different_length_keep_their_images(engine: Engine) -> None:
    """Rows of the cache move when an answer is done; each goes on with its own."""
    lengths = {0: 2, 1: 9, 2: 1, 3: 6}
    questions = [
        Question(blocks(n), "what is it?", "text", max_new_tokens=count)
        for n, count in lengths.items()
    ]
    alone = [engine.segment_batch([question])[0].transcript for question in questions]
    together = [answer.transcript for answer in engine.segment_batch(questions)]
    assert together == alone
    assert len(set(alone)) == len(alone)


@pytest.mark.parametrize("image", [blocks(5, 48, 144), blocks(6, 144, 48)], ids=["wide", "high"])
@pytest.mark.parametrize("seed", (0, 2))
def test_of_tiles_the_surest_is_taken_and_without_masks_the_middle_one(
    image: np.ndarray, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lisa = sighted(seed)
    cut = lisa.processor.clip_views
    tiles = Engine(lisa, EngineConfig(clip_view="tiles"))
    answers = [tiles.segment(image, "the mug", mode="mask", key=1) for _ in range(2)]
    words = tiles.segment(image, "what is it?", mode="text", key=1, max_new_tokens=6)
    alone, said = [], []
    for view in range(3):
        tile = cut(image, "tiles")[view : view + 1]
        monkeypatch.setattr(lisa.processor, "clip_views", lambda image, view, tile=tile: tile)
        one = Engine(lisa)
        alone.append(one.segment(image, "the mug", mode="mask"))
        said.append(one.segment(image, "what is it?", mode="text", max_new_tokens=6).transcript)
    ranked = sorted(alone, key=certainty)
    assert certainty(ranked[2]) > (1 + 5 * NEAR) * certainty(ranked[1])
    for answer in answers:  # the second from kept prefixes, one for each tile
        assert same(answer, ranked[2])
        assert not same(answer, ranked[0])
    assert words.transcript == said[1]


def test_a_question_about_a_known_frame_sees_its_history(engine: Engine) -> None:
    """Also far back and in its order, and with its `[SEG]`."""
    turns = [("the blue bowl", "It is [SEG]."), ("the spoon", "No.")]
    histories = [(), turns, turns[::-1], turns[1:], turns[:1], [(turns[0][0], "It is."), turns[1]]]
    found = [
        certainty(engine.segment(blocks(1), "the mug", mode="mask", key="h", history=h))
        for h in histories
    ]
    for n, one in enumerate(found):
        assert all(abs(one / other - 1) > FAR for other in found[n + 1 :])


@pytest.mark.parametrize("unsure", range(7))
@torch.inference_mode()
def test_the_score_rests_on_the_least_sure_word_before_the_mask(unsure: int) -> None:
    """Each of them once, against one pass of the whole network over prompt and answer."""
    lisa = speaker("Sure, it is the red mug [SEG] here.")
    draw = torch.Generator().manual_seed(4)
    head = lisa.network.lm_head.weight
    head *= 0.003
    head += torch.randn(head.shape, generator=draw) * 0.0004  # words of unequal certainty
    answer = Engine(lisa).prompts.answer("Sure, it is the red mug [SEG] here.")
    head[answer[unsure]] *= 0.6
    weights = dict.fromkeys(SCORE_TERMS, 0.5)
    lisa = replace(lisa, config=replace(lisa.config, score_calibration=weights))
    engine = Engine(lisa)
    [instance] = engine.segment(blocks(0), "what is red?").instances
    prompt = engine.prompts.ids(Question(blocks(0), "what is red?"))
    view = lisa.network.encode_view(lisa.processor.clip_pixels(blocks(0))[None])
    states = lisa.network(torch.tensor([prompt + answer]), view)[0]
    first = len(prompt) + view.shape[1] - 2  # the state that predicts the answer's first id
    logits = lisa.network.lm_head(states[first : first + len(answer)])
    sure = logits.softmax(-1)[range(len(answer)), answer]
    before = sure[: answer.index(lisa.tokenizer.seg_id)]
    assert len(before) == 7 and before.argmin() == unsure
    assert instance.evidence["words"] == pytest.approx(math.log(before.min()), rel=1e-4)
    assert instance.seg_probability == pytest.approx(float(sure[len(before)]), rel=1e-4)
    again = engine.segment(blocks(0), "what is red?")  # the whole answer in one pass
    assert again.counters["forwards"] == 1
    assert again.instances[0].seg_probability == pytest.approx(instance.seg_probability, rel=1e-4)
    assert again.instances[0].evidence == pytest.approx(instance.evidence, rel=1e-4)


def test_each_question_is_guessed_by_its_own_last_answer(engine: Engine) -> None:
    questions = [Question(blocks(n), f"what is {n}?", "text", max_new_tokens=9) for n in range(3)]
    first = [engine.segment_batch([question])[0] for question in questions]
    assert len({answer.transcript for answer in first}) == 3
    for question in questions:
        assert engine.segment_batch([question])[0].counters["forwards"] == 1


def test_a_mask_is_drawn_from_the_state_that_predicts_its_seg() -> None:
    """Of two masks each has the words, the state and the image of its own."""
    lisa = sighted(1)
    engine = Engine(lisa)
    pair = [Question(blocks(n), "mugs", "mask", key=n) for n in (0, 1)]
    alone = [engine.segment_batch([question])[0] for question in pair]
    together = engine.segment_batch(pair)
    for one, other in zip(alone, together, strict=True):
        assert one.instances[0].box == other.instances[0].box
        assert one.instances[0].score == pytest.approx(other.instances[0].score, rel=1e-4)
