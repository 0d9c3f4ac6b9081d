"""Recipes: the authors' numbers on one batch, ranks, both layouts, both beginnings, bad input."""

import errno
import itertools
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official_layout import GOLDEN, TOWER, golden_tensors, write_official
from parity_samples import DATA, read_case
from published_samples import write_published
from recipe_in_ranks import follow as follow_in_ranks

from lisa_ros.evaluation.published import open_published
from lisa_ros.evaluation.reasonseg import read_dataset
from lisa_ros.model.checkpoint import load
from lisa_ros.model.hf_checkpoint import official_name, rename
from lisa_ros.model.llava import from_llava
from lisa_ros.model.losses import assignment
from lisa_ros.training import recipe as recipes
from lisa_ros.training.examples import MixtureBatches
from lisa_ros.training.feature_cache import FeatureCache, bytes_of_an_image
from lisa_ros.training.mixture import Mixture
from lisa_ros.training.objective import ImageExample, Objective
from lisa_ros.training.recipe import main
from lisa_ros.training.recipe_file import PRESETS, Recipe, RecipeError, read_recipe

SCRIPT = Path(__file__).parents[1] / "recipe_in_ranks.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official") / "tiny-lisa")


def test_loss_and_gradients_of_a_batch_are_those_of_the_authors():
    case, lisa = read_case("case_train_losses"), load(DATA / "checkpoint")
    ids, labels = case.tensors["input.input_ids"], case.tensors["input.labels"]
    known, offset = case.tensors["input.attention_mask"], case.tensors["input.offset"].tolist()
    examples = []
    for index, image in enumerate(case.images):
        rows = range(offset[index], offset[index + 1])
        examples.append(ImageExample(
            lisa.processor.clip_pixels(image), lisa.processor.sam_pixels(image),
            tuple(ids[row][known[row]] for row in rows),
            tuple((labels[row] != -100)[known[row]] for row in rows),
            case.tensors[f"input.gt_masks.{index}"].bool(),
        ))  # fmt: skip
    network = lisa.network
    learnt = {
        "embed_tokens": network.language_model.embed_tokens.weight,
        "lm_head": network.lm_head.weight,
        "layer0_q_proj": network.language_model.layers[0].self_attn.q_proj.weight,
        "final_norm": network.language_model.norm.weight,
        "text_hidden_fcs_0": network.text_hidden_fcs[0].weight,
        "text_hidden_fcs_2": network.text_hidden_fcs[2].weight,
        "mask_tokens": network.mask_decoder.mask_tokens.weight,
    }
    for weight in learnt.values():
        weight.requires_grad_(True)
    loss, _ = Objective(network, lisa.processor)(examples)
    loss.total.backward()
    for name, value in (("ce", loss.ce), ("mask_bce", loss.bce), ("mask_dice", loss.dice)):
        assert value.item() == pytest.approx(case.expected(f"{name}_loss").item(), abs=1e-4), name
    for name, weight in learnt.items():
        expected = case.expected(f"grad_norm.{name}").item()
        assert weight.grad.norm().item() == pytest.approx(expected, rel=1e-4, abs=1e-4), name


def test_assignments_are_those_of_trying_all():
    random = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 6):
        for scale in (1, 3):  # small whole numbers: many are equal
            cost = np.floor(random.normal(size=(size, size)) * scale * 2) / scale
            ways = [list(one) for one in itertools.permutations(range(size))]
            least = min(cost[range(size), one].sum() for one in ways)
            found = assignment(cost)
            assert sorted(found) == list(range(size))
            assert cost[range(size), found].sum() == pytest.approx(least)


def test_instances_of_a_group_are_learnt_in_the_order_in_which_they_are_found(root, monkeypatch):
    """LISA++: what is the first of three cups is the model's own choice; of two lists, each."""
    lisa = load(DATA / "checkpoint")
    data = open_published(root, "lisa_plus_instances")
    monkeypatch.setattr("lisa_ros.training.examples.MOST_IDS", 2000)  # of a tiny vocabulary
    mixture = Mixture({"plus": [data]}, [1])
    source = MixtureBatches(mixture, lisa.tokenizer.encode, lisa.config, lisa.processor, 1)
    last = SimpleNamespace(integers=lambda high: high - 1)  # the image with three instances
    example = source.example(mixture.from_group([data], last))
    assert example.groups == (0, 0, 0)
    objective = Objective(lisa.network, lisa.processor)

    def masks_loss(order, groups) -> float:
        with torch.no_grad():
            loss, _ = objective([replace(example, truth=example.truth[order], groups=groups)])
        return (loss.bce + loss.dice).item()

    orders = [list(one) for one in itertools.permutations(range(3))]
    plain = [masks_loss(order, ()) for order in orders]
    assert max(plain) > min(plain) + 1e-4
    assert [masks_loss(o, (0, 0, 0)) for o in orders] == pytest.approx([min(plain)] * 6, abs=1e-5)
    apart = [masks_loss(o, (0, 1, 1)) for o in orders]  # the first one stands where it stands
    assert apart[0] == pytest.approx(min(plain[0], plain[1]), abs=1e-5)
    assert apart[2] == pytest.approx(min(plain[2], plain[3]), abs=1e-5)
    dialogue = open_published(root, "lisa_plus_dialogues")
    assert dialogue.groups == [[0, 0, 2]]


