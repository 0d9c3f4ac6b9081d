"""The layout in which LISA and LISA++ were released, read as it is.

`config.json` is parsed as plain JSON: its model type "llava" means another model to transformers.
Sizes are taken from the tensors, and CLIP, which the released weights lack, from a second folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.hub import (
    find_cached,
    model_name,
    parse_id,
    read_settings,
    shard_files,
    tower_folder,
    tower_name,
)
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.model.weights import Shard, save_tensors
from lisa_ros.writing import write_file, written_beside

Shapes = Mapping[str, torch.Size]

DECODER_HEADS = 8
"""The one size of SAM that leaves no trace in the tensors; no published SAM has another."""

_LLAVA_NAMES = [  # how names behind "model." begin in the released layout, and in a `LisaNetwork`
    ("embed_tokens.", "language_model.embed_tokens."),
    ("layers.", "language_model.layers."),
    ("norm.", "language_model.norm."),
    ("text_hidden_fcs.0.", "text_hidden_fcs."),
]
_SAM_NAMES = [  # the same of Meta's SAM, and of transformers'; # is a number
    ("image_encoder.patch_embed.proj.", "image_encoder.patch_embed.projection."),
    ("image_encoder.blocks.#.norm#.", "image_encoder.layers.#.layer_norm#."),
    ("image_encoder.blocks.", "image_encoder.layers."),
    ("image_encoder.neck.0.", "image_encoder.neck.conv1."),
    ("image_encoder.neck.1.", "image_encoder.neck.layer_norm1."),
    ("image_encoder.neck.2.", "image_encoder.neck.conv2."),
    ("image_encoder.neck.3.", "image_encoder.neck.layer_norm2."),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
     "shared_image_embedding.positional_embedding"),
    ("prompt_encoder.no_mask_embed.", "no_mask_embed."),
    ("mask_decoder.transformer.layers.#.norm#.", "mask_decoder.transformer.layers.#.layer_norm#."),
    ("mask_decoder.transformer.norm_final_", "mask_decoder.transformer.layer_norm_final_"),
    ("mask_decoder.output_upscaling.0.", "mask_decoder.upscale_conv1."),
    ("mask_decoder.output_upscaling.1.", "mask_decoder.upscale_layer_norm."),
    ("mask_decoder.output_upscaling.3.", "mask_decoder.upscale_conv2."),
    *((f"mask_decoder.{head}.layers.{number}.", f"mask_decoder.{head}.{name}.")
      for head in ("output_hypernetworks_mlps.#", "iou_prediction_head")
      for number, name in enumerate(("proj_in", "layers.0", "proj_out"))),
]  # fmt: skip
# points, boxes and masks as prompts: LISA prompts SAM with its own embedding only
_UNUSED = re.compile(r"^prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)\.")

TOWER = "vision_tower."
WRAPPER = "module."
"""What `DataParallel` and DeepSpeed put before the names of a model that they wrapped."""
_CLIP_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "image_size", "patch_size", "hidden_act", "layer_norm_eps", "projection_dim",
)  # fmt: skip
_LLAMA_KEYS = ("max_position_embeddings", "rms_norm_eps", "num_attention_heads", "hidden_act")
_LLAMA_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads"
)  # fmt: skip


def read_official(
    folder: Path, vision_tower: str | Path | None, seg_token_id: int
) -> tuple[LisaConfig, list[Shard]]:
    """Read all that is known of a model without its weights; raise CheckpointError if it is none.

    `vision_tower`: folder or hub id of the CLIP tower; by default the one that `config.json` names,
    as a path of its own, inside the checkpoint, beside it, or in the hub's cache.
    """
    if (folder / "pytorch_model-visual_model.bin").exists():
        raise CheckpointError(
            f"{folder} is a LISA v0 (its SAM lies in a file of its own); v0 models speak another"
            " prompt and are not supported, use one of the v1 models"
        )
    settings = read_settings(folder / "config.json")
    shards = [Shard(path, rename) for path in shard_files(folder)]
    shapes = {name: t.shape for shard in shards for name, t in shard.tensors().items()}
    tower = find_tower(folder, settings, vision_tower)
    if not any(name.startswith(TOWER) for name in shapes):
        shards += [Shard(path, rename_tower) for path in shard_files(tower)]
    return config_of(folder, settings, shapes, tower, seg_token_id), shards


def config_of(
    folder: Path, settings: dict[str, Any], shapes: Shapes, tower: Path, seg_token_id: int
) -> LisaConfig:
    """The configuration of a LISA from LLaVA's settings, its tensors' shapes and a CLIP folder."""
    vision = read_settings(tower / "config.json")
    vision = vision.get("vision_config") or vision
    if "image_size" not in vision or "patch_size" not in vision:
        raise CheckpointError(f"{tower} is no CLIP tower: its config.json has no image_size")
    clip = {key: vision[key] for key in _CLIP_KEYS if key in vision}
    try:
        rope_theta = _rope_theta(folder, settings)
        select = settings.get("mm_vision_select_feature", "patch")
        if select != "patch":
            raise CheckpointError(
                f"{folder / 'config.json'}: mm_vision_select_feature is {select}; a LISA looks at"
                " CLIP's patches without its class token (patch), and so does this network"
            )
        absent = [key for key in _LLAMA_KEYS if key not in settings]
        if absent:
            raise CheckpointError(f"{folder / 'config.json'} does not give {', '.join(absent)}")
        two_layers = "mm_projector.2.weight" in shapes
        start_end = bool(settings.get("mm_use_im_start_end", True))
        rows, hidden = shapes["language_model.embed_tokens.weight"]
        llama = {
            "vocab_size": rows,
            "hidden_size": hidden,
            "intermediate_size": shapes["language_model.layers.0.mlp.up_proj.weight"][0],
            "num_hidden_layers": _count(shapes, "language_model.layers."),
            "num_key_value_heads": settings.get(
                "num_key_value_heads", settings["num_attention_heads"]
            ),
            "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
            **{key: settings[key] for key in _LLAMA_KEYS},
        }
        sam_vision, sam_decoder = sam_sizes(shapes)
        config = LisaConfig(
            name=model_name(folder),
            llama=llama,
            clip=clip,
            sam_vision=sam_vision,
            sam_decoder=sam_decoder,
            projector="mlp2x_gelu" if two_layers else "linear",
            conversation="llava_v1",
            image_start_end=start_end,
            seg_token_id=seg_token_id,
            clip_select_layer=settings.get("mm_vision_select_layer", -2),
            # LISA++ changed the projector and dropped the marks around the image
            mask_instances=two_layers and not start_end,
        )
    except KeyError as error:
        raise CheckpointError(
            f"{folder} lacks {error.args[0]}, which every LISA has; is it a plain LLaVA?"
        ) from error
    _check_tower(folder, settings, shapes, clip, tower)
    return config


def write_official(
    folder: Path, config: LisaConfig, tokenizer: Tokenizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write the layout of the released models: their names, their settings; CLIP is not in it.

    What of SAM's prompt encoder LISA does not use (points, boxes, masks) is not in it either; the
    authors' code draws it at random and does not look at it.

    Raises:
        WriteError: something cannot be written.
    """
    llama, clip = config.llama, config.clip
    settings = {
        "architectures": ["LISAForCausalLM"],
        "model_type": "llava",
        **{key: llama[key] for key in (*_LLAMA_KEYS, *_LLAMA_SIZES)},
        "rope_theta": llama.get("rope_parameters", {}).get("rope_theta", 10000.0),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        "mm_hidden_size": clip["hidden_size"],
        "mm_use_im_start_end": config.image_start_end,
        "mm_use_im_patch_token": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": config.clip_select_layer,
        "mm_vision_tower": "openai/clip-vit-large-patch14",
        "vision_tower": "openai/clip-vit-large-patch14",
        "out_dim": config.prompt_size,
        "train_mask_decoder": True,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": False,
    }
    named = {official_name(n): t for n, t in tensors.items() if not n.startswith(TOWER)}
    with written_beside(folder / "model.safetensors") as weights:
        save_tensors(named, weights)
        tokenizer.save(folder)
        write_file(folder / "config.json", json.dumps(settings, indent=2) + "\n")
        words = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "model_max_length": 512}
        write_file(folder / "tokenizer_config.json", json.dumps(words, indent=2) + "\n")


