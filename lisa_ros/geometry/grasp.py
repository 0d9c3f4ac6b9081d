"""Grasp candidates for a parallel gripper and for a suction cup, from the cloud of an object.

They are meant as a start that needs no training and no other package; docs/recipes/ shows how to
feed grasp networks instead. A gripper is tried along the axes of the box only, and hollow things
are not pinched at their rim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lisa_ros.geometry.box import Box
from lisa_ros.geometry.object3d import Object3D

POINTS = 2000  # of the cloud that are looked at
FRICTION = 0.5  # a contact that is tilted more than the arctangent of this slips
FULL_ROOM = 0.1  # share of the opening left over that counts as plenty
FULL_HOLD, LEAST_HOLD = 0.015, 0.004  # metres between the fingers along the approach
LEAST_POINTS = 8
CENTERING_STEPS, CENTERED = 3, 0.001  # metres that are near enough to the middle
UNBALANCED = 0.6  # lost at the end of the object
FACING = 0.2  # cosine between approach and line of sight: the hand comes from a side that was seen
HIDDEN = 0.3  # cosine between line of sight and closing direction that leaves the far side unseen
NEAREST = 0.002  # metres that count as equally near to the hand
PREFERENCE = {"top": 1.0, "front": 1.0, "side": 0.8}
CUP_SEEDS, CUP_POINTS = 80, 10  # places that are tried, and the least points under a cup
UNEVENNESS = 0.05  # of the cup's diameter: root mean square that its lip still seals
HALF_DISC = 0.28  # spread of half a disc across its cut, where that of the whole disc is 1
STEEP = 0.4  # worth of a vertical face where up is known


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper; lengths in metres. The defaults suit common two-finger hands.

    Attributes:
        opening: largest distance between the fingers.
        finger_length: how deep a thing may reach between the fingers.
        finger_width: breadth of a finger, across the closing direction.
        finger_thickness: of a finger, in the closing direction.
        hand_width: breadth of the hand behind the fingers, across the closing direction.
        clearance: air that must stay on each side of the object and above the support.
    """

    opening: float = 0.08
    finger_length: float = 0.04
    finger_width: float = 0.02
    finger_thickness: float = 0.01
    hand_width: float = 0.06
    clearance: float = 0.003


@dataclass(frozen=True)
class Grasp:
    """Where a hand should go.

    Attributes:
        pose: (4,4) in the frame of the object. z is the direction of approach; y is the direction
            in which the fingers close. The origin lies in the middle between the fingertips; of a
            suction cup it is the point of contact.
        width: of the object between the fingers, metres; 0 for a suction cup.
        score: 0..1, higher is better. It ranks candidates; it is no probability.
        kind: "top", "side", or "front" where up is not known; "suction".
    """

    pose: np.ndarray
    width: float
    score: float
    kind: str


