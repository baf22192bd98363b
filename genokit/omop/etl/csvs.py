"""One CSV file into one table: the good rows loaded, every bad one listed by line and reason, no value ever repeated.

DuckDB reads in parallel, but (2.0) it guesses where rows begin, so that a quoted text with newlines can be cut. It
reads on inside a broken quote over thousands of good rows, counts rows and not lines, refuses mixed line ends, and can
hang at a bad row that it is not told to set aside. So a file is first read as fast as possible, with times as PhysioNet
writes them; if that fails, with all times as texts; and if that fails too, from a copy of the well-formed rows, each
with its line number, whose values are then checked.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from genokit.errors import InvalidSource
from genokit.omop.etl import rows
from genokit.omop.etl.mimic3 import SourceTable, quoted

MANY = 1_000_000  # rows of a file that may be set aside
LONGEST = 2_000_000  # bytes of one row; the longest note of MIMIC-III is far below
FREE_TEXT = ("noteevents",)  # has newlines within values in nearly every row

_FIELD = rb'(?:"(?:[^"]|"")*+"|[^",\r\n][^,\r\n]*+|)'
_WHOLE = re.compile(rb"%s(?:,%s)*+\r?\n?" % (_FIELD, _FIELD))
_OPEN = re.compile(rb'(?:%s,)*+"(?:[^"]|"")*+' % _FIELD)
_INSIDE = re.compile(rb'(?:[^"]|"")*+')
_QUOTED = re.compile(rb'"(?:[^"]|"")*+"')
_ROW_ID = re.compile(rb'\s*"?\d+"?\s*,')


@dataclass(frozen=True)
class Bad:
    """A row that was set aside: where it is and why, never what it holds."""

    table: str
    file: str
    line: int
    reason: str


def header(file: Path, table: SourceTable) -> list[str]:
    """The names of a file's columns. Raises InvalidSource if they cannot be those of the table."""
    try:
        with _plain(file) as stream:
            line = stream.readline(LONGEST).removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is damaged, or no text in UTF-8"
        raise InvalidSource(f"'{file.name}' cannot be read as CSV: {why}. Fetch it again.") from error
    names = [name.strip().lower() for name in next(csv.reader([line]), [])]
    twice = sorted({name for name in names if names.count(name) > 1 and name in table.columns})
    if twice:
        raise InvalidSource(f"'{file.name}' has the column '{twice[0]}' twice. Remove one.")
    rows.check_columns(file.name, table, names)
    return names


def load(
    con: Any, table: SourceTable, file: Path, into: str, made: str, scratch: Path, null_texts: Sequence[str] = ()
) -> list[Bad]:
    """Write a file's rows by the statement ``into``, where {query} stands for them; returns the bad ones.

    ``made`` is the relation that then holds them. ``scratch`` is a folder for a copy of the file, which is made only if
    it has bad rows or free text. What is one of ``null_texts`` is read as empty. Raises InvalidSource where most rows
    are bad.
    """
    names = header(file, table)
    for times in () if table.name in FREE_TEXT else ("TIMESTAMP", "VARCHAR"):
        # Whole numbers are read as any number: DuckDB would round 1.5 silently.
        types = {"INTEGER": "DOUBLE", "SMALLINT": "DOUBLE", "TIMESTAMP": times}
        found = {name: types.get(table.columns[name].type, table.columns[name].type) for name in names
                 if name in table.columns}  # fmt: skip
        source = _reader(file, table, {name: found.get(name, "VARCHAR") for name in names}, null_texts)
        if _read(con, file, into.replace("{query}", f"select {rows.values(table, found)} from {source}")):
            # DuckDB reads a time that says epoch or infinity as 1900.
            odd = [f"{name} = timestamp '1900-01-01'" for name, kind in found.items() if kind == "TIMESTAMP"]
            doubtful = " or ".join(("row_id is null", *odd))
            if not con.execute(f"select 1 from {made} where {doubtful} limit 1").fetchall():
                return []
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        copy, found = Path(folder) / "rows.csv", {name: "VARCHAR" for name in names if name in table.columns}
        bad = [Bad(table.name, file.name, *one) for one in islice(sift(file, len(names), copy), MANY)]
        source = _reader(copy, table, {"line": "BIGINT"} | dict.fromkeys(names, "VARCHAR"), null_texts, parallel=False)
        sound, loaded = rows.sound(table, found), 0
        if len(bad) < MANY:
            query = f"select {rows.converted(table, found)} from {source} where {sound}"
            if not _read(con, copy, into.replace("{query}", query)):
                raise InvalidSource(f"'{file.name}' cannot be read as CSV, even without its bad rows. Fetch it again.")
            [(loaded,)] = con.execute(f"select count(*) from {made}").fetchall()
            unsound = con.execute(f"select line, {rows.first_wrong(table, found)} from {source} where not ({sound})")
            for line, name, text in islice(iter(partial(unsound.fetchone), None), MANY):
                bad.append(Bad(table.name, file.name, line, rows.reason(table.columns[name], text)))
    total = len(bad) + loaded if len(bad) < MANY else 0
    rows.refuse_most(file.name, len(bad), total, (one.reason for one in bad))
    return sorted(bad, key=lambda one: one.line)


