"""Writing that loses nothing: ask first, write beside, sync, rename; what is not ours stays.

Everything that lisa_ros leaves on a disk is written by these functions.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lisa_ros.errors import WriteError


def writable_folder(folder: Path) -> Path:
    """Prove that a file can be written into a folder, or into the one that it is to be made in.

    A command that will write calls this (or `writable_file`) before it begins to work. Nothing is
    made: a command that is refused leaves no empty folder (`written_beside` makes it).

    Raises:
        WriteError: it cannot be made, or not be written to.
    """
    try:
        there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
        if not there.is_dir():
            what = "it" if there == folder else there
            raise WriteError(f"cannot write into the folder {folder}: {what} is a file, no folder")
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        # such as /proc, which is there
        why = "it takes no files" if isinstance(error, FileNotFoundError) else reason(error)
        raise WriteError(f"cannot write into the folder {folder}: {why}") from error
    return folder


def writable_file(path: Path, *, new_folder: bool = False) -> Path:
    """Prove that a file can be written at a path, whose folder must be there or is a `new_folder`.

    Raises:
        WriteError: the path is a folder, or nothing can be written beside it.
    """
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a folder; name a file")
    if not (new_folder or path.parent.is_dir()):
        raise WriteError(f"cannot write {path}: there is no folder {path.parent}")
    if not _is_device(path):
        writable_folder(path.parent)
    return path


def writable_files(*paths: Path | None, read: Path | None = None, new_folder: bool = False) -> None:
    """`writable_file` for every file that a command will write; None: it will not.

    Raises:
        WriteError: also where two of them are one file, or one is the file that the command reads.
    """
    taken = {os.path.realpath(read): "which is read"} if read else {}
    for path in filter(None, paths):
        real = os.path.realpath(writable_file(path, new_folder=new_folder))
        if not _is_device(path) and real in taken:
            raise WriteError(f"cannot write {path}, {taken[real]}: name another file")
        taken[real] = "to which something else is written"


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A path in the target's folder to write a file or a folder to, which becomes the target.

    The target's folder is made if it is not there.
    At the end of the block what was written is synced and renamed; a file replaces an older one,
    a folder must be new. If the block raises, or the disk is full, it is removed again and the
    target stays as it was. A device or pipe (`/dev/stdout`) is written to as it is.

    Raises:
        WriteError: for every OSError of the block and of renaming.
    """
    is_device = _is_device(target)
    target = Path(os.path.realpath(target))  # a link stays one
    beside = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target if is_device else beside
        if is_device:
            return
        for path in [*beside.rglob("*"), beside]:
            sync(path)
        os.rename(beside, target)
        sync(target.parent)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {reason(error)}") from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            with suppress(OSError):  # its folder may be a file
                beside.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed in `written_beside` left in a folder.

    For the folder of a run before it begins: nobody else may be writing there.
    """
    for part in folder.glob(".*.[0-9]*.part"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a whole file (text in UTF-8), or leave it as it was.

    Raises:
        WriteError: it cannot be written.
    """
    with written_beside(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time works on a folder; the others wait. The lock ends with its process."""
    writable_folder(folder.parent).mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f".{folder.name}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """Where what was drawn or converted once is kept: `XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        WriteError: there is no home to have one.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise WriteError("there is no home folder: set HOME or XDG_CACHE_HOME") from error
    return writable_folder(base / "lisa_ros")


def _is_device(path: Path) -> bool:
    return path.exists() and not (path.is_file() or path.is_dir())


def sync(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: OSError) -> str:
    """What the system says, without the path that the sentence has already."""
    return error.strerror or str(error) or type(error).__name__
