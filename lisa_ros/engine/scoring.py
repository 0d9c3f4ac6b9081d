"""What the score of a mask says.

LISA never learnt to score masks. Where a model's configuration has a `score_calibration`, fitted by
`lisa-ros calibrate`, the score is the probability that the mask shows what was meant; elsewhere it
is the mean probability that the mask decoder gives to the pixels of the mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

LEAST = 1e-4  # how far from 0 and 1 a probability stays before its logarithm is taken


def evidence(mask_probability: float, word_probability: float | None) -> dict[str, float]:
    """What a score rests on, as the terms of a logistic regression.

    `mask_probability`: mean over the pixels of the mask, which says how sharp it is;
    `word_probability`: of the least certain token of the answer before the mask, which says how
    sure the model is of the thing; None where it wrote no word before it.
    """
    mask = min(max(mask_probability, LEAST), 1 - LEAST)
    wordless = word_probability is None
    return {
        "bias": 1.0,
        "mask": math.log(mask / (1 - mask)),
        "words": 0.0 if wordless else math.log(max(word_probability, LEAST)),
        "wordless": float(wordless),
    }


def probability(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """0..1: the logistic function of the weighted terms."""
    total = sum(weights[name] * value for name, value in terms.items())
    return 1 / (1 + math.exp(-total))


def token_probabilities(logits: Tensor, tokens: list[int]) -> list[float]:
    """The probability of each token (n) in the logits (n, V) that it was chosen from."""
    chosen = torch.tensor(tokens, device=logits.device)
    return logits.float().log_softmax(-1).gather(1, chosen[:, None])[:, 0].exp().tolist()