def _read(con: Any, file: Path, statement: str) -> bool:
    """Carry out a statement that reads a CSV file; whether every row could be read."""
    import duckdb

    try:
        _forget_rejects(con)
        con.execute(statement)
        return not con.execute("select 1 from reject_errors limit 1").fetchall()
    except (duckdb.InvalidInputException, duckdb.ConversionException):
        return False
    except duckdb.IOException as error:
        if "gzip" in str(error).lower():
            raise InvalidSource(f"'{file.name}' is damaged or incomplete. Fetch it again.") from error
        raise
    finally:
        _forget_rejects(con)


def _forget_rejects(con: Any) -> None:
    # They hold rows as they stand in the file.
    con.execute("drop table if exists reject_errors; drop table if exists reject_scans")


def _reader(
    file: Path, table: SourceTable, types: Mapping[str, str], null_texts: Sequence[str], *, parallel: bool = True
) -> str:
    needed = ", ".join(quoted(name) for name in types if name in table.columns and table.columns[name].required)
    known = [name if name in table.columns or name == "line" else f"unknown_{i}" for i, name in enumerate(types)]
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in zip(known, types.values(), strict=True))
    return f"""read_csv({quoted(file)}, auto_detect = false, header = true, delim = ',', quote = '"', escape = '"',
        columns = {{{columns}}}, force_not_null = [{needed}], compression = '{"gzip" if _is_gzip(file) else "none"}',
        nullstr = [{", ".join(map(quoted, ("", *null_texts)))}], timestampformat = '{rows.FORMATS[0]}',
        max_line_size = {2 * LONGEST}, parallel = {parallel}, store_rejects = true, rejects_limit = 1)"""


def sift(file: Path, columns: int, copy: Path) -> Iterator[tuple[int, str]]:
    """Copy the well-formed rows of a file, each after the number of its line; returns line and reason of the others.

    A quote that never closes, or closes in the middle of a value, costs its own row only: the next is taken to begin at
    the first line from which a row with all its columns can be read.
    """
    with _plain(file) as source, copy.open("wb") as out:
        lines, lost, number = _Lines(source), False, 1
        out.write(b"line,%s\n" % lines.next().rstrip(b"\r\n"))
        while line := lines.next():
            number += 1
            row, state, length = [line], _begun(line), len(line)
            while state == "open" and length < LONGEST and (line := lines.next()):
                row.append(line)
                state, length = _continued(line), length + len(line)
            text = b"".join(row).rstrip(b"\r\n")
            width = _QUOTED.sub(b"", text).count(b",") + 1
            if state == "whole" and (width == columns or (len(row) == 1 and not lost)):
                if reason := _malformed(text, width, columns):
                    yield number, reason
                elif text:
                    out.write(b"%d,%s\n" % (number, text))
                number, lost = number + len(row) - 1, False
                continue
            lines.put_back(row[1:])
            if not lost or _ROW_ID.match(row[0]):
                yield number, "quotes are broken"
            lost = True


class _Lines:
    """The lines of a file, of which some can be put back."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source, self.again = source, deque[bytes]()

    def next(self) -> bytes:
        return self.again.popleft() if self.again else self.source.readline()

    def put_back(self, lines: list[bytes]) -> None:
        self.again.extendleft(reversed(lines))


def _begun(line: bytes) -> str:
    if b'"' not in line or _WHOLE.fullmatch(line):
        return "whole"
    return "open" if _OPEN.fullmatch(line) else "broken"


def _continued(line: bytes) -> str:
    """The state of a row after another line of it, where a quote is open at the line's begin."""
    end = cast(re.Match[bytes], _INSIDE.match(line)).end()
    if end == len(line):
        return "open"
    rest = line[end + 1 :]
    if rest.startswith(b","):
        return _begun(rest[1:])
    return "whole" if rest in (b"", b"\n", b"\r\n") else "broken"


def _malformed(row: bytes, width: int, columns: int) -> str:
    if row and width != columns:
        return f"{width} columns, but the first line has {columns}"
    if len(row) > LONGEST:
        return f"longer than {LONGEST:,} bytes"
    try:
        row.decode()
    except UnicodeDecodeError:
        return "not text in UTF-8"
    return ""


def _is_gzip(file: Path) -> bool:
    return file.suffix.lower() == ".gz"


def _plain(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb") if _is_gzip(file) else file.open("rb"))
