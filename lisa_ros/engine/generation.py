"""Greedy decoding of one question or several: drafts are checked, nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lisa_ros.engine.decoder import Chunk, Decoder
from lisa_ros.engine.speculative import DraftTree

REPEAT_PERIOD = 8  # tokens: the longest pattern that counts as running in circles
NO_TOKEN = -1  # stands where the logits are not finite
BROKEN_NUMBERS = "the weights are damaged, or their number format is too narrow for this model"


@dataclass
class Step:
    """Tokens that one pass added to one question."""

    row: Row
    tokens: list[int]
    states: Tensor
    """(n, H) post-norm states; state i is the one that predicted token i"""
    logits: Tensor
    """(n, V) the logits that token i was chosen from"""


@dataclass(eq=False)
class Row:
    """One question while it is being answered."""

    pending: Tensor
    """(T, H) embeddings that are still to be fed: the prompt, later the last token"""
    length: int
    """positions that the buffers hold already (a prefix of the prompt)"""
    limit: int
    """most tokens to answer"""
    prefix: Tensor | None = None
    """keys and values of the first `length` positions"""
    single_pass_unless: list[int] | None = None
    """stop after the first pass unless the answer begins with these ids (mask mode)"""
    drafts: list[list[int]] = field(default_factory=list)
    """guesses at the whole answer, the likeliest first"""
    go_on: Callable[[list[int]], list[int]] | None = None
    """guesses what follows the answer so far, where no draft fits"""
    ids: list[int] = field(default_factory=list)
    stopped_by: str = ""
    forwards: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Limits:
    """When an answer ends."""

    eos_id: int
    seg_id: int
    draft_tokens: int
    """most draft tokens in one pass"""
    max_masks: int
    """`[SEG]`s after which an answer is stopped"""
    repeats: int
    """tokens that repeat one short pattern before an answer is stopped"""


def generate(
    decoder: Decoder, rows: list[Row], limits: Limits, stop: Callable[[], str]
) -> Iterator[list[Step]]:
    """Answer all rows together; yields what each pass added, one step a live row.

    `stop()` is asked between passes and ends everything by giving a reason. Rows that are done give
    their place in the buffers to the last one that is not, so that a pass holds live rows only.

    Raises:
        FloatingPointError: the logits of a token are not finite numbers.
    """
    held, fed = max(row.length for row in rows), max(len(row.pending) for row in rows)
    answered = max(row.limit for row in rows) + limits.draft_tokens
    decoder.reserve(len(rows), held + fed + answered)
    for place, row in enumerate(rows):
        if row.prefix is not None:
            decoder.load_prefix(place, row.prefix)
    live = list(rows)
    while live:
        reason = stop()
        if reason:
            for row in live:
                row.stopped_by = reason
            return
        yield _advance(decoder, live, limits)
        _close_ranks(decoder, live)


def _advance(decoder: Decoder, live: list[Row], limits: Limits) -> list[Step]:
    """One pass over all live rows."""
    trees = [_plan(row, limits) for row in live]
    passed = decoder.forward(_chunk(decoder, live, trees))
    # the states at the last token fed and at each draft token, of all rows for one look
    states = [
        passed[place, len(row.pending) - 1 : len(row.pending) + len(tree)]
        for place, (row, tree) in enumerate(zip(live, trees, strict=True))
    ]
    sizes = [len(part) for part in states]
    all_logits = decoder.head(torch.cat(states))
    choices = _choose(all_logits).split(sizes)
    logits = all_logits.split(sizes)
    steps = []
    for place, (row, tree) in enumerate(zip(live, trees, strict=True)):
        chosen = choices[place].tolist()
        path = tree.accept(chosen[0], chosen[1:])
        tokens = _until_end(row, [chosen[0], *(chosen[1 + node] for node in path)], limits)
        if NO_TOKEN in tokens:
            decoder.clear()
            raise FloatingPointError(f"token logits are not finite: {BROKEN_NUMBERS}")
        path = path[: len(tokens) - 1]
        fed = row.length + len(row.pending)
        decoder.keep_path(place, fed, path)
        row.length = fed + len(path)
        row.forwards += 1
        row.drafted += len(tree)
        row.accepted += len(path)
        row.ids += tokens
        index = [0, *(1 + node for node in path)]
        steps.append(Step(row, tokens, states[place][index], logits[place][index]))
    embedded = decoder.embed([row.ids[-1] for row in live])
    for row, last in zip(live, embedded.split(1), strict=True):
        row.pending = last
    return steps


def _choose(logits: Tensor) -> Tensor:
    """The likeliest token of each row of logits (n, V), on the processor.

    A maximum is not finite if any of its values is NaN or +inf, so that the check costs nothing:
    no other look at the logits and no other wait for a GPU.
    """
    best, tokens = logits.max(-1)
    return tokens.masked_fill(~best.isfinite(), NO_TOKEN).cpu()


def _plan(row: Row, limits: Limits) -> DraftTree:
    """The drafts that still fit what has been answered, as a tree of what may come next."""
    done, room = len(row.ids), row.limit - len(row.ids) - 1
    fitting = [d[done : done + room] for d in row.drafts if d[:done] == row.ids and len(d) > done]
    if not fitting and done and row.go_on is not None and limits.draft_tokens:
        fitting = [row.go_on(row.ids)[:room]]
    return DraftTree(fitting, limits.draft_tokens)


def _chunk(decoder: Decoder, live: list[Row], trees: list[DraftTree]) -> Chunk:
    """Lay the rows' pending embeddings and draft tokens side by side, padded on the right."""
    fed = [len(row.pending) for row in live]
    total = [a + len(b) for a, b in zip(fed, trees, strict=True)]
    width = max(total)
    embeds = live[0].pending.new_zeros(len(live), width, live[0].pending.shape[1])
    for place, (row, tree) in enumerate(zip(live, trees, strict=True)):
        embeds[place, : fed[place]] = row.pending
        if len(tree):
            embeds[place, fed[place] : total[place]] = decoder.embed(tree.tokens)
    chunk = Chunk(embeds, [row.length for row in live])
    if all(tree.is_chain for tree in trees):
        return chunk
    depth = torch.arange(width).repeat(len(live), 1)
    allowed = torch.ones(width, width, dtype=torch.bool).tril_().repeat(len(live), 1, 1)
    for place, tree in enumerate(trees):
        nodes = slice(fed[place], total[place])
        depth[place, nodes] = fed[place] + torch.tensor(tree.depths, dtype=torch.long)
        allowed[place, nodes, nodes] = tree.sees()
    chunk.depth, chunk.allowed = depth, allowed
    return chunk


