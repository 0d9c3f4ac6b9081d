"""A scene as the language sees it: which objects may be asked for, and what fits a description."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lisa_tabletop.language.knowledge import Kind, Knowledge

MIN_VISIBLE = 0.4
MIN_AREA = 0.0015  # of the picture
EDGE_MARGIN = 0.01  # of the picture's shorter side


@dataclass(frozen=True, eq=False)
class Thing:
    """One object in the picture.

    `u`, `v`: centre, pixels; `size`: extent along the axes of the table frame as the object lies,
    metres; `uses`: {use: reason}, those of the material included; `on`: id of the object that it
    rests on or in, 0 for the table.
    """

    id: int
    kind: Kind
    color: str
    material: str
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    u: float
    v: float
    area: float
    askable: bool
    uses: Mapping[str, str]
    on: int = 0

    @property
    def noun(self) -> str:
        return f"{self.color} {self.kind.name}"

    @property
    def height(self) -> float:
        return self.size[2]

    @property
    def bulk(self) -> float:
        """Edge of the cube that has the volume of the object's box, metres."""
        x, y, z = self.size
        return (x * y * z) ** (1 / 3)


@dataclass(frozen=True)
class Scene:
    """Everything that can be seen in the picture, from left to right."""

    width: int
    height: int
    things: tuple[Thing, ...]
    askable: tuple[Thing, ...]
    knows_rests: bool = False  # whether the record says what rests on what

    def find(self, fits: Callable[[Thing], bool]) -> list[Thing] | None:
        """All that fit, left to right; None where one of them can't be asked for.

        Every question goes through here or checks `askable` itself. An object that is hardly
        visible or outside the central square makes each description that would include it
        unaskable: it is neither counted, nor masked, nor called absent.
        """
        found = [thing for thing in self.things if fits(thing)]
        return found if all(thing.askable for thing in found) else None

    def find_one(self, fits: Callable[[Thing], bool]) -> Thing | None:
        """The only one that fits, if it can be asked for."""
        found = self.find(fits)
        return found[0] if found is not None and len(found) == 1 else None

    def find_for(self, use: str) -> list[Thing] | None:
        """All that have the use or belong to the group; None where that could be argued about."""
        if any(use in thing.kind.might and not _has(thing, use) for thing in self.things):
            return None
        return self.find(lambda thing: _has(thing, use))


def _has(thing: Thing, use: str) -> bool:
    return use in thing.uses or use in thing.kind.groups


def read_scene(record: Mapping, knowledge: Knowledge) -> Scene:
    """The scene of a record (format: docs/design.md), without the objects that can't be seen."""
    width, height = record["width"], record["height"]
    things = [
        _thing(entry, width, height, knowledge) for entry in record["objects"] if entry["area"] > 0
    ]
    things.sort(key=lambda thing: (thing.u, thing.id))
    askable = tuple(thing for thing in things if thing.askable)
    knows_rests = any("on" in entry for entry in record["objects"])
    return Scene(width, height, tuple(things), askable, knows_rests)


def _thing(entry: Mapping, width: int, height: int, knowledge: Knowledge) -> Thing:
    kind = knowledge.kind(entry["kind"])
    uses = {**kind.uses, **knowledge.materials.get(entry["material"], {})}
    u, v = entry["center"]
    return Thing(
        id=entry["id"],
        kind=kind,
        color=entry["color"],
        material=entry["material"],
        size=tuple(entry["size"]),
        position=tuple(entry["position"]),
        u=u,
        v=v,
        area=entry["area"],
        askable=_is_askable(entry, width, height),
        uses=uses,
        on=entry.get("on", 0),
    )


def _is_askable(entry: Mapping, width: int, height: int) -> bool:
    """Visible enough, large enough, and centred in the square that the language model is shown."""
    side = min(width, height)
    reach = side / 2 - EDGE_MARGIN * side
    u, v = entry["center"]
    return (
        entry["visible"] >= MIN_VISIBLE
        and entry["area"] >= MIN_AREA * width * height
        and abs(u - width / 2) <= reach
        and abs(v - height / 2) <= reach
    )
