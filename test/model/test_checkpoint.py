"""Checkpoints in every layout that users bring, native ones, and conversion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from model_samples import mask_of, noise_image, small_lisa
from official_layout import GOLDEN, PARITY, TOWER, golden_tensors, write_official, write_tower
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lisa_ros.cli import main
from lisa_ros.errors import CheckpointError, WriteError
from lisa_ros.model.checkpoint import convert, describe, load, save, verify
from lisa_ros.model.config import SHIPPED
from lisa_ros.model.hub import sha256


@pytest.fixture(scope="module")
def golden_mask() -> Tensor:
    return mask_of(load(GOLDEN))


def test_pickle_shards_give_what_the_safetensors_give(tmp_path: Path, golden_mask: Tensor) -> None:
    lisa = load(write_official(tmp_path), vision_tower=TOWER)
    assert torch.equal(mask_of(lisa), golden_mask)


def test_sizes_come_from_the_tensors_not_from_the_file(tmp_path: Path, golden_mask: Tensor) -> None:
    wrong = {"vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32}
    lisa = load(write_official(tmp_path, settings=wrong), vision_tower=TOWER)
    assert torch.equal(mask_of(lisa), golden_mask)


def test_one_pickle_in_the_format_before_zip_files_loads(
    tmp_path: Path, golden_mask: Tensor
) -> None:
    write_official(tmp_path)
    for file in tmp_path.glob("pytorch_model*"):
        file.unlink()
    torch.save(
        golden_tensors(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False
    )
    assert torch.equal(mask_of(load(tmp_path, vision_tower=TOWER)), golden_mask)


def test_seg_may_be_the_last_added_token_as_in_7b(tmp_path: Path, golden_mask: Tensor) -> None:
    # golden, as 13B: [SEG] 96, <im_start> 97, <im_end> 98; 7B has [SEG] last
    tensors = golden_tensors()
    order = torch.tensor([*range(96), 97, 98, 96])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][order].clone()
    added = {"<im_start>": 96, "<im_end>": 97, "[SEG]": 98}
    lisa = load(write_official(tmp_path, tensors, added=added), vision_tower=TOWER)
    assert lisa.config.seg_token_id == lisa.tokenizer.seg_id == 98
    assert torch.equal(mask_of(lisa), golden_mask)


def test_lisa_plus_plus_has_a_deeper_projector_and_many_masks(tmp_path: Path) -> None:
    tensors = golden_tensors()
    weight = tensors.pop("model.mm_projector.weight")
    bias = tensors.pop("model.mm_projector.bias")
    tensors |= {
        "model.mm_projector.0.weight": weight,
        "model.mm_projector.0.bias": bias,
        "model.mm_projector.2.weight": torch.eye(64, dtype=weight.dtype),
        "model.mm_projector.2.bias": torch.zeros(64, dtype=weight.dtype),
    }
    folder = write_official(tmp_path, tensors, settings={"mm_use_im_start_end": False})
    lisa = load(folder, vision_tower=TOWER)
    assert lisa.config.mask_instances
    assert not lisa.config.image_start_end
    views = lisa.processor.clip_pixels(noise_image(60, 80))[None]
    golden = load(GOLDEN).network.encode_view(views)
    torch.testing.assert_close(
        lisa.network.encode_view(views), torch.nn.functional.gelu(golden), atol=1e-5, rtol=1e-4
    )
    assert describe(folder, TOWER)["format"] == "official LISA++"


def test_the_tower_decides_how_many_positions_a_view_takes(tmp_path: Path) -> None:
    settings = {"vision_tower": "openai/clip-vit-large-patch14-336"}
    folder = write_official(tmp_path / "lisa", settings=settings)
    lisa = load(folder, vision_tower=write_tower(tmp_path / "tower", 336))
    view = lisa.network.encode_view(lisa.processor.clip_pixels(noise_image(60, 80))[None])
    assert view.shape == (1, 576, 64)
    assert lisa.config.image_tokens == 576


def test_the_rotary_base_is_read_in_both_places(tmp_path: Path, golden_mask: Tensor) -> None:
    """transformers 5 writes `rope_parameters`, and no `rope_theta` beside it."""
    masks = []
    for number, settings in enumerate(
        (
            {"rope_theta": 500.0},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
            {"rope_scaling": None},
        )
    ):
        folder = write_official(tmp_path / str(number), settings=settings)
        masks.append(mask_of(load(folder, vision_tower=TOWER)))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], golden_mask) and torch.equal(masks[3], golden_mask)
    assert not torch.allclose(masks[0], golden_mask)


def test_settings_that_are_not_given_are_those_of_the_released_models(
    tmp_path: Path, golden_mask: Tensor
) -> None:
    folder = write_official(tmp_path / "lisa")
    settings = json.loads((folder / "config.json").read_text())
    for name in ("mm_use_im_start_end", "mm_vision_select_layer", "mm_vision_select_feature"):
        del settings[name]
    (folder / "config.json").write_text(json.dumps(settings))
    assert torch.equal(mask_of(load(folder, vision_tower=TOWER)), golden_mask)


def test_weights_saved_from_a_wrapped_model(tmp_path: Path, golden_mask: Tensor) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in golden_tensors().items()}
    lisa = load(write_official(tmp_path, wrapped), vision_tower=TOWER)
    assert torch.equal(mask_of(lisa), golden_mask)


@pytest.mark.parametrize(
    "name", ["/data/336/clip-vit-large-patch14", "runs_of_336/tower", "clip-vit-336-of-ours"]
)
def test_the_towers_size_is_not_guessed_from_its_path(
    name: str, tmp_path: Path, golden_mask: Tensor
) -> None:
    folder = write_official(tmp_path, settings={"vision_tower": name, "mm_vision_tower": name})
    assert torch.equal(mask_of(load(folder, vision_tower=TOWER)), golden_mask)


def test_a_whole_clip_serves_as_tower(tmp_path: Path, golden_mask: Tensor) -> None:
    tower = write_tower(tmp_path / "clip", 224, whole_clip=True)
    lisa = load(write_official(tmp_path / "lisa"), vision_tower=tower)
    assert torch.equal(mask_of(lisa), golden_mask)


def test_a_tower_beside_the_checkpoint_is_found(tmp_path: Path, golden_mask: Tensor) -> None:
    write_tower(tmp_path / "clip-vit-large-patch14", 224)
    assert torch.equal(mask_of(load(write_official(tmp_path / "lisa"))), golden_mask)


def test_a_tower_inside_the_checkpoint_wins(tmp_path: Path, golden_mask: Tensor) -> None:
    tensors = golden_tensors()
    for name, tensor in load_file(TOWER / "model.safetensors").items():
        tensors[f"model.vision_tower.vision_tower.{name}"] = tensor
    other = write_tower(tmp_path / "tower", 224)
    (other / "model.safetensors").unlink()
    lisa = load(write_official(tmp_path / "lisa", tensors), vision_tower=other)
    assert torch.equal(mask_of(lisa), golden_mask)


def test_stored_rotary_frequencies_are_not_used(tmp_path: Path, golden_mask: Tensor) -> None:
    tensors = golden_tensors()
    stored = [name for name in tensors if name.endswith("inv_freq")]
    assert stored
    for name in stored:
        tensors[name] = torch.zeros_like(tensors[name])
    assert torch.equal(
        mask_of(load(write_official(tmp_path, tensors), vision_tower=TOWER)), golden_mask
    )


def test_what_is_saved_loads_and_answers_the_same(tmp_path: Path) -> None:
    lisa = small_lisa()
    save(lisa, tmp_path / "new" / "folder")
    again = load(tmp_path / "new" / "folder")
    assert again.config == lisa.config
    torch.testing.assert_close(mask_of(again), mask_of(lisa), atol=1e-5, rtol=0)
    assert not any(p.requires_grad for p in again.network.parameters())
    assert not again.network.training


def test_saving_again_leaves_a_loaded_model_alone(tmp_path: Path) -> None:
    save(small_lisa(), tmp_path)
    loaded = load(tmp_path)
    before = mask_of(loaded)
    save(small_lisa(seed=1), tmp_path)
    assert torch.equal(mask_of(loaded), before)
    assert not torch.allclose(mask_of(load(tmp_path)), before, atol=1e-3)


def test_config_json_of_a_native_checkpoint_is_the_config(tmp_path: Path) -> None:
    lisa = small_lisa()
    save(lisa, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == vars(lisa.config)


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
def test_nano_is_found_by_name() -> None:
    lisa = load("nano")
    assert lisa.config.conversation == "nano"
    assert mask_of(lisa).shape == (1, 60, 80)


def test_a_converted_checkpoint_answers_the_same(tmp_path: Path, golden_mask: Tensor) -> None:
    source = write_official(tmp_path / "source")
    convert(source, tmp_path / "native", vision_tower=TOWER)
    assert torch.equal(mask_of(load(tmp_path / "native")), golden_mask)
    assert load(tmp_path / "native").config == load(source, vision_tower=TOWER).config
    assert describe(tmp_path / "native")["format"] == "native"
    assert not list((tmp_path / "native").glob("*.part"))


def test_conversion_keeps_the_stored_precision(tmp_path: Path) -> None:
    tensors = golden_tensors()
    for name in tensors:
        if "visual_model" in name or "text_hidden_fcs" in name:
            tensors[name] = tensors[name].float()
    convert(write_official(tmp_path / "source", tensors), tmp_path / "native", vision_tower=TOWER)
    written = load_file(tmp_path / "native" / "model.safetensors")
    assert written["lm_head.weight"].dtype == torch.bfloat16
    assert written["text_hidden_fcs.0.weight"].dtype == torch.float32
    assert written["image_encoder.pos_embed"].dtype == torch.float32


def test_conversion_records_hashes_and_notices_changes(tmp_path: Path) -> None:
    source, native = write_official(tmp_path / "source"), tmp_path / "native"
    convert(source, native, vision_tower=TOWER)
    record = json.loads((native / "conversion.json").read_text())
    for number in (1, 2):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        assert record["source"][f"source/{name}"] == sha256(source / name)
    assert record["source"]["clip-vit-tiny/model.safetensors"] == sha256(
        TOWER / "model.safetensors"
    )
    assert verify(native)
    with (native / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    assert not verify(native)


@pytest.mark.parametrize("empty", (False, True))
def test_a_conversion_that_fails_leaves_no_half_folder(
    empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a last file that cannot be written: nothing is there that looks like a model."""
    source, native = write_official(tmp_path / "source"), tmp_path / "native"
    if empty:
        native.mkdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lisa_ros.model.tokenizer.write_file", full)
        with pytest.raises(WriteError, match=r"native: No space left"):
            convert(source, native, vision_tower=TOWER)
    assert sorted(p.name for p in tmp_path.iterdir()) == (["native"] if empty else []) + ["source"]
    assert not empty or not list(native.iterdir())
    convert(source, native, vision_tower=TOWER)
    assert verify(native)