def parallel_grasps(
    obj: Object3D, gripper: Gripper | None = None, obstacles: np.ndarray | None = None
) -> list[Grasp]:
    """Grasps for a parallel gripper, the best first; empty if it cannot hold the object.

    An upright box is approached from above and from the sides that a camera saw, any other box
    along those of its axes that lead away from a camera. The fingers close along the other axes, at
    several places along the object, moved to the middle of narrow parts. There the object must be
    narrower than the opening less the clearances, and the fingers must neither touch the support
    nor an obstacle.

    The score is the product of
        room: 1 if a tenth of the opening is left over, falling to 0 with nothing left;
        contact: 1 if the sides between the fingers run at right angles to the closing direction,
            falling to 0 at a tilt with tangent 0.5, where the fingers would slip;
        balance: 1 at the middle of the object, 0.4 at its ends;
        hold: 1 if 15 mm or more are between the fingers along the approach, less in proportion;
        preference: 1, but 0.8 for an approach from the side, where the support is near the hand.

    Args:
        obj: the object, in any frame.
        gripper: its measures.
        obstacles: (M,3) points of the scene without the object, in the same frame.
    """
    if obj.box is None:
        return []
    gripper = gripper or Gripper()
    points = obj.points[:: max(1, len(obj.points) // POINTS)]
    grasps = []
    for kind, axes in _directions(obj.box, obj.viewpoints):
        local = _Local(obj, axes, points, obstacles)
        places = _places(local.half[0], gripper.finger_width)
        grasps += [one for place in places if (one := local.grasp(place, kind, gripper))]
    return sorted(grasps, key=lambda grasp: -grasp.score)


def _directions(box: Box, viewpoints: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Kinds of grasp with their axes (3,3): across, closing, approach as columns."""
    sight = box.center - viewpoints
    sight /= np.maximum(np.linalg.norm(sight, axis=1, keepdims=True), 1e-9)
    for axis in range(3):
        for sign in (1.0, -1.0):
            approach = sign * box.rotation[:, axis]
            top = box.upright and axis == 2
            seen = bool((sight @ approach > FACING).any())
            if (top and sign > 0) or not (seen or top):
                continue
            kind = "top" if top else "side" if box.upright else "front"
            for closing in range(3):
                vertical = box.upright and closing == 2  # one finger would have to go underneath
                if closing != axis and not vertical:
                    x = box.rotation[:, 3 - axis - closing]
                    axes = np.stack([x, box.rotation[:, closing], approach], axis=1)
                    axes[:, 0] *= np.sign(np.linalg.det(axes))
                    yield kind, axes


def _places(half: float, finger_width: float) -> np.ndarray:
    """Where to try along an object that reaches from -half to half."""
    reach = max(0.0, half - finger_width / 2)
    count = min(5, 1 + 2 * int(np.ceil(reach / finger_width)))
    return np.linspace(-reach, reach, count) if count > 1 else np.zeros(1)


class _Local:
    """An object in the axes of one approach, around the middle of its box.

    Columns of its clouds: across (along the fingers' breadth), closing, approach.
    """

    def __init__(
        self, obj: Object3D, axes: np.ndarray, points: np.ndarray, obstacles: np.ndarray | None
    ) -> None:
        assert obj.box is not None
        self.axes, self.origin = axes, obj.box.center
        self.half = np.abs(axes.T @ obj.box.rotation) @ obj.box.size / 2
        points = (points - self.origin) @ axes
        self.points = points[points[:, 0].argsort()]
        """In the order across, so that what lies around a place is one slice."""
        self.obstacles = None if obstacles is None else (obstacles - self.origin) @ axes
        self.support = obj.support
        sight = self.origin - obj.viewpoints
        sight = (sight @ axes[:, 1]) / np.linalg.norm(sight, axis=1)
        hidden = 1.0 if (sight > HIDDEN).all() else -1.0 if (sight < -HIDDEN).all() else 0.0
        self.hidden_side = hidden
        """Where no camera saw the object, along the closing direction: 1, -1, or 0 for nowhere."""

    def grasp(self, place: float, kind: str, gripper: Gripper) -> Grasp | None:
        """The grasp at one place across, or None if there is none."""
        strip = self._strip(place, gripper.finger_width / 2)
        if len(strip) < LEAST_POINTS:
            return None
        near = float(strip[:, 2].min())
        # The hand behind the fingers must not hit what stands up beside the grasp.
        first = float(self._strip(place, gripper.hand_width / 2)[:, 2].min())
        tip = min(first + gripper.finger_length, float(self.half[2]))
        tip = min(tip, self._lowest(place, kind, gripper))
        held = strip[strip[:, 2] <= tip]
        if tip - near < LEAST_HOLD or len(held) < LEAST_POINTS:
            return None
        left, right = self._outline(held)
        room = gripper.opening - (right - left) - 2 * gripper.clearance
        if room < 0:
            return None
        middle = np.array([self._centered(place, tip, gripper), (left + right) / 2, tip])
        if self._blocked(middle, right - left, first, gripper):
            return None
        around = self._strip(place, gripper.finger_width)
        around = around[around[:, 2] <= tip]
        score = (
            min(1.0, room / (FULL_ROOM * gripper.opening))
            * max(0.0, 1 - _tilt(around, place, gripper.finger_width) / FRICTION)
            * (1 - UNBALANCED * abs(place) / max(float(self.half[0]), 1e-6))
            * min(1.0, (tip - near) / FULL_HOLD)
            * PREFERENCE[kind]
        )
        if score <= 0:
            return None
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.axes, self.origin + self.axes @ middle
        return Grasp(pose, right - left, score, kind)

    def _strip(self, place: float, half: float) -> np.ndarray:
        """The points (N,3) that are less than `half` away from a place, across."""
        ends = np.searchsorted(self.points[:, 0], (place - half, place + half))
        return self.points[ends[0] : ends[1]]

    def _centered(self, place: float, tip: float, gripper: Gripper) -> float:
        """A place moved to the middle of what the fingers reach there.

        Places lie at fixed steps, so that a narrow neck can end up at the edge of the fingers.
        """
        middle = place
        for _ in range(CENTERING_STEPS):
            part = self._strip(middle, gripper.finger_width)
            across = part[part[:, 2] <= tip, 0]
            if not len(across):
                return place
            before, middle = middle, float(across[0] + across[-1]) / 2
            if abs(middle - before) < CENTERED:
                break
        there = self._strip(middle, gripper.finger_width / 2)
        there = there[there[:, 2] <= tip, 1]
        fits = len(there) > 0 and np.ptp(there) <= gripper.opening - 2 * gripper.clearance
        return middle if fits else place

    def _outline(self, held: np.ndarray) -> tuple[float, float]:
        """How far points (N,3) reach along the closing direction, to the left and to the right.

        The far side of a lying bottle is hidden. It is taken to be as far from what is nearest to
        the hand as the side that was seen, but not beyond the box.
        """
        left, right = float(held[:, 1].min()), float(held[:, 1].max())
        nearest = held[held[:, 2] < held[:, 2].min() + NEAREST, 1]
        middle = float(nearest.min() + nearest.max()) / 2
        if self.hidden_side > 0:
            right = max(right, min(float(self.half[1]), 2 * middle - left))
        elif self.hidden_side < 0:
            left = min(left, max(-float(self.half[1]), 2 * middle - right))
        return left, right

    def _lowest(self, place: float, kind: str, gripper: Gripper) -> float:
        """How far along the approach the fingertips may go before hand or fingers meet the support.

        Infinite if they do not; minus infinite if the hand meets it wherever it goes.
        """
        if self.support is None:
            return np.inf
        normal = self.axes.T @ self.support.normal
        height = float(self.support.height(self.origin) + normal[0] * place)
        if kind == "side":
            return np.inf if height >= gripper.hand_width / 2 + gripper.clearance else -np.inf
        if normal[2] > -0.5:  # it does not come down on the support
            return np.inf
        return (height - gripper.clearance) / -float(normal[2])

    def _blocked(self, middle: np.ndarray, width: float, first: float, gripper: Gripper) -> bool:
        """Whether an obstacle is where a finger comes down or closes."""
        if self.obstacles is None:
            return False
        offset = np.abs(self.obstacles - [middle[0], middle[1], 0])
        outside = gripper.opening / 2 + gripper.finger_thickness
        depth = self.obstacles[:, 2]
        hit = (
            (offset[:, 0] < gripper.finger_width / 2)
            & (offset[:, 1] > width / 2)
            & (offset[:, 1] < outside)
            & (depth < middle[2])
            & (depth > first - gripper.finger_length)
        )
        return int(hit.sum()) >= 3


def _tilt(points: np.ndarray, place: float, finger_width: float) -> float:
    """Tangent of the larger tilt of the two outlines of (N,3) along the first axis."""
    part = np.floor((points[:, 0] - place) / (finger_width / 2)).astype(int)
    outlines = []
    for index in range(-2, 2):
        closing = points[part == index, 1]
        if len(closing) >= 3:
            outlines.append((index * finger_width / 2, closing.min(), closing.max()))
    if len(outlines) < 3:
        return 0.0
    run, *sides = np.array(outlines).T
    run -= run.mean()
    return float(max(abs(side @ run) for side in sides) / (run @ run))


def suction_grasps(obj: Object3D, diameter: float = 0.02, most: int = 10) -> list[Grasp]:
    """Places for a suction cup, the best first, at least half a diameter apart.

    The score is the product of
        flatness: 1 for a plane under the cup, 0 at an unevenness of 5 % of the diameter;
        cover: 1 if the surface reaches all around under the cup, 0 if half of the cup is over the
            edge;
        balance: 1 over the middle of the object, falling to 0.5 at its ends;
        level: 1 on a face that looks up, falling to 0.4 on a vertical one; 1 if up is not known.

    Args:
        obj: the object, in any frame.
        diameter: of the cup's lip, metres.
        most: at most so many candidates.
    """
    if obj.box is None:
        return []
    # 1. The points (N,3) under a cup at each of some places (S,3).
    center, reach = obj.box.center, diameter / 2
    points = (obj.points[:: max(1, len(obj.points) // POINTS)] - center).astype(float)
    seeds = points[:: max(1, len(points) // CUP_SEEDS)]
    squares = (seeds**2).sum(1)[:, None] + (points**2).sum(1) - 2 * seeds @ points.T
    under = (squares < reach * reach).astype(float)  # (S, N), 1 or 0
    enough = under.sum(axis=1) >= CUP_POINTS
    seeds, under = seeds[enough], under[enough]
    if not len(seeds):
        return []
    # 2. The plane through them; its normal looks to where the camera stood that saw it best.
    normals, roughness, spread = _faces(points, under)
    outward = np.einsum("vsk,sk->vs", (obj.viewpoints - center)[:, None] - seeds, normals)
    normals[outward[np.abs(outward).argmax(axis=0), np.arange(len(seeds))] < 0] *= -1
    # 3. The scores.
    half = np.linalg.norm(obj.box.size) / 2
    away = np.linalg.norm(seeds - normals * (seeds * normals).sum(1, keepdims=True), axis=1)
    score = (
        np.clip(1 - roughness / (UNEVENNESS * diameter), 0, 1)
        * np.clip((4 * spread / reach**2 - HALF_DISC) / (1 - HALF_DISC), 0, 1)
        * (1 - 0.5 * np.clip(away / half, 0, 1))
    )
    if obj.up is not None:
        score *= STEEP + (1 - STEEP) * np.clip(normals @ obj.up, 0, 1)
    # 4. The best of them, apart from each other; how the cup is turned about z does not matter.
    grasps: list[Grasp] = []
    for index in np.argsort(-score):
        contact, approach = center + seeds[index], -normals[index]
        if score[index] <= 0 or len(grasps) == most:
            break
        if any(np.linalg.norm(one.pose[:3, 3] - contact) <= reach for one in grasps):
            continue
        x = np.cross(np.eye(3)[np.abs(approach).argmin()], approach)
        x /= np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3] = np.stack([x, np.cross(approach, x), approach, contact], axis=1)
        grasps.append(Grasp(pose, 0.0, float(score[index]), "suction"))
    return grasps


def _faces(points: np.ndarray, under: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes through the points (N,3) under each cup, of which `under` (S,N) is 1.

    Returns:
        Normals (S,3), root mean squares of the distances (S,) of the points from their plane, and
        their variances (S,) in it, in the direction in which they spread least.
    """
    count = under.sum(axis=1, keepdims=True)
    middles = under @ points / count
    products = (points[:, :, None] * points[:, None, :]).reshape(-1, 9)
    moments = (under @ products / count).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(moments - middles[:, :, None] * middles[:, None])
    return vectors[:, :, 0].copy(), np.sqrt(np.maximum(values[:, 0], 0)), values[:, 1]
