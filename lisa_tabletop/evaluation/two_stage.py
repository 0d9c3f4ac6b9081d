"""The baseline of two stages: words choose a kind of thing, and a detector finds things of it.

The paper's two-stage baselines let a language model name the thing and a segmenter find the name.
Here a classifier of the instruction's word pieces, trained on the same texts as the fine-tuned
model, names the kind; then a model that obeys plain names is asked for it. Neither is told what is
in the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lisa_ros.engine import Answer, Engine
from lisa_ros.evaluation.reasonseg import Item
from lisa_ros.model.tokenizer import Tokenizer

STEPS, RATE, DECAY = 300, 0.1, 0.02
PLAIN = "Please segment the {}."


class KindClassifier:
    """Multinomial logistic regression on which pieces an instruction holds."""

    def __init__(self, tokenizer: Tokenizer, items: Sequence[Item]) -> None:
        """Learn from simulated questions; where several kinds are meant each gets its share."""
        self.tokenizer = tokenizer
        meant = [[one["name"] for one in item.ours["targets"]] for item in items]
        self.names = sorted({name for names in meant for name in names})
        column = {name: index for index, name in enumerate(self.names)}
        wanted = torch.zeros(len(items), len(self.names))
        for row, names in enumerate(meant):
            for name in names:
                wanted[row, column[name]] += 1 / len(names)
        self.weight = torch.zeros(tokenizer.size, len(self.names), requires_grad=True)
        self.bias = torch.zeros(len(self.names), requires_grad=True)
        self._fit(torch.stack([self._features(item.instruction) for item in items]), wanted)

    def _fit(self, features: Tensor, wanted: Tensor) -> None:
        optimizer = torch.optim.AdamW([self.weight, self.bias], lr=RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            loss = functional.cross_entropy(features @ self.weight + self.bias, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _features(self, text: str) -> Tensor:
        """Which pieces occur, as a vector (pieces,) of length 1."""
        pieces = torch.zeros(self.tokenizer.size)
        pieces[self.tokenizer.encode(text.lower())] = 1
        return functional.normalize(pieces, dim=0)

    @torch.no_grad()
    def ranked(self, text: str) -> list[str]:
        """The names of all kinds, the likeliest first."""
        order = (self._features(text) @ self.weight + self.bias).argsort(descending=True)
        return [self.names[index] for index in order.tolist()]


def answer_in_two_stages(
    engine: Engine, classifier: KindClassifier, item: Item, tries: int
) -> Answer:
    """Ask plainly for the likeliest kind, and for the next one where the detector finds none."""
    for name in classifier.ranked(item.instruction)[:tries]:
        answer = engine.segment(item.rgb(), PLAIN.format(name), key=item.scene)
        if answer.instances:
            break
    return answer
