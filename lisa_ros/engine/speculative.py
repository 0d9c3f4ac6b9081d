"""Speculative decoding: guesses at the answer that one forward pass can check.

Greedy decoding accepts exactly the tokens that it would have written itself, so a wrong draft costs
a few wasted tokens in a pass and never changes an answer (Leviathan et al., 2023, with a draft that
costs nothing). Several drafts share their beginnings in a tree (Miao et al., SpecInfer, 2023).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lisa_ros.engine.question import Mode, Question

REMEMBERED = 64  # answers to whole questions
CONTEXTS = 20_000  # ends of answers with the token that followed
LONGEST_CONTEXT = 3  # tokens
PROPOSED = 6  # tokens guessed from the end of an answer; each costs a little on a CPU


class TokenTree:
    """Drafts merged by their common beginnings; node 0 .. n-1 in order of insertion.

    A parent comes before its children, so that nodes can be fed in their order.
    """

    def __init__(self, drafts: Iterable[Sequence[int]], limit: int) -> None:
        """Insert drafts, the likeliest first, until there are `limit` nodes."""
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.children: dict[tuple[int, int], int] = {}  # (node or -1, token) to node
        for draft in drafts:
            self._insert(draft, limit)

    def _insert(self, draft: Sequence[int], limit: int) -> None:
        node = -1  # the root: the last token that is certain
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

    def attention_mask(self) -> Tensor:
        """(n, n) bool: each node sees itself and its ancestors."""
        mask = torch.eye(len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                mask[node] |= mask[parent]  # complete already: parents come first
        return mask

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


class NGramDrafter:
    """Drafts from what this model said before: whole answers, and what follows which n-gram.

    A standing question usually gets its last answer again; another question shares phrases with it
    (prompt lookup decoding, with earlier answers in place of the prompt).
    """

    def __init__(self, known: Mapping[Mode, Sequence[list[int]]]) -> None:
        """`known`: per mode, ids of answers or of beginnings that the model was trained to give."""
        self.known = known
        # both tables forget the least recently used first
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
        for end in range(1, len(ids)):
            for context in _contexts(ids[:end]):
                self.followers[context] = ids[end]  # the latest is the likeliest
                self.followers.move_to_end(context)
        while len(self.followers) > CONTEXTS:
            self.followers.popitem(last=False)

    def suggest(self, question: Question) -> list[list[int]]:
        """Drafts of the whole answer to a question, the likeliest first."""
        previous = self.answers.get((question.instruction, question.mode))
        # one answer that was given beats all openings, and is cheaper to check
        return [previous] if previous else list(self.known[question.mode])

    def propose(self, ids: Sequence[int]) -> list[int]:
        """A guess at what follows the beginning of an answer that no whole draft fits."""
        answer = list(ids)
        while len(answer) < len(ids) + PROPOSED:
            # backs off from the longest n-gram to the shortest
            found = (self.followers.get(context) for context in _contexts(answer))
            following = next((token for token in found if token is not None), None)
            if following is None:
                break
            answer.append(following)
        return answer[len(ids) :]


def _contexts(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """The n-grams that end a text, the most telling first."""
    return [tuple(ids[-n:]) for n in range(LONGEST_CONTEXT, 0, -1) if len(ids) >= n]
