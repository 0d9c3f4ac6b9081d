"""From the parameters to an engine that can be asked, and back to free memory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from lisa_ros.errors import LisaError

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine


class ModelUnavailable(LisaError):
    """The model cannot be loaded here as it was asked for."""


@dataclass(frozen=True)
class Model:
    """An engine with what there is to say about it."""

    engine: Engine
    """anything with the engine's `stream` and `prepare`"""
    name: str
    device: str


class Settings(Protocol):
    """The values of the node's parameters by their names."""

    def __getitem__(self, name: str) -> Any: ...


Loader = Callable[[Settings], Model]
"""Makes the model that the parameters `model.*` describe; raises `LisaError` with a sentence."""


def load_model(parameters: Settings) -> Model:
    """The model of `model.path`. Imports torch, which takes seconds, and reads no network."""
    for library in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(library, "1")
    import torch

    from lisa_ros.engine.engine import Engine, EngineConfig
    from lisa_ros.model.checkpoint import load

    threads = _threads_at_start()
    wanted = parameters["model.device"]
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable(
            f"model.device is {wanted}, but PyTorch finds no GPU: set it to auto or cpu, "
            "or install PyTorch for your GPU's driver"
        )
    device = wanted
    if wanted == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = parameters["model.dtype"]
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    quantization = parameters["model.quantization"]
    try:
        lisa = load(
            parameters["model.path"],
            device=device,
            dtype=getattr(torch, dtype),
            vision_tower=parameters["model.vision_tower"] or None,
            quantization=None if quantization == "none" else quantization,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise ModelUnavailable(
            f"not enough memory on {device} for {parameters['model.path']}: choose a smaller "
            "model, or set model.quantization to int8 or int4"
        ) from None
    config = EngineConfig(
        max_new_tokens=parameters["query.max_new_tokens"],
        threads=parameters["model.threads"] or threads,
    )
    return Model(Engine(lisa, config), lisa.config.name, device)


@cache
def _threads_at_start() -> int:
    """How many threads PyTorch chose, before any model set another number."""
    import torch

    return torch.get_num_threads()


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
        import ctypes

        # Without this glibc keeps the pages of freed tensors for itself.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
