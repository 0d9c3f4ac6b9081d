"""LISA shapes with random weights: speed depends on shapes alone, so no checkpoint is needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from sentencepiece import SentencePieceTrainer

from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.prompt import build_prompt
from lisa_ros.model.quantization import multiplies_natively, upcast
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.model.weights import precision
from lisa_tabletop.training.nano import nano_config

LOUD = 100.0  # spread of the word embeddings
_TEXT = (
    "USER: Can you segment the red mug in this image? ASSISTANT: Sure, it is [SEG].",
    "Which of the things on the table can hold water? Please output segmentation mask.",
    "Sure, the segmentation result is the spoon. They can hold it. Where are they?",
    "A chat between a curious human and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "Please explain why. It is the blue bowl, left of the yellow banana. There is no spoon here.",
)


def random_lisa(
    preset: str,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    sam_dtype: torch.dtype | None = None,
) -> Lisa:
    """A LISA with random weights, the same for the same seed.

    `preset`: tiny, nano, lisa-35m, lisa-7b or lisa-13b. On a GPU the weights are
    drawn there, in `dtype`, so that 13 billion of them take no detour. `sam_dtype`: of SAM's image
    encoder, if it is to be another one.
    """
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = preset_config(preset)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            network = LisaNetwork(config)
    finally:
        torch.set_default_dtype(before)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(precision(name, dtype, sam_dtype))
    network.language_model.rotary_emb.float()
    _spread(network)
    network.lm_head.weight.data[tokenizer.size :] = 0  # the tokenizer has no words for these
    network.to(device).eval().requires_grad_(False)
    if not multiplies_natively(dtype, torch.device(device)):
        upcast(network)
    return Lisa(network, tokenizer, Processor(config), config)


def teach(lisa: Lisa, answer: Sequence[int]) -> None:
    """Make a random LISA answer every prompt with these ids; they must all be different.

    Its words are so loud that the layers' work, which is done in full, does not show in the states:
    the head can lead from each token to the next. So every schedule gives the same answer, in any
    precision.
    """
    prompt = build_prompt(lisa.config.conversation, [("-", None)], lisa.config.image_start_end)
    chain = [lisa.tokenizer.encode(prompt)[-1], *answer]
    if len(set(chain)) != len(chain):
        raise ValueError("a token that comes twice cannot be followed by two others")
    head = lisa.network.lm_head.weight.data
    head.zero_()
    head[chain[1:]] = lisa.network.language_model.embed_tokens.weight.data[chain[:-1]] / LOUD


def _spread(network: LisaNetwork) -> None:
    network.language_model.embed_tokens.weight.data.normal_(std=LOUD)
    for layer in network.image_encoder.layers:
        if layer.attn.use_rel_pos:  # nano has none
            for table in (layer.attn.rel_pos_h, layer.attn.rel_pos_w):
                table.data.normal_(std=0.1)
    if network.image_encoder.pos_embed is not None:
        network.image_encoder.pos_embed.data.normal_(std=0.1)


@cache
def _tokenizer() -> Tokenizer:
    """A small tokenizer; the embedding tables of the presets keep their full size."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(2 * _TEXT),  # what comes twice becomes whole words
        model_writer=model,
        model_type="bpe",
        vocab_size=1000,
        hard_vocab_limit=False,
        byte_fallback=True,
        pad_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue(), {}, ("[SEG]", "<im_start>", "<im_end>"))


def preset_config(preset: str) -> LisaConfig:
    """The shape of a preset, with the special ids of the small tokenizer."""
    tokenizer = _tokenizer()
    if preset == "nano":
        return replace(nano_config(), seg_token_id=tokenizer.seg_id)
    llama, clip, sam = _SHAPES[preset]
    return LisaConfig(
        name=preset,
        llama={
            **dict(zip(_LLAMA, llama, strict=True)),
            "num_key_value_heads": llama[2],
            "vocab_size": max(llama[4], tokenizer.size),
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
        },
        clip=dict(zip(_CLIP, clip, strict=True)),
        sam_vision={**dict(zip(_SAM, sam, strict=True)), "mlp_dim": 4 * sam[1]},
        sam_decoder={"mlp_dim": 8 * sam[-1], "iou_head_hidden_dim": sam[-1]},
        projector="linear",
        conversation="llava_v1",
        image_start_end=True,
        seg_token_id=tokenizer.seg_id,
    )


_LLAMA = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)
_CLIP = (
    "image_size",
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
_SAM = (
    "image_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "window_size",
    "global_attn_indexes",
    "output_channels",
)
_VIT_L = (224, 14, 1024, 24, 16, 4096)
_VIT_H = (1024, 1280, 32, 16, 14, (7, 15, 23, 31), 256)
_SHAPES: dict[str, tuple[tuple, tuple, tuple]] = {
    "tiny": (
        (32, 2, 4, 64, 0, 512),
        (28, 14, 16, 3, 2, 32),
        (64, 32, 2, 2, 3, (1,), 32),
    ),
    # the released layout at every seam and input size, narrow enough for a processor
    "lisa-35m": (
        (384, 8, 6, 1024, 8000, 1024),
        (224, 14, 256, 6, 4, 1024),
        (1024, 256, 8, 8, 14, (3, 7), 256),
    ),
    "lisa-7b": ((4096, 32, 32, 11008, 32004, 2048), _VIT_L, _VIT_H),
    "lisa-13b": ((5120, 40, 40, 13824, 32003, 4096), _VIT_L, _VIT_H),
}
