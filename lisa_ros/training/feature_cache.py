"""What the frozen encoders say of an image, kept on a disk: CLIP's view of it, and SAM's.

A file an image, named by a hash of the image's bytes, of what it is resized to and of the
encoders' weights: another image or another model finds nothing here. Files are written whole,
by the process that trains; the processes that prepare batches only read. What is full stays as it
is: images come back at random, so none is worth more than another.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lisa_ros.errors import WriteError
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.weights import save_tensors
from lisa_ros.writing import writable_folder, written_beside

GB = 1e9
SHARE_OF_DISK = 0.9  # of what is free: checkpoints may lie on the same one

Features = tuple[Tensor, Tensor]
"""The view (P,H) and SAM's features (C,g,g)"""


@dataclass
class FeatureCache:
    """Features by image in `folder`; `left`: bytes that this process may still write."""

    folder: Path
    encoders: bytes
    left: float

    @classmethod
    def open(cls, folder: Path, most: float, lisa: Lisa, processes: int = 1) -> FeatureCache:
        """Take up a folder of `most` bytes at most, of which each process writes an equal part.

        Raises:
            WriteError: nothing can be written there.
        """
        writable_folder(folder).mkdir(parents=True, exist_ok=True)
        # whole files alone: another process may be writing and renaming
        used = sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))
        room = max(0.0, min(most - used, SHARE_OF_DISK * shutil.disk_usage(folder).free))
        return cls(folder, _fingerprint(lisa), room / processes)

    def find(self, image: Path) -> tuple[Path, Features | None]:
        """Where an image's features are to be kept, and they, if they are there and whole."""
        name = hashlib.blake2b(image.read_bytes(), key=self.encoders, digest_size=20).hexdigest()
        path = self.folder / name[:2] / f"{name}.safetensors"
        try:
            kept = load_file(path)
            return path, (kept["view"], kept["frame"])
        except (OSError, SafetensorError, KeyError):
            return path, None  # not there, or not what was written: it is computed and written anew

    def keep(self, path: Path, view: Tensor, frame: Tensor) -> None:
        """Write features, while there is room; a disk that is full ends the writing alone."""
        size = view.nbytes + frame.nbytes
        if path.exists() and path.stat().st_size > size:
            return  # the same image stood twice in a batch, or another process was faster
        if size > self.left:
            return self._end("is as large as it may be")
        tensors = {"view": view, "frame": frame}
        try:
            with written_beside(path) as beside:
                save_tensors({name: t.detach().cpu().contiguous() for name, t in tensors.items()},
                             beside)  # fmt: skip
                self.left -= beside.stat().st_size
        except (OSError, WriteError) as error:
            self._end(f"cannot grow: {error}")

    def _end(self, why: str) -> None:
        if self.left >= 0:
            print(f"the cache {self.folder} {why}; the training goes on with what is in it",
                  flush=True)  # fmt: skip
        self.left = -1.0


def bytes_of_an_image(lisa: Lisa) -> int:
    """How large the features of one image are."""
    config, each = lisa.config, torch.tensor([], dtype=lisa.network.dtype).element_size()
    patches = lisa.network.image_encoder.patch_embed
    side = patches.image_size[0] // patches.patch_size[0]
    return each * (config.image_tokens * config.hidden_size + config.prompt_size * side**2)


def _fingerprint(lisa: Lisa) -> bytes:
    """Of all that the features of an image depend on but the image."""
    network, config = lisa.network, lisa.config
    known = (config.clip, config.sam_vision, config.clip_view, config.clip_select_layer)
    digest = hashlib.blake2b(repr((*known, network.dtype)).encode(), digest_size=32)
    for part in (network.vision_tower, network.mm_projector, network.image_encoder):
        for tensor in part.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()
