"""What is done to a batch of views: the pixels change as photographs do, ids and words follow."""

import numpy as np
import pytest
import torch
from square_scenes import square_scenes

from lisa_ros.model.processor import Processor
from lisa_tabletop.training.augment import (
    clip_pixels,
    cut_out,
    load_views,
    mirrored,
    object_areas,
    photograph,
    sam_pixels,
)
from lisa_tabletop.training.concepts import coverage, loudness
from lisa_tabletop.training.nano import nano_config
from lisa_tabletop.training.pretrain_towers import PROMPTS, draw_prompts, patch_weights
from lisa_tabletop.training.scenes import Scenes, mirror

TINTS = torch.tensor([[200.0, 30, 30], [30, 160, 40], [30, 60, 200]])  # of ids 1, 2, 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Scenes:
    return square_scenes(tmp_path_factory.mktemp("scenes"))


def load(scenes, count: int = 12, seed: int = 2):
    return load_views(scenes, np.arange(count), np.random.default_rng(seed))


def shown(views) -> torch.Tensor:
    """Mean colour (B,3,3) of the pixels of ids 1, 2, 3."""
    return torch.stack(
        [
            torch.stack([rgb[:, ids == i].mean(1) for i in (1, 2, 3)])
            for rgb, ids in zip(views.rgb, views.ids, strict=True)
        ]
    )


def test_a_mirrored_view_stays_true(scenes):
    record = scenes.record(0)
    assert mirror(mirror(record)) == record
    assert mirror(record)["objects"][0]["center"][0] == 319 - record["objects"][0]["center"][0]
    views = mirrored(load(scenes))
    assert views.mirrored.any() and not views.mirrored.all()
    _, centres = object_areas(views.ids)
    assert torch.equal(shown(views), TINTS.expand(12, -1, -1))
    for view in range(12):
        seen = scenes.record(view)
        for entry in (mirror(seen) if views.mirrored[view] else seen)["objects"]:
            assert centres[view, entry["id"]].tolist() == pytest.approx(entry["center"])


def test_ids_stay_on_their_pixels_when_a_window_is_cut_out(scenes):
    torch.manual_seed(0)
    whole = mirrored(load(scenes))
    views = cut_out(whole)
    assert (object_areas(views.ids)[0] > 1.2 * object_areas(whole.ids)[0]).any()
    for rgb, ids in zip(views.rgb, views.ids, strict=True):
        for identity in (1, 2, 3):
            pixels = rgb[:, ids == identity].T
            if len(pixels) > 500:
                near = (pixels - TINTS[identity - 1]).abs().amax(1) < 60
                assert near.float().mean() > 0.95


def test_augmentation_leaves_the_stored_views_alone(scenes):
    before = np.array(scenes.rgb), np.array(scenes.ids)
    photograph(cut_out(mirrored(load(scenes))).rgb)
    assert np.array_equal(before[0], scenes.rgb) and np.array_equal(before[1], scenes.ids)


def test_edges_stay_where_they_were_in_a_photograph(scenes):
    torch.manual_seed(0)
    views = mirrored(load(scenes))
    taken = photograph(views.rgb)[:, 0]  # red: 200 on id 1, 120 on the table, 30 on ids 2 and 3
    truth = views.ids == 1

    def contrast(shift: tuple[int, int]) -> torch.Tensor:
        there = truth.roll(shift, (1, 2))
        inside = torch.stack([image[mask].mean() for image, mask in zip(taken, there, strict=True)])
        return inside - taken.mean((1, 2))

    for shift in ((4, 0), (-4, 0), (0, 4), (0, -4)):
        assert (contrast((0, 0)) > contrast(shift)).all()


def test_photographs_vary_in_brightness_tint_sharpness_and_noise():
    torch.manual_seed(0)
    clean = torch.tensor([120.0, 90, 70]).view(1, 3, 1, 1).repeat(80, 1, 240, 320)
    clean[:, :, 80:160, 107:214] = torch.tensor([220.0, 200, 60])[:, None, None]
    taken = photograph(clean)
    assert taken.min() >= 0 and taken.max() <= 255
    table = taken[:, :, 90:150, 20:80]  # an even piece, away from corners and edges
    brightness = table.mean((1, 2, 3))
    warmth = table[:, 0].mean((1, 2)) / table[:, 2].mean((1, 2))
    noise = table.std((2, 3)).mean(1)
    edge = taken[:, :, 120, 90:120].mean(1).diff(dim=1).abs().amax(1) / brightness
    assert brightness.max() > 1.3 * brightness.min()
    assert warmth.max() > 1.15 * warmth.min()
    assert noise.min() < 1 and noise.max() > 5
    assert edge.max() > 2 * edge.min()
    corners = taken[:, :, :20, :20].mean((1, 2, 3)) / brightness
    assert corners.min() < 0.9 and abs(corners.max() - 1) < 0.06


def test_towers_see_in_training_what_they_see_of_a_camera(scenes):
    """Up to rounding, the pixels are those that the processor makes of the same image."""
    processor, config = Processor(nano_config()), nano_config()
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    rgb = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    sam = processor.sam_pixels(image)
    clip = processor.clip_pixels(image)
    assert (sam_pixels(rgb, config.sam_vision["image_size"])[0] - sam).abs().max() < 0.03
    # Pillow also rounds and cuts off what overshoots between its two passes
    error = (clip_pixels(rgb, config.clip["image_size"])[0] - clip).abs().flatten()
    assert error.median() < 0.01 and error.kthvalue(int(0.98 * len(error))).values < 0.05


def test_mask_prompts_ask_for_what_they_say(scenes):
    torch.manual_seed(0)
    views = mirrored(load(scenes))
    prompts = draw_prompts(views)
    assert prompts.weights.sum(1).tolist() == [3] * 12  # of PROMPTS, three objects are there
    assert PROMPTS == prompts.truth.shape[1] == 4
    for row in range(12):
        for index in prompts.weights[row].nonzero().flatten().tolist():
            ids = views.ids[row][prompts.truth[row, index] > 0]
            [identity] = ids.unique().tolist()  # every kind and colour is there once
            for said, table in ((prompts.kinds, views.kinds), (prompts.colors, views.colors)):
                assert said[row, index] in (0, table[row, identity])
            if prompts.placed[row, index]:
                centre = object_areas(views.ids)[1][row, identity]
                assert (prompts.centres[row, index] - centre).abs().max() < 32


def test_coverage_counts_pixels_and_small_things_count_for_more(scenes):
    views = mirrored(load(scenes, count=1))
    ids = torch.zeros(1, 112, 112, dtype=torch.long)
    ids[0, :8, :4], ids[0, 56:, 56:] = 1, 2
    shares = coverage(ids, views.kinds, 40, 14)
    small, large = views.kinds[0, 1], views.kinds[0, 2]
    assert shares[0, small, 0, 0] == 0.5 and shares[0, 0, 0, 0] == 0.5
    assert (shares[0, large, 7:, 7:] == 1).all()
    assert torch.allclose(shares.sum(1), torch.ones(1, 14, 14))
    assert loudness(shares)[0, small, 0, 0] == pytest.approx(0.5**0.5)
    weights = patch_weights(ids, 14).view(14, 14)
    assert weights[0, 0] > weights[10, 10] > weights[0, 10]
