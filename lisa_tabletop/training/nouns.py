"""Where a text of ids names a kind of object."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.language.knowledge import load_knowledge
from lisa_tabletop.training.concepts import KIND_INDEX


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
