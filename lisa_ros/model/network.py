"""The LISA network: CLIP and a projector, Llama, and SAM prompted by the state that predicts [SEG].

Lai et al., "LISA: Reasoning Segmentation via Large Language Model" (arXiv 2308.00692).
Shapes: B batch, T token ids, P image positions, H width of the language model, C width of SAM's
prompt, g side of SAM's feature grid, S side of SAM's image, N masks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    SamMaskDecoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamVisionEncoder

from lisa_ros.model.config import IMAGE_TOKEN, LisaConfig


class PositionEmbeddingRandom(nn.Module):
    """Fourier features of a square grid: SAM's dense positional encoding (arXiv 2304.02643)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_embedding", torch.randn(2, channels // 2))

    def forward(self, side: int) -> Tensor:
        """Encode the centres of a `side` x `side` grid: (1, C, side, side), float32."""
        matrix = self.positional_embedding.float()
        centres = (torch.arange(side, device=matrix.device) + 0.5) / side * 2 - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        with torch.autocast(matrix.device.type, enabled=False):  # bfloat16 would blur the places
            angles = 2 * math.pi * (torch.stack([x, y], dim=-1) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).permute(2, 0, 1).unsqueeze(0)


class LisaNetwork(nn.Module):
    """A LISA of any size. Trainable throughout; nothing in here is specific to inference."""

    def __init__(self, config: LisaConfig) -> None:
        super().__init__()
        self.config = config
        hidden, prompt = config.hidden_size, config.prompt_size
        self.vision_tower = CLIPVisionModel(CLIPVisionConfig(**config.clip))
        self.mm_projector = nn.Linear(config.clip["hidden_size"], hidden)
        if config.projector == "mlp2x_gelu":
            last = nn.Linear(hidden, hidden)
            self.mm_projector = nn.Sequential(self.mm_projector, nn.GELU(), last)
        self.language_model = LlamaModel(LlamaConfig(**config.llama))
        self.lm_head = nn.Linear(hidden, config.llama["vocab_size"], bias=False)
        self.text_hidden_fcs = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, prompt)
        )
        # transformers' own default would start every weight at 1e-10, from which nothing learns
        self.image_encoder = SamVisionEncoder(
            SamVisionConfig(**{"initializer_range": 0.02, **config.sam_vision})
        )
        # the original's LayerNorm has torch's default epsilon here, transformers' default has not
        decoder = SamMaskDecoderConfig(
            **{"layer_norm_eps": 1e-5, "hidden_size": prompt, **config.sam_decoder}
        )
        decoder._attn_implementation = "sdpa"
        self.mask_decoder = SamMaskDecoder(decoder)
        self.no_mask_embed = nn.Embedding(1, prompt)
        self.shared_image_embedding = PositionEmbeddingRandom(prompt)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    @property
    def dtype(self) -> torch.dtype:
        """What features of images are computed in; large weights may be stored in less."""
        return self.no_mask_embed.weight.dtype

    def encode_view(self, clip_pixels: Tensor) -> Tensor:
        """Turn what the language model sees, (B, 3, h, w), into its embeddings, (B, P, H)."""
        tower = self.vision_tower
        last = len(tower.encoder.layers) + 1 + self.config.clip_select_layer
        # layers above the selected one are never looked at, so they are not run
        states = tower.pre_layrnorm(tower.embeddings(clip_pixels.to(self.dtype)))
        for layer in tower.encoder.layers[:last]:
            states = layer(states, None)
        return self.mm_projector(states[:, 1:])

    def encode_frame(self, sam_pixels: Tensor) -> Tensor:
        """Turn what SAM sees, (B, 3, S, S), into its features, (B, C, g, g)."""
        encoder = self.image_encoder
        states = encoder.patch_embed(sam_pixels.to(encoder.patch_embed.projection.weight.dtype))
        if encoder.pos_embed is not None:
            states = states + encoder.pos_embed
        for layer in encoder.layers:
            states = layer(states)
        # the neck may be kept in float32: its activations overflow in float16
        features = encoder.neck(states.to(encoder.neck.conv1.weight.dtype))
        return features.to(self.dtype)

    def embed_prompt(self, ids: Tensor, view: Tensor) -> Tensor:
        """Embed ids (T,) and put `view` (P, H) where IMAGE_TOKEN stands: (T + P - 1, H).

        Ids without an IMAGE_TOKEN are plain text and stay (T, H); two are an error.
        """
        places = (ids == IMAGE_TOKEN).nonzero().flatten().tolist()
        if not places:
            return self.language_model.embed_tokens(ids)
        if len(places) > 1:
            raise ValueError(f"{len(places)} images in one prompt; this model takes one")
        before = self.language_model.embed_tokens(ids[: places[0]])
        after = self.language_model.embed_tokens(ids[places[0] + 1 :])
        return torch.cat([before, view.to(before.dtype), after])

    def forward(self, ids: Tensor, views: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Run the language model over whole conversations, each about one view.

        ids (B, T) with one IMAGE_TOKEN a row, padded on the right; views (B, P, H);
        attention_mask (B, T), true where an id is not padding.
        Returns the states after the final norm, (B, T + P - 1, H).
        """
        embeds = torch.stack(
            [self.embed_prompt(row, view) for row, view in zip(ids, views, strict=True)]
        )
        if attention_mask is not None:
            # the image stands before any padding, so its positions may be put in front
            seen = attention_mask.new_ones(len(ids), views.shape[1] - 1)
            attention_mask = torch.cat([seen, attention_mask], dim=1)
        return self.language_model(
            inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state

    def seg_embeddings(self, states: Tensor) -> Tensor:
        """Turn the post-norm states that predict [SEG], (N, H), into SAM prompts, (N, C)."""
        return self.text_hidden_fcs(states.to(self.dtype))

    def decode_masks(self, frames: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Decode one mask a prompt.

        frames (B, C, g, g); prompts (B, N, C), each a prompt of its own with one sparse token.
        Returns the mask logits (B, N, 4g, 4g) and SAM's own (untrained) quality guess (B, N).
        """
        batch, count, _ = prompts.shape
        side = frames.shape[-1]
        if count == 0:
            return frames.new_zeros(batch, 0, 4 * side, 4 * side), frames.new_zeros(batch, 0)
        positions = self.shared_image_embedding(side).to(frames.dtype)
        masks, quality = self.mask_decoder(
            image_embeddings=frames,
            image_positional_embeddings=positions.expand(batch, -1, -1, -1),
            sparse_prompt_embeddings=prompts.unsqueeze(2).to(frames.dtype),
            dense_prompt_embeddings=self.no_mask_embed.weight.reshape(1, -1, 1, 1),
            multimask_output=False,
        )
        return masks.squeeze(2), quality.squeeze(2)


def label_positions(ids: Tensor, chosen: Tensor, image_tokens: int) -> Tensor:
    """Where the states that predict the chosen ids lie, in reading order: (M, 2), row and position.

    ids (B, T) as for `LisaNetwork.forward`; chosen (B, T), true where an id is meant, for instance
    `ids == seg_id`. The id at index j is predicted at index j - 1; from the image on, which takes
    `image_tokens` positions for one id, everything is shifted.
    """
    rows, columns = chosen[:, 1:].nonzero(as_tuple=True)
    shifted = ((ids == IMAGE_TOKEN).cumsum(dim=1) > 0)[rows, columns]
    return torch.stack([rows, columns + shifted * (image_tokens - 1)], dim=1)
