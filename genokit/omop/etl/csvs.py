"""One CSV file into one table: the good rows loaded, every bad one listed by line and reason, no value ever repeated.

DuckDB reads in parallel and sets bad rows aside by itself, but (2.0) it guesses where rows begin, so that a quoted text
with newlines can be cut, reads on inside a broken quote over thousands of good rows, counts rows and not lines, and
refuses mixed line ends. So: first as fast as can be, with times as PhysioNet writes them; if one is written otherwise,
once more with all times as texts; if anything but a value was wrong, once more from front to back; and if quotes were
broken, from a copy in which those rows are blank lines, so that every line keeps its number.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from genokit.errors import InvalidSource, did_you_mean
from genokit.omop.etl import rows
from genokit.omop.etl.mimic3 import Column, SourceTable, quoted

BLOCK = 1 << 20
FEW, MANY = 1_000, 1_000_000  # rows that a quick reading, and any, may set aside
LONGEST = 2_000_000  # bytes of one row; the longest note of MIMIC-III is far below
FREE_TEXT = ("noteevents",)  # has newlines inside of values in nearly every row
REJECTS, SCANS = "genokit_rejects", "genokit_scans"

_FIELD = rb'(?:"(?:[^"]|"")*+"|[^",\r\n][^,\r\n]*+|)'
_WHOLE = re.compile(rb"%s(?:,%s)*+\r?\n?" % (_FIELD, _FIELD))
_OPEN = re.compile(rb'(?:%s,)*+"(?:[^"]|"")*+' % _FIELD)
_INSIDE = re.compile(rb'(?:[^"]|"")*+')
_QUOTED = re.compile(rb'"(?:[^"]|"")*+"')
_ROW_ID = re.compile(rb'\s*"?\d+"?\s*,')


@dataclass(frozen=True)
class Bad:
    """A row that was set aside: where it stands and why, never what it holds."""

    table: str
    file: str
    line: int | None
    reason: str


@dataclass(frozen=True)
class Header:
    """The first line of a file: its names in order, those of the schema it lacks, and those that it has beyond it."""

    names: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def header(file: Path, table: SourceTable) -> Header:
    """Read a file's names. Raises InvalidSource if they cannot be those of the table."""
    try:
        with _plain(file) as stream:
            line = stream.readline(LONGEST).removeprefix(codecs.BOM_UTF8)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        raise InvalidSource(f"'{file.name}' cannot be read: {why}. Fetch it again.") from error
    try:
        names = [name.strip().lower() for name in next(csv.reader([line.decode("utf-8")]), [])]
    except UnicodeDecodeError as error:
        raise InvalidSource(f"'{file.name}' does not begin with text in UTF-8. Is it a CSV file?") from error
    absent = [name for name in table.columns if name not in names]
    lost = [name for name in absent if table.columns[name].required]
    twice = sorted({name for name in names if names.count(name) > 1 and name in table.columns})
    if twice:
        raise InvalidSource(f"'{file.name}' has the column '{twice[0]}' twice. Take one away.")
    if lost:
        many = f"{', '.join(repr(name) for name in lost[:5])}{' ...' if len(lost) > 5 else ''}"
        # A first line without any known name may hold values, so that it is not shown.
        hint = did_you_mean(lost[0], names) if any(name in table.columns for name in names) else ""
        raise InvalidSource(
            f"'{file.name}' has no column {many}, which the table '{table.name}' of MIMIC-III needs. Its first line "
            f"must hold the names, separated by commas. {hint}".rstrip()
        )
    return Header(tuple(names), tuple(absent), tuple(name for name in names if name not in table.columns))


