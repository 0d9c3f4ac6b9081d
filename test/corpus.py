"""Questions about invented scenes, for what learns from text alone."""

from collections.abc import Iterator

from numpy.random import Generator

from lisa_tabletop.language.instructions import compose, random_record


def corpus(random: Generator, count: int, split: str = "train") -> Iterator[dict]:
    """`count` questions as `compose` makes them."""
    made = 0
    while made < count:
        record = random_record(random)
        for question in compose(record, random, min(8, count - made), split):
            made += 1
            yield question
