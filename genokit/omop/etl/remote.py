"""A folder on S3: its files, and their copies on this machine, fetched once for each version.

Copies are in ``<cache>/s3/<digest of names, sizes and ETags>/``, readable by this user alone. An interrupted download
continues where it stopped, and of two processes that fetch the same file, one waits for the other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from genokit.backends import translated_errors
from genokit.errors import InvalidSource, NotFound, ServiceError
from genokit.files import private_folder, restrict
from genokit.storage import split

if TYPE_CHECKING:
    from genokit.backends import Clients

PIECE = 1 << 20


@dataclass(frozen=True)
class Stored:
    """One object: its bucket, key, size and ETag, and its path below the folder that was listed."""

    bucket: str
    key: str
    size: int
    etag: str
    path: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def listed(clients: Clients, place: str, folders: Iterable[str]) -> dict[str, list[Stored]]:
    """The files directly in an s3:// folder, each by itself, and those below each of its ``folders``, in order of keys.

    Raises NotFound where there is nothing, InvalidSource, and S3's refusals as AccessDenied, ServiceError and so on.
    """
    bucket, prefix = split(place)
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    wanted = set(folders)
    with translated_errors(f"source '{place}'"):
        pages = clients.s3.get_paginator("list_objects_v2")
        inside = list(pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"))
        names = [one["Prefix"][len(prefix) : -1] for page in inside for one in page.get("CommonPrefixes", [])]
        found = {one.path: [one] for page in inside for one in _objects(page, bucket, prefix)}
        for name in (name for name in names if name.lower() in wanted):
            below = pages.paginate(Bucket=bucket, Prefix=f"{prefix}{name}/")
            found[name] = [one for page in below for one in _objects(page, bucket, prefix)]
    if not found and not names:
        raise NotFound(f"There is nothing in '{place}'. Name the folder with the files, as s3://bucket/mimiciii.")
    return found


def fetched(clients: Clients, wanted: Mapping[str, list[Stored]], *, progress: bool) -> dict[str, Path]:
    """Each entry's file, or folder of files, on this machine; fetched unless it is there. Raises as ``listed``."""
    from genokit.bars import Bar

    total = sum(one.size for objects in wanted.values() for one in objects)
    with Bar(desc="From S3", total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        return {name: _entry(clients, name, objects, bar) for name, objects in wanted.items()}


def _entry(clients: Clients, name: str, objects: list[Stored], bar: Any) -> Path:
    about = json.dumps([[one.bucket, one.key, one.size, one.etag] for one in objects])
    home = clients.settings.made("cache") / "s3" / hashlib.sha256(about.encode()).hexdigest()[:16]
    for one in objects:
        target = home / one.path
        if not target.exists():
            private_folder(target.parent)
            _fetch(clients, one, target, bar)
        bar.update(one.size)
    return home / name


def _fetch(clients: Clients, one: Stored, target: Path, bar: Any) -> None:
    part = target.with_name(f".{target.name[:200]}.part")
    with part.open("ab") as file:
        restrict(part)
        fcntl.flock(file, fcntl.LOCK_EX)
        if target.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return
        if file.tell() > one.size:
            file.truncate(0)
        bar.set_postfix_str(one.path)
        while (had := file.tell()) < one.size:
            try:
                _go_on(clients, one, file, had)
            except ServiceError as error:
                if error.code == "PreconditionFailed":
                    raise InvalidSource(f"'{one.uri}' was changed while it was read. Read the source again.") from error
                if file.tell() == had:  # no progress since the last failure
                    raise
        file.flush()
        os.fsync(file.fileno())
        os.replace(part, target)


def _go_on(clients: Clients, one: Stored, file: IO[bytes], had: int) -> None:
    with translated_errors(f"'{one.uri}'"):
        body = clients.s3.get_object(Bucket=one.bucket, Key=one.key, IfMatch=one.etag, Range=f"bytes={had}-")["Body"]
        while piece := body.read(PIECE):
            file.write(piece)


def _objects(page: Mapping[str, Any], bucket: str, prefix: str) -> Iterable[Stored]:
    for one in page.get("Contents", []):
        path = one["Key"][len(prefix) :]
        if not path or path.endswith("/"):  # a folder's own mark
            continue
        if "\\" in path or "\0" in path or {"", ".", ".."} & set(path.split("/")):
            raise InvalidSource(f"'s3://{bucket}/{one['Key']}' cannot be a file in a folder. Rename or move it.")
        yield Stored(bucket, one["Key"], one["Size"], one["ETag"], path)
