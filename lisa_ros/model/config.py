"""What a LISA is made of: the sizes of its four parts and the way it is spoken to."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lisa_ros.errors import CheckpointError
from lisa_ros.model.hub import find_cached, parse_id, read_settings

SEG = "[SEG]"
IMAGE_TOKEN = -200
"""Stands in a list of ids where the view goes; no row of the embedding table."""

SHIPPED = Path(__file__).parent.parent / "weights"
SCORE_TERMS = ("bias", "mask", "words", "wordless")
Projector = Literal["linear", "mlp2x_gelu"]
Quantization = Literal["int8", "fp8", "int4", "nf4"]
Conversation = Literal["llava_v1", "llava_llama_2", "vicuna_v1", "nano"]
ClipView = Literal["center", "squash", "tiles"]
JSON = {str: "a text", dict: "a table", bool: "true or false", int: "a whole number"}
SIZES = {
    "llama": ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"),
    "clip": ("image_size", "patch_size"),
    "sam_vision": ("image_size", "output_channels", "num_hidden_layers", "hidden_size"),
}


@dataclass(frozen=True)
class LisaConfig:
    """Everything but the weights. `config.json` of a native checkpoint is exactly this.

    `llama`, `clip`, `sam_vision` and `sam_decoder` are keyword arguments of transformers'
    `LlamaConfig`, `CLIPVisionConfig`, `SamVisionConfig` and `SamMaskDecoderConfig`.
    `clip_select_layer` counts CLIP's hidden states as transformers does: -1 is the output of the
    last layer, -2 the input of the last layer. `clip_view` is how the view was cut from an image
    in training (`Processor.clip_views`): the central square for the released models.
    `refusal_prefix` are the words with which this model says that a thing is not there; empty if
    it never does. `score_calibration` weighs SCORE_TERMS into the probability that a mask shows
    what was meant (engine/request_state.py); None if that was never fitted.
    """

    name: str
    llama: dict[str, Any]
    clip: dict[str, Any]
    sam_vision: dict[str, Any]
    sam_decoder: dict[str, Any]
    projector: Projector
    conversation: Conversation
    image_start_end: bool
    seg_token_id: int
    clip_select_layer: int = -2
    clip_view: Literal["center", "squash"] = "center"
    mask_instances: bool = False
    refusal_prefix: str = ""
    score_calibration: dict[str, float] | None = None

    def __post_init__(self) -> None:
        for field, hint in get_type_hints(LisaConfig).items():
            value, kind, allowed = getattr(self, field), get_origin(hint) or hint, get_args(hint)
            if kind is Literal and value not in allowed:
                raise CheckpointError(
                    f"unknown {field} {value!r}; this version knows {', '.join(allowed)}"
                )
            if kind in JSON and type(value) is not kind:
                raise CheckpointError(f"{field} must be {JSON[kind]}, not {value!r:.40}")
        for table, names in SIZES.items():
            if wrong := [n for n in names if type(getattr(self, table).get(n)) is not int]:
                raise CheckpointError(f"{table} needs {', '.join(wrong)}, {JSON[int]} each")
        weights = self.score_calibration
        if weights is not None and not (type(weights) is dict and set(weights) == set(SCORE_TERMS)):
            raise CheckpointError(
                f"score_calibration must have {', '.join(SCORE_TERMS)}, not {weights!r:.80}"
            )

    @property
    def image_tokens(self) -> int:
        """Positions that one view takes in the language model's sequence."""
        return (self.clip["image_size"] // self.clip["patch_size"]) ** 2

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return self.llama["hidden_size"]

    @property
    def prompt_size(self) -> int:
        """Width of SAM's prompt: 256 in the released models."""
        return self.sam_vision["output_channels"]

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, path: Path) -> LisaConfig:
        """Read `config.json` of a native checkpoint; raise CheckpointError if it is not one."""
        values, known = read_settings(path), {field.name: field.default for field in fields(cls)}
        lacks = [name for name in known if known[name] is MISSING and name not in values]
        if lacks or values.keys() - known:
            kind = values.get("model_type")
            raise CheckpointError(
                f"{path} is not that of a LISA{f' but of a {kind}' if kind else ''}: "
                + (f"it lacks {', '.join(lacks)}" if lacks else "this version does not know its ")
                + ("" if lacks else ", ".join(sorted(values.keys() - known)))
            )
        try:
            return cls(**values)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error


def find(path: str | Path) -> Path:
    """The folder of a model: a path, the name of a shipped one, or an id in the hub's cache."""
    if "://" in str(path):
        raise CheckpointError(
            f"{path} is an address, and here the model itself is needed: its folder, the name of a "
            "shipped one, or its id on the hub"
        )
    if not (path and isinstance(path, str | Path)):
        raise CheckpointError(f"{path!r} names no model: give its folder, name or id on the hub")
    for folder in (Path(path), SHIPPED / str(path)):
        if folder.is_dir():
            return folder
    if Path(path).is_file():
        raise CheckpointError(f"{path} is a file, and a model is a folder: name that")
    if parse_id(str(path)):
        return find_cached(str(path))
    shipped = sorted(f.name for f in SHIPPED.glob("*") if f.is_dir())
    raise CheckpointError(
        f"there is no model folder {path}, and no shipped model of that name"
        f" ({', '.join(shipped) or 'none is installed'})"
    )