def load(
    con: Any, table: SourceTable, file: Path, into: str, made: str, scratch: Path, null_texts: Sequence[str] = ()
) -> list[Bad]:
    """Write a file's rows by the statement ``into``, where {query} stands for them; returns the bad ones.

    ``made`` is the relation that then holds them. Those in it without a row_id are bad ones, the caller's to take out.
    ``scratch`` is a folder for a copy of the file, which is made only if its quotes are broken. What is one of
    ``null_texts`` is read as empty. Raises InvalidSource where most rows are bad.
    """
    names = header(file, table).names
    attempt, broken = _Attempt(con, table, names, file, into, made, null_texts), list[int]()
    with ExitStack() as stack:
        found = None if table.name in FREE_TEXT else replace(attempt, times="TIMESTAMP").read(parallel=True)
        if found is not None and attempt.odd(found):
            found = attempt.read(parallel=True)
        if found is None or any(kind != "CAST" for _, _, kind, _ in found):
            # Read from front to back, DuckDB does not say when a file ends inside a quote.
            broken = list(mend(file, len(names)))
            found = None if broken else attempt.read(parallel=False)
        if found is None:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch))) / "mended.csv"
            broken = list(mend(file, len(names), copy))
            attempt = replace(attempt, file=copy)
            found = attempt.read(parallel=False)
        if found is None:
            raise InvalidSource(f"'{file.name}' cannot be read as CSV, even without its broken rows. Fetch it again.")
        bad = dict.fromkeys(broken, "quotes are broken")
        lines = _lines(attempt.file, [position for position, *_ in found])
        for line, (_, column, kind, said) in zip(lines, found, strict=True):
            bad.setdefault(line, _reason(table, len(names), column, kind, said))
        [(loaded, left)] = con.execute(f"select count(*), count(*) - count(row_id) from {made}").fetchall()
        lost = (*bad.values(), *(reason for _, reason in islice(attempt.unsound(left, set(bad)), rows.MOST)))
        rows.refuse_most(file.name, len(bad) + left, len(bad) + loaded if len(found) < MANY else 0, lost)
        unsound = [Bad(table.name, file.name, line, reason) for line, reason in attempt.unsound(left, set(bad))]
    listed = [Bad(table.name, file.name, line, reason) for line, reason in bad.items()]
    return sorted([*listed, *unsound], key=lambda one: one.line or 0)


Found = tuple[int, str | None, str, str | None]  # position in the file, column, kind of error, what else is known


@dataclass(frozen=True)
class _Attempt:
    """One way to read one file; ``times`` is the type that times are read in."""

    con: Any
    table: SourceTable
    names: tuple[str, ...]
    file: Path
    into: str
    made: str
    null_texts: Sequence[str]
    times: str = "VARCHAR"

    @property
    def columns(self) -> list[Column | None]:
        return [self.table.columns.get(name) for name in self.names]

    @property
    def types(self) -> dict[str, str]:
        # Whole numbers are read as any number: DuckDB would round 1.5, and nobody would see.
        read_as = {"INTEGER": "DOUBLE", "SMALLINT": "DOUBLE", "TIMESTAMP": self.times}
        return {one.name: read_as.get(one.type, one.type) for one in self.columns if one}

    def odd(self, found: list[Found]) -> bool:
        """Whether a row is bad, or may have a time that DuckDB read as 1900 and that says epoch or infinity."""
        times = [one.name for one in self.columns if one and one.type == "TIMESTAMP"]
        asked = " or ".join(("row_id is null", *(f"{name} = timestamp '1900-01-01'" for name in times)))
        return (
            len(found) >= FEW
            or any(column in times for _, column, *_ in found)
            or bool(self.con.execute(f"select 1 from {self.made} where {asked} limit 1").fetchall())
        )

    def read(self, *, parallel: bool) -> list[Found] | None:
        """Load the file; returns what DuckDB set aside, or None if it gave up."""
        import duckdb

        self._forget()
        missing = ", ".join(map(quoted, rows.MISSING))
        try:
            query = f"select {rows.values(self.table, self.types)} from {self._reader(parallel)}"
            self.con.execute(self.into.replace("{query}", query))
            # An empty line before the row, or the second half of its line end, is counted to the row. Of the messages,
            # which repeat values, only what holds none is taken.
            found = self.con.execute(f"""
                select line_byte_position + length(csv_line) - length(ltrim(csv_line, chr(13) || chr(10))), column_name,
                    error_type::varchar, case when error_type <> 'CAST' then
                        regexp_extract(error_message, '^Expected Number of Columns: ([0-9]+) Found: ([0-9]+)', 2)
                        when not contains(error_message, 'Could not convert') then ''
                        when trim(regexp_extract(error_message, 'string "([^"]*)" to', 1)) in ({missing})
                        then trim(regexp_extract(error_message, 'string "([^"]*)" to', 1)) end
                from {REJECTS} order by 1, column_idx
            """).fetchall()
        except duckdb.InvalidInputException:
            return None
        except duckdb.IOException as error:
            if "gzip" in str(error).lower():
                raise InvalidSource(f"'{self.file.name}' is damaged or cut off. Fetch it again.") from error
            raise
        finally:
            self._forget()
        return cast(list[Found], found)

    def unsound(self, left: int, known: set[int]) -> Iterator[tuple[int | None, str]]:
        """Line and reason of each row that was loaded without its row_id, as something in it was unsound."""
        for line, record in _records(self.file) if left else ():
            if line not in known and len(record) == len(self.columns):
                texts = ("" if text in self.null_texts else text for text in record)
                reason = rows.first_wrong((one, text) for one, text in zip(self.columns, texts, strict=True) if one)
                if reason:
                    yield line, reason
                    left -= 1
            if not left:
                return
        if left > 0:
            yield from [(None, "a value is not of its column's type")] * left

    def _reader(self, parallel: bool) -> str:
        needed = ", ".join(quoted(one.name) for one in self.columns if one and one.required)
        types = ", ".join(
            f"{one.name if one else f'unknown_{i}'}: '{self.types[one.name] if one else 'VARCHAR'}'"
            for i, one in enumerate(self.columns)
        )
        return f"""read_csv({quoted(self.file)}, auto_detect = false, header = true, delim = ',', quote = '"',
            escape = '"', columns = {{{types}}}, force_not_null = [{needed}],
            compression = '{"gzip" if _packed(self.file) else "none"}', parallel = {parallel}, store_rejects = true,
            nullstr = [{", ".join(map(quoted, ("", *self.null_texts)))}], timestampformat = '{rows.FORMATS[0]}',
            max_line_size = {LONGEST}, rejects_limit = {FEW if self.times == "TIMESTAMP" else MANY},
            rejects_table = '{REJECTS}', rejects_scan = '{SCANS}')"""

    def _forget(self) -> None:
        # They hold rows as they stand in the file.
        self.con.execute(f"drop table if exists {REJECTS}; drop table if exists {SCANS}")


