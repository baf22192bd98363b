"""The rows of an array: one JSON file on S3, of which each child takes the row of its index."""

from __future__ import annotations

import hashlib
import json
import reprlib
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
    """The rows that an array needs as texts, each with its number where that is not its place; None if it needs none.

    Raises InvalidRequest.

    >>> chosen([{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}], None, range(2))
    [{'rate': '0.1'}, {'rate': '0.2'}]
    >>> chosen([{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}], None, [2])
    [{'rate': '0.3', 'genokit:row': '2'}]
    >>> chosen(None, 4, [1, 3])
    [{'genokit:row': '1'}, {'genokit:row': '3'}]
    """
    if each is None and only is None:
        return None
    if each is None and size is None:
        raise InvalidRequest("only chooses rows of each=, or children of size=, and neither is given.")
    records = [{}] * whole("size", size) if each is None else _records(each)
    if only is None:
        return _texts(records)
    numbers = _numbers(only, len(records))
    found = _texts([records[number] for number in numbers])
    if numbers != list(range(len(numbers))) or each is None:
        found = [{**row, ROW: str(number)} for row, number in zip(found, numbers, strict=True)]
    return found


def _numbers(only: Any, count: int) -> list[int]:
    """The row numbers that ``only`` names, of ``count`` rows."""
    several = isinstance(only, Iterable) and not isinstance(only, str)
    numbers = [whole("a number in only", number) for number in (only if several else [only])]
    if not numbers or len(set(numbers)) < len(numbers) or not 0 <= min(numbers) <= max(numbers) < count:
        said = reprlib.repr(numbers)
        raise InvalidRequest(f"only must name some of the {count:,} rows, 0 to {count - 1}, each once, but is {said}.")
    return numbers


def number(row: Mapping[str, str], index: int) -> int:
    """The number of a child's row when all rows were submitted first, whatever its index in this array."""
    return int(row.get(ROW, index))


def _records(each: Any) -> list[Any]:
    """The rows of ``each``, whose columns are not looked at yet."""
    if hasattr(each, "itertuples"):
        if len({*map(str, each.columns)}) < len(each.columns):
            raise InvalidRequest("each: two columns have the same name. Rename one.")
        return list(each.to_dict("records"))
    if isinstance(each, (str, bytes, Mapping)) or hasattr(each, "ndim") or not isinstance(each, Iterable):
        kind = type(each).__name__
        raise InvalidRequest(f"each must be a list of dicts or a DataFrame, one row a child, not {kind}.")
    return list(each)


def _texts(records: Sequence[Any]) -> list[dict[str, str]]:
    """Rows as texts, all with the same columns."""
    if not 1 <= len(records) <= MOST:
        raise InvalidRequest(
            f"each has {len(records):,} rows, but an array job takes 1 to {MOST:,}. "
            "Submit several arrays, with only=range(...) for each."
        )
    found = []
    for number, record in enumerate(records):
        if not isinstance(record, Mapping) or list(record) != list(records[0]):
            raise InvalidRequest(f"each: row {number} must be a dict with the same columns as row 0, in their order.")
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
    return by_hash.store(clients, f"s3://{clients.bucket}/rows", hashlib.sha256(data).hexdigest(), ".json", data)


def load(clients: Clients, uri: str) -> list[dict[str, str]]:
    """The rows that were stored. Raises HashMismatch where the file holds others."""
    rows: list[dict[str, str]] = json.loads(by_hash.load(clients, uri))
    return rows
