"""The network's parts against transformers' whole models, and what training needs of them."""

from __future__ import annotations

import pytest
import torch
from model_samples import noise_image, small_lisa
from torch import nn
from transformers import SamConfig, SamModel

from lisa_ros.model.checkpoint import load, save
from lisa_ros.model.config import IMAGE_TOKEN
from lisa_ros.model.losses import bce_loss, dice_loss, lisa_loss
from lisa_ros.model.network import label_positions


@pytest.fixture(scope="module")
def lisa():
    return small_lisa()


def pixels(lisa, count: int = 2):
    images = [noise_image(60, 80, seed) for seed in range(count)]
    views = torch.stack([lisa.processor.clip_pixels(image) for image in images])
    return views, torch.stack([lisa.processor.sam_pixels(image) for image in images])


@pytest.mark.parametrize("select", [-1, -2, -3])
@torch.no_grad()
def test_views_are_the_selected_clip_states_without_the_class_token(lisa, select: int) -> None:
    views, _ = pixels(lisa)
    network = small_lisa().network
    object.__setattr__(network.config, "clip_select_layer", select)
    states = network.vision_tower(views, output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        network.encode_view(views), network.mm_projector(states[select][:, 1:])
    )


@torch.no_grad()
def test_frames_are_what_transformers_whole_encoder_gives(lisa) -> None:
    _, frames = pixels(lisa)
    expected = lisa.network.image_encoder(frames).last_hidden_state
    torch.testing.assert_close(lisa.network.encode_frame(frames), expected)


@torch.no_grad()
def test_positions_are_those_of_sam(lisa) -> None:
    vision = lisa.config.sam_vision
    sam = SamModel(
        SamConfig(
            vision_config=vision | {"num_pos_feats": 32},
            prompt_encoder_config={"hidden_size": 64, "image_size": 80, "patch_size": 10},
            mask_decoder_config=lisa.config.sam_decoder,
        )
    )
    ours = lisa.network.shared_image_embedding
    sam.shared_image_embedding.positional_embedding.copy_(ours.positional_embedding)
    torch.testing.assert_close(ours(8), sam.get_image_wide_positional_embeddings())


