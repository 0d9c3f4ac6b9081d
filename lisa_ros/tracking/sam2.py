"""The tracker `sam2`: SAM 2's memory (Ravi et al., 2024), or EdgeTAM's, from a folder of weights.

LISA's first mask is the prompt. LISA's own decoder is tuned and never writes into this memory; the
weights that propagate are SAM 2's as they were released.

transformers keeps every frame and every output of a session for ever. Each thing has a session of
its own here, frames are numbered by us, and what lies before the window that the memory attention
looks at is let go of after every frame: the masks stay equal to those of a session that keeps all.
The features of a frame are computed once for all things.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional

from lisa_ros.engine.answer import Instance
from lisa_ros.errors import CheckpointError
from lisa_ros.model.hub import read_settings
from lisa_ros.tracking.tracker import LOST_AFTER, MAX_TRACKS, Track, Tracker

if TYPE_CHECKING:
    from torch import Tensor

MODELS = {"sam2_video": "SAM 2", "edgetam_video": "EdgeTAM"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the image encoders' training
CONTRAST = 4.0  # standard deviation of grey values below which an image shows nothing
SAME_COLORS = 0.7  # Bhattacharyya coefficient of two colour histograms of one thing, at the least


def load_sam2_network(folder: str | Path) -> torch.nn.Module:
    """The network of a folder, in the memory of the processor; nothing is downloaded.

    Raises:
        CheckpointError: the folder is none of SAM 2 or EdgeTAM for video, or its weights are
            missing or damaged.
    """
    path = Path(folder)
    kind = read_settings(path / "config.json").get("model_type")
    if kind not in MODELS:
        raise CheckpointError(
            f"{path} holds a model of type {kind!r}, not one of SAM 2 for video "
            f"({', '.join(MODELS)}); take the folder of facebook/sam2.1-hiera-tiny, for example"
        )
    from transformers import EdgeTamVideoModel, Sam2VideoModel

    model_class = Sam2VideoModel if kind == "sam2_video" else EdgeTamVideoModel
    try:
        model, said = model_class.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise CheckpointError(f"{MODELS[kind]} cannot be loaded from {path}: {error}") from error
    if said["missing_keys"] or said.get("mismatched_keys"):
        lacking = sorted(map(str, [*said["missing_keys"], *said.get("mismatched_keys", ())]))
        raise CheckpointError(
            f"{path} lacks {len(lacking)} of the weights of {MODELS[kind]}, {lacking[0]} for one"
        )
    return model.eval()


@dataclass(eq=False)
class _Remembered:
    """One thing: its session, and what was last seen of it."""

    id: int
    label: str
    session: Any
    colors: np.ndarray
    began: float
    last_seen: float
    mask: np.ndarray
    score: float = 1.0


class Sam2Tracker(Tracker):
    """Follows things by SAM 2's memory; see `Tracker` for the methods.

    `counters`: frames; frozen, blank (what became of them); image_encodes; decodes (one for each
    thing in each frame).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        max_tracks: int = MAX_TRACKS,
        lost_after: float = LOST_AFTER,
        prune: bool = True,
    ) -> None:
        """`model`: Sam2VideoModel or EdgeTamVideoModel; `prune`: forget what is not looked at."""
        super().__init__(max_tracks, lost_after)
        self.model, self.prune, self.frame = model, prune, 0
        config = model.config
        self.window = max(config.num_maskmem, config.max_object_pointers_in_encoder)
        self.side = int(config.image_size)
        self.image: np.ndarray | None = None  # the newest one that showed something
        self.pixels: Tensor | None = None
        self.cache: Any = None  # the features of that frame, which all sessions share

    def _forget(self, stamp: float) -> None:
        self.image = None

    def _begin(
        self, image: np.ndarray, instances: Sequence[Instance], stamp: float, key: Hashable | None
    ) -> list[Track]:
        self._take(image, stamp, key)
        new = []
        for instance in instances:
            self.last_id += 1
            thing = _Remembered(
                self.last_id, instance.label, None, _colors(image, instance.mask),
                self.clock, self.clock, instance.mask,
            )  # fmt: skip
            self._prompt(thing, instance.mask)
            self.things[thing.id] = thing
            new.append(self._shown(thing, thing.mask, 1.0))
        return new

    @torch.inference_mode()
    def _update(self, image: np.ndarray, stamp: float, key: Hashable | None) -> list[Track]:
        if image.std() < CONTRAST:
            # 1. nothing is seen, and nothing of it goes into the memory
            self.counters["blank"] += 1
            for thing in self.things.values():
                thing.mask, thing.score = np.zeros(image.shape[:2], bool), 0.0
            return self._all()
        if self.image is not None and np.array_equal(image, self.image):
            self.counters["frozen"] += 1
        self._see(image)
        for thing in self.things.values():
            # 2. one step of every session; the first one computes the features
            out = self.model(thing.session, frame=self.pixels, frame_idx=self.frame)
            self.counters["decodes"] += 1
            logits = functional.interpolate(
                out.pred_masks.float(), image.shape[:2], mode="bilinear", align_corners=False
            )
            present = float(out.object_score_logits.sigmoid().max())
            mask = (logits[0, 0] > 0).cpu().numpy()
            thing.mask = mask if present > 0.5 else np.zeros_like(mask)
            thing.score = present
            if thing.mask.any():
                thing.last_seen = self.clock
            if self.prune:
                self._prune(thing.session)
        return self._all()

    def _resume(
        self,
        thing: _Remembered,
        image: np.ndarray,
        instance: Instance,
        stamp: float,
        key: Hashable | None,
    ) -> Track | None:
        """With a memory that begins anew, if the mask's colours are the thing's."""
        self._take(image, stamp, key)
        # Bhattacharyya coefficient of two histograms: 1 for equal ones, 0 for disjoint ones
        alike = float(np.sqrt(thing.colors * _colors(image, instance.mask)).sum())
        others = [other for other in self.things.values() if other is not thing]
        taken = any((instance.mask & one.mask).sum() > 0.5 * instance.area for one in others)
        if alike < SAME_COLORS or taken:
            return None
        thing.mask, thing.score, thing.last_seen = instance.mask, alike, self.clock
        self._prompt(thing, instance.mask)
        return self._shown(thing, thing.mask, thing.score)

    def _all(self) -> list[Track]:
        return [self._shown(thing, thing.mask, thing.score) for thing in self.things.values()]

    def _take(self, image: np.ndarray, stamp: float, key: Hashable | None) -> None:
        """Make this the newest image, by an update where it is not that already."""
        if self.image is None:
            self._see(image)
        elif not np.array_equal(image, self.image):
            self.update(image, stamp=stamp, key=key)
            self.image = image

    def _see(self, image: np.ndarray) -> None:
        """Number the frame and prepare it; its features are computed when first wanted."""
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceCache

        self.frame += 1
        self.counters["image_encodes"] += 1
        self.image = image
        self.pixels = preprocess(image, self.side).to(self.model.device, self.model.dtype)
        self.cache = Sam2VideoInferenceCache(self.model.device, self.model.device)
        for thing in self.things.values():
            thing.session.cache = self.cache

    @torch.inference_mode()
    def _prompt(self, thing: _Remembered, mask: np.ndarray) -> None:
        """A new session, whose memory begins with this mask of the newest frame."""
        from transformers import EdgeTamVideoInferenceSession, Sam2VideoInferenceSession

        is_sam2 = self.model.config.model_type == "sam2_video"
        session_class = Sam2VideoInferenceSession if is_sam2 else EdgeTamVideoInferenceSession
        device = self.model.device
        session = session_class(
            video_height=self.side, video_width=self.side, inference_device=device,
            inference_state_device=device, video_storage_device=device, dtype=self.model.dtype,
        )  # fmt: skip
        session.cache = self.cache
        index = session.obj_id_to_idx(thing.id)
        prompt = torch.from_numpy(mask.astype(np.float32))[None, None]
        size = (self.side, self.side)
        prompt = functional.interpolate(prompt, size, mode="bilinear", antialias=True)
        # a thing of a pixel or two must not vanish from its own prompt
        prompt = (prompt >= min(0.5, 0.99 * float(prompt.max()))).float()
        session.add_mask_inputs(index, self.frame, prompt)
        session.obj_with_new_inputs = [thing.id]
        self.model(session, frame=self.pixels, frame_idx=self.frame)
        session.processed_frames.clear()
        thing.session = session

    def _prune(self, session: Any) -> None:
        """Let go of the frame, and of what lies before the memory's window."""
        session.processed_frames.clear()
        oldest = self.frame - self.window
        for kept in (
            *(
                outputs["non_cond_frame_outputs"]
                for outputs in session.output_dict_per_obj.values()
            ),
            *session.frames_tracked_per_obj.values(),
        ):
            for index in [index for index in kept if index <= oldest]:
                del kept[index]


def preprocess(image: np.ndarray, side: int) -> Tensor:
    """An image uint8 (H,W,3) as SAM 2 was trained on it: (1,3,side,side), squeezed to a square."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    pixels = functional.interpolate(
        pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels.round() / 255 - mean) / std


def _colors(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Histogram of a thing's colours (lightness, and the two axes of CIELAB), its sum 1."""
    lab = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2LAB)
    bins, ranges = [4, 12, 12], [0, 256] * 3
    histogram = cv2.calcHist([lab], [0, 1, 2], mask.astype(np.uint8), bins, ranges).ravel()
    return histogram / max(1.0, histogram.sum())
