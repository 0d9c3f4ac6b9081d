"""What is written is whole or not there, and nothing else is touched."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lisa_ros.errors import WriteError
from lisa_ros.writing import (
    cache_folder,
    locked,
    writable_file,
    writable_files,
    writable_folder,
    write_file,
    written_beside,
)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    target.write_text("old")
    with pytest.raises(WriteError, match="No space left"), written_beside(target) as beside:
        beside.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["model.bin"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt), written_beside(target) as beside:
        beside.mkdir()
        (beside / "half").write_text("")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with written_beside(target) as beside:
        beside.mkdir()
        (beside / "whole").write_text("yes")
    assert (target / "whole").read_text() == "yes" and os.listdir(tmp_path) == ["set"]


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("")
    with pytest.raises(WriteError), written_beside(tmp_path / "set") as beside:
        beside.mkdir()
        (beside / "other").write_text("")
    assert os.listdir(tmp_path) == ["set"] and os.listdir(tmp_path / "set") == ["mine"]


def test_what_is_written_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename = os.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("sync"))
    monkeypatch.setattr(os, "rename", lambda a, b: (done.append("rename"), rename(a, b)))
    write_file(tmp_path / "a", "words")
    assert done == ["sync", "rename", "sync"]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    write_file(writable_file(Path("/dev/null")), "gone")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("name", ["folder", "missing/file"])
def test_a_place_for_no_file_is_named_at_the_start(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match=name.split("/")[0]):
        writable_file(tmp_path / name)


def test_a_file_is_not_written_twice_nor_over_what_is_read(tmp_path: Path) -> None:
    one, link = tmp_path / "one", tmp_path / "link"
    link.symlink_to(one)
    writable_files(one, tmp_path / "other", None, read=tmp_path / "third")
    writable_files(Path("/dev/null"), Path("/dev/null"))
    with pytest.raises(WriteError, match="something else is written"):
        writable_files(one, None, link)
    with pytest.raises(WriteError, match="which is read"):
        writable_files(one, read=link)


def test_asking_leaves_nothing_behind(tmp_path: Path) -> None:
    writable_folder(tmp_path / "a" / "b")
    writable_file(tmp_path / "a" / "b" / "file", new_folder=True)
    assert os.listdir(tmp_path) == []
    write_file(tmp_path / "a" / "b" / "file", "words")
    assert os.listdir(writable_folder(tmp_path / "a" / "b")) == ["file"]
    (tmp_path / "file").write_text("")
    with pytest.raises(
        WriteError, match=r"cannot write into the folder .*/file is a file, no folder"
    ):
        writable_folder(tmp_path / "file" / "sub")
    with pytest.raises(
        WriteError, match=r"cannot write into the folder .*: it is a file, no folder"
    ):
        writable_folder(tmp_path / "file")


def test_a_folder_of_the_system_that_takes_no_files_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc answers root; others are not permitted to ask."""

    def refused(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(
        WriteError, match=f"cannot write into the folder {tmp_path}: it takes no fi"
    ):
        writable_file(tmp_path / "a.png")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(WriteError, match="set HOME or XDG_CACHE_HOME"):
        cache_folder()


def test_two_processes_take_turns_at_a_folder(tmp_path: Path) -> None:
    """Both append a word at the beginning and at the end of their turn."""
    program = (
        "import sys, time; from pathlib import Path; from lisa_ros.writing import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    log = open(sys.argv[2], 'a'); print('in', file=log, flush=True); time.sleep(0.3)\n"
        "    print('out', file=log, flush=True)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "cache"), str(tmp_path / "log")]
    both = [subprocess.Popen(words) for _ in range(2)]
    assert [process.wait(400) for process in both] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", "out", "in", "out"]
    with locked(tmp_path / "cache"):
        pass
