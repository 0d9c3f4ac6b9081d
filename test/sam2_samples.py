"""SAM 2 and EdgeTAM for video with small random weights.

EdgeTAM's own backbone is timm's, which wants torchvision: here is one with the same four levels.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    PretrainedConfig,
    PreTrainedModel,
    Sam2VideoConfig,
    Sam2VideoModel,
)

SIDE = 128


CHANNELS = (32, 64, 128, 256)
FPN = {
    "backbone_channel_list": [*reversed(CHANNELS)],
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "fpn_hidden_size": 128,
}
SHARED = {
    "prompt_encoder_config": {"hidden_size": 128, "image_size": SIDE, "patch_size": 16},
    "mask_decoder_config": {
        "hidden_size": 128, "mlp_dim": 128, "num_attention_heads": 4, "num_hidden_layers": 1,
        "iou_head_hidden_dim": 128,
    },
    "image_size": SIDE, "memory_attention_hidden_size": 128, "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [8, 8], "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64, "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 128,
    "mask_downsampler_embed_dim": 128,
}  # fmt: skip


class FourLevelsConfig(PretrainedConfig):
    model_type = "four_levels"


class FourLevels(PreTrainedModel):
    """Maps at strides 4, 8, 16 and 32, as timm's backbones give them."""

    config_class = FourLevelsConfig
    _can_record_outputs: ClassVar[dict] = {}

    def __init__(self, config: FourLevelsConfig):
        super().__init__(config)
        inputs, strides = (3, *CHANNELS), (4, 2, 2, 2)
        self.stages = torch.nn.ModuleList(
            torch.nn.Conv2d(inputs[n], CHANNELS[n], strides[n], strides[n]) for n in range(4)
        )
        self.post_init()

    def forward(self, pixel_values, **kwargs):
        maps = [pixel_values]
        for stage in self.stages:
            maps.append(torch.nn.functional.gelu(stage(maps[-1])))
        return SimpleNamespace(last_hidden_state=maps[1:], hidden_states=None)


AutoConfig.register("four_levels", FourLevelsConfig)
AutoModel.register(FourLevelsConfig, FourLevels)


def small_sam2() -> Sam2VideoModel:
    """The smallest that SAM 2's parts fit together in."""
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 32, "num_attention_heads": 1,
        "image_size": [SIDE, SIDE], "embed_dim_per_stage": [*CHANNELS],
        "num_attention_heads_per_stage": [1, 2, 4, 8], "blocks_per_stage": [1, 1, 1, 1],
        "global_attention_blocks": [], "window_positional_embedding_background_size": [4, 4],
        "window_size_per_stage": [4, 4, 4, 4],
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config={"backbone_config": backbone, **FPN},
        memory_attention_feed_forward_hidden_size=128,
        **SHARED,
    )
    return Sam2VideoModel(config)


def small_edgetam() -> EdgeTamVideoModel:
    """Likewise of EdgeTAM, whose memory is squeezed into 16 + 4x4 latents."""
    config = EdgeTamVideoConfig(
        vision_config={
            "model_type": "edgetam_vision_model",
            "backbone_config": {"model_type": "four_levels"},
            **FPN,
        },
        memory_attention_mlp_hidden_size=128,
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        perceiver_resampler_mlp_intermediate_size=64,
        **SHARED,
    )
    return EdgeTamVideoModel(config)
