"""Drafts: guesses at the answer that one forward pass can check.

Greedy decoding accepts exactly the tokens that it would have written itself, so a wrong draft costs
a few wasted tokens in a pass and never changes an answer (Leviathan et al., 2023, with a draft that
costs nothing). Several drafts share their beginnings in a tree (Miao et al., SpecInfer, 2023).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lisa_ros.engine.answer import SEG
from lisa_ros.engine.question import Mode, Question
from lisa_ros.model.config import LisaConfig

# The openings of the answers that LISA was trained on (Lai et al., 2023).
TEMPLATES = (
    "[SEG].",
    "Sure, [SEG].",
    "It is [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
)
OPENINGS = ("It is the", "They are the")  # of models that name every thing they mask
MOST_INSTANCES = 4  # masks in a row that a draft of bare masks offers
REMEMBERED = 64  # answers to whole questions
CONTEXTS = 20_000  # ends of answers with the token that followed
GUESSED = 6  # tokens guessed from the end of an answer; each costs a little on a CPU


def known_texts(config: LisaConfig) -> dict[Mode, list[str]]:
    """Answers or beginnings of answers that a model was trained to give, for each mode."""
    refusals = [config.refusal_prefix] if config.refusal_prefix else []
    masks, openings = [], []
    if config.mask_instances:
        masks = [" ".join([SEG] * count) + "." for count in range(1, MOST_INSTANCES + 1)]
        openings = list(OPENINGS)
    templates = [*openings, *TEMPLATES, *refusals]
    return {"mask": masks + refusals, "auto": templates, "explain": templates, "text": []}


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
    """What this model tends to say: a standing question usually gets its last answer again."""

    def __init__(self, known: Mapping[Mode, Sequence[list[int]]]) -> None:
        """`known`: per mode, ids of answers or of beginnings that the model was trained to give."""
        self.known = known
        self.answers: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self.followers: OrderedDict[tuple[int, ...], int] = OrderedDict()
        for answers in known.values():
            for ids in answers:
                self._learn(ids)

    def remember(self, question: Question, ids: Sequence[int]) -> None:
        """Keep an answer for the next time that this is asked, and what follows what in it."""
        self.answers[question.instruction, question.mode] = list(ids)
        self.answers.move_to_end((question.instruction, question.mode))
        self._learn(ids)
        if len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)

    def _learn(self, ids: Sequence[int]) -> None:
        for place in range(1, len(ids)):
            for context in _contexts(ids[:place]):
                self.followers[context] = ids[place]
                self.followers.move_to_end(context)
        while len(self.followers) > CONTEXTS:
            self.followers.popitem(last=False)

    def suggest(self, question: Question) -> list[list[int]]:
        """Drafts of the whole answer to a question, the likeliest first."""
        previous = self.answers.get((question.instruction, question.mode))
        return [previous] if previous else list(self.known[question.mode])

    def go_on(self, ids: Sequence[int]) -> list[int]:
        """A guess at what follows the beginning of an answer that no whole draft fits."""
        answer = list(ids)
        while len(answer) < len(ids) + GUESSED:
            found = (self.followers.get(context) for context in _contexts(answer))
            following = next((token for token in found if token is not None), None)
            if following is None:
                break
            answer.append(following)
        return answer[len(ids) :]


def _contexts(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """The ends of a text by which its continuation is looked up, the most telling first."""
    return [tuple(ids[-n:]) for n in (3, 2, 1) if len(ids) >= n]