def unlike_official(config: LisaConfig) -> str:
    """What of a model the released layout has no place for; empty if it can be written so."""
    if not config.sam_vision.get("use_rel_pos", True):
        return "its SAM has no relative positions"
    if config.clip_view != "center":
        return f"it was trained with the view {config.clip_view}, and released models with center"
    return ""


def official_name(name: str) -> str:
    """The other way round than `rename`."""
    if name == "lm_head.weight":
        return name
    if name.startswith(("image_encoder.", "mask_decoder.", "no_mask_", "shared_image_")):
        return "model.visual_model." + _renamed(name, ((ours, sam) for sam, ours in _SAM_NAMES))
    return "model." + _renamed(name, ((ours, theirs) for theirs, ours in _LLAVA_NAMES))


def rename(name: str) -> str | None:
    """A tensor of the official layout under the name of a `LisaNetwork`."""
    name = name.removeprefix(WRAPPER)
    # rotary frequencies are computed exactly; the stored ones are rounded to bfloat16
    if name.endswith("rotary_emb.inv_freq"):
        return None
    rest = name.removeprefix("model.")
    if rest.startswith(TOWER):
        return rename_tower(rest.removeprefix(TOWER).removeprefix(TOWER))
    if rest.startswith("visual_model."):
        return rename_sam(rest.removeprefix("visual_model."))
    return _renamed(rest, _LLAVA_NAMES)


def rename_tower(name: str) -> str | None:
    """A tensor of a CLIP folder, vision tower alone or whole CLIP; None for the text half."""
    name = name.removeprefix(WRAPPER)
    if name.startswith(("text_model.", "text_projection.", "visual_projection.", "logit_scale")):
        return None
    if name.endswith("embeddings.position_ids"):
        return None
    return TOWER + name.removeprefix("vision_model.")


