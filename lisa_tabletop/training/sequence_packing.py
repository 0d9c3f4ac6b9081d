"""Several dialogues about one view in one sequence, so that the view is read once for all of them.

A sequence is the shared beginning (BOS, `USER:`, the view) followed by the rest of every dialogue.
Each dialogue sees the beginning and itself only, and its positions count on from the beginning's
end: to every dialogue it is as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import IMAGE_TOKEN, LisaNetwork
from lisa_ros.model.prompt import encode_dialogue
from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.training.nouns import nouns_in

LONGEST = 120  # ids of one dialogue; longer ones are left out


@dataclass(frozen=True)
class Packed:
    """B sequences of length L.

    ids (B,L), IMAGE_TOKEN at every position of the view, pad 0; positions (B,L); owner (B,L), 0 for
    the shared beginning, k for the k-th dialogue, -1 for padding; answers (M,2), row and column of
    the states that predict an answer's ids, and labels (M,), those ids; segs (N,2), the states that
    predict [SEG], and targets (N,), the object ids meant; choices (K,2), the states that lead up to
    a [SEG] or to a refusal, and chosen (K,), the object ids they are about, 0 where there is none;
    nouns (J,2), where a kind of object is named in a question, and kinds (J,), which one.
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


def pack(questions: Sequence[Sequence[dict]], tokenizer: Tokenizer, config: LisaConfig) -> Packed:
    """Pack the questions (as `compose` makes them) about each of B views."""
    rows = [_pack_row(asked, tokenizer, config) for asked in questions]
    longest = max(len(row.ids) for row in rows)

    def padded(name: str, filler: int) -> Tensor:
        lists = [getattr(row, name) for row in rows]
        return torch.tensor([x + [filler] * (longest - len(x)) for x in lists])

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
    )


@dataclass
class _Row:
    ids: list[int]
    positions: list[int]
    owner: list[int]
    answers: list[int]
    labels: list[int]
    segs: list[int]
    targets: list[int]
    choices: list[int]
    chosen: list[int]
    nouns: list[int]
    kinds: list[int]


def _pack_row(questions: Sequence[dict], tokenizer: Tokenizer, config: LisaConfig) -> _Row:
    row = _Row(*([] for _ in fields(_Row)))
    for question in questions:
        prompt, answer = encode_dialogue(question, tokenizer.encode, config)
        shared = prompt.index(IMAGE_TOKEN)
        if not row.ids:
            row.ids = [*prompt[:shared], *[IMAGE_TOKEN] * config.image_tokens]
            row.positions = list(range(len(row.ids)))
            row.owner = [0] * len(row.ids)
            begin = len(row.ids)
        own = prompt[shared + 1 :] + answer
        if len(own) > LONGEST:
            continue
        start = len(row.ids)
        row.ids += own
        row.positions += range(begin, begin + len(own))
        row.owner += [row.owner[-1] + 1] * len(own)
        first = start + len(own) - len(answer)
        row.answers += range(first - 1, first - 1 + len(answer))
        row.labels += answer
        segs = [first - 1 + i for i, token in enumerate(answer) if token == tokenizer.seg_id]
        row.segs += segs
        row.targets += question["targets"]
        _add_choices(row, first - 1, segs, question)
        for place, kind in nouns_in(own[: -len(answer)], tokenizer):
            row.nouns.append(start + place)
            row.kinds.append(kind)
    return row


def _add_choices(row: _Row, begin: int, segs: list[int], question: dict) -> None:
    """The states from which the answer is written, with what each part of it is about."""
    if not segs and question["form"] != "text":
        row.choices.append(begin)
        row.chosen.append(0)
    for seg, target in zip(segs, question["targets"], strict=True):
        row.choices += range(begin, seg + 1)
        row.chosen += [target] * (seg + 1 - begin)
        begin = seg + 1


def run_packed(
    network: LisaNetwork, packed: Packed, views: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run packed sequences about `views` (B,P,H).

    Returns the post-norm states (B,L,H), and the states that enter each layer, (B,L,H) each.
    """
    at_view = packed.ids == IMAGE_TOKEN
    embeds = network.language_model.embed_tokens(packed.ids.clamp(min=0))
    embeds = embeds.masked_scatter(at_view[..., None], views.to(embeds.dtype))
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
    ce = functional.cross_entropy(logits, packed.labels)
    return ce, (logits.argmax(-1) == packed.labels).float().mean()
