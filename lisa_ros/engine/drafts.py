"""Drafts: guesses at the answer that one forward pass can check.

Greedy decoding accepts exactly the tokens that it would have written itself, so a wrong draft costs
a few wasted tokens in a pass and never changes an answer (Leviathan et al., 2023, with a draft that
costs nothing). Several drafts share their beginnings in a tree (Miao et al., SpecInfer, 2023).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lisa_ros.engine.question import Question

# The openings of the answers that LISA was trained on (Lai et al., 2023).
TEMPLATES = (
    "[SEG].",
    "Sure, [SEG].",
    "It is [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
)
REMEMBERED = 64  # answers kept per engine, the latest last


class DraftTree:
    """Drafts merged by their common beginnings; node 0 .. n-1 in order of insertion."""

    def __init__(self, drafts: Iterable[Sequence[int]], limit: int) -> None:
        """Insert drafts, the likeliest first, until there are `limit` nodes."""
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.children: dict[tuple[int, int], int] = {}
        for draft in drafts:
            self._insert(draft, limit)

    def _insert(self, draft: Sequence[int], limit: int) -> None:
        node = -1
        for token in draft:
            child = self.children.get((node, token))
            if child is None:
                if len(self.tokens) == limit:
                    return
                child = len(self.tokens)
                self.depths.append(self.depths[node] + 1 if node >= 0 else 0)
                self.children[node, token] = child
                self.tokens.append(token)
                self.parents.append(node)
            node = child

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether there is one draft only, so that ordinary causal attention serves."""
        return self.parents == list(range(-1, len(self.parents) - 1))

    def sees(self) -> Tensor:
        """(n, n) bool: each node sees itself and its ancestors."""
        seen = torch.eye(len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    def accept(self, root: int, choices: Sequence[int]) -> list[int]:
        """The path of nodes that greedy decoding takes.

        `root`: the token chosen before the first node; `choices[i]`: the one chosen after node i.
        """
        path: list[int] = []
        node = self.children.get((-1, root))
        while node is not None:
            path.append(node)
            node = self.children.get((node, choices[node]))
        return path


class DraftMemory:
    """Answers given before: a standing question usually gets its last answer again."""

    def __init__(self, templates: Sequence[list[int]], refusal: list[int]) -> None:
        """`templates`: ids of answers that the model was trained to give; `refusal`: ids with which
        it says that a thing is not there, or none."""
        self.templates = list(templates)
        self.refusals = [refusal] if refusal else []
        self.answers: OrderedDict[tuple[str, str], list[int]] = OrderedDict()

    def remember(self, question: Question, ids: Sequence[int]) -> None:
        """Keep an answer for the next time that this is asked."""
        name = (question.instruction, question.mode)
        self.answers[name] = list(ids)
        self.answers.move_to_end(name)
        if len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)

    def suggest(self, question: Question) -> list[list[int]]:
        """Drafts for a question, the likeliest first."""
        previous = self.answers.get((question.instruction, question.mode))
        known = {"mask": self.refusals, "text": []}.get(
            question.mode, self.templates + self.refusals
        )
        return ([previous] if previous else []) + known
