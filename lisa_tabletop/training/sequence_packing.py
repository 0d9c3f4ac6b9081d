"""Several dialogues about one view in one sequence, so that the view is read once for all of them.

A sequence is the shared beginning (BOS, `USER:`, the view) followed by the rest of every dialogue.
Each dialogue sees the beginning and itself only, and its positions count on from the beginning's
end: to every dialogue it is as if it stood alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lisa_ros.model.config import IMAGE_TOKEN, LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.prompt import encode_dialogue
from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.language.knowledge import load_knowledge
from lisa_tabletop.training.concepts import KIND_INDEX

LONGEST = 160  # ids of one dialogue; longer ones are left out


@dataclass(frozen=True)
class Packed:
    """B sequences of length L.

    ids (B,L), IMAGE_TOKEN at every position of the view, pad 0; positions (B,L); owner (B,L), 0 for
    the shared beginning, k for the k-th dialogue, -1 for padding; answers (M,2), row and column of
    the states that predict an answer's ids, and labels (M,), those ids; segs (N,2), the states that
    predict [SEG], and targets (N,), the object ids meant; choices (K,2), the states that lead up to
    a [SEG] or to a refusal, and chosen (K,), the object ids they are about, 0 where there is none;
    nouns (J,2), where a kind of object is named in a question, and kinds (J,), which one.
    `view` is the column of the view's first embedding, the same in all rows.
    """

    ids: Tensor
    positions: Tensor
    owner: Tensor
    answers: Tensor
    labels: Tensor
    segs: Tensor
    targets: Tensor
    choices: Tensor
    chosen: Tensor
    nouns: Tensor
    kinds: Tensor
    view: int


def pack(questions: Sequence[Sequence[dict]], tokenizer: Tokenizer, config: LisaConfig) -> Packed:
    """Pack the questions (as `compose` makes them) about each of B views."""
    rows = [_pack_row(asked, tokenizer, config) for asked in questions]
    longest = max(len(row.ids) for row in rows)

    def padded(name: str, filler: int) -> Tensor:
        table = np.full((len(rows), longest), filler)
        for line, row in zip(table, rows, strict=True):
            line[: len(row.ids)] = getattr(row, name)
        return torch.from_numpy(table)

    def gathered(name: str) -> Tensor:
        pairs = [(b, column) for b, row in enumerate(rows) for column in getattr(row, name)]
        return torch.tensor(pairs, dtype=torch.long).view(-1, 2)

    def joined(name: str) -> Tensor:
        return torch.tensor([x for row in rows for x in getattr(row, name)], dtype=torch.long)

    return Packed(
        padded("ids", 0),
        padded("positions", 0),
        padded("owner", -1),
        gathered("answers"),
        joined("labels"),
        gathered("segs"),
        joined("targets"),
        gathered("choices"),
        joined("chosen"),
        gathered("nouns"),
        joined("kinds"),
        rows[0].ids.index(IMAGE_TOKEN),
    )


def _pack_row(
    questions: Sequence[dict], tokenizer: Tokenizer, config: LisaConfig
) -> SimpleNamespace:
    """One sequence as it grows; names as in `Packed`, places as columns."""
    row = SimpleNamespace(**{one.name: [] for one in fields(Packed)})
    beginning, _ = encode_dialogue({"instruction": "", "answer": ""}, tokenizer.encode, config)
    shared = beginning.index(IMAGE_TOKEN)
    row.ids = [*beginning[:shared], *[IMAGE_TOKEN] * config.image_tokens]
    begin = len(row.ids)
    row.positions = list(range(begin))
    row.owner = [0] * begin
    for question in questions:
        prompt, answer = encode_dialogue(question, tokenizer.encode, config)
        own = prompt[shared + 1 :] + answer
        if len(own) > LONGEST:
            continue
        start = len(row.ids)
        row.ids += own
        row.positions += range(begin, begin + len(own))
        row.owner += [row.owner[-1] + 1] * len(own)
        # the state before an id predicts it
        first = start + len(own) - len(answer)
        row.answers += range(first - 1, first - 1 + len(answer))
        row.labels += answer
        segs = [first - 1 + i for i, token in enumerate(answer) if token == tokenizer.seg_id]
        row.segs += segs
        row.targets += question["targets"]
        # the states from which the answer is written, with what each part of it is about
        begin_part = first - 1
        if not segs and question["form"] != "text":
            row.choices.append(begin_part)
            row.chosen.append(0)
        for seg, target in zip(segs, question["targets"], strict=True):
            row.choices += range(begin_part, seg + 1)
            row.chosen += [target] * (seg + 1 - begin_part)
            begin_part = seg + 1
        for place, kind in nouns_in(own[: -len(answer)], tokenizer):
            row.nouns.append(start + place)
            row.kinds.append(kind)
    return row


def nouns_in(ids: Sequence[int], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Index of the id that ends the name of a kind, and that kind's number in the concept space.

    Names that are part of a longer one do not count, nor do those that two kinds share.
    """
    pieces = tokenizer.spelled(ids)
    ends = list(accumulate(map(len, pieces)))
    pattern, kinds = _names()
    return [
        (bisect_left(ends, match.end()), kinds[match[0].lower()])
        for match in pattern.finditer("".join(pieces))
    ]


@lru_cache(maxsize=1)
def _names() -> tuple[re.Pattern[str], dict[str, int]]:
    owners: dict[str, set[int]] = {}
    for kind in load_knowledge().kinds.values():
        for name in kind.names:
            for word in (name, kind.plural(name)):
                owners.setdefault(word.lower(), set()).add(KIND_INDEX[kind.key])
    kinds = {word: number for word, (number, *others) in owners.items() if not others}
    longest_first = sorted(kinds, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", re.I), kinds


def run_packed(
    network: LisaNetwork, packed: Packed, views: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run packed sequences about `views` (B,P,H).

    Returns the post-norm states (B,L,H), and the states that enter each layer, (B,L,H) each.
    """
    embeds = network.language_model.embed_tokens(packed.ids.clamp(min=0))
    behind = packed.view + views.shape[1]
    embeds = torch.cat([embeds[:, : packed.view], views.to(embeds.dtype), embeds[:, behind:]], 1)
    owner = packed.owner
    earlier = owner.new_ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    visible = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    run = network.language_model(
        inputs_embeds=embeds,
        attention_mask=(earlier & visible)[:, None],
        position_ids=packed.positions,
        use_cache=False,
        output_hidden_states=True,
    )
    return run.last_hidden_state, run.hidden_states


def answer_loss(network: LisaNetwork, states: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Cross entropy of the answers' ids, and the share of them that greedy choice gets right."""
    logits = network.lm_head(states[tuple(packed.answers.T)])
    ce = functional.cross_entropy(logits.float(), packed.labels)
    return ce, (logits.argmax(-1) == packed.labels).float().mean()
