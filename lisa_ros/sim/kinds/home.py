"""What else lies about in a home."""

from __future__ import annotations

from lisa_ros.sim.kinds.shape import Collider, Draw, Part, Shape
from lisa_ros.sim.meshes import lathe


def sponge(draw: Draw) -> Shape:
    x, y = draw(0.048, 0.062), draw(0.030, 0.040)
    z = draw(0.013, 0.019)
    parts = [
        Part("box", "main", (x, y, z * 0.75), (0, 0, z * 1.25)),
        Part("box", "abrasive", (x, y, z * 0.25), (0, 0, z * 0.25)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))], shine=0.0)


def candle(draw: Draw) -> Shape:
    r, h = draw(0.020, 0.030), draw(0.055, 0.120)
    body = lathe(
        [(0, 0), (r, 0), (r, h), (r * 0.85, h + 0.002), (r * 0.7, h - 0.004), (0, h - 0.005)]
    )
    wick = Part("capsule", "wick", (0.0022, 0.009, 0), (0, 0, h + 0.004))
    return Shape(
        [Part(body), wick], [Collider("cylinder", (r, h / 2, 0), (0, 0, h / 2))], shine=0.2
    )


def ball(draw: Draw) -> Shape:
    r = draw(0.028, 0.045)
    return Shape(
        [Part("ellipsoid", size=(r, r, r), position=(0, 0, r))],
        [Collider("sphere", (r, 0, 0), (0, 0, r))],
        shine=0.4,
    )