def test_what_the_released_layout_cannot_hold_is_said_before_training(root, tmp_path, capsys):
    settings = [f"output={tmp_path / 'new'}", f"data={root}", "model=nano", "official=true"]
    assert main([str(PRESETS / "tiny.yaml"), *settings]) == 2
    assert "official: false" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_cache_of_features_changes_no_number_and_is_bounded(official, root, tmp_path, capsys):
    lisa = load(official, vision_tower=TOWER)
    questions = {"reason_seg": [open_published(root, "reasonseg")]}
    items = read_dataset(root / "reason_seg/ReasonSeg/val")
    asked, encode = [], type(lisa.network).encode_frame

    def counted(network, pixels):
        asked.append(len(pixels))
        return encode(network, pixels)

    def losses(cache) -> list[float]:
        source = MixtureBatches(Mixture(questions, [1]), lisa.tokenizer.encode, lisa.config,
                          lisa.processor, 2, cache)  # fmt: skip
        objective = Objective(lisa.network, lisa.processor, cache)
        with torch.no_grad():
            found = [objective(source.batch(np.random.default_rng(n)))[0].total for n in range(6)]
        return [*map(float, found), recipes.validation(objective, lisa, items)["giou"]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(lisa.network), "encode_frame", counted)
        plain, each = losses(None), bytes_of_an_image(lisa)
        assert len(asked) == 12 + 3
        assert losses(FeatureCache.open(tmp_path / "kept", 1e9, lisa)) == plain
        files = sorted((tmp_path / "kept").rglob("*.safetensors"))
        assert len(files) == 4  # the three of the validation are images of these
        assert all(each < file.stat().st_size < each + 1000 for file in files)
        asked.clear()
        again = FeatureCache.open(tmp_path / "kept", 1e9, lisa)
        assert losses(again) == plain
        assert not asked
        # another image under the same name, a damaged file: computed anew
        files[0].write_bytes(files[0].read_bytes()[:100])
        assert losses(FeatureCache.open(tmp_path / "kept", 1e9, lisa)) == plain
        assert files[0].stat().st_size > each
        # other encoders find nothing
        other = load(official, vision_tower=TOWER)
        other.network.image_encoder.neck.conv1.weight.data *= 1.5
        image = items[0].image
        assert FeatureCache.open(tmp_path / "kept", 1e9, other).find(image)[1] is None
        assert again.find(image)[1] is not None
        # no room for more than two; a disk that fills
        capsys.readouterr()
        assert losses(FeatureCache.open(tmp_path / "small", 2.5 * each, lisa)) == plain
        assert len(list((tmp_path / "small").rglob("*.safetensors"))) == 2
        assert capsys.readouterr().out.count("is as large as it may be; the training goes on") == 1
        patch.setattr("lisa_ros.training.feature_cache.save_tensors", no_space)
        assert losses(FeatureCache.open(tmp_path / "full", 1e9, lisa)) == plain
        assert capsys.readouterr().out.count("cannot grow") == 1
        assert not [one for one in (tmp_path / "full").rglob("*") if one.is_file()]


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.timeout(1500)
def test_two_sharded_ranks_learn_what_one_learns_and_go_on_exactly(official, root, tmp_path):
    questions = root / "reason_seg/ReasonSeg/train"
    settings = asdict(Recipe(
        output="", validation=str(root / "reason_seg/ReasonSeg/val"), epochs=1, steps_per_epoch=3,
        batch=2, lr=1e-3, warm_up=1, precision="float32", workers=0, official=False,
    ))  # fmt: skip

    def given(name: str, accumulate: int) -> tuple[dict, list[str]]:
        own = settings | {"output": str(tmp_path / name), "accumulate": accumulate}
        (tmp_path / f"{name}.json").write_text(json.dumps(own))
        return own, [str(official), str(TOWER), str(questions), str(tmp_path / f"{name}.pt")]

    own, more = given("one", 2)
    follow_in_ranks(own, *more, 0)
    _, more = given("two", 1)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(SCRIPT), str(tmp_path / "two.json"), *more, "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("one", "two"))
    assert two["sharded"]
    assert not one["sharded"]
    assert two["figures"] == pytest.approx(one["figures"], abs=1e-5)
    assert two["steps"] < one["steps"]  # the first step was not taken again
    for name, tensor in one["network"].items():
        # a bias of keys has no gradient but rounding, which Adam makes as long as any other
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(two["network"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    start = load(official, vision_tower=TOWER).network.state_dict()
    assert not torch.allclose(one["network"]["lm_head.weight"], start["lm_head.weight"], atol=1e-3)


def test_a_recipe_runs_from_llava_and_sam_to_both_layouts(root, tmp_path, capsys):
    llava, sam = untrained(tmp_path)
    arguments = [
        "tiny", "model=''", f"llava={llava}", f"sam={sam}", f"data={root}",
        f"vision_tower={TOWER}", f"output={tmp_path / 'new'}", "steps_per_epoch=1", "epochs=1",
        "official=true", f"validation={root / 'reason_seg/ReasonSeg/val'}",
    ]  # fmt: skip
    assert main(arguments) == 0, capsys.readouterr().err
    native = load(tmp_path / "new")
    again = load(tmp_path / "new" / "official", vision_tower=TOWER)
    for name, tensor in native.network.state_dict().items():
        other = again.network.state_dict()[name]
        if name.startswith("vision_tower"):  # not in the released layout, but a folder of its own
            torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-3)
        else:
            assert torch.equal(tensor, other), name
    assert native.tokenizer.added_tokens == again.tokenizer.added_tokens
    assert native.config.seg_token_id == native.tokenizer.seg_id
    card = (tmp_path / "new" / "README.md").read_text()
    assert "not for commercial use" in card
    assert "giou" in card
    assert main(arguments) == 2
    assert "holds a checkpoint already" in capsys.readouterr().err


def untrained(folder: Path) -> tuple[Path, Path]:
    """The golden LISA taken apart: LLaVA without the last rows, and SAM's file."""
    added = json.loads((GOLDEN / "added_tokens.json").read_text())
    rows, tensors, sam = min(added.values()), {}, {}
    for name, tensor in golden_tensors().items():
        if "visual_model" in name:
            sam[name.removeprefix("model.visual_model.")] = tensor
        elif "text_hidden_fcs" not in name:
            words = "embed_tokens" in name or "lm_head" in name
            tensors[name] = tensor[:rows].clone() if words else tensor
    llava = write_official(folder / "llava", tensors)
    (llava / "added_tokens.json").unlink()
    torch.save(sam, folder / "sam.pth")
    return llava, folder / "sam.pth"


def test_new_words_stand_where_the_authors_put_them(tmp_path):
    llava, sam = untrained(tmp_path)
    lisa = from_llava(llava, sam, TOWER, dtype=torch.float32)
    first = min(lisa.tokenizer.added_tokens.values())
    assert lisa.tokenizer.added_tokens == {
        "[SEG]": first, "<im_start>": first + 1, "<im_end>": first + 2
    }  # fmt: skip
    table = lisa.network.language_model.embed_tokens.weight
    assert torch.equal(table[:first], golden_tensors()["model.embed_tokens.weight"][:first].float())
    assert len(table) == first + 3


def test_names_go_to_the_released_layout_and_back():
    for name in load(DATA / "checkpoint").network.state_dict():
        assert rename(official_name(name)) == name
    names = {official_name(n) for n in load(DATA / "checkpoint").network.state_dict()}
    known = {n for n in golden_tensors() if rename(n)}
    assert known <= names


def test_validation_is_the_authors_figure(root, official):
    """Their counting, written down from `validate` in train_ds.py, on the same masks."""
    lisa = load(official, vision_tower=TOWER)
    objective, items = (
        Objective(lisa.network, lisa.processor),
        read_dataset(root / "reason_seg/ReasonSeg/val"),
    )
    found = recipes.validation(objective, lisa, items)
    ious, both, either = [], 0, 0
    for item in items:
        example, truth = recipes.validation_example(item, lisa, torch.device("cpu"))
        with torch.no_grad():
            output = (objective([example])[1][0][0] > 0).int().numpy()
        output[truth == 255] = 255
        same = output[output == truth]
        intersection = (same == 1).sum()
        union = (output == 1).sum() + (truth == 1).sum() - intersection
        ious.append(intersection / (union + 1e-5) + (union == 0))
        both, either = both + intersection, either + union
    assert found["giou"] == pytest.approx(np.mean(ious), abs=1e-6)
    assert found["ciou"] == pytest.approx(both / (either + 1e-10), abs=1e-6)


def test_what_is_trained_is_in_float32_where_the_rest_is_not():
    lisa = recipes.start(Recipe(model="nano", official=False))  # in bfloat16
    trained = recipes.add_trained_parts(lisa.network, Recipe())
    assert {one.dtype for one in trained} == {torch.float32}
    assert lisa.network.language_model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    adapters = [name for name, one in lisa.network.named_parameters() if ".lora_" in name]
    assert len(adapters) == 4 * len(lisa.network.language_model.layers)


def test_the_merged_model_is_the_one_that_was_trained():
    lisa = load("nano")
    recipe = Recipe(lora_rank=4, lora_alpha=12, lora_dropout=0)
    recipes.add_trained_parts(lisa.network, recipe)
    torch.manual_seed(0)
    for name, one in lisa.network.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(one, std=0.05)
    words = torch.randn(1, 5, lisa.config.llama["hidden_size"])
    with torch.no_grad():
        trained = lisa.network.language_model(inputs_embeds=words).last_hidden_state
        tensors = recipes.merged(lisa.network, 12 / 4, torch.float32)
        other = load("nano").network
        before = other.language_model(inputs_embeds=words).last_hidden_state
        other.load_state_dict(tensors)
        after = other.language_model(inputs_embeds=words).last_hidden_state
    assert torch.allclose(after, trained, atol=1e-4)
    assert not torch.allclose(before, trained, atol=1e-2)


def test_presets_are_recipes_and_say_what_the_authors_do():
    for path in PRESETS.glob("*.yaml"):
        read_recipe(path)
    for name in ("lisa-7b", "lisa-13b"):
        recipe = read_recipe(name)
        assert (recipe.steps, recipe.batch * recipe.accumulate * 8, recipe.lr) == (5000, 160, 3e-4)
        assert (recipe.lora_rank, recipe.lora_alpha, recipe.rates) == (8, 16, [9, 3, 3, 1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lr: 1e-4\nlearning_rate: 3\n", "line 2: there is no key learning_rate; a recipe knows"),
        ("epochs: many\n", "line 1: epochs must be int, not 'many'"),
        ("lr: fast\n", "line 1: lr must be a number, not 'fast'"),
        ("batch: 2\naccumulate: 0\n", "line 2: accumulate must be at least 1"),
        ("decay: sudden\n", "line 1: decay must be one of linear, cosine"),
        ("a: [1,\n", "is no YAML: while parsing"),
        ("a: [1,\n", 'mine.yaml", line 2, column 1'),
        ("lr: \x07\n", "is no text in UTF-8"),
        ("lr: 1\nbatch: 2\nlr: 2\n", "line 3: lr stands in"),
        ("batch: 1\nlr: -1\n", "line 2: lr must be at least 0"),
        ("lora_dropout: 1.5\n", "line 1: lora_dropout must be at most 1"),
        ("rates: [9, 3, 3, none]\n", "line 1: rates must be numbers above 0"),
        ("lr: 1\nrates: [9, 3]\n", "line 2: rates must be 4 numbers"),
        ("sets:\n  mine: ade20k\n", "line 1: the group mine must be a list of sets"),
        ("lr: 1\nsets: {mine: [ade]}\n", "line 2: there is no set ade; there are ade20k"),
        ("- 1\n", "must be a table"),
    ],
)
def test_a_recipe_that_cannot_be_is_said_with_file_and_line(text, sentence, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"mine\.yaml") as error:
        read_recipe(path)
    assert sentence in str(error.value)


def test_a_recipe_may_be_in_utf_16_as_editors_of_windows_write_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("output: für\nbatch: 3\n", encoding="utf-16")
    assert (read_recipe(path).output, read_recipe(path).batch) == ("für", 3)
    for text, encoding, words in (
        ("output: für\n", "latin-1", "save it as UTF-8"),
        ("output: a\n", "utf-16-le", "save it as UTF-8"),
        ("output: [\n", "utf-16", 'mine.yaml", line 2'),
    ):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(RecipeError, match=words) as error:
            read_recipe(path)
        assert "unicode string" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.yaml"], "presets: finetune, lisa-13b"),
        (["tiny"], "output: name the folder"),
        (["tiny", "output=o"], "give data (the root"),
        (["tiny", "output=o", "data=gone"], "ade20k: there is no folder gone/ade20k/images"),
        (["tiny", "output=o", "data=gone", "rates=[1]"], "rates must be 4 numbers"),
        (["tiny", "output=o", "data=gone", "sets={a: [ade]}", "rates=[1]"], "there is no set ade"),
        (["tiny", "fast"], "fast is no KEY=VALUE"),
        (["tiny", "sets={a: ["], "sets={a: [ is no YAML: while parsing"),
        (["tiny", "output=o", "data=gone"], "`lisa-ros data check gone` says what is missing"),
    ],
)
def test_a_recipe_that_cannot_begin_is_said(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_rank_that_dies_is_a_sentence_of_the_others(monkeypatch, capsys):
    def gone(recipe):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:3")

    monkeypatch.setattr(recipes, "follow", gone)
    assert main(["tiny", "output=o"]) == 2
    assert "another process of this training has ended" in capsys.readouterr().err
