"""Greedy decoding of one question or several: drafts are checked, nothing is computed twice.

Letters in shapes: B live sequences, T tokens fed, H hidden size, V vocabulary, n tokens looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lisa_ros.engine.decoder import Decoder, ForwardBatch
from lisa_ros.engine.speculative import TokenTree

LONGEST_PERIOD = 8  # tokens: the longest pattern that counts as repeating
NO_TOKEN = -1  # stands where the logits are not finite
BROKEN_NUMBERS = "the weights are damaged, or their number format is too narrow for this model"


@dataclass(frozen=True)
class StoppingCriteria:
    """When an answer ends by itself."""

    eos_id: int
    seg_id: int
    draft_tokens: int
    """most draft tokens in one pass"""
    max_masks: int
    """most `[SEG]`s; the answer is stopped where one more would come"""
    max_repeats: int
    """tokens that repeat one short pattern before an answer is stopped; 0: never"""


@dataclass(eq=False)
class Sequence:
    """What is decoded for one question: its place in the cache and the tokens so far."""

    pending: Tensor
    """(T, H) embeddings that are still to be fed: the prompt, later the last token"""
    length: int
    """positions that the cache holds already (a prefix of the prompt)"""
    limit: int
    """most tokens to answer"""
    prefix_kv: Tensor | None = None
    """keys and values of the first `length` positions"""
    single_pass_unless: list[int] | None = None
    """stop after the first pass unless the answer begins with these ids (mask mode)"""
    drafts: list[list[int]] = field(default_factory=list)
    """guesses at the whole answer, the likeliest first"""
    propose: Callable[[list[int]], list[int]] | None = None
    """guesses what follows the answer so far, where no draft fits"""
    ids: list[int] = field(default_factory=list)
    stopped_by: str = ""
    forwards: int = 0
    drafted: int = 0
    accepted: int = 0

    def is_single_pass(self, ids: list[int]) -> bool:
        """Whether an answer that begins with these ids is over after the first pass."""
        begins = self.single_pass_unless
        return begins is not None and (not begins or ids[: len(begins)] != begins)


@dataclass
class Step:
    """Tokens that one pass added to one sequence; none where it was stopped before the first."""

    sequence: Sequence
    tokens: list[int]
    states: Tensor
    """(n, H) post-norm states; state i is the one that predicted token i"""
    logits: Tensor
    """(n, V) the logits that token i was chosen from"""


def generate(
    decoder: Decoder,
    sequences: list[Sequence],
    criteria: StoppingCriteria,
    interrupted: Callable[[], str],
) -> Iterator[list[Step]]:
    """Answer all sequences together; yields what each pass added, one step a live sequence.

    `interrupted()` is asked between passes and ends everything by giving a reason. Sequences that
    are done leave the batch (`compact_batch`), so that a pass holds live ones only.

    Raises:
        FloatingPointError: the logits of a token are not finite numbers.
    """
    # 1. room for the longest that may come, so that the cache does not grow on the way
    held, fed = max(s.length for s in sequences), max(len(s.pending) for s in sequences)
    answered = max(s.limit for s in sequences) + criteria.draft_tokens
    decoder.cache.ensure_capacity(len(sequences), held + fed + answered)
    for row, sequence in enumerate(sequences):
        if sequence.prefix_kv is not None:
            decoder.cache.load_prefix(row, sequence.prefix_kv)
    # 2. passes; the place of a sequence in `live` is its row in the cache
    live = list(sequences)
    while live:
        reason = interrupted()
        if reason:
            for sequence in live:
                sequence.stopped_by = reason
            return
        yield _advance(decoder, live, criteria)
        compact_batch(decoder, live)


def _advance(decoder: Decoder, live: list[Sequence], criteria: StoppingCriteria) -> list[Step]:
    """One pass over all live sequences."""
    # 1. guess, and feed the guesses behind what is pending anyway
    trees = [_draft(sequence, criteria) for sequence in live]
    passed = decoder.forward(_forward_batch(decoder, live, trees))  # (B, T, H)
    # 2. the states at the last token fed and at each draft token, of all sequences for one look
    states = [
        passed[row, len(sequence.pending) - 1 : len(sequence.pending) + len(tree)]
        for row, (sequence, tree) in enumerate(zip(live, trees, strict=True))
    ]
    sizes = [len(part) for part in states]
    all_logits = decoder.head(torch.cat(states))  # (sum of n, V)
    choices = _choose(all_logits).split(sizes)
    logits = all_logits.split(sizes)
    # 3. of each tree the path that greedy decoding would have written itself
    steps = []
    for row, (sequence, tree) in enumerate(zip(live, trees, strict=True)):
        chosen = choices[row].tolist()
        path = tree.accept(chosen[0], chosen[1:])
        tokens = _until_end(sequence, [chosen[0], *(chosen[1 + node] for node in path)], criteria)
        if NO_TOKEN in tokens:
            decoder.cache.clear()  # broken numbers must not wait there for the next question
            raise FloatingPointError(f"token logits are not finite: {BROKEN_NUMBERS}")
        # the last token is not in the cache yet: it is fed by the next pass
        path = path[: max(len(tokens) - 1, 0)]
        fed = sequence.length + len(sequence.pending)
        decoder.cache.compact_accepted(row, fed, path)
        sequence.length = fed + len(path)
        sequence.forwards += 1
        sequence.drafted += len(tree)
        sequence.accepted += len(path)
        sequence.ids += tokens
        index = [0, *(1 + node for node in path)][: len(tokens)]
        steps.append(Step(sequence, tokens, states[row][index], logits[row][index]))
    # 4. one embedding call for all last tokens; what is stopped gets one too and never uses it
    last = [sequence.ids[-1] if sequence.ids else criteria.eos_id for sequence in live]
    for sequence, pending in zip(live, decoder.embed(last).split(1), strict=True):
        sequence.pending = pending  # (1, H)
    return steps


def _choose(logits: Tensor) -> Tensor:
    """The likeliest token of each row of logits (n, V), on the processor.

    A maximum is not finite if any of its values is NaN or +inf, so that the check costs nothing:
    no other look at the logits and no other wait for a GPU.
    """
    best, tokens = logits.max(-1)  # (n,) each
    return tokens.masked_fill(~best.isfinite(), NO_TOKEN).cpu()


def _draft(sequence: Sequence, criteria: StoppingCriteria) -> TokenTree:
    """The drafts that still fit what has been answered, as a tree of what may come next."""
    done = len(sequence.ids)
    room = sequence.limit - done - 1  # the pass itself gives one token more than its drafts
    fitting = [
        draft[done : done + room]
        for draft in sequence.drafts
        if draft[:done] == sequence.ids and len(draft) > done
    ]
    if not fitting and done and sequence.propose is not None and criteria.draft_tokens:
        fitting = [sequence.propose(sequence.ids)[:room]]
    return TokenTree(fitting, criteria.draft_tokens)


def _forward_batch(decoder: Decoder, live: list[Sequence], trees: list[TokenTree]) -> ForwardBatch:
    """Lay pending embeddings and draft tokens side by side, padded on the right."""
    fed = [len(sequence.pending) for sequence in live]
    total = [a + len(b) for a, b in zip(fed, trees, strict=True)]
    width = max(total)
    embeds = live[0].pending.new_zeros(len(live), width, live[0].pending.shape[1])  # (B, T, H)
    for row, (sequence, tree) in enumerate(zip(live, trees, strict=True)):
        embeds[row, : fed[row]] = sequence.pending
        if len(tree):
            embeds[row, fed[row] : total[row]] = decoder.embed(tree.tokens)
    batch = ForwardBatch(embeds, [sequence.length for sequence in live])
    if all(tree.is_chain for tree in trees):
        return batch  # causal attention serves, and needs no mask of its own
    depth = torch.arange(width).repeat(len(live), 1)  # (B, T)
    mask = torch.ones(width, width, dtype=torch.bool).tril_().repeat(len(live), 1, 1)  # (B, T, T)
    for row, tree in enumerate(trees):
        nodes = slice(fed[row], total[row])
        depth[row, nodes] = fed[row] + torch.tensor(tree.depths, dtype=torch.long)
        mask[row, nodes, nodes] = tree.attention_mask()
    batch.tree_depth, batch.tree_mask = depth, mask
    return batch


def _until_end(sequence: Sequence, tokens: list[int], criteria: StoppingCriteria) -> list[int]:
    """Cut new tokens where the answer ends; says why on the sequence."""
    ids = list(sequence.ids)
    masks = ids.count(criteria.seg_id)
    for count, token in enumerate(tokens, start=1):
        ids.append(token)
        masks += token == criteria.seg_id
        if masks > criteria.max_masks:
            sequence.stopped_by = "masks"
            return tokens[: count - 1]  # the one too many is no part of the answer
        if token == criteria.eos_id:
            sequence.stopped_by = "end"
        elif len(ids) >= sequence.limit:
            sequence.stopped_by = "tokens"
        elif is_repeating(ids, criteria.max_repeats):
            sequence.stopped_by = "repetition"
        if sequence.stopped_by:
            return tokens[:count]
    if sequence.is_single_pass(ids):
        sequence.stopped_by = "end"
    return tokens


def is_repeating(ids: list[int], max_repeats: int) -> bool:
    """Whether the latest `max_repeats` tokens are one short pattern over and over; 0: never."""
    last = ids[-max_repeats:]
    if not max_repeats or len(last) < max_repeats:
        return False
    # shifted by its period a repeating text lies on itself; twice it must be there at least
    periods = range(1, min(LONGEST_PERIOD, max_repeats // 2) + 1)
    return any(last[p:] == last[:-p] for p in periods)


def compact_batch(decoder: Decoder, live: list[Sequence]) -> None:
    """Remove what is done; the last live sequence takes each free row."""
    for row in reversed(range(len(live))):
        if live[row].stopped_by:
            last = live.pop()
            if row < len(live):
                decoder.cache.move_row(len(live), row, last.length)
                live[row] = last
