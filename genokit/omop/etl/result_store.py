"""Where the results of steps lie: a folder for each, named by its key, so that the folders are the ledger.

A result is done once its ``_about.json`` is there, which is written last. What was begun and not finished is swept
away and made anew: a run that is killed at any instant goes on where it was, and the same key is never made twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.files import restrict, write_atomic
from genokit.storage import split

ABOUT = "_about.json"
STACK = "genokit-omop"  # what Stack("omop") is called, which has what results on AWS need


@dataclass(frozen=True)
class Folder:
    """Results in a folder of this machine."""

    root: Path

    @property
    def scratch(self) -> Path:
        """For what no later run wants."""
        return self.root / "scratch"

    def path(self, table: str, key: str) -> str:
        """Where the Parquet files of a table lie, or are to be written."""
        return str(self.root / f"{table}-{key[:16]}")

    def done(self, table: str, key: str) -> dict[str, Any] | None:
        """What is known of a finished result; None where there is none."""
        try:
            about: dict[str, Any] = json.loads((Path(self.path(table, key)) / ABOUT).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return about if all(Path(file).exists() for file in about.get("files", ())) else None

    def finish(self, table: str, key: str, rows: int, seconds: float, **more: object) -> dict[str, Any]:
        """Say that a result is whole; returns what is then known of it."""
        about = {"table": table, "key": key, "rows": rows, "seconds": round(seconds, 3), **more}
        write_atomic(Path(self.path(table, key)) / ABOUT, json.dumps(about), private=True)
        folder = Path(self.path(table, key))
        for made in (folder, *folder.iterdir()):
            restrict(made)
        return about

    def files(self, table: str, key: str) -> list[str]:
        """The Parquet files of a finished result, in order."""
        about = self.done(table, key) or {}
        inside = sorted(str(file) for file in Path(self.path(table, key)).glob("*.parquet"))
        return list(about.get("files", inside))

    def fetch(self, table: str, key: str, folder: Path) -> list[str]:
        return self.files(table, key)

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove every result that is not at one of the paths to keep."""
        wanted = set(keep)
        for folder in self.root.glob("*.*-*"):
            if str(folder) not in wanted:
                shutil.rmtree(folder)


@dataclass(frozen=True)
class Bucket:
    """Results under a prefix of S3, for engines of AWS."""

    s3: Any
    root: str  # s3://bucket/prefix

    def path(self, table: str, key: str) -> str:
        return f"{self.root}/{table}-{key[:16]}"

    def done(self, table: str, key: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        bucket, name = split(f"{self.path(table, key)}/{ABOUT}")
        try:
            body = self.s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        about: dict[str, Any] = json.loads(body)
        return about

    def finish(self, table: str, key: str, rows: int, seconds: float, **more: object) -> dict[str, Any]:
        about = {"table": table, "key": key, "rows": rows, "seconds": round(seconds, 3), **more}
        bucket, name = split(f"{self.path(table, key)}/{ABOUT}")
        self.s3.put_object(Bucket=bucket, Key=name, Body=json.dumps(about).encode())
        return about

    def files(self, table: str, key: str) -> list[str]:
        """The folder: Athena gives its files no suffix, and writes none where no row is."""
        return [f"{self.path(table, key)}/"]

    def fetch(self, table: str, key: str, folder: Path) -> list[str]:
        """Bring the files of a small result to this machine; none where it has no rows."""
        bucket, prefix = split(f"{self.path(table, key)}/")
        names = [name for name in self._names(bucket, prefix) if name[len(prefix) :][:1] not in "_."]
        fetched = [str(folder / f"{table}-{number}.parquet") for number in range(len(names))]
        for name, file in zip(names, fetched, strict=True):
            self.s3.download_file(bucket, name, file)
        return fetched

    def clear(self, table: str, key: str) -> None:
        """Remove what a broken-off attempt left."""
        bucket, prefix = split(f"{self.path(table, key)}/")
        for name in self._names(bucket, prefix):
            self.s3.delete_object(Bucket=bucket, Key=name)

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove every result that is not at one of the paths to keep; names that begin with _ are others'."""
        bucket, prefix = split(f"{self.root}/")
        wanted = {split(one)[1] for one in keep}
        for name in self._names(bucket, prefix):
            result, inside, _ = name[len(prefix) :].partition("/")
            if inside and not result.startswith("_") and prefix + result not in wanted:
                self.s3.delete_object(Bucket=bucket, Key=name)

    def bring(self, folder: Folder, table: str, key: str) -> None:
        """Copy a finished result of this machine here, unless it is here."""
        about = folder.done(table, key)
        if about is None or self.done(table, key) is not None:
            return
        bucket, prefix = split(self.path(table, key))
        for number, file in enumerate(folder.files(table, key)):
            self.s3.upload_file(file, bucket, f"{prefix}/part-{number:05}.parquet")
        self.finish(table, key, about["rows"], about["seconds"])

    def _names(self, bucket: str, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]
