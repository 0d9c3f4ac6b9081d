"""SAM in Meta's own naming: what its tensors are called here, and the sizes they reveal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lisa_ros.errors import CheckpointError
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.weights import open_tensors

Shapes = Mapping[str, torch.Size]

DECODER_HEADS = 8
"""The one size of SAM that leaves no trace in the tensors; no published SAM has another."""

_RENAMES = [
    (r"^image_encoder\.patch_embed\.proj\.", r"image_encoder.patch_embed.projection."),
    (r"^image_encoder\.blocks\.(\d+)\.norm([12])\.", r"image_encoder.layers.\1.layer_norm\2."),
    (r"^image_encoder\.blocks\.", r"image_encoder.layers."),
    (r"^image_encoder\.neck\.0\.", r"image_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", r"image_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", r"image_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", r"image_encoder.neck.layer_norm2."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
     r"shared_image_embedding.positional_embedding"),
    (r"^prompt_encoder\.no_mask_embed\.", r"no_mask_embed."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.)norm(\d)\.", r"\1layer_norm\2."),
    (r"^mask_decoder\.transformer\.norm_final_attn\.",
     r"mask_decoder.transformer.layer_norm_final_attn."),
    (r"^mask_decoder\.output_upscaling\.0\.", r"mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", r"mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", r"mask_decoder.upscale_conv2."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.0\.",
     r"\1proj_in."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.1\.",
     r"\1layers.0."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.2\.",
     r"\1proj_out."),
]  # fmt: skip
# points, boxes and masks as prompts: LISA prompts SAM with its own embedding only
_UNUSED = re.compile(r"^prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)\.")


def rename_sam(name: str) -> str | None:
    """A tensor of Meta's SAM under the name of a `LisaNetwork`; None if LISA has no use for it."""
    if _UNUSED.match(name):
        return None
    for pattern, replacement in _RENAMES:
        new, count = re.subn(pattern, replacement, name)
        if count:
            return new
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


def load_sam(network: LisaNetwork, path: Path) -> None:
    """Replace the SAM of a network by one in Meta's format, for example `sam_vit_h_4b8939.pth`.

    All or nothing: CheckpointError if a tensor lacks, is unknown, or has another size.
    """
    tensors = {rename_sam(name): tensor for name, tensor in open_tensors(path).items()}
    tensors.pop(None, None)
    parts = ("image_encoder.", "mask_decoder.", "no_mask_embed.", "shared_image_embedding.")
    state = network.state_dict()
    expected = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
    wrong = sorted(expected.keys() ^ tensors.keys()) or sorted(
        name for name, tensor in tensors.items() if tensor.shape != expected[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{path} is no SAM of this model's size:"
            f" {len(wrong)} tensors differ, such as {wrong[0]}"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def _count(shapes: Shapes, prefix: str) -> int:
    numbers = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    return len(numbers)