def mend(file: Path, columns: int, copy: Path | None = None) -> Iterator[int]:
    """The lines where rows with broken quotes begin; copies the file with blank lines in the place of such rows.

    A quote that never closes, or closes in the middle of a value, costs its own row only: the next is taken to begin at
    the first line from which a row with all its columns can be read.
    """
    with _plain(file) as source, (copy or Path(os.devnull)).open("wb") as out:
        lines, lost, number = _Lines(source), False, 1
        out.write(lines.next().rstrip(b"\r\n") + b"\n")
        while line := lines.next():
            number += 1
            row, state, length = [line], _begun(line), len(line)
            while state == "open" and length < LONGEST and (line := lines.next()):
                row.append(line)
                state, length = _continued(line), length + len(line)
            text = b"".join(row)
            if state == "whole" and (_columns(text) == columns or (len(row) == 1 and not lost)):
                out.write(text.rstrip(b"\r\n") + b"\n")
                number, lost = number + len(row) - 1, False
                continue
            out.write(b"\n")
            lines.put_back(row[1:])
            if not lost or _ROW_ID.match(row[0]):
                yield number
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


def _columns(row: bytes) -> int:
    return _QUOTED.sub(b"", row).count(b",") + 1


def _lines(file: Path, positions: list[int]) -> list[int]:
    """The lines that positions, ascending from 1, stand in."""
    lines, seen, line = list[int](), 0, 1
    with _plain(file) as stream:
        block = b""
        for position in positions:
            while seen + len(block) < position - 1:
                line, seen = line + block.count(b"\n"), seen + len(block)
                block = stream.read(BLOCK)
                if not block:
                    break
            lines.append(line + block[: position - 1 - seen].count(b"\n"))
    return lines


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a file, each with the line where it begins."""
    most = csv.field_size_limit(sys.maxsize)
    try:
        with _plain(file) as stream:
            reader = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="\n"))
            next(reader, None)
            begun = reader.line_num + 1
            for record in reader:
                yield begun, record
                begun = reader.line_num + 1
    finally:
        csv.field_size_limit(most)


def _reason(table: SourceTable, columns: int, column: str | None, kind: str, said: str | None) -> str:
    """Why DuckDB set a row aside, in words that hold nothing of the row."""
    if kind == "CAST" and column is not None and column in table.columns:
        return rows.wrong(table.columns[column], "?" if said is None else said) or rows.not_a(table.columns[column])
    if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        return f"{said} columns, but the first line has {columns}"
    return {
        "INVALID ENCODING": "not text in UTF-8",
        "LINE SIZE OVER MAXIMUM": f"longer than {LONGEST:,} bytes",
    }.get(kind, "quotes are broken")


def _packed(file: Path) -> bool:
    return file.suffix.lower() == ".gz"


def _plain(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb") if _packed(file) else file.open("rb"))
