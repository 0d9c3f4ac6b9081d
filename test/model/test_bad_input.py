"""Bad checkpoints: one clear sentence that names file and cause, and nothing run or half loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_samples import small_lisa
from official_layout import PARITY, TOWER, golden_tensors, write_official, write_tower

from lisa_ros.cli import main
from lisa_ros.errors import CheckpointError
from lisa_ros.model.checkpoint import load, save
from lisa_ros.model.weights import open_tensors

SHARD = "pytorch_model-00002-of-00002.bin"


class RunsCode:
    """Unpickling this calls `os.system`."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def without_added_tokens(folder: Path) -> str:
    (write_official(folder) / "added_tokens.json").unlink()
    return r"has no added_tokens\.json; without it the id of \[SEG\] is unknown"


def cut_short(folder: Path) -> str:
    shard = write_official(folder) / SHARD
    os.truncate(shard, shard.stat().st_size // 2)
    return rf"{SHARD} is damaged or cut short"


def lost_shard(folder: Path) -> str:
    (write_official(folder) / SHARD).unlink()
    return rf"lacks {SHARD}, named in pytorch_model\.bin\.index\.json"


def no_weights(folder: Path) -> str:
    for file in write_official(folder).glob("pytorch_model*"):
        file.unlink()
    return r"holds no weights"


def unknown_tensor(folder: Path) -> str:
    write_official(folder, golden_tensors() | {"model.extra.weight": torch.ones(2)})
    return r"\.bin holds tensors that no LISA has: extra\.weight"


def lacking_tensor(folder: Path) -> str:
    tensors = golden_tensors()
    del tensors["model.layers.1.self_attn.q_proj.weight"]
    write_official(folder, tensors)
    return r"lacks tensors that every LISA has: language_model\.layers\.1\.self_attn\.q_proj"


def plain_llava(folder: Path) -> str:
    tensors = {n: t for n, t in golden_tensors().items() if "visual_model" not in n}
    write_official(folder, tensors)
    return r"lacks image_encoder\..*plain LLaVA"


def repeated_tensor(folder: Path) -> str:
    write_official(folder)
    twice = torch.load(folder / SHARD) | {"lm_head.weight": golden_tensors()["lm_head.weight"]}
    torch.save(twice, folder / SHARD)
    return r"repeats lm_head\.weight of pytorch_model-00001"


def misshapen_tensor(folder: Path) -> str:
    tensors = golden_tensors()
    tensors["model.norm.weight"] = torch.ones(63)
    write_official(folder, tensors)
    return r"language_model\.norm\.weight is \(63,\), but the model's sizes ask for \(64,\)"


def other_vocabulary(folder: Path) -> str:
    added = {"[SEG]": 96, "<im_start>": 97, "<im_end>": 98, "<more>": 99}
    write_official(folder, added=added)
    return r"the tokenizer has 100 ids, the model 99 embedding rows"


def runs_code(folder: Path) -> str:
    write_official(folder)
    torch.save({"model.norm.weight": RunsCode(f"touch {folder}/ran")}, folder / SHARD)
    return rf"{SHARD} asks to run posix\.system.*nothing was run"


def version_zero(folder: Path) -> str:
    torch.save({}, write_official(folder) / "pytorch_model-visual_model.bin")
    return r"is a LISA v0 .* not supported"


def broken_config(folder: Path) -> str:
    (write_official(folder) / "config.json").write_text("{")
    return r"cannot read .*config\.json"


def stretched_positions(folder: Path) -> str:
    write_official(folder, settings={"rope_scaling": {"type": "linear", "factor": 2.0}})
    return r"rope_scaling"


def stretched_positions_of_today(folder: Path) -> str:
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
    write_official(folder, settings={"rope_parameters": rope})
    return r"config\.json: rope_parameters stretches positions .*yarn"


def class_token(folder: Path) -> str:
    write_official(folder, settings={"mm_vision_select_feature": "cls_patch"})
    return r"config\.json: mm_vision_select_feature is cls_patch"


def no_heads(folder: Path) -> str:
    write_official(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["num_attention_heads"]
    (folder / "config.json").write_text(json.dumps(config))
    return r"config\.json does not give num_attention_heads"


BAD = [
    without_added_tokens,
    cut_short,
    lost_shard,
    no_weights,
    unknown_tensor,
    lacking_tensor,
    plain_llava,
    repeated_tensor,
    misshapen_tensor,
    other_vocabulary,
    runs_code,
    version_zero,
    broken_config,
    stretched_positions,
    stretched_positions_of_today,
    class_token,
    no_heads,
]


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_official_folder(
    spoil: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = spoil(tmp_path)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load(tmp_path, vision_tower=TOWER)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    question = ["segment", str(PARITY / "image_a.png"), "the mug"]
    assert main([*question, "--model", str(tmp_path), "--vision-tower", str(TOWER)]) == 2
    assert capsys.readouterr().err == f"lisa-ros segment: {caught.value}\n"
    assert not (tmp_path / "ran").exists()


def test_a_336_tower_with_a_224_checkpoint(tmp_path: Path) -> None:
    folder, tower = write_official(tmp_path / "lisa"), write_tower(tmp_path / "tower", 336)
    with pytest.raises(CheckpointError, match=r"tower for 336 pixels, but .* one for 224"):
        load(folder, vision_tower=tower)


def test_a_tower_of_another_width(tmp_path: Path) -> None:
    tensors = golden_tensors()
    tensors["model.mm_projector.weight"] = torch.ones(64, 1024)
    folder = write_official(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=r"width 48, the projector of .* takes 1024"):
        load(folder, vision_tower=TOWER)


def test_a_missing_tower_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"openai/clip-vit-large-patch14.*--vision-tower"):
        load(write_official(tmp_path))
    with pytest.raises(CheckpointError, match="is no CLIP tower"):
        load(tmp_path, vision_tower=tmp_path / "nowhere")


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="no model folder giant"):
        load("giant")


def test_the_command_line_prints_one_sentence_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = runs_code(tmp_path)
    for command in (["info", str(tmp_path)], ["convert", str(tmp_path), str(tmp_path / "new")]):
        assert main([*command, "--vision-tower", str(TOWER)]) == 2
        printed = capsys.readouterr().err.strip()
        assert SHARD in printed and "nothing was run" in printed, sentence
        assert "\n" not in printed
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "new").exists()


