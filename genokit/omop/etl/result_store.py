"""The results of an ETL's steps: a folder for each, named by its key, so that the folders are the ledger.

A result is finished once its ``_about.json`` is there, which is written last. Unfinished ones are removed and made
again: a run that was killed continues where it stopped, and no key is ever made twice.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import backends, storage
from genokit.errors import NotFound
from genokit.files import restrict

if TYPE_CHECKING:
    from pandas import DataFrame

ABOUT = "_about.json"
STACK = "genokit-omop"  # the name of Stack("omop"), which has what results on AWS need


@dataclass(frozen=True)
class MadeTable:
    """A finished table, as one step of the ETL hands it to the next.

    ``table`` has its schema, as cdm.person; ``folder`` is on this machine or on S3. Of a source table, ``rejected`` are
    the rows that could not be read, ``held`` is "missing" where the source has no such table, and ``files`` are the
    source's own Parquet files where these are read in place.
    """

    table: str
    key: str
    folder: str
    rows: int
    seconds: float
    rejected: int = 0
    held: str = ""
    files: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The table without its schema."""
        return self.table.partition(".")[2]

    @property
    def parquet(self) -> list[str]:
        """Its Parquet files, in order; on S3 the folder, as Athena's files have no suffix."""
        if storage.is_s3(self.folder):
            return [f"{self.folder}/"]
        return list(self.files) or sorted(str(file) for file in Path(self.folder).glob("*.parquet"))


@cache
def _memory() -> Any:
    """A database in memory for small tables: to open one for each would take longer than to read them."""
    import duckdb

    return duckdb.connect()


@dataclass(frozen=True)
class ResultStore:
    """Results below a root: a folder of this machine, or s3://bucket/prefix for engines on AWS."""

    root: str | os.PathLike[str]
    clients: backends.Clients | None = None

    @property
    def is_s3(self) -> bool:
        return storage.is_s3(self.root)

    @property
    def scratch(self) -> Path:
        """A folder for what no later run needs."""
        return Path(self.root) / "scratch"

    def folder(self, table: str, key: str) -> str:
        """The folder of a table's Parquet files, whether or not they are there."""
        return storage.join(self.root, f"{table}-{key[:16]}")

    def find(self, table: str, key: str) -> MadeTable | None:
        """A finished table; None where it is not finished, or the source's files that it consists of are gone."""
        folder = self.folder(table, key)
        try:
            about = json.loads(storage.read(f"{folder}/{ABOUT}", clients=self.clients))
        except NotFound:
            return None
        known = [field.name for field in fields(MadeTable) if field.name in about]
        made = MadeTable(folder=folder, **{name: about[name] for name in known})
        return made if all(map(os.path.exists, made.files)) else None

    def finish(self, made: MadeTable) -> MadeTable:
        """Mark a table as finished, and return it."""
        about = {name: value for name, value in asdict(made).items() if name != "folder"}
        storage.write(f"{made.folder}/{ABOUT}", json.dumps(about), private=True, clients=self.clients)
        if not self.is_s3:
            for path in (Path(made.folder), *Path(made.folder).iterdir()):
                restrict(path)
        return made

    def copy(self, made: MadeTable) -> MadeTable:
        """The same table in this store on S3, uploaded unless it is there already."""
        folder = self.folder(made.table, made.key)
        copied = replace(made, folder=folder, files=())
        if folder == made.folder or self.find(made.table, made.key):
            return copied
        for number, file in enumerate(made.parquet):
            storage.upload(Path(file), f"{folder}/part-{number:05}.parquet", clients=self.clients)
        return self.finish(copied)

    def rows(self, made: MadeTable) -> DataFrame:
        """The rows of a small table; without columns where it has none and its engine wrote no file."""
        import pandas as pd
        import pyarrow as pa
        from pyarrow import parquet

        inside = storage.files(made.folder, clients=self.clients)
        data = [storage.read(one, clients=self.clients) for one in inside if not re.search("/[_.][^/]*$", one)]
        if not data:
            return pd.DataFrame()
        with _memory().cursor() as con:
            parts = [parquet.read_table(io.BytesIO(one)) for one in data]
            frame: DataFrame = con.from_arrow(pa.concat_tables(parts, promote_options="default")).df()
        return frame

    def sweep(self, keys: Mapping[str, str]) -> None:
        """Delete every result but those of the tables and keys given."""
        root = os.fspath(self.root).rstrip("/")
        keep = {self.folder(table, key) for table, key in keys.items()}
        inside = {file.removeprefix(f"{root}/").partition("/")[0] for file in storage.files(root, clients=self.clients)}
        for name in sorted(inside):
            if re.fullmatch(r"\w+\.\w+-[0-9a-f]{16}", name) and f"{root}/{name}" not in keep:
                storage.delete(f"{root}/{name}", clients=self.clients)
