"""Files under the SHA-256 of their bytes: stored once, and held against their name when they are read."""

from __future__ import annotations

import hashlib
from typing import IO

from genokit import storage
from genokit.backends import Clients
from genokit.errors import HashMismatch


def store(clients: Clients, folder: str, digest: str, ending: str, data: IO[bytes] | bytes) -> str:
    """Put a file into a folder, unless it is there and whole; returns its address."""
    address = storage.join(folder, f"{digest}{ending}")
    storage.write_if_absent(address, data, sha256=digest, clients=clients)
    return address


def load(clients: Clients, address: str, at_most: int | None = None) -> bytes:
    """The bytes of a file, ``at_most`` so many. Raises HashMismatch where they are not those that were stored."""
    data = storage.read(address, at_most=at_most, clients=clients)
    expected, got = address.rpartition("/")[2].partition(".")[0], hashlib.sha256(data).hexdigest()
    if got != expected:
        raise HashMismatch(f"{address} is not what was shipped. Submit again.", expected=expected, got=got)
    return data
