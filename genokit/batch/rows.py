"""The rows of an array: one JSON file on S3, of which each child takes the row of its index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients, translated_errors
from genokit.batch.shipping import put_once
from genokit.errors import HashMismatch, InvalidRequest

if TYPE_CHECKING:
    import pandas as pd

MOST = 10_000  # children of an array


def texts(each: Iterable[Mapping[str, object]] | pd.DataFrame, only: Iterable[int] | None) -> list[dict[str, str]]:
    """The rows of an array as texts, those numbered in ``only`` where it is given. Raises InvalidRequest.

    >>> texts([{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}], only=range(2))
    [{'rate': '0.1'}, {'rate': '0.2'}]
    """
    records: list[Any] = each.to_dict("records") if hasattr(each, "to_dict") else list(each)
    if only is not None:
        numbers = list(only)
        strange = [number for number in numbers if not 0 <= number < len(records)]
        if strange:
            raise InvalidRequest(
                f"only names row {strange[0]}, but the {len(records):,} rows are 0 to {len(records) - 1}."
            )
        records = [records[number] for number in numbers]
    if not 1 <= len(records) <= MOST:
        raise InvalidRequest(
            f"each has {len(records):,} rows, but an array job takes 1 to {MOST:,}. "
            "Submit several arrays, with only=range(...) for each."
        )
    names = list(records[0])
    for number, record in enumerate(records):
        if not isinstance(record, Mapping) or list(record) != names:
            raise InvalidRequest(
                f"each: row {number} must have the columns {', '.join(map(str, names))}, as row 0 has."
            )
        lacking = [name for name, value in record.items() if value is None or value != value]
        if lacking:
            raise InvalidRequest(f"each: row {number} has no value for '{lacking[0]}'. Fill it, or leave the row out.")
    return [{str(name): str(value) for name, value in record.items()} for record in records]


def store(clients: Clients, rows: Sequence[Mapping[str, str]]) -> str:
    """Put rows on S3, where they are not there yet: ``s3://bucket/rows/<sha256>.json``."""
    data = json.dumps([dict(row) for row in rows], ensure_ascii=False, separators=(",", ":")).encode()
    key = f"rows/{hashlib.sha256(data).hexdigest()}.json"
    put_once(clients, key, data)
    return f"s3://{clients.bucket}/{key}"


def load(clients: Clients, uri: str) -> list[dict[str, str]]:
    """The rows that were stored. Raises HashMismatch where they are not those."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with translated_errors(uri):
        data = clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    expected, got = key.rpartition("/")[2].partition(".")[0], hashlib.sha256(data).hexdigest()
    if got != expected:
        raise HashMismatch(f"{uri} does not hold the rows that were stored. Submit again.", expected=expected, got=got)
    found: list[dict[str, str]] = json.loads(data)
    return found
