"""The rows of an array: one JSON file on S3, of which each child takes the row of its index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients
from genokit.batch.definition import text, whole
from genokit.batch.shipping import by_hash
from genokit.errors import InvalidRequest
from genokit.refusals import unwritable

if TYPE_CHECKING:
    import pandas as pd

MOST = 10_000  # children of an array
ROW = "genokit:row"  # in a row: its number in the first submission, where that is not its index


def chosen(
    each: Iterable[Mapping[str, object]] | pd.DataFrame | None, size: int | None, only: Any
) -> list[dict[str, str]] | None:
    """The rows that an array needs, each with its number where that is not its place; None where it needs none.

    >>> chosen([{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}], None, [2])
    [{'rate': '0.3', 'genokit:row': '2'}]
    >>> chosen(None, 4, [1, 3])
    [{'genokit:row': '1'}, {'genokit:row': '3'}]
    """
    if only is None:
        return None if each is None else texts(each, None)
    if each is None and size is None:
        raise InvalidRequest("only chooses rows of each=, or children of size=, and neither is given.")
    only = list(only) if isinstance(only, Iterable) and not isinstance(only, str) else [only]
    found = texts(each, only) if each is not None else [{} for _ in numbered(only, whole("size", size))]
    if only != list(range(len(only))) or each is None:
        found = [{**row, ROW: str(number)} for row, number in zip(found, only, strict=True)]
    return found


def numbered(only: Sequence[Any], count: int) -> list[int]:
    """The row numbers that ``only`` names, of ``count`` rows. Raises InvalidRequest."""
    numbers = [whole("a number in only", number) for number in only]
    strange = [number for number in numbers if not 0 <= number < count]
    if strange:
        raise InvalidRequest(f"only names row {strange[0]}, but the {count:,} rows are 0 to {count - 1}.")
    if len(set(numbers)) < len(numbers):
        raise InvalidRequest(f"only names row {max(numbers, key=numbers.count)} twice.")
    if not numbers:
        raise InvalidRequest("only names no row, so there is nothing to submit.")
    return numbers


def number(row: Mapping[str, str], index: int) -> int:
    """The number of a child's row when all rows were submitted first, whatever its index in this array."""
    return int(row.get(ROW, index))


def texts(each: Iterable[Mapping[str, object]] | pd.DataFrame, only: Iterable[int] | None) -> list[dict[str, str]]:
    """The rows of an array as texts, those numbered in ``only`` where it is given. Raises InvalidRequest.

    >>> texts([{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}], only=range(2))
    [{'rate': '0.1'}, {'rate': '0.2'}]
    """
    frame: Any = each if hasattr(each, "itertuples") else None
    if frame is None and (
        isinstance(each, (str, bytes, Mapping)) or hasattr(each, "ndim") or not isinstance(each, Iterable)
    ):
        raise InvalidRequest(
            f"each must be a list of dicts or a DataFrame, one row a child, not {type(each).__name__}."
        )
    if frame is not None and len({*map(str, frame.columns)}) < len(frame.columns):
        raise InvalidRequest("each: two columns have the same name. Rename one.")
    records: list[Any] = list(each) if frame is None else frame.to_dict("records")
    if only is not None:
        records = [records[one] for one in numbered(list(only), len(records))]
    if not 1 <= len(records) <= MOST:
        raise InvalidRequest(
            f"each has {len(records):,} rows, but an array job takes 1 to {MOST:,}. "
            "Submit several arrays, with only=range(...) for each."
        )
    names = list(records[0]) if isinstance(records[0], Mapping) else ["of a dict"]
    found = []
    for number, record in enumerate(records):
        if not isinstance(record, Mapping) or list(record) != names:
            raise InvalidRequest(
                f"each: row {number} must have the columns {', '.join(map(str, names))}, as row 0 has."
            )
        row = {str(name): text(f"each: '{name}' of row {number}", value) for name, value in record.items()}
        if wrong := unwritable(row, f"each[{number}]"):
            raise InvalidRequest(wrong)
        if len(row) < len(record) or ROW in row:
            raise InvalidRequest(f"each: two columns have the same name, or one is '{ROW}'. Rename one.")
        found.append(row)
    return found


def store(clients: Clients, rows: Sequence[Mapping[str, str]]) -> str:
    """Put rows on S3, where they are not there yet: ``s3://bucket/rows/<sha256>.json``."""
    data = json.dumps([dict(row) for row in rows], ensure_ascii=False, separators=(",", ":")).encode()
    return by_hash.store(clients, "rows", hashlib.sha256(data).hexdigest(), ".json", data)


def load(clients: Clients, uri: str) -> list[dict[str, str]]:
    """The rows that were stored. Raises HashMismatch where the file holds others."""
    rows: list[dict[str, str]] = json.loads(by_hash.load(clients, uri))
    return rows
