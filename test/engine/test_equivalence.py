"""However an answer is computed, it is the same answer.

The oracle is transformers' own Llama, run anew over the whole sequence for every token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from lisa_ros.engine.decoder import Decoder, ForwardBatch
from lisa_ros.engine.generation import Sequence, StoppingCriteria, generate
from lisa_ros.engine.speculative import NGramDrafter, TokenTree

VOCABULARY = 40
EOS, SEG = 2, 39
NEVER = StoppingCriteria(eos_id=-1, seg_id=SEG, draft_tokens=24, max_masks=99, max_repeats=99)
TIE = 1e-4  # logits closer than this may be ordered differently by rounding

tokens = st.integers(3, VOCABULARY - 1)
prompts = st.lists(tokens, min_size=1, max_size=12)
drafts = st.lists(st.lists(tokens, max_size=9), max_size=4)


@dataclass(frozen=True)
class Language:
    """A small Llama with its head; grouped key/value heads, as newer checkpoints have them."""

    model: LlamaModel
    head: nn.Linear


@cache
def language(kv_heads: int = 2) -> Language:
    torch.manual_seed(kv_heads)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=16 if kv_heads == 4 else None,  # None: the hidden size over the heads
        max_position_embeddings=128,
    )
    model = LlamaModel(config).eval()
    model.embed_tokens.weight.data.normal_()
    return Language(model, nn.Linear(32, VOCABULARY, bias=False))


@torch.no_grad()
def oracle(lang: Language, prompt: list[int], count: int) -> tuple[list[int], Tensor]:
    """Greedy ids and the states that predict them, (count, H), with nothing kept between tokens."""
    ids, states = list(prompt), []
    for _ in range(count):
        state = lang.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
        best = lang.head(state).topk(2)
        assume(best.values[0] - best.values[1] > TIE)
        states.append(state)
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :], torch.stack(states)


@torch.no_grad()
def answered(
    decoder: Decoder, rows: list[Sequence], criteria: StoppingCriteria = NEVER
) -> list[Tensor]:
    """Run rows to their end; the states of each."""
    states: dict[int, list[Tensor]] = {id(row): [] for row in rows}
    for steps in generate(decoder, rows, criteria, lambda: ""):
        for step in steps:
            states[id(step.sequence)].append(step.states)
    return [torch.cat(states[id(row)]) for row in rows]


def row_for(decoder: Decoder, prompt: list[int], count: int, guesses: list[list[int]]) -> Sequence:
    return Sequence(decoder.embed(prompt), length=0, limit=count, drafts=guesses)


def agree(states: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kv_heads", (4, 2))
@given(prompt=prompts, count=st.integers(1, 10), guesses=drafts, right=st.integers(0, 10))
@settings(max_examples=40, deadline=None)
def test_cache_and_drafts_change_nothing(
    kv_heads: int, prompt: list[int], count: int, guesses: list[list[int]], right: int
) -> None:
    """Wrong drafts, right ones and ones that are right up to a point."""
    lang = language(kv_heads)
    decoder = Decoder(lang.model, lang.head)
    ids, expected = oracle(lang, prompt, count)
    for tried in ([], guesses, [*guesses, [*ids[:right], 3, 4]], [ids, *guesses]):
        row = row_for(decoder, prompt, count, tried)
        [states] = answered(decoder, [row])
        assert row.ids == ids
        assert row.forwards <= count
        agree(states, expected)
    assert row.forwards == 1  # the last draft was the whole answer


@given(
    questions=st.lists(st.tuples(prompts, st.integers(1, 8), drafts), min_size=1, max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_a_batch_answers_like_one_by_one(questions: list) -> None:
    lang = language()
    decoder = Decoder(lang.model, lang.head)
    expected = [oracle(lang, prompt, count) for prompt, count, _ in questions]
    rows = [row_for(decoder, *question) for question in questions]
    for row, states, (ids, wanted) in zip(rows, answered(decoder, rows), expected, strict=True):
        assert row.ids == ids
        agree(states, wanted)


@given(prompt=prompts, more=st.lists(prompts, min_size=1, max_size=3), count=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_a_prefix_is_computed_once(prompt: list[int], more: list[list[int]], count: int) -> None:
    """Several questions behind the same beginning, whose keys and values are stored."""
    lang = language()
    decoder = Decoder(lang.model, lang.head)
    with torch.no_grad():
        decoder.cache.ensure_capacity(1, len(prompt))
        decoder.forward(ForwardBatch(decoder.embed(prompt)[None], [0]))
        prefix = decoder.cache.store_prefix(0, len(prompt))
    rows = [Sequence(decoder.embed(m), len(prompt), count, prefix_kv=prefix) for m in more]
    for row, states, question in zip(rows, answered(decoder, rows), more, strict=True):
        ids, expected = oracle(lang, prompt + question, count)
        assert row.ids == ids
        agree(states, expected)


@given(
    questions=st.lists(st.tuples(prompts, st.integers(1, 6), drafts), min_size=1, max_size=3),
)
@settings(max_examples=20, deadline=None)
def test_the_padded_shapes_of_a_gpu_change_nothing(questions: list) -> None:
    """The way of CUDA graphs, without the graphs: few shapes, slots and masks as tensors."""
    lang = language()
    decoder = Decoder(lang.model, lang.head)
    shapes = set()

    def replay(*inputs: Tensor, key: tuple) -> Tensor:
        assert key == decoder.cache.graph_key
        shapes.add(tuple(t.shape for t in inputs))
        return decoder.layers.run(*inputs)

    decoder.graphed = replay
    expected = [oracle(lang, prompt, count) for prompt, count, _ in questions]
    rows = [row_for(decoder, *question) for question in questions]
    for row, states, (ids, wanted) in zip(rows, answered(decoder, rows), expected, strict=True):
        assert row.ids == ids
        agree(states, wanted)
    assert len({shape[0][1] for shape in shapes}) <= 3  # 1, 32 or 64 tokens wide


def test_the_last_positions_are_those_of_the_oracle() -> None:
    lang = language()
    decoder = Decoder(lang.model, lang.head)
    prompt = [3 + 7 * n % 30 for n in range(decoder.max_positions - 6)]
    ids, expected = oracle(lang, prompt, 6)
    row = row_for(decoder, prompt, 6, [])
    [states] = answered(decoder, [row])
    assert row.ids == ids
    agree(states, expected)


@torch.inference_mode()
def test_a_graph_belongs_to_address_and_shape_of_the_cache() -> None:
    """A cache that has grown may lie where an older one lay; its graph would write elsewhere."""
    lang = language()
    decoder, keys = Decoder(lang.model, lang.head), []

    def replay(*inputs: Tensor, key: tuple) -> Tensor:
        keys.append(key)
        return decoder.layers.run(*inputs)

    decoder.graphed = replay
    layers, _, _, heads, _, width = decoder.cache.data.shape
    memory = torch.zeros(layers * 2 * heads * 1024 * width)
    for rows, positions in ((1, 1024), (2, 512), (1, 1024)):
        decoder.cache.data = memory.view(layers, 2, rows, heads, positions, width)
        decoder.forward(ForwardBatch(decoder.embed([5])[None], [3]))
    assert keys[0] == keys[2] != keys[1]


@given(drafts=drafts, choice=st.lists(tokens, min_size=1, max_size=9))
def test_a_tree_accepts_what_every_draft_would(drafts: list[list[int]], choice: list[int]) -> None:
    """The accepted path is the longest beginning that any draft shares with the greedy answer."""
    tree = TokenTree(drafts, limit=99)
    greedy = choice + [-1] * (len(tree) + 1)
    after = [greedy[depth + 1] for depth in tree.depths]
    path = tree.accept(greedy[0], after)
    shared = [next((i for i, t in enumerate(d) if t != greedy[i]), len(d)) for d in drafts]
    assert len(path) == max(shared, default=0)
    assert [tree.tokens[node] for node in path] == choice[: len(path)]
    assert path == sorted(set(path))


def test_known_answers_are_drafts_from_the_first_question_on() -> None:
    """As a whole, and from the middle where an answer has begun in another way."""
    drafter = NGramDrafter({"auto": [[5, 6, 7, 8], [9, 6, 10]], "mask": []})
    assert drafter.propose([5]) == [6, 7, 8]
    assert drafter.propose([11, 9]) == [6, 10]
    assert drafter.propose([12]) == []


def test_an_answer_in_circles_is_stopped() -> None:
    lang = language()
    decoder = Decoder(lang.model, lang.head)
    with torch.no_grad():
        stuck = nn.Linear(32, VOCABULARY, bias=True)
        stuck.weight.zero_()
        stuck.bias.copy_(torch.arange(VOCABULARY) == 7)
    decoder.head = stuck
    row = row_for(decoder, [1, 5], 100, [])
    answered(
        decoder, [row], StoppingCriteria(EOS, SEG, draft_tokens=0, max_masks=9, max_repeats=24)
    )
    assert row.stopped_by == "repetition"
    assert row.ids == [7] * 24


def test_too_many_masks_stop_an_answer() -> None:
    lang = language()
    decoder = Decoder(lang.model, lang.head)
    with torch.no_grad():
        stuck = nn.Linear(32, VOCABULARY, bias=True)
        stuck.weight.zero_()
        stuck.bias.copy_(torch.arange(VOCABULARY) == SEG)
    decoder.head = stuck
    row = row_for(decoder, [1, 5], 100, [])
    answered(
        decoder, [row], StoppingCriteria(EOS, SEG, draft_tokens=0, max_masks=5, max_repeats=24)
    )
    assert row.stopped_by == "masks"
    assert row.ids == [SEG] * 5
