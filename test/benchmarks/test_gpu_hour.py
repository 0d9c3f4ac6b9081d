"""The script for an hour's GPU, tried end to end on a processor with tiny numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lisa_tabletop.language.nouns import held_out_vocabulary, write_nouns

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_hour.sh"


def run(out: Path, steps: str, **settings: str) -> str:
    """The script's log; what it leaves lies in `out`."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "DEVICE": "cpu",
        "PRESET": "tiny",
        "RUN": str(out.parent / "run"),
        "STEPS": steps,
        **settings,
    }
    subprocess.run(["bash", SCRIPT, out], env=environment, check=True, capture_output=True)
    files = list(out.iterdir())
    assert len(files) <= 8
    assert max(file.stat().st_size for file in files) < 16e6
    return (out / "log.txt").read_text()


def test_bench_and_memory_leave_numbers_and_a_plot(tmp_path: Path) -> None:
    log = run(tmp_path / "out", "bench memory", QUANTIZATIONS="none")
    assert "== memory: exit code 0" in log
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert found["none"]["presets"][0]["preset"] == "tiny"
    assert (tmp_path / "out" / "bench.png").stat().st_size > 10_000
    assert set(json.loads((tmp_path / "out" / "memory.json").read_text())) == {
        "before",
        "loaded",
        "after_cleanup",
    }


@pytest.mark.timeout(1200)
def test_what_was_trained_comes_back_whole_or_cut_off(tmp_path: Path, tokenizer) -> None:
    prepared = tmp_path / "prepared"
    (prepared / "tokenizer").mkdir(parents=True)
    tokenizer.save(prepared / "tokenizer")
    write_nouns(held_out_vocabulary().nouns, prepared / "nouns.txt")
    arguments = "--tables 2 --renderers 1 --threads 1"
    log = run(tmp_path / "out", "train", MINUTES="1.2", PREPARED=str(prepared), TRAIN=arguments)
    assert "== train: exit code" in log
    parts = sorted((tmp_path / "out").glob("nano.tar.gz.*"))
    whole = tmp_path / "nano.tar.gz"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(whole) as packed:
        names = set(packed.getnames())
    assert names & {"checkpoint/model.safetensors", "cut_off.pt"}, log
    assert "nouns.txt" in names


def test_a_step_that_fails_is_named_and_the_next_one_runs(tmp_path: Path) -> None:
    log = run(tmp_path / "out", "bench memory", PRESET="lisa-8b", QUANTIZATIONS="none")
    assert "== bench none: exit code 2" in log
    assert "== memory: exit code 0" in log
