"""SAM 2's memory behind our interface, and EdgeTAM's, on small random weights: pruned equals
unpruned.

What random weights show is no mask of anything; what is compared are the same frames, twice.
"""

import json

import numpy as np
import pytest
import torch
from sam2_samples import small_edgetam, small_sam2

from lisa_ros.engine.answer import Instance
from lisa_ros.errors import CheckpointError, TrackingError
from lisa_ros.tracking.sam2 import Sam2Tracker, load_sam2_network, preprocess
from lisa_ros.tracking.tracker import TrackState

FRAMES = 40


@pytest.fixture(scope="module", params=[small_sam2, small_edgetam])
def model(request):
    torch.manual_seed(0)
    return request.param().eval()


def frame(index: int) -> np.ndarray:
    random = np.random.default_rng(index)
    image = random.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    image[30:60, 20 + index : 50 + index] = (200, 40, 40)
    return image


def instance(mask: np.ndarray) -> Instance:
    return Instance(mask, 1.0, 1.0, "the red thing")


def first() -> Instance:
    mask = np.zeros((90, 120), bool)
    mask[30:60, 20:50] = True
    return instance(mask)


def outputs(tracker: Sam2Tracker) -> dict:
    [thing] = tracker.things.values()
    return thing.session.output_dict_per_obj[0]["non_cond_frame_outputs"]


def test_a_pruned_session_gives_the_masks_of_one_that_keeps_all(model):
    trackers = [Sam2Tracker(model, prune=prune) for prune in (True, False)]
    for tracker in trackers:
        tracker.start(frame(0), [first()], stamp=0.0)
    for index in range(1, FRAMES):
        pruned, whole = (t.update(frame(index), stamp=index / 10) for t in trackers)
        assert np.array_equal(pruned[0].mask, whole[0].mask)
        assert pruned[0].score == whole[0].score
        newest = trackers[0].frame
        pair = [outputs(t)[newest]["pred_masks"] for t in trackers]
        assert torch.equal(*pair), index
    pruned, whole = trackers
    assert len(outputs(pruned)) == pruned.window < len(outputs(whole)) == FRAMES - 1
    [thing] = pruned.things.values()
    assert not thing.session.processed_frames
    assert len(thing.session.frames_tracked_per_obj[0]) <= pruned.window
    assert pruned.counters["image_encodes"] == FRAMES


def test_features_are_computed_once_for_all_things(model, monkeypatch):
    runs = []
    encode = model.get_image_features
    monkeypatch.setattr(
        model, "get_image_features", lambda *a, **k: runs.append(1) or encode(*a, **k)
    )
    tracker = Sam2Tracker(model)
    tracker.start(frame(0), [first(), first()], stamp=0.0)
    tracker.add(frame(0), [first()], stamp=0.0)
    assert len(tracker.update(frame(1), stamp=0.1)) == 3
    assert len(runs) == 2
    tracker.drop(2)
    assert [track.id for track in tracker.update(frame(2), stamp=0.2)] == [1, 3]
    assert [track.id for track in tracker.start(frame(3), [first()], stamp=0.3)] == [4]


def test_black_images_show_nothing_and_leave_the_memory_alone(model):
    tracker = Sam2Tracker(model, lost_after=1.0)
    tracker.start(frame(0), [first()], stamp=0.0)
    before = dict(outputs(tracker))
    [track] = tracker.update(np.zeros((90, 120, 3), np.uint8), stamp=0.5)
    assert track.state == TrackState.OCCLUDED and not track.mask.any()
    [track] = tracker.update(np.zeros((180, 240, 3), np.uint8), stamp=2.0)
    assert track.state == TrackState.LOST and track.mask.shape == (180, 240)
    assert outputs(tracker).keys() == before.keys()


def test_an_answer_of_other_colours_is_not_taken(model):
    tracker = Sam2Tracker(model)
    tracker.start(frame(0), [first()], stamp=0.0)
    elsewhere = np.zeros((90, 120), bool)
    elsewhere[:20, 70:110] = True
    assert tracker.resume(1, frame(0), instance(elsewhere), stamp=0.0) is None
    again = tracker.resume(1, frame(0), first(), stamp=0.0)
    assert again is not None and again.id == 1 and again.state == TrackState.VISIBLE
    with pytest.raises(TrackingError, match="at most"):
        Sam2Tracker(model, max_tracks=1).start(frame(0), [first(), first()], stamp=0.0)


def test_images_are_squeezed_and_normalised():
    white = preprocess(np.full((30, 50, 3), 255, np.uint8), 64)
    assert white.shape == (1, 3, 64, 64)
    assert white[0, :, 5, 5].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_a_folder_is_loaded_or_refused_with_a_sentence(model, tmp_path):
    model.save_pretrained(tmp_path / "sam2")
    tracker = Sam2Tracker(load_sam2_network(tmp_path / "sam2"), max_tracks=2)
    [track] = tracker.start(frame(0), [first()], stamp=0.0)
    assert (track.id, tracker.max_tracks) == (1, 2)
    for name, sentence in (("empty", "empty has no config.json; it is"), ("file", "Not a dir")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match=sentence) as told:
            load_sam2_network(tmp_path / name)
        assert "Errno" not in str(told.value) and str(told.value).count(name) == 1
    (tmp_path / "sam").mkdir()
    (tmp_path / "sam" / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(CheckpointError, match="type 'sam', not one of SAM 2"):
        load_sam2_network(tmp_path / "sam")
    (tmp_path / "sam2" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_sam2_network(tmp_path / "sam2")
