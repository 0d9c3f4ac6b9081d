"""What nano is: the sizes of its parts, its tokenizer, how a stage begins with what was learnt."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from torch import Tensor

from lisa_ros.errors import LisaError
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.config import SEG, LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.tokenizer import Tokenizer

PIECES = 2400  # [SEG] comes behind them
PARTS = {
    "pretrain_sam": (
        "image_encoder.",
        "mask_decoder.",
        "no_mask_embed.",
        "shared_image_embedding.",
    ),
    "pretrain_vision_tower": ("vision_tower.", "mm_projector."),
    "pretrain_language": ("language_model.", "lm_head.", "text_hidden_fcs."),
}
POSITIONS = "shared_image_embedding.positional_embedding"


def nano_config() -> LisaConfig:
    """A LISA of about ten million parameters, whose view is the whole image.

    One quiet core runs it within the time of docs/performance.md: 196 patches for the language
    model, 400 for SAM, whose masks have 80 x 80 cells before they are enlarged.
    """
    return LisaConfig(
        name="nano",
        llama={
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "vocab_size": PIECES + 1,
            "max_position_embeddings": 1024,
            "rms_norm_eps": 1e-5,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        clip={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 7,
            "num_attention_heads": 6,
            "image_size": 280,
            "patch_size": 20,
        },
        sam_vision={
            "image_size": 240,
            "patch_size": 12,
            "hidden_size": 160,
            "mlp_dim": 640,
            "num_hidden_layers": 6,
            "num_attention_heads": 5,
            "window_size": 10,
            "global_attn_indexes": [2, 5],
            "output_channels": 128,
            "layer_norm_eps": 1e-6,
            # tables of relative positions cost a third of the encoder's time
            "use_rel_pos": False,
        },
        sam_decoder={"mlp_dim": 256, "iou_head_hidden_dim": 128},
        projector="mlp2x_gelu",
        conversation="nano",
        image_start_end=False,
        seg_token_id=PIECES,
        clip_select_layer=-1,
        clip_view="squash",
        mask_instances=True,
        refusal_prefix="There is no",
    )


def nano_network() -> LisaNetwork:
    """A fresh network; word embeddings start as large as the view's, which share their stream."""
    network = LisaNetwork(nano_config())
    network.language_model.embed_tokens.weight.data.normal_(std=0.5)
    network.image_encoder.pos_embed.data.normal_(std=0.02)
    return network


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A sentencepiece model of `PIECES` pieces with byte fallback: it can spell anything."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue(), {}, (SEG,))


def begin_with(network: LisaNetwork, earlier: Lisa, prefixes: tuple[str, ...]) -> str:
    """Take over the tensors whose names begin with `prefixes`, where names and shapes fit.

    Returns a sentence that says how many were taken and names what was not.
    """
    own = _chosen(network.state_dict(), prefixes)
    offered = _chosen(earlier.network.state_dict(), prefixes)
    fitting = {n: t for n, t in offered.items() if n in own and own[n].shape == t.shape}
    network.load_state_dict(fitting, strict=False)
    fresh, unused = own.keys() - fitting.keys(), offered.keys() - fitting.keys() - own.keys()
    sentence = f"{len(fitting)} of {len(own)} tensors begin with those of {earlier.config.name}"
    if fresh:
        sentence += f"; these begin fresh: {', '.join(sorted(fresh))}"
    if unused:
        sentence += f"; these have no place here: {', '.join(sorted(unused))}"
    return sentence


def take_over(network: LisaNetwork, folder: Path) -> None:
    """Begin with what each stage of the run in `folder` has taught its part.

    Raises LisaError where a stage is missing or SAM and the language model do not fit together.
    """
    stages = {name: _stage(folder, name) for name in PARTS}
    sam, language = stages["pretrain_sam"], stages["pretrain_language"]
    if not torch.equal(sam[POSITIONS], language[POSITIONS]):
        raise LisaError(
            f"{folder}: pretrain_sam and pretrain_language began with other positions, so that one"
            " aims where the other does not look; train both with the same --seed"
        )
    for name, prefixes in PARTS.items():
        network.load_state_dict(_chosen(stages[name], prefixes), strict=False)


def _stage(folder: Path, name: str) -> dict[str, Tensor]:
    path = folder / f"{name}.pt"
    if not path.exists():
        raise LisaError(f"{folder} has no {path.name}: run `train-nano --stages {name}` first")
    return torch.load(path, weights_only=True, map_location="cpu")["network"]


def _chosen(tensors: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