@torch.no_grad()
def test_masks_decoded_together_equal_masks_decoded_alone(lisa) -> None:
    network = lisa.network
    frames = network.encode_frame(pixels(lisa)[1])
    prompts = torch.randn(2, 3, 64, generator=torch.manual_seed(1))
    masks, quality = network.decode_masks(frames, prompts)
    assert masks.shape == (2, 3, 32, 32)
    assert quality.shape == (2, 3)
    for b in range(2):
        for n in range(3):
            alone, guess = network.decode_masks(frames[b : b + 1], prompts[b : b + 1, n : n + 1])
            torch.testing.assert_close(masks[b, n], alone[0, 0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(quality[b, n], guess[0, 0], atol=1e-5, rtol=1e-4)


def test_no_prompts_give_no_masks(lisa) -> None:
    masks, quality = lisa.network.decode_masks(torch.zeros(2, 64, 8, 8), torch.zeros(2, 0, 64))
    assert masks.shape == (2, 0, 32, 32)
    assert quality.shape == (2, 0)


def test_the_view_takes_the_place_of_its_id(lisa) -> None:
    network, view = lisa.network, torch.randn(16, 64)
    ids = torch.tensor([1, 7, IMAGE_TOKEN, 8, 9])
    embeds = network.embed_prompt(ids, view)
    table = network.language_model.embed_tokens.weight
    assert embeds.shape == (5 + 16 - 1, 64)
    assert torch.equal(embeds[:2], table[[1, 7]])
    assert torch.equal(embeds[2:18], view)
    assert torch.equal(embeds[18:], table[[8, 9]])


def test_a_prompt_may_have_no_image_but_not_two(lisa) -> None:
    view = torch.randn(16, 64)
    assert lisa.network.embed_prompt(torch.tensor([1, 7]), view).shape == (2, 64)
    with pytest.raises(ValueError, match="2 images in one prompt"):
        lisa.network.embed_prompt(torch.tensor([IMAGE_TOKEN, IMAGE_TOKEN]), view)


def test_label_positions_count_from_before_the_chosen_id() -> None:
    seg, image = 5, IMAGE_TOKEN
    ids = torch.tensor([[1, image, 7, seg, 8, seg], [1, seg, image, 9, 9, 9]])
    positions = label_positions(ids, ids == seg, image_tokens=16)
    # the second row's [SEG] stands before its image and is not shifted
    assert positions.tolist() == [[0, 2 + 15], [0, 4 + 15], [1, 0]]


def test_the_id_behind_the_image_is_predicted_by_the_last_patch() -> None:
    ids = torch.tensor([[1, IMAGE_TOKEN, 7]])
    assert label_positions(ids, ids == 7, image_tokens=16).tolist() == [[0, 16]]


@torch.no_grad()
def test_padding_changes_nothing(lisa) -> None:
    network = lisa.network
    views = network.encode_view(pixels(lisa)[0])
    row = lisa.tokenizer.encode("USER: <image>\nwhere is the mug? ASSISTANT:")
    alone = network(torch.tensor([row]), views[:1])
    padded = torch.tensor([row + [0] * 9, row + [7] * 9])
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[0, len(row) :] = False
    states = network(padded, views, mask)
    torch.testing.assert_close(states[0, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-4)


def test_every_part_that_matters_learns() -> None:
    lisa = small_lisa()
    network = lisa.network.train()
    views, frames = pixels(lisa)
    ids = torch.tensor(
        [lisa.tokenizer.encode("USER: <image>\nthe mug? ASSISTANT: It is [SEG].</s>")] * 2
    )
    states = network(ids, network.encode_view(views))
    places = label_positions(ids, ids == lisa.tokenizer.seg_id, lisa.config.image_tokens)
    prompts = network.seg_embeddings(states[places[:, 0], places[:, 1]])[:, None]
    masks, _ = network.decode_masks(network.encode_frame(frames), prompts)
    logits = network.lm_head(states[:, -1])
    loss = lisa_loss(logits, ids[:, -1], list(masks), list((masks > 0).logical_not().float()))
    loss.total.backward()
    idle = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is None}
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle == {"vision_tower", "mask_decoder"}
    # CLIP's last layer lies above the selected one, and LISA never trains SAM's quality guess
    assert all("encoder.layers.2" in n or "post_layernorm" in n or "iou_" in n for n in silent)
    for name, module in network.named_children():
        learnt = [p.grad.abs().sum() for p in module.parameters() if p.grad is not None]
        assert not learnt or sum(learnt) > 0, name


def test_a_fresh_encoder_starts_from_weights_that_can_learn() -> None:
    weight = small_lisa().network.image_encoder.layers[0].mlp.lin1.weight
    assert weight.std() > 0.01


def test_two_way_attention_has_the_originals_epsilon(lisa) -> None:
    norms = [
        m for m in lisa.network.mask_decoder.transformer.modules() if isinstance(m, nn.LayerNorm)
    ]
    assert norms
    assert {norm.eps for norm in norms} == {1e-5}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_keeps_the_neck_and_finds_the_same_masks(dtype, tmp_path) -> None:
    lisa = small_lisa()
    save(lisa, tmp_path)
    half = load(tmp_path, dtype=dtype)
    assert half.network.image_encoder.neck.conv1.weight.dtype == torch.float32
    assert half.network.image_encoder.layers[0].mlp.lin1.weight.dtype == dtype
    assert half.network.lm_head.weight.dtype == dtype
    assert half.network.language_model.rotary_emb.inv_freq.dtype == torch.float32
    views, frames = pixels(lisa)
    ids = torch.tensor([lisa.tokenizer.encode("USER: <image>\nthe mug? ASSISTANT:")] * 2)
    results = []
    for network in (lisa.network, half.network):
        states = network(ids, network.encode_view(views))
        prompts = network.seg_embeddings(states[:, -1:])
        results.append(network.decode_masks(network.encode_frame(frames), prompts)[0].float() > 0)
    assert (results[0] & results[1]).sum() / (results[0] | results[1]).sum() > 0.95


def test_losses_of_a_perfect_and_of_an_undecided_mask() -> None:
    truth = torch.zeros(1, 10, 10)
    truth[:, :5] = 1
    perfect, undecided = (truth * 2 - 1) * 50, torch.zeros(1, 10, 10)
    assert bce_loss(perfect, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(perfect, truth).item() == pytest.approx(0, abs=1e-5)
    assert bce_loss(undecided, truth).item() == pytest.approx(0.693147, abs=1e-5)
    assert dice_loss(undecided, truth).item() == pytest.approx(0.5, abs=1e-4)


def test_dice_of_an_empty_truth_has_the_references_scale() -> None:
    # areas are divided by 1000 before 1e-6 is added: a guess of 0.001 pixels is half wrong
    guess = torch.full((1, 10, 10), 1e-5).logit()
    assert dice_loss(guess, torch.zeros(1, 10, 10)).item() == pytest.approx(0.5, abs=1e-3)


def test_a_batch_without_masks_has_a_language_loss_only() -> None:
    loss = lisa_loss(
        torch.zeros(3, 4), torch.tensor([0, 1, 2]), [torch.zeros(0, 8, 8)], [torch.zeros(0, 8, 8)]
    )
    assert loss.bce == loss.dice == 0
    assert loss.total.item() == pytest.approx(1.386294, abs=1e-5)
