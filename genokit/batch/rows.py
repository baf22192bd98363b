"""The rows of an array: one JSON file on S3, of which each child takes the row of its index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from genokit.backends import Clients, translated_errors
from genokit.batch.shipping import put_once
from genokit.errors import HashMismatch, InvalidRequest

MOST = 10_000  # children of an array


def store(clients: Clients, rows: Sequence[Mapping[str, str]]) -> str:
    """Put rows on S3, where they are not there yet: ``s3://bucket/rows/<sha256>.json``.

    Every row has the same columns, and every value is text. Raises InvalidRequest.
    """
    if not 1 <= len(rows) <= MOST:
        raise InvalidRequest(
            f"each: {len(rows):,} rows, but an array has 1 to {MOST:,} children. Submit several arrays."
        )
    columns = set(rows[0])
    for number, row in enumerate(rows):
        if set(row) != columns:
            differ = ", ".join(sorted(columns ^ set(row)))
            raise InvalidRequest(f"each: row {number} has other columns than row 0; they differ in: {differ}.")
        wrong = [f"{name}={value!r}" for name, value in row.items() if not isinstance(value, str)]
        if wrong:
            raise InvalidRequest(f"each: row {number} has values that are no text: {', '.join(wrong)}. Write str(...).")
    data = json.dumps([dict(row) for row in rows], ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
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
