"""The `[SEG]` embedding as a concept: what an answer hands over finds the thing again."""

import numpy as np
import pytest

from lisa_ros.engine import load_engine
from lisa_tabletop.cli.sim import SEED
from lisa_tabletop.world.camera import TabletopCamera
from lisa_tabletop.world.tabletop import Tabletop


@pytest.fixture(scope="module")
def engine():
    return load_engine("nano")


@pytest.fixture(scope="module")
def table():
    """What `lisa-ros sim` shows: a table whose things the shipped model finds by their names."""
    camera = TabletopCamera(Tabletop(SEED))
    try:
        camera.move(np.random.default_rng(SEED))
        return camera.look()
    finally:
        camera.close()


def test_the_embedding_of_an_answer_gives_its_mask_without_the_language_model(engine, table):
    """On the image that was asked about to the pixel; the features of its key are not made anew."""
    answer = engine.segment(
        table.rgb, f"the {table.record['objects'][0]['kind']}", mode="mask", key="one"
    )
    features, computed = engine.sam_features(table.rgb, key="one")
    assert not computed
    embeddings = np.stack([i.seg_embedding for i in answer.instances])
    masks = engine.decode_masks(features, embeddings) > 0
    np.testing.assert_array_equal(masks, [i.mask for i in answer.instances])
    features, computed = engine.sam_features(table.rgb[:, ::-1].copy(), key="two")
    assert computed
    assert not np.array_equal(engine.decode_masks(features, embeddings) > 0, masks)
