"""Invented tabletop scenes, and what the tests of the instructions ask of them."""

import re
from itertools import chain

from numpy.random import default_rng

from lisa_tabletop.language.instructions import compose
from lisa_tabletop.language.knowledge import load_knowledge, load_patterns

KNOWLEDGE = load_knowledge()
TRAIN, TEST = load_patterns("train"), load_patterns("test")
EVERYDAY = load_patterns("training")  # TRAIN and what only training hears
NAMED = {"name": 1.0}


def thing(number, kind, color, material, u, v, size=(0.1, 0.1, 0.1), **more):
    """One object of a record, wholly visible unless `more` says otherwise."""
    entry = {
        "id": number,
        "kind": kind,
        "color": color,
        "material": material,
        "size": list(size),
        "position": [u / 1000, -v / 1000, 0.05],
        "center": [u, v],
        "box": [u - 40, v - 40, 80, 80],
        "area": 5000,
        "visible": 1.0,
    }
    return {**entry, **more}


def scene(*objects):
    return {"seed": 0, "width": 640, "height": 480, "objects": list(objects)}


# A row with gaps, everything in it of another kind.
ROW = scene(
    thing(1, "mug", "red", "ceramic", 120, 240),
    thing(2, "book", "blue", "paper", 240, 245, size=(0.2, 0.15, 0.03), area=12000),
    thing(3, "bottle", "green", "glass", 360, 240, size=(0.06, 0.06, 0.28)),
    thing(4, "spoon", "grey", "metal", 520, 235, size=(0.15, 0.02, 0.01), area=1500),
)
# Two mugs of different colour and size, food and a plate, at different depths.
MIXED = scene(
    thing(5, "mug", "red", "ceramic", 200, 120, size=(0.08, 0.08, 0.08), area=3000),
    thing(6, "mug", "blue", "ceramic", 420, 130, size=(0.12, 0.12, 0.12), area=8000),
    thing(7, "apple", "red", "food", 310, 250),
    thing(8, "plate", "white", "ceramic", 200, 400, size=(0.2, 0.2, 0.02), area=14000),
    thing(9, "carrot", "orange", "food", 440, 380, size=(0.15, 0.03, 0.03)),
)
SCENES = (ROW, MIXED)


def ask(record, kind, count=150, split="train", forms=NAMED, seed=0):
    """Many questions of one type about one scene."""
    return compose(record, default_rng(seed), count, split, types={kind: 1.0}, forms=forms)


def names_of(kind):
    names = KNOWLEDGE.kinds[kind].names
    return sorted(chain(names, map(KNOWLEDGE.kinds[kind].plural, names)), key=len, reverse=True)


def find(record, words):
    """The ids of the objects that a noun such as 'red cup' or 'blue thing' fits."""
    found = []
    for entry in record["objects"]:
        match = re.search(r"\b(" + "|".join(names_of(entry["kind"])) + r"|thing|object)\b", words)
        colors = [color for color in KNOWLEDGE.colors if re.search(rf"\b{color}\b", words)]
        if match and (not colors or entry["color"] in colors):
            found.append(entry["id"])
    return found


def by_id(record, number):
    return next(entry for entry in record["objects"] if entry["id"] == number)


def plain_text(text):
    """Lower case, without the end marks: what `compose` may vary."""
    return re.sub(r"[.?]+$", "", text.lower()).strip()


def targets_of(record, kind, pattern, count=400):
    """The targets that every question whose instruction matches has; they must agree."""
    found = [
        question["targets"]
        for question in ask(record, kind, count)
        if re.search(pattern, plain_text(question["instruction"]))
    ]
    assert found, f"nothing asks for {pattern}"
    assert all(targets == found[0] for targets in found), found
    return found[0]
