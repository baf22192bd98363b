"""A log stream is a text file: a line an event, ``<milliseconds since 1970> <message>``.

Positions are byte offsets, so a reader can go on from where it was, forwards or backwards, in a file of any size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

EVENT_BYTES = 256 * 1024  # a longer line is cut into events of this size, as CloudWatch's agents do
PAGE_BYTES = 1024 * 1024  # and a page of events ends before this

Event = tuple[int, str]


def path(home: Path, stream: str) -> Path | None:
    """Where a stream's file is; None where the name leads out of the account."""
    logs = home / "logs"
    file = Path(os.path.normpath(logs / f"{stream}.log"))
    return file if file.is_relative_to(logs) and "\0" not in stream else None


def split(buffer: bytearray, *, final: bool = False) -> list[bytes]:
    """Take the whole lines out of ``buffer``; at the end, and where a line is longer than an event, what there is.

    >>> buffer = bytearray(b"one\\ntwo\\nthr")
    >>> split(buffer), buffer
    ([b'one', b'two'], bytearray(b'thr'))
    >>> split(buffer, final=True)
    [b'thr']
    """
    *lines, rest = bytes(buffer).split(b"\n")
    if final or len(rest) >= EVENT_BYTES:
        lines.append(rest)
        rest = b""
    buffer[:] = rest
    return lines


def encode(lines: list[bytes], milliseconds: int) -> bytes:
    """Events of one moment as they stand in the file. An empty line makes none, as CloudWatch takes no empty event."""
    stamp = b"%d " % milliseconds
    return b"".join(
        stamp + line[start : start + EVENT_BYTES] + b"\n"
        for line in lines
        for start in range(0, len(line), EVENT_BYTES)
    )


def forward(file: BinaryIO, offset: int, limit: int) -> tuple[list[Event], int]:
    """Up to ``limit`` events from ``offset`` on, and the offset after them."""
    file.seek(offset)
    data = file.read(PAGE_BYTES)
    records = data.split(b"\n")[:-1][:limit]  # what follows the last newline is still being written
    return [_event(record) for record in records], offset + sum(len(record) + 1 for record in records)


def backward(file: BinaryIO, end: int, limit: int) -> tuple[list[Event], int]:
    """Up to ``limit`` events that end at offset ``end``, in order of time, and the offset before them."""
    start = max(0, end - PAGE_BYTES)
    file.seek(start)
    data = file.read(end - start)
    records = data.split(b"\n")[:-1]
    if start:
        records = records[1:]  # the page began in the middle of this one
    records = records[-limit:]
    return [_event(record) for record in records], end - sum(len(record) + 1 for record in records)


def starts_event(file: BinaryIO, offset: int) -> bool:
    """Whether an event begins, or the file ends, at ``offset``."""
    file.seek(max(0, offset - 1))
    return offset == 0 or file.read(1) == b"\n"


def size(file: BinaryIO) -> int:
    """The offset after the last whole event."""
    end = file.seek(0, os.SEEK_END)
    tail = min(end, EVENT_BYTES + 32)
    file.seek(end - tail)
    return end - tail + file.read(tail).rfind(b"\n") + 1


def _event(record: bytes) -> Event:
    stamp, _, message = record.partition(b" ")
    return int(stamp), message.decode("utf-8", "replace")
