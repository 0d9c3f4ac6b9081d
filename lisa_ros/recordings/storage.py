"""The two kinds of file that ROS 2 records into: MCAP (https://mcap.dev/spec) and sqlite3.

A file has `channels` (number to `Topic`), `counts` (messages of each, as the file says) and
`messages`, which yields what can be read, sorted by time. What cannot be read is told to `fault`.
"""

from __future__ import annotations

import heapq
import io
import os
import sqlite3
import struct
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from rosbags.rosbag2.metadata import parse_qos

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, CHUNK_INDEX, STATISTICS, FOOTER = 3, 4, 5, 6, 8, 11, 2
HEAD = struct.Struct("<BQ")  # opcode and length of a record
FOOTER_SIZE = 37  # with the magic bytes behind it
EVER = 2**63 - 1

Message = tuple[int, int, bytes]
"""channel, time of recording in nanoseconds, CDR"""


@dataclass(frozen=True)
class Topic:
    """What a file says about one topic."""

    name: str
    type: str
    definition: str = ""
    """of its type, as the file holds it; empty if it holds none"""
    encoding: str = "cdr"
    """anything else is not ROS 2's: json, protobuf, ros1"""
    digest: str = field(default="", compare=False)
    """RIHS01 hash of the type, if the file holds one"""
    qos: tuple = field(default=(), compare=False)
    """of its publishers, as rosbags' Qos"""


