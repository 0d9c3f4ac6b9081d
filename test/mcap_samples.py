"""MCAP files byte by byte: what other programs write, and what is left after an accident."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
FOOTER = b"\x02" + struct.pack("<Q", 20) + bytes(20)


def text(words: str | bytes) -> bytes:
    data = words.encode() if isinstance(words, str) else words
    return struct.pack("<I", len(data)) + data


def record(opcode: int, content: bytes) -> bytes:
    return bytes([opcode]) + struct.pack("<Q", len(content)) + content


def schema(number: int, name: str, encoding: str, definition: str | bytes) -> bytes:
    content = struct.pack("<H", number) + text(name) + text(encoding) + text(definition)
    return record(3, content)


def channel(number: int, of_schema: int, topic: str, encoding: str = "cdr", **more: str) -> bytes:
    pairs = b"".join(text(key) + text(value) for key, value in more.items())
    content = struct.pack("<HH", number, of_schema) + text(topic) + text(encoding) + text(pairs)
    return record(4, content)


def message(of_channel: int, time: int, data: bytes) -> bytes:
    return record(5, struct.pack("<HIQQ", of_channel, 0, time, time) + data)


def chunk(
    first: int, last: int, records: bytes, compression: str = "", spoilt: bool = False
) -> bytes:
    checksum, packed = zlib.crc32(records), records
    if compression == "lz4":
        import lz4.frame

        packed = lz4.frame.compress(records)
    elif compression == "zstd":
        from lisa_ros.recordings.storage import zstd

        packed = zstd().compress(records)
    if spoilt:
        middle = len(packed) // 2
        packed = packed[:middle] + bytes(255 - one for one in packed[middle:])
    content = struct.pack("<QQQI", first, last, len(records), checksum)
    return record(6, content + text(compression) + struct.pack("<Q", len(packed)) + packed)


def write(path: Path, *records: bytes, end: bytes = FOOTER + MAGIC) -> Path:
    """A file without summary and index; `end`: nothing, for a recorder that was killed."""
    path.write_bytes(MAGIC + record(1, text("ros2") + text("test")) + b"".join(records) + end)
    return path


def statistics(counts: dict[int, int], chunks: int) -> bytes:
    numbers = (sum(counts.values()), 1, len(counts), 0, 0, chunks, 0, 0)
    pairs = b"".join(struct.pack("<HQ", *pair) for pair in counts.items())
    return record(11, struct.pack("<QHIIIIQQ", *numbers) + text(pairs))


def write_with_summary(path: Path, records: list[bytes], summary: list[bytes]) -> Path:
    """A file whose footer says where its summary begins."""
    begin = MAGIC + record(1, text("ros2") + text("test")) + b"".join(records)
    footer = record(2, struct.pack("<QQI", len(begin), 0, 0))
    path.write_bytes(begin + b"".join(summary) + footer + MAGIC)
    return path
