"""The JSON of data sets: one reader for all of them, and the line on which a fault stands."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lisa_ros.errors import LisaError

_WORDS_IN_ANOTHER_PAGE = re.compile(rb"[\xa0-\xff]{2}")
_HALF_LETTER = re.compile("[\ud800-\udfff]")
_BETWEEN = re.compile(r"[\s,:]*")
_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


class DatasetError(LisaError):
    """A folder of questions cannot be read, or cannot be written where it was asked for."""


def read_json(path: Path) -> Any:
    """The content of a JSON in UTF-8, or in Windows' code page where single letters show it.

    Raises:
        DatasetError: there is no such file, or it cannot be read, with the place in it.
    """
    text = _text(path)
    try:
        content = json.loads(text, parse_constant=_no_number)
        # a whole letter may be written as two halves, so what was parsed is looked at
        said = json.dumps(content, ensure_ascii=False) if "\\ud" in text.lower() else ""
        half = _HALF_LETTER.search(said)
    except (ValueError, RecursionError) as error:
        words = str(error)
        if not isinstance(error, json.JSONDecodeError) and isinstance(error, ValueError):
            found = next((one for one in _NO_NUMBER.finditer(text) if one[1]), None)
            words += f": line {text.count(chr(10), 0, found.start()) + 1}" if found else ""
        raise DatasetError(f"{path} cannot be read as JSON: {words}") from error
    if half:
        name = f"\\u{ord(half[0]):x}"
        line = text.count("\n", 0, text.lower().find(name)) + 1
        raise DatasetError(f"{path} names half a letter, {name}, which is no text: line {line}")
    return content


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {path}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # some of ReasonSeg's own files; whole words of such bytes are another code page
        if not _WORDS_IN_ANOTHER_PAGE.search(raw):
            with contextlib.suppress(UnicodeDecodeError):
                return raw.decode("cp1252")
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path} cannot be read as JSON: it is not UTF-8; save it as UTF-8: line {line}"
        ) from None


def place(path: Path, key: str | int, *way: str) -> str:
    """Where an entry stands, for the beginning of a sentence: `x.json, line 12 (shapes[3])`.

    `way`: the keys that lead to what holds it. A file of one line has the entry's number alone.
    """
    line = _lines(path, path.stat().st_mtime_ns, *way).get(key)
    name = f"{way[-1]}[{key}]" if way else f"entry {key}" if isinstance(key, int) else key
    return f"{path}, line {line} ({name})" if line else f"{path} ({name})"


@contextlib.contextmanager
def entries_of(where: Callable[[], str], what: str) -> Iterator[None]:
    """What an entry of a file lacks, or has of another kind, becomes a DatasetError.

    It says where that is, `what` it is not, and why: `x.json, line 12 is no dialogue: it has no
    'image'`.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DatasetError(f"{where()} {what}: {words(error)}") from error


def words(error: Exception) -> str:
    """What an exception says about an entry."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def require(holds: object, sentence: str) -> None:
    """Raise ValueError, for whoever says which entry it is about."""
    if not holds:
        raise ValueError(sentence)


def text_of(entry: Mapping, key: str) -> str:
    """The text that an entry has under a key; KeyError, TypeError, ValueError where it has none."""
    require(isinstance(entry[key], str), f"{key} must be text, not {entry[key]!r}")
    return entry[key]


@lru_cache(maxsize=2)  # many faults of one file are looked for one after the other
def _lines(path: Path, changed: int, *way: str) -> Mapping[str | int, int]:
    """The line of each key or entry of what `way` leads to; nothing for a file of one line."""
    text, at, found = _text(path), 0, {}
    if "\n" not in text.strip():
        return found
    decode = json.JSONDecoder().raw_decode
    for level in range(len(way) + 1):
        at = _BETWEEN.match(text, at).end()
        if text[at] not in "[{":
            return {}
        keys, at, seen, found = text[at] == "{", at + 1, 0, {}
        line, counted = text.count("\n", 0, at) + 1, at
        while text[(at := _BETWEEN.match(text, at).end())] not in "]}":
            line, counted = line + text.count("\n", counted, at), at
            key, at = decode(text, at) if keys else (seen, at)
            found[key], seen = line, seen + 1
            if level < len(way) and key == way[level]:
                break
            _, at = decode(text, _BETWEEN.match(text, at).end())
        else:
            found = found if level == len(way) else {}
            break
    return found
