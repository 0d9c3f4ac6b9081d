"""From a model's name to an engine that can be asked: the defaults of loading, in one place.

Importing this costs nothing; torch comes with the first call, which takes seconds.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lisa_ros.errors import LisaError

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine
    from lisa_ros.engine.question import EngineConfig
    from lisa_ros.model.checkpoint import Lisa
    from lisa_ros.model.config import Quantization
    from lisa_ros.serving.remote import RemoteEngine

log = logging.getLogger(__name__)

DTypeName = Literal["auto", "float32", "bfloat16", "float16", "mixed"]
LIGHT_WORK = 5e9  # multiplications about a new image; fewer are done before threads have met
CGROUP = Path("/sys/fs/cgroup")


class ModelUnavailable(LisaError):
    """The model cannot be loaded here as it was asked for."""


def load_engine(
    model: str | Path = "nano",
    *,
    device: str = "auto",
    dtype: DTypeName = "auto",
    quantization: Quantization | Literal["auto", "none"] | None = None,
    vision_tower: str | Path | None = None,
    config: EngineConfig | None = None,
) -> Engine | RemoteEngine:
    """Load a model and put an engine around it; see `load_lisa` for the arguments.

    `http://host:port` or `https://host:port` in place of a model: the one that `lisa-ros serve` has
    loaded there. Without `config.threads` the number of threads is chosen for the model's size.
    """
    from dataclasses import replace

    from lisa_ros.engine.question import DEFAULTS
    from lisa_ros.serving.remote import RemoteEngine, is_address

    if is_address(model):
        ours = {"device": device, "dtype": dtype, "quantization": quantization}
        ours |= {"vision tower": vision_tower, "clip view": config and config.clip_view}
        if given := [
            name for name, value in ours.items() if value not in (None, "auto", "none", "")
        ]:
            raise ModelUnavailable(
                f"{model} has loaded its model already: {' and '.join(given)} can be chosen where "
                "`lisa-ros serve` is started, and not here"
            )
        remote = RemoteEngine(str(model), config=config or DEFAULTS)
        remote.connect()
        return remote
    lisa = load_lisa(
        model, device=device, dtype=dtype, quantization=quantization, vision_tower=vision_tower
    )
    # now, for it imports torch: what is misspelt has been told by then
    from lisa_ros.engine.engine import Engine

    config = config or DEFAULTS
    if config.threads is None:
        config = replace(config, threads=default_threads(multiplications(lisa)))
    return Engine(lisa, config)


def load_lisa(
    model: str | Path = "nano",
    *,
    device: str = "auto",
    dtype: DTypeName = "auto",
    quantization: Quantization | Literal["auto", "none"] | None = None,
    vision_tower: str | Path | None = None,
    mergeable: bool = False,
) -> Lisa:
    """Load a checkpoint; no network is read.

    `model`: a folder, the name of a shipped model, or an id in the hub's cache. `device`: auto (a
    GPU if there is one), cpu, cuda or cuda:N. `dtype`: auto is bfloat16 on a GPU and float32 on a
    processor; mixed is float32 with SAM's image encoder in bfloat16, if the processor multiplies
    that natively. `quantization`, `vision_tower` and `mergeable`: as in `checkpoint.load`.
    Raises `CheckpointError` and `ModelUnavailable`.
    """
    for library in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(library, "1")
    from lisa_ros.model.config import find
    from lisa_ros.model.hub import tower_folder

    # before torch, so that what is misspelt is told at once
    find(model)
    if vision_tower:
        tower_folder(vision_tower)
    if dtype not in get_args(DTypeName):
        raise ModelUnavailable(f"unknown dtype {dtype!r}; use {', '.join(get_args(DTypeName))}")
    device = find_device(device)
    import torch

    from lisa_ros.model.checkpoint import load
    from lisa_ros.model.quantization import multiplies_natively

    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    sam_dtype = None
    if dtype == "mixed":
        dtype, sam_dtype = "float32", torch.bfloat16
        if not multiplies_natively(sam_dtype, torch.device(device)):
            log.warning("this processor has no bfloat16 instructions: SAM is left in float32")
            sam_dtype = None
    try:
        return load(
            model,
            device=device,
            dtype=getattr(torch, dtype),
            sam_dtype=sam_dtype,
            vision_tower=vision_tower or None,
            quantization=quantization,
            mergeable=mergeable,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise ModelUnavailable(
            f"not enough memory on {device} for {model}: choose a smaller "
            "model, or quantization int8 or int4"
        ) from None


def find_device(name: str) -> str:
    """cpu, cuda or cuda:N as it is asked for; for auto a GPU if there is one.

    Raises:
        ModelUnavailable: there is none of that name here.
    """
    if not (isinstance(name, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", name)):
        raise ModelUnavailable(f"there is no device {name!r}: use auto, cpu, cuda or cuda:N")
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name.startswith("cuda") and not gpus:
        raise ModelUnavailable(
            f"the device is to be {name}, but PyTorch finds no GPU: set it to auto or cpu, "
            "or install PyTorch for your GPU's driver"
        )
    if name.startswith("cuda:") and int(name[5:]) >= gpus:
        raise ModelUnavailable(
            f"there is no {name}: PyTorch finds {gpus} GPU{'s' if gpus > 1 else ''}, counted from 0"
        )
    return name


def default_threads(work: float) -> int:
    """How many threads of the processor a model gains by whose answers take `work` multiplications.

    `OMP_NUM_THREADS` decides where the user has set it.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if given.isdecimal() and int(given):
        return int(given)
    return 1 if work < LIGHT_WORK else usable_cores()


def multiplications(lisa: Lisa) -> float:
    """Roughly those about a new image: every weight of a part once for each of its tokens."""
    network, seen = lisa.network, lisa.config.image_tokens
    encoder = network.image_encoder.config
    grid = (encoder.image_size // encoder.patch_size) ** 2
    parts = (
        (network.image_encoder, grid),
        (network.vision_tower, seen),
        (network.language_model.layers, seen),
    )
    return sum(tokens * sum(p.numel() for p in part.parameters()) for part, tokens in parts)


def usable_cores() -> int:
    """Cores that this process may use: its affinity and its control group's quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()  # "max 100000": no quota
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no control group of version 2, or no quota in it
    return max(cores, 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the processor or the GPU has run out of memory. Known by its name, without torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def give_memory_back() -> None:
    """Return what is no longer used to the GPU and to the system."""
    gc.collect()
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        cuda.empty_cache()
    if sys.platform == "linux":
        # without this glibc keeps the pages of freed tensors for itself
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