def _until_end(row: Row, tokens: list[int], limits: Limits) -> list[int]:
    """Cut new tokens where the answer ends; says why on the row."""
    ids = list(row.ids)
    masks = ids.count(limits.seg_id)
    for count, token in enumerate(tokens, start=1):
        ids.append(token)
        masks += token == limits.seg_id
        if token == limits.eos_id:
            row.stopped_by = "end"
        elif len(ids) >= row.limit:
            row.stopped_by = "tokens"
        elif masks > limits.max_masks:
            row.stopped_by = "masks"
        elif _runs_in_circles(ids[-limits.repeats :], limits.repeats):
            row.stopped_by = "repetition"
        if row.stopped_by:
            return tokens[:count]
    if row.single_pass_unless is not None:
        begins = row.single_pass_unless
        if not begins or ids[: len(begins)] != begins:
            row.stopped_by = "end"
    return tokens


def _runs_in_circles(last: list[int], repeats: int) -> bool:
    """Whether the latest tokens repeat one short pattern over and over."""
    if len(last) < repeats:
        return False
    return any(last[p:] == last[:-p] for p in range(1, REPEAT_PERIOD + 1))


def _close_ranks(decoder: Decoder, live: list[Row]) -> None:
    """Remove the rows that are done; the last live row takes each free place."""
    for place in reversed(range(len(live))):
        if live[place].stopped_by:
            last = live.pop()
            if place < len(live):
                decoder.move_row(len(live), place, last.length)
                live[place] = last
