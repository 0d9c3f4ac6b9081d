"""`lisa-ros fetch` against a hub of our own on the loopback, and ids looked up in its cache."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import mask_of
from official_layout import GOLDEN, TOWER, write_official
from small_hub import SmallHub, fetch, small_hub, start_fetch

from lisa_ros.cli import main
from lisa_ros.errors import CheckpointError
from lisa_ros.model import hub as hub_layout
from lisa_ros.model.checkpoint import load
from lisa_ros.model.config import find

BIG = 26_000_000
CHUNK = 10 * 1024 * 1024  # what huggingface_hub writes at once


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A released LISA, its tower, one with a large file, and what is none."""
    folder = tmp_path_factory.mktemp("hub")
    settings = dict.fromkeys(("vision_tower", "mm_vision_tower"), "lab/clip")
    lisa = write_official(folder / "lisa", settings=settings)
    big = folder / "big"
    shutil.copytree(lisa, big, ignore=shutil.ignore_patterns("pytorch_model*"))
    (big / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(BIG))
    llama, old = folder / "llama", folder / "old"
    for other in (llama, old):
        other.mkdir()
        (other / "config.json").write_text(json.dumps({"model_type": "llama"}))
        (other / "pytorch_model.bin").write_bytes(b"x")
    (old / "pytorch_model-visual_model.bin").write_bytes(b"x")
    return {"lab__lisa": lisa, "lab__clip": TOWER, "lab__big": big, "x__llama": llama, "x__v0": old}


@pytest.fixture
def hub(models: dict[str, Path]) -> Iterator[SmallHub]:
    with small_hub(**models) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HF_HOME, also for what this process looks up."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


def snapshot(hub: SmallHub, home: Path, name: str) -> Path:
    return home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / hub.commit


