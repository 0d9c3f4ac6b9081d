"""Parametric builders of the household objects: every call draws another member of the kind.

A builder returns a `Shape` standing on the plane z = 0.
"""

from lisa_tabletop.world.kinds import containers, desk, food, home, kitchen, tools
from lisa_tabletop.world.kinds.shape import COLORS, PAINT, TINTS, Collider, Draw, Kind, Part, Shape

__all__ = ["COLORS", "KINDS", "PAINT", "TINTS", "Collider", "Draw", "Kind", "Part", "Shape"]

KINDS: dict[str, Kind] = {
    "mug": Kind(kitchen.mug, PAINT, "ceramic", ("brown",)),
    "bottle": Kind(
        kitchen.bottle,
        ("green", "blue", "brown", "white", "red", "black"),
        "glass",
        ("purple", "yellow", "orange"),
    ),
    "bowl": Kind(kitchen.bowl, PAINT, "ceramic", ("brown",)),
    "plate": Kind(kitchen.plate, PAINT, "ceramic", ("brown",)),
    "can": Kind(
        kitchen.can,
        ("red", "orange", "yellow", "green", "blue", "purple"),
        "metal",
        ("white", "black"),
    ),
    "spoon": Kind(
        kitchen.spoon, ("grey", "brown", "red", "blue", "green"), "metal", ("black", "yellow")
    ),
    "knife": Kind(
        kitchen.knife, ("black", "brown", "red", "blue", "white"), "metal", ("yellow", "green")
    ),
    "apple": Kind(food.apple, ("red", "green", "yellow"), "food"),
    "banana": Kind(food.banana, ("yellow", "green"), "food"),
    "carrot": Kind(food.carrot, ("orange",), "food"),
    "hammer": Kind(
        tools.hammer, ("brown", "black", "red", "blue", "yellow"), "wood", ("green", "purple")
    ),
    "screwdriver": Kind(
        tools.screwdriver,
        ("red", "yellow", "blue", "green", "orange", "black"),
        "metal",
        ("white", "purple"),
    ),
    "scissors": Kind(
        desk.scissors,
        ("red", "orange", "blue", "green", "purple", "black"),
        "metal",
        ("yellow", "white"),
    ),
    "pencil": Kind(
        desk.pencil,
        ("yellow", "red", "blue", "green", "black", "orange"),
        "wood",
        ("purple", "white"),
    ),
    "book": Kind(
        desk.book,
        ("red", "orange", "green", "blue", "purple", "black", "brown"),
        "paper",
        ("yellow", "white"),
    ),
    "tape": Kind(
        desk.tape,
        ("grey", "yellow", "red", "blue", "black", "brown"),
        "plastic",
        ("green", "purple"),
    ),
    "sponge": Kind(home.sponge, ("yellow", "blue", "orange", "purple"), "foam", ("green", "red")),
    "candle": Kind(
        home.candle, ("white", "red", "purple", "blue", "yellow"), "wax", ("green", "orange")
    ),
    "phone": Kind(
        desk.phone, ("black", "white", "grey", "blue", "red"), "plastic", ("green", "purple")
    ),
    "ball": Kind(home.ball, PAINT, "rubber", ("brown",)),
    "fork": Kind(
        kitchen.fork, ("grey", "brown", "red", "blue", "green"), "metal", ("black", "yellow")
    ),
    "wrench": Kind(tools.wrench, ("grey", "red", "blue", "black"), "metal", ("yellow", "green")),
    "flashlight": Kind(
        tools.flashlight, ("black", "red", "yellow", "blue", "grey"), "plastic", ("green", "white")
    ),
    "paintbrush": Kind(
        tools.paintbrush, ("red", "yellow", "blue", "green", "brown"), "wood", ("black", "purple")
    ),
    "car": Kind(
        home.car,
        ("red", "yellow", "green", "blue", "purple", "white", "black"),
        "plastic",
        ("orange", "brown"),
    ),
    "clock": Kind(
        home.clock,
        ("red", "yellow", "green", "blue", "white", "black"),
        "plastic",
        ("purple", "orange"),
    ),
    "pear": Kind(food.pear, ("green", "yellow"), "food"),
    "bread": Kind(food.bread, ("brown",), "food"),
    "stapler": Kind(
        desk.stapler, ("black", "red", "blue", "grey", "green"), "plastic", ("yellow", "white")
    ),
    "box": Kind(
        containers.box, ("brown", "white", "red", "blue", "green"), "paper", ("purple", "black")
    ),
    "tray": Kind(
        containers.tray,
        ("brown", "grey", "red", "blue", "green", "black", "white"),
        "wood",
        ("yellow", "purple"),
    ),
    "jar": Kind(
        containers.jar, ("red", "yellow", "green", "blue", "white"), "glass", ("purple", "black")
    ),
    "pot": Kind(
        containers.pot, ("grey", "red", "blue", "black", "green"), "metal", ("yellow", "white")
    ),
    "teapot": Kind(
        containers.teapot,
        ("white", "blue", "green", "red", "brown", "yellow"),
        "ceramic",
        ("purple", "black"),
    ),
}