@pytest.mark.parametrize("broken", ("weights.save_file", "checkpoint.write_file"))
def test_saving_on_a_full_disk_leaves_the_older_model(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(small_lisa(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def full_as_well(*_: object) -> None:
        raise WriteError("cannot write config.json: No space left on device")

    fault = full if broken == "weights.save_file" else full_as_well
    monkeypatch.setattr(f"lisa_ros.model.{broken}", fault)
    with pytest.raises(WriteError, match="No space left"):
        save(small_lisa(seed=1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_conversion_never_writes_over_something(tmp_path: Path) -> None:
    source = write_official(tmp_path / "source")
    with pytest.raises(CheckpointError, match="not empty"):
        convert(source, source, vision_tower=TOWER)


def test_convert_and_info_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, native = write_official(tmp_path / "source"), tmp_path / "native"
    tower = ["--vision-tower", str(TOWER)]
    assert main(["convert", str(source), str(native), *tower, "--conversation", "vicuna_v1"]) == 0
    assert load(native).config.conversation == "vicuna_v1"
    capsys.readouterr()
    assert main(["info", str(native), "--verify"]) == 0
    told = capsys.readouterr().out
    for words in ("native", "3 layers of 64", "id 96", "vicuna_v1", "as converted"):
        assert words in told
    assert main(["info", str(source), *tower, "--verify"]) == 0
    told = capsys.readouterr().out
    assert "official" in told and "nothing to check: not converted" in told
    assert main(["convert", str(native), str(tmp_path / "copy")]) == 0
    assert f"{tmp_path / 'copy'}, a copy: {native} is native already" in capsys.readouterr().out
    (native / "conversion.json").write_text("{}")
    assert main(["info", str(native), "--verify"]) == 2
    assert "conversion.json is no record of a conversion" in capsys.readouterr().err


def test_info_says_what_another_folder_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(TOWER)]) == 2
    assert "not that of a LISA but of a clip_vision_model" in capsys.readouterr().err
    assert main(["info", str(PARITY)]) == 2
    assert "no model folder" in capsys.readouterr().err
