"""Where the language model's attention is told to lie in training."""

import numpy as np
import pytest
import torch
from square_scenes import square_scenes

from lisa_ros.model.config import IMAGE_TOKEN
from lisa_ros.model.prompt import encode_dialogue
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.training.attention_supervision import (
    CHOOSING_LAYERS,
    HEADS,
    attention_logits,
    attention_loss,
    looked_at,
)
from lisa_tabletop.training.augment import load_views, mirrored
from lisa_tabletop.training.concepts import KIND_INDEX, ConceptSpace
from lisa_tabletop.training.nano import nano_config, nano_network
from lisa_tabletop.training.pretrain_towers import offsets_to_centres, view_shares
from lisa_tabletop.training.sequence_packing import nouns_in, pack, run_packed

SIDE = nano_config().clip["image_size"] // nano_config().clip["patch_size"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Two views as they are stored, their records, and what the patches hold."""
    scenes, random = square_scenes(tmp_path_factory.mktemp("scenes")), np.random.default_rng(1)
    views = load_views(scenes, np.array([0, 1]), random, pixels=False)
    views.mirrored[:] = False
    views = mirrored(views)
    concepts = ConceptSpace(nano_config().prompt_size, nano_config().hidden_size)
    return views, [scenes.record(v) for v in (0, 1)], concepts, view_shares(concepts, views, SIDE)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("Give me the red mug.", {"mug": "mug"}),
        ("Where are all the Mugs", {"Mugs": "mug"}),
        ("the alarm clock left of the roll of tape", {"clock": "clock", "tape": "tape"}),
        ("What could I drink from? A smuggler would know.", {}),
    ],
)
def test_kinds_are_found_where_their_names_end(tokenizer, words, named):
    question = {"instruction": words, "answer": "It is [SEG]."}
    ids, _ = encode_dialogue(question, tokenizer.encode, nano_config())
    pieces = tokenizer.spelled(ids)
    found = {"".join(pieces[: at + 1]).split()[-1]: kind for at, kind in nouns_in(ids, tokenizer)}
    assert found == {word: KIND_INDEX[kind] for word, kind in named.items()}


def test_one_looks_at_the_thing_or_at_the_first_id():
    weights = looked_at(torch.tensor([[0.0, 0.5, 1.5], [0.0, 0.01, 0.0]]))
    assert torch.allclose(weights, torch.tensor([[0, 0, 0.25, 0.75], [1, 0, 0, 0]]))


def test_the_logits_are_those_of_the_models_own_attention(tokenizer):
    torch.manual_seed(0)
    network = nano_network().eval()
    question = {"instruction": "the red mug", "answer": "It is [SEG].", "targets": [1]}
    packed = pack([[{**question, "form": "name"}]], tokenizer, network.config)
    view = torch.randn(1, network.config.image_tokens, network.config.hidden_size)
    embeds = network.embed_prompt(packed.ids[0][packed.ids[0] >= 0], torch.empty(0, view.shape[2]))
    start = int((packed.ids[0] == IMAGE_TOKEN).nonzero()[0])
    embeds = torch.cat([embeds[:start], view[0], embeds[start:]])
    with torch.no_grad():
        _, layers = run_packed(network, packed, view)
        mine = attention_logits(network, packed, layers, CHOOSING_LAYERS, packed.choices)
        network.language_model.set_attn_implementation("eager")  # the only one that tells
        run = network.language_model(inputs_embeds=embeds[None], output_attentions=True)
    keys = [0, *range(start, start + network.config.image_tokens)]
    theirs = torch.cat(
        [run.attentions[n][0, :HEADS][:, packed.choices[:, 1]] for n in CHOOSING_LAYERS]
    )[..., keys]
    assert torch.allclose(mine.softmax(-1), theirs / theirs.sum(-1, keepdim=True), atol=1e-5)


def test_a_choice_is_about_the_object_of_the_next_seg(tokenizer):
    asked = {"instruction": "the mugs", "type": "plural", "form": "name"}
    both = {**asked, "answer": "They are a mug [SEG] and a mug [SEG].", "targets": [2, 5]}
    none = {**asked, "answer": "There is no mug here.", "targets": []}
    text = {**none, "form": "text", "answer": "No."}
    packed = pack([[both, none, text]], tokenizer, nano_config())
    segs = packed.segs[:, 1].tolist()
    before = [c for c, t in zip(packed.choices[:, 1], packed.chosen, strict=True) if t == 2]
    assert max(before) == segs[0]
    assert packed.chosen.tolist().count(5) == segs[1] - segs[0]
    assert packed.chosen.tolist().count(0) == 1
    assert len(packed.nouns) == 3


def test_questions_that_name_nothing_teach_nothing_about_names(tokenizer, seen):
    views, _, concepts, (kinds, colors) = seen
    asked = {"instruction": "What is this?", "answer": "No.", "targets": [], "form": "text"}
    packed = pack([[asked], [asked]], tokenizer, nano_config())
    network = nano_network()
    _, layers = run_packed(network, packed, concepts.view(kinds, colors))
    loss, _ = attention_loss(network, packed, layers, views, kinds)
    assert loss.item() == 0


def test_attention_learns_where_to_lie(tokenizer, seen):
    torch.manual_seed(0)
    network, random = nano_network(), np.random.default_rng(1)
    views, records, concepts, (kinds, colors) = seen
    packed = pack([compose(r, random, 6) for r in records], tokenizer, nano_config())
    written = concepts.view(kinds, colors)
    optimizer = torch.optim.AdamW(network.language_model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        _, layers = run_packed(network, packed, written)
        loss, _ = attention_loss(network, packed, layers, views, kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_offsets_lead_to_the_middle_of_an_object():
    ids = torch.zeros(1, 4, 6, dtype=torch.long)
    ids[0, 1:3, 2:5] = 3
    offsets = offsets_to_centres(ids)
    y, x = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    reached = torch.stack([x, y]) + offsets[0]
    assert (torch.tensor([3.0, 1.5]) == reached[:, ids[0] == 3].T).all()