def test_what_is_fetched_says_what_it_is_and_answers_by_its_id(
    hub: SmallHub, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = fetch(hub, home, "lab/lisa", HF_TOKEN=hub.token)
    assert code == 0
    first, _, rest = out.partition("to download: ")
    for words in ("lab/lisa at main", "lab/clip at main", "licence: apache-2.0", "00001-of-00002"):
        assert words in first
    assert "are free" in rest and "lisa-ros node --model lab/lisa" in out.splitlines()[-1]
    # the token goes to the hub and not to where its files lie
    assert {r.token for r in hub.requests if r.path.startswith("cdn")} == {""}
    assert {r.token for r in hub.requests if r.path.startswith("api/models")} == {"Bearer hf_right"}

    lisa = load("lab/lisa")
    assert torch.equal(mask_of(lisa), mask_of(load(GOLDEN))) and lisa.config.name == "lisa"
    assert main(["info", "lab/lisa"]) == 0
    assert "clip/model.safetensors" in capsys.readouterr().out
    assert load(write_official(home / "other"), vision_tower="lab/clip").config.name == "other"

    # a second time nothing of weight comes, and a damaged file in the cache is found and mended
    shard = snapshot(hub, home, "lab/lisa") / "pytorch_model-00001-of-00002.bin"
    right = shard.read_bytes()
    shard.resolve().write_bytes(b"\0" + right[1:])
    hub.requests.clear()
    assert fetch(hub, home, "lab/lisa")[0] == 0
    assert (
        [r.path.split("/")[-1] for r in hub.requests if r.path.startswith("cdn/")].count(shard.name)
        == len(hub.ranges(shard.name)) - 1
        == 1
    )
    assert not hub.ranges("00002-of-00002.bin") and shard.read_bytes() == right


def test_a_line_that_breaks_is_taken_up_where_it_broke(hub: SmallHub, home: Path) -> None:
    hub.cut = {"model.safetensors": BIG - 1000}
    code, _, err = fetch(hub, home, "lab/big")
    assert code == 0, err
    heard = [r.range for r in hub.requests if r.path == f"cdn/{r.path[4:]}" and r.method == "GET"]
    assert f"bytes={2 * CHUNK}-" in heard


def test_the_next_command_goes_on_where_one_was_interrupted(hub: SmallHub, home: Path) -> None:
    def default_signals() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    hub.stall = "model.safetensors"
    process = start_fetch(hub, home, "lab/big", prepare=default_signals)
    assert hub.stalled.wait(180)
    blobs = snapshot(hub, home, "lab/big").parents[1] / "blobs"
    for _ in range(9000):  # three minutes and more
        if any(path.stat().st_size >= CHUNK for path in blobs.glob("*.incomplete")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 130 and "the same command goes on from there" in err
    with pytest.raises(CheckpointError, match="lisa-ros fetch lab/big"):
        find("lab/big")

    hub.stall = ""
    hub.requests.clear()
    code, out, _ = fetch(hub, home, "lab/big")
    assert code == 0 and "10.5 MB are there" in out and "to download: 15.9 MB" in out
    assert f"bytes={CHUNK}-" in hub.ranges("model.safetensors")
    assert find("lab/big") == snapshot(hub, home, "lab/big")


def test_a_damaged_file_never_enters_the_cache(hub: SmallHub, home: Path) -> None:
    hub.damaged = "pytorch_model-00002-of-00002.bin"
    code, _, err = fetch(hub, home, "lab/lisa")
    assert code == 2 and f"{hub.damaged} of lab/lisa arrived damaged" in err
    assert not (snapshot(hub, home, "lab/lisa") / hub.damaged).exists()
    with pytest.raises(CheckpointError, match="lisa-ros fetch lab/lisa"):
        find("lab/lisa")
    hub.damaged = ""
    assert fetch(hub, home, "lab/lisa")[0] == 0
    assert load("lab/lisa")


def test_a_gated_model_says_what_to_do_and_takes_the_token(hub: SmallHub, home: Path) -> None:
    hub.gated = "lab/lisa"
    code, _, err = fetch(hub, home, "lab/lisa")
    assert code == 2 and "lab/lisa is gated: accept its conditions" in err and "HF_TOKEN" in err
    assert fetch(hub, home, "lab/lisa", HF_TOKEN=hub.token)[0] == 0


def test_a_disk_that_fills_while_writing_keeps_what_has_come(hub: SmallHub, home: Path) -> None:
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK * 3 // 2, CHUNK * 3 // 2))

    code, _, err = fetch(hub, home, "lab/big", prepare=small_disk)
    assert code == 2 and "File too large" in err and "goes on from there" in err
    hub.requests.clear()
    assert fetch(hub, home, "lab/big")[0] == 0
    (start_of_rest,) = {r for r in hub.ranges("model.safetensors") if r}
    assert int(start_of_rest[6:-1]) >= CHUNK


@pytest.mark.parametrize(
    ("words", "more", "sentence"),
    [
        (["lab/unknown"], {}, "has no model lab/unknown, or a private one"),
        (["../lisa"], {}, "'../lisa' is no id of the hub"),
        ([""], {}, "'' is no id of the hub"),
        (["lab/a..b"], {}, "'lab/a..b' is no id of the hub"),
        (["lab/lisa", "--revision", "../main"], {}, "is no id of the hub"),
        (["lab/lisa", "--revision", "v7"], {}, "lab/lisa has no revision v7"),
        (["x/llama"], {}, "x/llama is no LISA: its config.json is that of llama"),
        (["x/v0"], {}, "LISA v0"),
        (["lab/lisa"], {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        (["lab/lisa"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reac"),
        (["lab/lisa"], {"HF_HOME": "/dev/null/home"}, "cannot write into the folder /dev/null/hom"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(
    words: list[str], more: dict, sentence: str, hub: SmallHub, home: Path
) -> None:
    code, _, err = fetch(hub, home, *words, **more)
    assert code == 2 and sentence in err and len(err.splitlines()) == 1 and "[Errno" not in err
    assert not hub.ranges("pytorch_model.bin")


def test_a_full_disk_is_told_before_anything_of_weight_comes(hub: SmallHub, home: Path) -> None:
    hub.claimed = {"model.safetensors": 10**15}
    code, _, err = fetch(hub, home, "lab/big")
    assert code == 2 and "has no room for it: 2,000,000.00 GB are to come" in err
    assert not [r for r in hub.requests if r.path.startswith("cdn")]


@pytest.mark.parametrize(
    ("look", "sentence"),
    [
        ("lab/lisa", r"neither a folder nor in the hub's cache .* `lisa-ros fetch lab/lisa`"),
        ("lab/lisa@v2", r"`lisa-ros fetch lab/lisa --revision v2`"),
        ("lab/../lisa", "no model folder"),
        ("lab/lisa@../../x", "no model folder"),
    ],
)
def test_what_is_not_in_the_cache_is_told_with_the_command(
    look: str, sentence: str, home: Path
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        find(look)


def test_a_snapshot_that_another_tool_left_in_part_is_told(hub: SmallHub, home: Path) -> None:
    folder = snapshot(hub, home, "lab/lisa")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    reference = folder.parents[1] / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text(hub.commit)
    with pytest.raises(
        CheckpointError, match=r"only a part of lab/lisa.*`lisa-ros fetch lab/lisa`"
    ):
        find("lab/lisa")


def test_the_tower_that_is_missing_is_told_with_the_command(home: Path, tmp_path: Path) -> None:
    folder = write_official(tmp_path / "lisa")
    with pytest.raises(CheckpointError, match="`lisa-ros fetch openai/clip-vit-large-patch14`"):
        load(folder)


@pytest.mark.parametrize("text", ["a", "a/b/c", "/a/b", "a/b@", "a//b", ".a/b", "a/b c", "a/b\n"])
def test_what_is_no_id(text: str) -> None:
    assert hub_layout.parse_id(text) is None