def rename_sam(name: str) -> str | None:
    """A tensor of Meta's SAM under the name of a `LisaNetwork`; None if LISA has no use for it."""
    if _UNUSED.match(name):
        return None
    return _renamed(name, _SAM_NAMES)


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A name with the first beginning of `pairs` that fits exchanged for the other."""
    for old, new in pairs:
        match = re.match(re.escape(old).replace(r"\#", r"(\d+)"), name)
        if match:
            for number in match.groups():
                new = new.replace("#", number, 1)
            return new + name[match.end() :]
    return name


def sam_sizes(shapes: Shapes) -> tuple[dict[str, Any], dict[str, Any]]:
    """`sam_vision` and `sam_decoder` of a `LisaConfig` from the shapes of renamed tensors."""
    encoder, decoder = "image_encoder.", "mask_decoder."
    width, _, patch, _ = shapes[encoder + "patch_embed.projection.weight"]
    grid = shapes[encoder + "pos_embed"][1]
    depth = _count(shapes, encoder + "layers.")
    spans = [shapes[f"{encoder}layers.{i}.attn.rel_pos_h"][0] for i in range(depth)]
    whole = 2 * grid - 1
    windows = [(span + 1) // 2 for span in spans if span != whole]
    head_width = shapes[encoder + "layers.0.attn.rel_pos_h"][1]
    vision = {
        "image_size": grid * patch,
        "patch_size": patch,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // head_width,
        "mlp_dim": shapes[encoder + "layers.0.mlp.lin1.weight"][0],
        "output_channels": shapes[encoder + "neck.conv1.weight"][0],
        "window_size": windows[0] if windows else grid,
        "global_attn_indexes": [i for i, span in enumerate(spans) if span == whole],
    }
    tokens, prompt = shapes[decoder + "mask_tokens.weight"]
    layer = decoder + "transformer.layers.0."
    inner = shapes[layer + "cross_attn_token_to_image.q_proj.weight"][0]
    return vision, {
        "hidden_size": prompt,
        "mlp_dim": shapes[layer + "mlp.lin1.weight"][0],
        "num_hidden_layers": _count(shapes, decoder + "transformer.layers."),
        "num_attention_heads": DECODER_HEADS,
        "attention_downsample_rate": prompt // inner,
        "num_multimask_outputs": tokens - 1,
        "iou_head_hidden_dim": shapes[decoder + "iou_prediction_head.proj_in.weight"][0],
    }


def find_tower(folder: Path, settings: dict[str, Any], given: str | Path | None) -> Path:
    """The folder of the CLIP tower; nothing is ever downloaded."""
    if given:
        return tower_folder(given)
    name = tower_name(settings)
    candidates = [folder / name, Path(name), folder / Path(name).name]
    candidates += [folder.parent / name, folder.parent / Path(name).name]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    sentence = (
        f"{folder} needs the CLIP tower {name}, which released checkpoints do not contain;"
        " name its folder as vision_tower (--vision-tower)"
    )
    if not parse_id(name):
        raise CheckpointError(sentence)
    try:
        return find_cached(name)
    except CheckpointError as error:
        raise CheckpointError(f"{sentence}, or have it in the hub's cache: {error}") from None


def _rope_theta(folder: Path, settings: dict[str, Any]) -> float:
    """The base of the rotary positions, as transformers wrote it before and since version 5."""
    place = folder / "config.json"
    rope = settings.get("rope_parameters") or {}
    scaled = settings.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaling = scaled.get("rope_type", scaled.get("type", "linear")) if scaled else "default"
    if {kind, scaling} != {"default"}:
        name, value = ("rope_parameters", rope) if kind != "default" else ("rope_scaling", scaled)
        raise CheckpointError(f"{place}: {name} stretches positions ({value}), which no LISA does")
    return float(rope.get("rope_theta", settings.get("rope_theta", 10000.0)))


def _check_tower(
    folder: Path, settings: dict[str, Any], shapes: Shapes, clip: dict[str, Any], tower: Path
) -> None:
    name = Path(tower_name(settings)).name
    published = re.fullmatch(r"clip-vit-(?:base|large)-patch\d+(?:-(\d+))?", name)
    if published:  # of a tower of another name nothing can be told by it
        trained = int(published[1] or 224)
        if clip["image_size"] != trained:
            raise CheckpointError(
                f"{tower} is a CLIP tower for {clip['image_size']} pixels, but {folder} was trained"
                f" with one for {trained} ({name}); give that one as vision_tower"
            )
    first = "mm_projector.0.weight" if "mm_projector.0.weight" in shapes else "mm_projector.weight"
    width = shapes[first][1]
    if clip.get("hidden_size", 768) != width:
        raise CheckpointError(
            f"{tower} gives features of width {clip.get('hidden_size', 768)}, the projector of"
            f" {folder} takes {width}; it is another CLIP than the model was trained with"
        )


def _count(shapes: Shapes, prefix: str) -> int:
    numbers = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    return len(numbers)
