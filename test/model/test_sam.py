"""SAM weights in Meta's own format, against the golden set and against Meta's own package."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from official_layout import GOLDEN, golden_tensors
from torch import nn

from lisa_ros.model.checkpoint import load
from lisa_ros.model.hf_checkpoint import rename_sam, sam_sizes
from lisa_ros.model.network import LisaNetwork

PREFIX = "model.visual_model."


def meta_tensors() -> dict[str, torch.Tensor]:
    """The golden SAM as a file of Meta's would hold it."""
    tensors = golden_tensors()
    return {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}


def fresh_network() -> LisaNetwork:
    torch.manual_seed(3)
    return LisaNetwork(load(GOLDEN).config).eval()


@torch.no_grad()
def masks_of(network: LisaNetwork) -> torch.Tensor:
    frames = torch.randn(1, 3, 192, 192, generator=torch.manual_seed(1))
    prompts = torch.randn(1, 2, 256, generator=torch.manual_seed(2))
    return network.decode_masks(network.encode_frame(frames), prompts)[0]


def put_sam(network: LisaNetwork, tensors: dict[str, torch.Tensor]) -> None:
    """Meta's tensors in place of a network's SAM; all of it must be there, and nothing else."""
    named = {rename_sam(name): tensor for name, tensor in tensors.items()}
    named.pop(None)
    parts = ("image_encoder.", "mask_decoder.", "no_mask_embed.", "shared_image_embedding.")
    assert named.keys() == {name for name in network.state_dict() if name.startswith(parts)}
    network.load_state_dict(named, strict=False)


def test_metas_names_replace_sam_and_nothing_else() -> None:
    network = fresh_network()
    language = network.lm_head.weight.clone()
    put_sam(network, meta_tensors())
    torch.testing.assert_close(masks_of(network), masks_of(load(GOLDEN).network))
    assert torch.equal(network.lm_head.weight, language)


def test_sizes_are_read_from_the_tensors() -> None:
    named = {rename_sam(name): tensor.shape for name, tensor in meta_tensors().items()}
    shapes = {name: shape for name, shape in named.items() if name is not None}
    vision, decoder = sam_sizes(shapes)
    assert vision == {
        "image_size": 192,
        "patch_size": 16,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "mlp_dim": 256,
        "output_channels": 256,
        "window_size": 7,
        "global_attn_indexes": [1, 3],
    }
    assert decoder["mlp_dim"] == 192
    assert decoder["hidden_size"] == decoder["iou_head_hidden_dim"] == 256


def metas_modules() -> ModuleType:
    """Meta's package; its image helpers, unused here, want torchvision, which need not be there."""
    for name in ("transforms", "transforms.functional", "ops", "ops.boxes"):
        if "torchvision" not in sys.modules:
            sys.modules["torchvision"] = ModuleType("torchvision")
        sys.modules.setdefault(f"torchvision.{name}", ModuleType(name))
    functional = sys.modules["torchvision.transforms.functional"]
    functional.resize = functional.to_pil_image = None
    sys.modules["torchvision.ops.boxes"].batched_nms = None
    sys.modules["torchvision.ops.boxes"].box_area = None
    return pytest.importorskip(
        "segment_anything.modeling", reason="segment_anything is not installed"
    )


@torch.no_grad()
def test_metas_own_package_gives_the_same_masks(monkeypatch) -> None:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    meta = metas_modules()
    torch.manual_seed(5)
    encoder = meta.ImageEncoderViT(
        img_size=192, patch_size=16, embed_dim=64, depth=4, num_heads=4, mlp_ratio=4,
        out_chans=256, qkv_bias=True, use_rel_pos=True, window_size=7,
        global_attn_indexes=(1, 3), norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
    )  # fmt: skip
    prompt_encoder = meta.PromptEncoder(256, (12, 12), (192, 192), 16)
    decoder = meta.MaskDecoder(
        transformer_dim=256, transformer=meta.TwoWayTransformer(2, 256, 8, 192)
    )
    sam = meta.Sam(encoder, prompt_encoder, decoder).eval()
    for parameter in sam.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    network = fresh_network()
    put_sam(network, sam.state_dict())

    pixels = torch.randn(1, 3, 192, 192)
    frames = sam.image_encoder(pixels)
    torch.testing.assert_close(network.encode_frame(pixels), frames, atol=1e-4, rtol=1e-4)
    prompts = torch.randn(3, 1, 256)
    dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(3, -1, 12, 12)
    expected, quality = sam.mask_decoder(
        image_embeddings=frames,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=prompts,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    ours, guess = network.decode_masks(frames, prompts.transpose(0, 1))
    torch.testing.assert_close(ours[0], expected[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guess[0], quality[:, 0], atol=1e-4, rtol=1e-4)