class McapFile:
    """An MCAP file, by its index; one that has none, or lost it, by reading through it once."""

    def __init__(self, path: Path, fault: Callable[[str], None]) -> None:
        self._path, self._fault = path, fault
        self.channels: dict[int, Topic] = {}
        self.counts: Counter[int] = Counter()
        self._schemas: dict[int, tuple[str, str]] = {}
        self._places: list[tuple[int, int]] = []  # first time and offset of chunks and messages
        self._data: BinaryIO = path.open("rb")
        self._size = self._data.seek(0, os.SEEK_END)
        try:
            indexed = self._read_index()
        except Exception:  # then the messages are found without it
            indexed = False
        if not indexed:
            self.counts.clear()
            self._places.clear()
            self._scan(self._data, len(MAGIC), self._size)
        self._places.sort()

    def close(self) -> None:
        self._data.close()

    def messages(self, wanted: set[int], start: int, stop: int) -> Iterator[Message]:
        """Those of some channels; of equal times in the order of the file."""
        waiting: list[tuple[int, int, int, bytes]] = []
        number = 0
        for first, offset in [*self._places, (EVER, -1)]:
            while waiting and waiting[0][0] <= first:  # nothing earlier can come any more
                time, _, channel, data = heapq.heappop(waiting)
                yield channel, time, data
            if offset < 0 or first >= stop:
                continue
            for channel, time, data in self._read(offset, start):
                if channel in wanted and start <= time < stop:
                    heapq.heappush(waiting, (time, number, channel, data))
                    number += 1

    def _read(self, offset: int, start: int) -> list[Message]:
        """The messages of the chunk at an offset, if it reaches beyond `start`; or the one there.

        A chunk that is damaged behind some messages gives those.
        """
        found: list[Message] = []
        try:
            _, at, size = next(_records(self._data, offset, self._size))
            self._data.seek(at - HEAD.size)
            opcode, record = self._data.read(HEAD.size)[0], _Fields(self._data.read(size))
            if opcode == MESSAGE:
                return [record.message()]
            if record.take("QQ")[1] < start:
                return []
            chunk = record.chunk()
            for opcode, at, size in _records(io.BytesIO(chunk), 0, len(chunk)):
                if opcode == MESSAGE:
                    found.append(_Fields(chunk[at : at + size]).message())
        except Exception as error:
            self._fault(f"{self._path}: the chunk at byte {offset} is damaged: {said(error)}")
        return found

    def _read_index(self) -> bool:
        """Read the summary at the end; False if there is none, or not of everything."""
        self._data.seek(-FOOTER_SIZE, os.SEEK_END)
        footer = self._data.read()
        (begin,) = struct.unpack_from("<Q", footer, HEAD.size)
        if footer[0] != FOOTER or footer[-len(MAGIC) :] != MAGIC or not begin:
            return False
        chunks, counts = -1, b""
        for opcode, at, size in _records(self._data, begin, self._size - FOOTER_SIZE):
            self._data.seek(at)
            record = _Fields(self._data.read(size))
            self._describe(opcode, record)
            if opcode == CHUNK_INDEX:
                first, _, offset = record.take("QQQ")
                self._places.append((first, offset))
            elif opcode == STATISTICS:
                *_, chunks, _, _ = record.take("QHIIIIQQ")
                counts = record.bytes()
        self.counts.update(dict(struct.iter_unpack("<HQ", counts)))
        return chunks == len(self._places) > 0 and set(self.counts) <= set(self.channels)

    def _scan(self, data: BinaryIO, begin: int, end: int, in_chunk: bool = False) -> None:
        """Find channels and messages without an index; those in a chunk lie at its place."""
        try:
            for opcode, at, size in _records(data, begin, end):
                if opcode == FOOTER:
                    return
                begin = at + size
                data.seek(at)
                record = _Fields(data.read(min(size, 22) if opcode == MESSAGE else size))
                self._describe(opcode, record)
                if opcode == MESSAGE:
                    channel, _, time, _ = record.take("HIQQ")
                    self.counts[channel] += 1
                    if not in_chunk:
                        self._places.append((time, at - HEAD.size))
                elif opcode == CHUNK:
                    self._places.append((record.take("QQ")[0], at - HEAD.size))
                    try:
                        chunk = record.chunk()
                    except Exception:  # said when its messages are read
                        continue
                    self._scan(io.BytesIO(chunk), 0, len(chunk), in_chunk=True)
        except Exception as error:
            self._fault(
                f"{self._path} cannot be read beyond byte {begin}: {said(error)}. Was its recorder "
                "killed, or the file copied in part?"
            )

    def _describe(self, opcode: int, record: _Fields) -> None:
        """Take a schema or a channel; a schema of another format than ROS 2's has no text."""
        if opcode == SCHEMA:
            number, name, encoding = record.take("H"), record.text(), record.text()
            text = record.text() if encoding in ("ros2msg", "ros2idl", "omgidl") else ""
            self._schemas[number] = name, text
        elif opcode == CHANNEL:
            number, schema = record.take("HH")
            name, encoding = record.text(), record.text()
            more = dict(_Fields(record.bytes()).pairs())
            kind, definition = self._schemas.get(schema, ("", ""))
            digest, qos = more.get("topic_type_hash", ""), more.get("offered_qos_profiles", "")
            self.channels[number] = Topic(name, kind, definition, encoding, digest, profiles(qos))


class _Fields:
    """The fields of an MCAP record, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, layout: str) -> Any:
        """Numbers by the letters of `struct`; of a single one not a tuple."""
        values = struct.unpack_from(f"<{layout}", self._data, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return values if len(values) > 1 else values[0]

    def bytes(self, length: str = "I") -> bytes:
        size = self.take(length)
        if self._at + size > len(self._data):
            raise ValueError("a field is longer than its record")
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        return self.bytes().decode()

    def pairs(self) -> Iterator[tuple[str, str]]:
        while self._at < len(self._data):
            yield self.text(), self.text()

    def message(self) -> Message:
        channel, _, time, _ = self.take("HIQQ")
        return channel, time, self._data[self._at :]

    def chunk(self) -> bytes:
        """The records of a chunk, whose two times have been taken."""
        size, checksum = self.take("QI")
        compression, data = self.text(), self.bytes("Q")
        if compression == "zstd":
            data = zstd().decompress(data)
        elif compression == "lz4":
            import lz4.frame

            data = lz4.frame.decompress(data)
        elif compression:
            raise ValueError(f"its compression {compression[:20]!r} is not known")
        if len(data) != size or (checksum and zlib.crc32(data) != checksum):
            raise ValueError("its size or checksum is wrong")
        return data


def _records(data: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Opcode, offset of the content and its length of the records between two offsets."""
    while begin < end:
        data.seek(begin)
        head = data.read(HEAD.size)
        opcode, size = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
        begin += HEAD.size + size
        if not opcode or begin > end:
            raise ValueError("no record begins there, or it is cut")
        yield opcode, begin - size, size


