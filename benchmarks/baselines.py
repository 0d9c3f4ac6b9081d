"""Two other ways to compute the same answer on the same weights, to hold the engine against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lisa_ros.model.checkpoint import Lisa

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass
class ScheduleResult:
    """What a schedule gave: the same for all of them."""

    ids: list[int]
    masks: Tensor
    """(N, H, W) logits at the size of the image"""


Schedule = Callable[[Lisa, np.ndarray, list[int], int], ScheduleResult]


@torch.inference_mode()
def reference(lisa: Lisa, image: np.ndarray, prompt: list[int], count: int) -> ScheduleResult:
    """The schedule of the reference implementation of LISA.

    For every token CLIP and the whole sequence are computed anew, with the logits of all positions;
    SAM's encoder runs when the text is finished, and the masks come last.
    """
    network, device = lisa.network, lisa.network.lm_head.weight.device
    pixels = lisa.processor.clip_pixels(image)[None].to(device)
    ids = torch.tensor(prompt, device=device)
    for _ in range(count):
        view = network.encode_view(pixels)[0]
        embeds = network.embed_prompt(ids, view)[None]
        states = network.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        best = network.lm_head(states)[0, -1].argmax()
        ids = torch.cat([ids, best[None]])
    new = ids[len(prompt) :].tolist()
    seg = [i for i, token in enumerate(new) if token == lisa.tokenizer.seg_id]
    predicting = states[0, [states.shape[1] - count + i for i in seg]]
    return ScheduleResult(new, _masks(lisa, image, predicting))


@torch.inference_mode()
def library(lisa: Lisa, image: np.ndarray, prompt: list[int], count: int) -> ScheduleResult:
    """transformers' own `generate` with its key and value cache; SAM and masks after the text."""
    network, device = lisa.network, lisa.network.lm_head.weight.device
    pixels = lisa.processor.clip_pixels(image)[None].to(device)
    embeds = network.embed_prompt(
        torch.tensor(prompt, device=device), network.encode_view(pixels)[0]
    )
    output = _causal(lisa).generate(
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(embeds), dtype=torch.long, device=device),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        use_cache=True,
        output_hidden_states=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    new = output.sequences[0].tolist()
    seg = [i for i, token in enumerate(new) if token == lisa.tokenizer.seg_id]
    states = [output.hidden_states[i][-1][0, -1] for i in seg]
    return ScheduleResult(new, _masks(lisa, image, torch.stack(states)))


def _causal(lisa: Lisa) -> LlamaForCausalLM:
    """transformers' generating class around the network's own modules."""
    from transformers import LlamaForCausalLM  # behind lisa_ros.model, which keeps it quiet

    with torch.device("meta"):
        model = LlamaForCausalLM(lisa.network.language_model.config)
    model.model, model.lm_head = lisa.network.language_model, lisa.network.lm_head
    return model.eval()


def _masks(lisa: Lisa, image: np.ndarray, states: Tensor) -> Tensor:
    network, processor = lisa.network, lisa.processor
    pixels = processor.sam_pixels(image)
    frame = network.encode_frame(pixels[None].to(states.device))
    low_res, _ = network.decode_masks(frame, network.seg_embeddings(states)[None])
    return processor.full_size_masks(low_res[0], image.shape[:2])
