"""The files of a data set as they are published: a descriptor, and where each file is now."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from genokit import storage
from genokit.backends import Clients
from genokit.data import Dataset, Manifest
from genokit.data.descriptor import FILE, PROFILE, parse
from genokit.data.freeze import described
from genokit.errors import HashMismatch, InvalidParameters

Descriptor = dict[str, Any]


def description(
    data: Dataset | Path, name: str, title: str | None, licence: str | None, version: str
) -> tuple[Descriptor, dict[str, Path]]:
    """The descriptor of a fetched data set or of a folder, and its files by their path in the data set.

    Every member reads the descriptor's hash in the log. With its salt nobody can guess data by their hash.
    Raises NotFound, InvalidManifest.
    """
    salt = {"x-salt": secrets.token_hex(16)}
    if isinstance(data, Path):
        found: Descriptor = described(data, name, title=title, licence=licence, version=version)
        return {**found, **salt}, {one["path"]: data / one["path"] for one in found["resources"]}
    files = {f"{one}{''.join(path.suffixes)}": path for one, path in data.paths.items()}
    content: Descriptor = {"$schema": PROFILE, "name": name, "title": title or data.title, "version": version, **salt}
    content["licenses"] = [{"title": one} for one in ([licence] if licence else data.licences)]
    content["x-citation"] = data.citation
    content["resources"] = [
        {"name": one, "path": path, "bytes": files[path].stat().st_size, "hash": f"sha256:{data.hashes[one]}"}
        for one, path in zip(data.paths, files, strict=True)
    ]
    parse(content, Path(FILE))
    return content, files


def like(rows: pd.DataFrame, files: Mapping[str, Path], folder: Path) -> Path:
    """Write practice rows as the one table of a data set is written; returns the folder. Raises InvalidParameters."""
    tables = [name for name in files if name.endswith((".csv", ".parquet"))]
    if len(tables) != 1:
        raise InvalidParameters(
            f"The practice rows cannot be written like the data set, which has {len(tables)} files of type .csv or "
            ".parquet, not one. Pass a folder with the same files."
        )
    path = folder / tables[0]
    path.parent.mkdir(parents=True)
    rows.to_parquet(path) if path.suffix == ".parquet" else rows.to_csv(path, index=False)
    return folder


def place(kind: str, content: Descriptor) -> tuple[str, str]:
    """The folder of a data set in the workspace, which is new for other content, and the hash of its descriptor."""
    sha256 = sha256_of(_bytes(content))
    return f"{kind}/{content['name']}/{content['version']}/{sha256[:16]}", sha256


def put(content: Descriptor, files: Mapping[str, Path], folder: str, clients: Clients) -> None:
    """Upload a data set into a folder."""
    for path, file in files.items():
        storage.upload(file, storage.join(folder, content["name"], path), clients=clients)
    storage.write(storage.join(folder, FILE), _bytes(content), clients=clients)


def get(address: str, folder: str, sha256: str, clients: Clients, *, progress: bool) -> Dataset:
    """Fetch a data set into the cache; only files with the hashes that were published are used. Raises HashMismatch."""
    source = storage.join(address, folder, FILE)
    manifest = pinned(source, sha256, clients)
    settings = clients.settings
    own = storage.write(settings.made("cache") / "workspaces" / sha256[:16] / FILE, manifest, private=True)
    mirrored = replace(settings, mirrors=(storage.join(address, folder),))
    return Manifest(own, settings=mirrored, clients=clients).fetch(progress)


def pinned(address: str, sha256: str, clients: Clients) -> bytes:
    """Read a file that must have this hash, which the log states. Raises HashMismatch."""
    data = storage.read(address, clients=clients)
    got = sha256_of(data)
    if got != sha256:
        raise HashMismatch(
            f"'{address}' was changed after it was published: its sha256 is {got}, and the log says {sha256}. It is "
            "not used. Ask its publisher for a new version.",
            expected=sha256,
            got=got,
        )
    return data


def sha256_of(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _bytes(content: Descriptor) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