@pytest.fixture
def native(tmp_path: Path) -> Path:
    save(small_lisa(), tmp_path)
    return tmp_path


def test_native_weights_cut_short(native: Path) -> None:
    weights = native / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short"):
        load(native)


def test_native_without_weights(native: Path) -> None:
    (native / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load(native)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"projector": "resampler"}, "unknown projector 'resampler'"),
        ({"conversation": "chatml"}, "unknown conversation 'chatml'"),
        ({"surprise": 1}, r"not that of a LISA: this version does not know its surprise$"),
        ({"llama": []}, r"config\.json: llama must be a table, not \[\]"),
        ({"llama": None}, "llama must be a table, not None"),
        ({"name": 5}, "name must be a text, not 5"),
        ({"seg_token_id": "3"}, "seg_token_id must be a whole number, not '3'"),
        ({"image_start_end": 1}, "image_start_end must be true or false, not 1"),
        ({"clip": {}}, "clip needs image_size, patch_size, a whole number each"),
        ({"score_calibration": 5}, "score_calibration must have bias, mask, .*, not 5"),
        ({"architectures": 5}, "does not know its architectures"),
        ({"seg_token_id": 3}, r"\[SEG\] is \d+ for the tokenizer, 3 in config\.json"),
    ],
)
def test_native_config_that_does_not_fit(native: Path, change: dict, sentence: str) -> None:
    config = json.loads((native / "config.json").read_text())
    (native / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=sentence):
        load(native)


@pytest.mark.parametrize("lost", [["clip", "name"], None])
def test_a_native_config_that_lacks_something_says_what(native: Path, lost: list | None) -> None:
    config = json.loads((native / "config.json").read_text())
    left = {name: config[name] for name in config if lost and name not in lost}
    (native / "config.json").write_text(json.dumps(left))
    names = "name, clip" if lost else "name, llama, .*, image_start_end, seg_token_id"
    with pytest.raises(CheckpointError, match=f"not that of a LISA: it lacks {names}$"):
        load(native)


def test_an_unknown_quantization_is_named(native: Path) -> None:
    with pytest.raises(CheckpointError, match=r"unknown quantization 'int3'.*int8, fp8, int4, nf4"):
        load(native, quantization="int3")


@pytest.mark.parametrize("content", [[1, 2], {"state": {"a": 1}}, {"a": torch.ones(1), "b": 2}])
def test_a_pickle_that_is_no_table_of_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no table of tensors"):
        open_tensors(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("content", [b"", b"\x80", b"not weights at all", b"PK\x03\x04junk"])
def test_bytes_that_are_no_weights(tmp_path: Path, content: bytes) -> None:
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            open_tensors(tmp_path / name)
