"""LISA-7B's exact shapes, random weights, the released two-shard layout: loaded, asked, converted.

Run with `pytest -m slow test/model/test_full_size.py -s`; each size is skipped where the machine
has too little memory or disk for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sentencepiece import sentencepiece_model_pb2

PARITY = Path(__file__).parents[1] / "data" / "parity"
HIDDEN, MLP, ROWS = 4096, 11008, 32004
CLIP_WIDTH, SAM_WIDTH, SAM_DEPTH = 1024, 1280, 32
WORDS = 4
FIRST_SHARD = 0.62
"""Share of the bytes that the released first shard holds: 9.98 of 16.12 GB."""


def language_shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (ROWS, HIDDEN)
    for i in range(layers):
        for name in "qkvo":
            yield f"model.layers.{i}.self_attn.{name}_proj.weight", (HIDDEN, HIDDEN)
        yield f"model.layers.{i}.self_attn.rotary_emb.inv_freq", (64,)
        yield f"model.layers.{i}.mlp.gate_proj.weight", (MLP, HIDDEN)
        yield f"model.layers.{i}.mlp.up_proj.weight", (MLP, HIDDEN)
        yield f"model.layers.{i}.mlp.down_proj.weight", (HIDDEN, MLP)
        yield f"model.layers.{i}.input_layernorm.weight", (HIDDEN,)
        yield f"model.layers.{i}.post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "model.mm_projector.weight", (HIDDEN, CLIP_WIDTH)
    yield "model.mm_projector.bias", (HIDDEN,)
    yield "lm_head.weight", (ROWS, HIDDEN)


def linear(name: str, inside: int, outside: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outside, inside)
    yield f"{name}.bias", (outside,)


def float32_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from linear("model.text_hidden_fcs.0.0", HIDDEN, HIDDEN)
    yield from linear("model.text_hidden_fcs.0.2", HIDDEN, 256)
    encoder = "model.visual_model.image_encoder."
    yield encoder + "pos_embed", (1, 64, 64, SAM_WIDTH)
    yield encoder + "patch_embed.proj.weight", (SAM_WIDTH, 3, 16, 16)
    yield encoder + "patch_embed.proj.bias", (SAM_WIDTH,)
    for i in range(SAM_DEPTH):
        block, span = f"{encoder}blocks.{i}.", 127 if i in (7, 15, 23, 31) else 27
        for norm in ("norm1", "norm2"):
            yield from ((f"{block}{norm}.{kind}", (SAM_WIDTH,)) for kind in ("weight", "bias"))
        yield block + "attn.rel_pos_h", (span, 80)
        yield block + "attn.rel_pos_w", (span, 80)
        yield from linear(block + "attn.qkv", SAM_WIDTH, 3 * SAM_WIDTH)
        yield from linear(block + "attn.proj", SAM_WIDTH, SAM_WIDTH)
        yield from linear(block + "mlp.lin1", SAM_WIDTH, 4 * SAM_WIDTH)
        yield from linear(block + "mlp.lin2", 4 * SAM_WIDTH, SAM_WIDTH)
    yield encoder + "neck.0.weight", (256, SAM_WIDTH, 1, 1)
    yield encoder + "neck.2.weight", (256, 256, 3, 3)
    for norm in ("1", "3"):
        yield from ((f"{encoder}neck.{norm}.{kind}", (256,)) for kind in ("weight", "bias"))
    yield from decoder_shapes()


def decoder_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """The golden set's SAM has the released prompt encoder and decoder but for one width."""
    from safetensors import safe_open

    with safe_open(PARITY / "checkpoint" / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if "prompt_encoder" in name or "mask_decoder" in name:
                shape = file.get_slice(name).get_shape()
                yield name, tuple(2048 if size == 192 else size for size in shape)


def random_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Repeats one block of noise: fast to make, and real bytes on the disk."""
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape, dtype=dtype)
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(len(name))) * 0.02
    count = torch.Size(shape).numel()
    return block.to(dtype).repeat(count // len(block) + 1)[:count].clone().view(shape)


def write_checkpoint(folder: Path, layers: int) -> None:
    folder.mkdir()
    shapes = [(n, s, torch.bfloat16) for n, s in language_shapes(layers)]
    shapes += [(n, s, torch.float32) for n, s in float32_shapes()]
    total = sum(torch.Size(s).numel() * d.itemsize for _, s, d in shapes)
    weight_map, shards, written = {}, [[], []], 0
    for name, shape, dtype in shapes:
        shards[written > FIRST_SHARD * total].append((name, shape, dtype))
        written += torch.Size(shape).numel() * dtype.itemsize
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: random_tensor(name, s, d) for name, s, d in shard}, folder / file)
        weight_map |= {name: file for name, _, _ in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LISAForCausalLM"],
        "model_type": "llava",
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "mm_use_im_start_end": True,
        "mm_vision_select_layer": -2,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
        "vision_tower": "openai/clip-vit-large-patch14",
    }
    (folder / "config.json").write_text(json.dumps(config))
    added = {"<im_patch>": 32000, "<im_start>": 32001, "<im_end>": 32002, "[SEG]": 32003}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    pieces = sentencepiece_model_pb2.ModelProto()
    pieces.ParseFromString((PARITY / "tokenizer" / "tokenizer.model").read_bytes())
    for number in range(len(pieces.pieces), 32000):
        pieces.pieces.add(piece=f"\u2581filler{number}", score=-1e4 - number)
    (folder / "tokenizer.model").write_bytes(pieces.SerializeToString())


def write_tower(folder: Path) -> None:
    """CLIP ViT-L/14 for 224 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=CLIP_WIDTH,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
    )
    CLIPVisionModel(config).bfloat16().save_pretrained(folder)