class SqliteFile:
    """An sqlite3 file, with what a killed recorder left in the journal beside it."""

    def __init__(self, path: Path, fault: Callable[[str], None]) -> None:
        self._path, self._fault = path, fault
        pending = any(Path(f"{path}{one}").exists() for one in ("-wal", "-journal"))
        # "immutable" also opens what lies on a read-only disk, but it looks at no journal.
        place, mode = quote(os.fsencode(path.absolute())), "mode=ro" if pending else "immutable=1"
        self._database = sqlite3.connect(f"file:{place}?{mode}", uri=True)
        self._database.row_factory = sqlite3.Row
        definitions = {
            row["topic_type"]: row["encoded_message_definition"]
            for row in self._rows_of("message_definitions")  # from Iron on
        }
        self.channels: dict[int, Topic] = {}
        for row in map(dict, self._database.execute("SELECT * FROM topics")):
            self.channels[row["id"]] = Topic(
                row["name"],
                row["type"],
                definitions.get(row["type"], ""),
                row["serialization_format"],
                row.get("type_description_hash", ""),
                profiles(row.get("offered_qos_profiles", "")),
            )
        self.counts: Counter[int] = Counter()
        try:
            counted = self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY 1")
            self.counts.update(dict(map(tuple, counted)))
        except sqlite3.Error as error:
            fault(f"{path} has a damaged place, so its messages cannot be counted: {error}")

    def close(self) -> None:
        self._database.close()

    def messages(self, wanted: set[int], start: int, stop: int) -> Iterator[Message]:
        """Those of some channels, each row on its own: one that is damaged is left out."""
        marks = ",".join("?" * len(wanted))
        query = (
            f"SELECT topic_id, timestamp, CASE WHEN topic_id IN ({marks}) THEN data END "
            "FROM messages WHERE id = ?"
        )
        for number in self._numbers(start, stop):
            try:
                row = self._database.execute(query, (*wanted, number)).fetchone()
            except sqlite3.Error as error:
                self._fault(f"{self._path}: message {number} is damaged: {error}")
                continue
            if row is not None and row[2] is not None and start <= row[1] < stop:
                yield row[0], row[1], bytes(row[2])

    def _numbers(self, start: int, stop: int) -> Collection[int]:
        """The rows in the order of time: by the index alone, which lies apart from the data."""
        query = "SELECT id FROM messages WHERE timestamp >= ? AND timestamp < ? ORDER BY timestamp"
        try:
            return array("q", (row[0] for row in self._database.execute(query, (start, stop))))
        except sqlite3.Error as error:
            self._fault(f"{self._path}: its index is damaged ({error}): read in order of writing")
        try:
            last = self._database.execute("SELECT max(id) FROM messages").fetchone()[0]
        except sqlite3.Error:
            last = 0
        return range(1, (last or 0) + 1)

    def _rows_of(self, table: str) -> list[sqlite3.Row]:
        try:
            return self._database.execute(f"SELECT * FROM {table}").fetchall()
        except sqlite3.OperationalError:  # there is no such table
            return []


def profiles(text: Any) -> tuple:
    """Publishers' quality of service, as rosbags' Qos; none where people wrote something else."""
    try:
        return tuple(parse_qos(text))
    except Exception:
        return ()


def zstd() -> Any:
    """The module zstd, which Python has from 3.14 on, and which rosbags brings before."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def said(error: Exception) -> str:
    """An exception's first line, or its name."""
    return str(error).partition("\n")[0][:200] or type(error).__name__
