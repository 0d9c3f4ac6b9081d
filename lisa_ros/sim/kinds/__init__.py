"""Parametric builders of the household objects: every call draws another member of the kind.

A builder returns a `Shape` standing on the plane z = 0.
"""

from lisa_ros.sim.kinds import desk, food, home, kitchen, tools
from lisa_ros.sim.kinds.shape import COLORS, PAINT, TINTS, Collider, Kind, Part, Shape

__all__ = ["COLORS", "KINDS", "PAINT", "TINTS", "Collider", "Kind", "Part", "Shape"]

KINDS: dict[str, Kind] = {
    "mug": Kind(kitchen.mug, PAINT, "ceramic"),
    "bottle": Kind(kitchen.bottle, ("green", "blue", "brown", "white", "red", "black"), "glass"),
    "bowl": Kind(kitchen.bowl, PAINT, "ceramic"),
    "plate": Kind(kitchen.plate, PAINT, "ceramic"),
    "can": Kind(kitchen.can, ("red", "orange", "yellow", "green", "blue", "purple"), "metal"),
    "spoon": Kind(kitchen.spoon, ("grey", "brown", "red", "blue", "green"), "metal"),
    "knife": Kind(kitchen.knife, ("black", "brown", "red", "blue", "white"), "metal"),
    "apple": Kind(food.apple, ("red", "green", "yellow"), "food"),
    "banana": Kind(food.banana, ("yellow", "green"), "food"),
    "carrot": Kind(food.carrot, ("orange",), "food"),
    "hammer": Kind(tools.hammer, ("brown", "black", "red", "blue", "yellow"), "wood"),
    "screwdriver": Kind(
        tools.screwdriver, ("red", "yellow", "blue", "green", "orange", "black"), "metal"
    ),
    "scissors": Kind(desk.scissors, ("red", "orange", "blue", "green", "purple", "black"), "metal"),
    "pencil": Kind(desk.pencil, ("yellow", "red", "blue", "green", "black", "orange"), "wood"),
    "book": Kind(
        desk.book, ("red", "orange", "green", "blue", "purple", "black", "brown"), "paper"
    ),
    "tape": Kind(desk.tape, ("grey", "yellow", "red", "blue", "black", "brown"), "plastic"),
    "sponge": Kind(home.sponge, ("yellow", "blue", "orange", "purple"), "foam"),
    "candle": Kind(home.candle, ("white", "red", "purple", "blue", "yellow"), "wax"),
    "phone": Kind(desk.phone, ("black", "white", "grey", "blue", "red"), "plastic"),
    "ball": Kind(home.ball, PAINT, "rubber"),
}
