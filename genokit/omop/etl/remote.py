"""A folder on S3: its files, and their copies on this machine, fetched once for each version.

Copies are in ``<cache>/s3/<digest of names, sizes and ETags>/``, readable by this user alone.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.backends import translated_errors
from genokit.errors import InvalidSource, NotFound
from genokit.files import private_folder, restrict
from genokit.storage import split

if TYPE_CHECKING:
    from genokit.backends import Clients


# Objects of S3, as it lists them: by their path in the folder, by the first part of that path.
Listing = dict[str, dict[str, dict[str, Any]]]


def listed(clients: Clients, place: str) -> Listing:
    """The files below an s3:// folder, in order of keys, by the first part of their path: a file's or a folder's name.

    Raises NotFound where there is nothing, InvalidSource, and S3's refusals as AccessDenied, ServiceError and so on.
    """
    bucket, prefix = split(place)
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    found: Listing = {}
    with translated_errors(f"source '{place}'"):
        pages = list(clients.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    for one in (one for page in pages for one in page.get("Contents", [])):
        path = one["Key"][len(prefix) :]
        if not path or path.endswith("/"):  # a folder's own mark
            continue
        if "\\" in path or "\0" in path or {"", ".", ".."} & set(path.split("/")):
            raise InvalidSource(f"'s3://{bucket}/{one['Key']}' cannot be a file in a folder. Rename or move it.")
        found.setdefault(path.partition("/")[0], {})[path] = one
    if not found:
        raise NotFound(f"There is nothing in '{place}'. Name the folder with the files, as s3://bucket/mimiciii.")
    return found


def fetched(clients: Clients, place: str, wanted: Listing, *, progress: bool) -> dict[str, Path]:
    """Each entry's file, or folder of files, on this machine; fetched unless it is there. Raises as ``listed``."""
    from genokit.bars import Bar

    bucket, copies, missing = split(place)[0], dict[str, Path](), dict[Path, dict[str, Any]]()
    for name, objects in wanted.items():
        about = json.dumps([[bucket, one["Key"], one["Size"], one["ETag"]] for one in objects.values()])
        home = clients.settings.made("cache") / "s3" / hashlib.sha256(about.encode()).hexdigest()[:16]
        copies[name] = home / name
        missing |= {home / path: one for path, one in objects.items() if not (home / path).exists()}
    total = sum(one["Size"] for one in missing.values())
    with Bar(desc="From S3", total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        for target, one in missing.items():
            bar.set_postfix_str(target.name)
            _fetch(clients, bucket, one, target, bar)
    return copies


def _fetch(clients: Clients, bucket: str, one: Mapping[str, Any], target: Path, bar: Any) -> None:
    """Fetch a file whole or not at all, and in no other version than that which was listed."""
    from boto3.exceptions import RetriesExceededError

    thing = f"'s3://{bucket}/{one['Key']}'"
    with (
        tempfile.TemporaryDirectory(dir=private_folder(target.parent), prefix=".") as folder,
        translated_errors(thing),
    ):
        part = Path(folder, "part")
        try:
            clients.s3.download_file(bucket, one["Key"], str(part), Callback=bar.update)
        except RetriesExceededError as error:
            raise error.last_exception from None
        if clients.s3.head_object(Bucket=bucket, Key=one["Key"])["ETag"] != one["ETag"]:
            raise InvalidSource(f"{thing} was changed while it was read. Read the source again.")
        restrict(part).replace(target)