def ask(folder: str, tower: str, dtype: str) -> None:
    """In a process of its own: load, a mask, a few words; prints seconds and memory in GB."""
    import time

    from model_samples import noise_image

    from lisa_ros.engine.engine import Engine, EngineConfig
    from lisa_ros.model.checkpoint import load

    start = time.perf_counter()
    lisa = load(folder, dtype=getattr(torch, dtype), vision_tower=tower)
    loaded = time.perf_counter()
    engine, image = Engine(lisa, EngineConfig(draft_tokens=0)), noise_image(480, 640)
    mask = engine.segment(image, "the cup", mode="mask", key="frame")
    masked = time.perf_counter()
    words = engine.segment(image, "the cup", mode="text", key="frame", max_new_tokens=WORDS)
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in lisa.network.parameters()),
                "seg_token_id": lisa.config.seg_token_id,
                "forwards": mask.counters["forwards"],
                "tokens": words.counters["tokens"],
                "load_s": round(loaded - start, 1),
                "mask_s": round(masked - loaded, 1),
                "words_s": round(time.perf_counter() - masked, 1),
                "mask_stages_s": {k: round(v / 1000, 1) for k, v in mask.timings.items()},
                "words_stages_s": {k: round(v / 1000, 1) for k, v in words.timings.items()},
                **memory(),
            }
        )
    )


def rewrite(folder: str, tower: str, target: str) -> None:
    from lisa_ros.model.checkpoint import convert

    convert(folder, target, vision_tower=tower)
    print(json.dumps(memory()))


def memory() -> dict[str, float]:
    """Peak resident memory, mapped files included, and what is now held besides mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    fields = {"peak_gb": "VmHWM", "anonymous_gb": "RssAnon"}
    return {name: round(int(lines[field].split()[0]) / 1e6, 2) for name, field in fields.items()}


def in_its_own_process(call: str, *arguments: Path | str) -> dict[str, float]:
    code = f"import test_full_size as t; t.{call}(*{[str(a) for a in arguments]})"
    paths = [
        str(Path(__file__).parent),
        str(Path(__file__).parents[1]),
        str(Path(__file__).parents[2]),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def room_for(layers: int, width: int, folder: Path) -> float:
    """GB that the model takes at `width` bytes a weight; skips where that is too much.

    What is used as it is stored stays a mapped file, which the system may drop and read again.
    """
    language = 0.26 + layers * 0.2024  # billions of weights
    needed = width * 0.64 + 4 if width == 2 else width * (language + 0.64 + 0.32) + 2
    disk = 2.2 * (2 * language + 3.3)
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) / 1e6 for line in meminfo if "MemAvailable" in line)
    if free < needed:
        pytest.skip(f"{free:.0f} GB of memory are free, {needed:.0f} are needed")
    if shutil.disk_usage(folder).free / 1e9 < disk:
        pytest.skip(f"less than {disk:.0f} GB of disk are free")
    return needed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "dtype"), [(32, "bfloat16"), (8, "float32")], ids=["whole", "quarter depth"]
)
def test_lisa_7b_loads_answers_and_converts(
    layers: int, dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("takes many minutes and up to 37 GB of disk; run with -m slow")
    needed = room_for(layers, getattr(torch, dtype).itemsize, tmp_path)
    folder, tower = tmp_path / "LISA-7B-v1", tmp_path / "clip"
    write_checkpoint(folder, layers)
    write_tower(tower)
    sizes = [file.stat().st_size / 1e9 for file in folder.glob("*.bin")]
    converted = in_its_own_process("rewrite", folder, tower, tmp_path / "native")
    print(f"\n{layers} layers, shards of {sizes} GB, converted: {converted}")
    assert converted["peak_gb"] < max(sizes) + 2
    asked = in_its_own_process("ask", folder, tower, dtype)
    print(f"loaded in {dtype} and asked: {asked}")
    if layers == 32:
        # the released weights, CLIP, and less the 5,964 of SAM's prompt encoder without use here
        assert asked["parameters"] == 7_401_567_536 + 303_179_776 - 5_964
    assert asked["seg_token_id"] == 32003
    assert asked["forwards"] == 1
    assert asked["tokens"] == WORDS
    assert asked["anonymous_gb"] < needed
    shutil.rmtree(tmp_path)
