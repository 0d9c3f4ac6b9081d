"""The builders of the simulator's objects: sound meshes, and held-out shapes beyond training's."""

import numpy as np
import pytest

from lisa_tabletop.world.kinds import KINDS, build, palette
from lisa_tabletop.world.parts import COLORS, Draw, Mesh, arc, lathe, prism, tube

SQUARE = [(-0.1, -0.1), (0.1, -0.1), (0.1, 0.1), (-0.1, 0.1)]


def volume(mesh: Mesh) -> float:
    """Signed volume in cubic metres: negative where the faces look inwards."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (prism(SQUARE, 0.05), 0.002),
        (lathe([(0, 0), (0.1, 0), (0.1, 0.2), (0, 0.2)], 64), np.pi * 0.1**2 * 0.2),
        (
            tube(np.array([[-0.05, 0, 0], [0.05, 0, 0]]), np.full(2, 0.02), 64),
            np.pi * 0.02**2 * 0.1,
        ),
        (tube(arc(0.1, 0, 2 * np.pi, 64), np.full(64, 0.02), 64), 2 * np.pi**2 * 0.1 * 0.02**2),
    ],
    ids=["prism", "lathe", "tube", "ring"],
)
def test_meshes_have_the_volume_of_the_solid_and_face_outwards(mesh, expected):
    assert volume(mesh) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_mesh_of_every_kind_faces_outwards(kind, held_out):
    for seed in range(40):
        shape = build(kind, np.random.default_rng(seed), held_out)
        for part in shape.parts:
            if isinstance(part.shape, Mesh):
                assert np.isfinite(part.shape.vertices).all()
                assert volume(part.shape) > 0, f"{part.role} of seed {seed}"
            else:
                assert part.size[0] > 0, f"{part.role} of seed {seed}"


def test_held_out_numbers_lie_just_outside_of_the_range_of_training():
    random = np.random.default_rng(4)
    usual = np.array([Draw(random)(2.0, 3.0) for _ in range(200)])
    held_out = np.array([Draw(random, held_out=True)(2.0, 3.0) for _ in range(200)])
    assert ((usual >= 2) & (usual <= 3)).all()
    below, above = held_out[held_out < 2], held_out[held_out > 3]
    assert len(below) + len(above) == 200
    assert len(below) > 60 and len(above) > 60
    assert (below > 1.74).all() and (below < 1.96).all()
    assert (above > 3.04).all() and (above < 3.26).all()


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_colours_are_never_those_of_training(kind):
    entry = KINDS[kind]
    assert set(entry.colors) | set(entry.also) <= set(COLORS)
    assert not set(entry.colors) & set(entry.also)
    assert palette(kind) == entry.colors
    assert palette(kind, held_out=True) == (entry.also or entry.colors)
