"""Folders in the layout of the Hugging Face hub: ids found in its cache, and what a folder holds.

Nothing here reads a network or imports torch. `lisa-ros fetch` fills the cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from lisa_ros.errors import CheckpointError

CACHED = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)/snapshots/[^/]+")
"""The end of a path into the hub's cache."""

_NAME = r"\w(?:[\w.-]*\w)?"
_ID = re.compile(rf"(?P<name>{_NAME}/{_NAME})(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?", re.ASCII)


def parse_id(text: str) -> tuple[str, str] | None:
    """Name and revision of `owner/name` or `owner/name@revision`; None if it is no such id."""
    match = _ID.fullmatch(text)
    if match is None or ".." in text or "--" in match["name"]:
        return None
    return match["name"], match["revision"] or "main"


def find_cached(model: str) -> Path:
    """The folder of an id in the hub's cache (`HF_HOME`, `HF_HUB_CACHE`).

    Raises:
        CheckpointError: there is none, or not all of it; the sentence says how to fetch it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    name, revision = parse_id(model) or (model, "main")
    advice = f"lisa-ros fetch {name}" + (f" --revision {revision}" if revision != "main" else "")
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        raise CheckpointError(
            f"{model} is neither a folder nor in the hub's cache ({HF_HUB_CACHE}); nothing is"
            f" downloaded unasked, `{advice}` does it"
        )
    folder = Path(config).parent
    try:
        shard_files(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"the hub's cache has only a part of {model}: {error}; `{advice}` gets the rest"
        ) from None
    return folder


def model_name(folder: Path) -> str:
    """What a folder's model is called: the folder's name, or that of the id it was cached for."""
    folder = folder.resolve()
    match = CACHED.fullmatch("/".join(folder.parts[-3:]))
    return match["name"] if match else folder.name


def is_cached(folder: Path) -> bool:
    """Whether a folder lies in the hub's cache, where nothing of ours may be written."""
    return bool(CACHED.fullmatch("/".join(folder.resolve().parts[-3:])))


def shard_files(folder: Path) -> list[Path]:
    """The weight files of a folder in Hugging Face layout; safetensors win over pickles."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.exists():
            try:
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise CheckpointError(f"{index} is no shard index") from error
            missing = [shard for shard in names if not (folder / shard).is_file()]
            if missing:
                raise CheckpointError(f"{folder} lacks {', '.join(missing)}, named in {index.name}")
            return [folder / shard for shard in names]
        if (folder / name).exists():
            return [folder / name]
    raise CheckpointError(f"{folder} holds no weights: no model.safetensors, no pytorch_model.bin")


def read_settings(path: Path) -> dict[str, Any]:
    """A `config.json` as plain data."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}; it is no model folder") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read {path}: {why}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no table of settings")
    return content


def is_official(settings: dict[str, Any]) -> bool:
    """Whether a `config.json` is that of a released LISA (or of the LLaVA that it extends)."""
    names = f"{settings.get('model_type')} {settings.get('architectures')}"
    return re.search("llava|lisa", names, re.IGNORECASE) is not None


def tower_name(settings: dict[str, Any]) -> str:
    """The CLIP tower that a released LISA names: a hub id, or a folder of its authors' machine."""
    name = settings.get("vision_tower") or settings.get("mm_vision_tower")
    return str(name or "openai/clip-vit-large-patch14")


def tower_folder(given: str | Path) -> Path:
    """The folder of a CLIP tower that the user has named, by path or by hub id."""
    folder = Path(str(given))
    if not folder.is_dir() and parse_id(str(given)):
        return find_cached(str(given))
    if not (folder / "config.json").is_file():
        why = "it has no config.json" if folder.is_dir() else f"there is no folder {given}"
        raise CheckpointError(f"{given} is no CLIP tower: {why}")
    return folder


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
