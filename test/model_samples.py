"""Small models for the tests of the model layer, with random weights from a seed."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.prompt import build_prompt
from lisa_ros.model.tokenizer import Tokenizer

SENTENCES = [
    "USER: where is the red mug? ASSISTANT: It is the red mug.",
    "USER: show me the mugs. ASSISTANT: They are the red mug and the blue mug.",
    "There is no mug here. Please respond with segmentation mask.",
]


@cache
def small_tokenizer(kind: str = "bpe") -> Tokenizer:
    """A sentencepiece model with byte fallback, as the shipped model has, and [SEG] behind it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        model_type=kind,
        vocab_size=320,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue(), {}, ("[SEG]",))


def small_lisa(seed: int = 0) -> Lisa:
    """A LISA in the layout of the shipped one, but smaller and untrained."""
    torch.manual_seed(seed)
    tokenizer = small_tokenizer()
    config = LisaConfig(
        name="small",
        llama={
            "vocab_size": tokenizer.size,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
        clip={
            "image_size": 48,
            "patch_size": 12,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
        },
        sam_vision={
            "image_size": 80,
            "patch_size": 10,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "output_channels": 64,
            "window_size": 4,
            "global_attn_indexes": [1],
        },
        sam_decoder={"hidden_size": 64, "mlp_dim": 96, "iou_head_hidden_dim": 64},
        projector="mlp2x_gelu",
        conversation="nano",
        image_start_end=False,
        seg_token_id=tokenizer.seg_id,
        refusal_prefix="There is no",
    )
    return Lisa(LisaNetwork(config).eval(), tokenizer, Processor(config), config)


def noise_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image with structure at every scale: (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7 + y / 31), np.cos(y / 5), np.sin((x * y) / 900)], axis=-1)
    return (128 + 90 * waves + rng.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)


@torch.no_grad()
def mask_of(lisa: Lisa, question: str = "where is it?", image: np.ndarray | None = None) -> Tensor:
    """Mask logits of the first [SEG] that could be said: a pass through everything."""
    image = noise_image(60, 80) if image is None else image
    network, processor, config = lisa.network, lisa.processor, lisa.config
    prompt = build_prompt(config.conversation, [(question, None)], config.image_start_end)
    ids = torch.tensor([lisa.tokenizer.encode(prompt)])
    states = network(ids, network.encode_view(processor.clip_pixels(image)[None]))
    pixels = processor.sam_pixels(image)
    prompts = network.seg_embeddings(states[:, -1:])
    low_res, _ = network.decode_masks(network.encode_frame(pixels[None]), prompts)
    return processor.full_size_masks(low_res[0], image.shape[:2])
