"""A finished CDM put where readers look: the whole new one, or still the whole old one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.errors import InvalidParameters
from genokit.files import mark, private_folder, restrict, write_atomic
from genokit.omop.etl import redshift
from genokit.omop.etl.engines import glue
from genokit.omop.etl.plan import digest
from genokit.omop.etl.result_store import STACK, Bucket, Folder
from genokit.omop.parquet import scan
from genokit.storage import split

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients

VIEWS, LEDGER, REJECTED = "omop.duckdb", "ledger.json", "rejected.csv"


def check(target: Path) -> None:
    """Refuse a target where something else already has the name of the CDM. Raises InvalidParameters."""
    if target.exists() and not target.is_dir():
        raise InvalidParameters(f"The target '{target}' is a file. Name a folder; it is made where it is missing.")
    if (target / "cdm").exists() and not (target / "cdm").is_symlink():
        raise InvalidParameters(
            f"'{target / 'cdm'}' is there, and not made by etl, which would have to replace it. Name another target."
        )


def local(work: Folder, target: Path, cdm: Mapping[str, str], bad: DataFrame) -> None:
    """Point ``target/cdm`` at the new tables in one step, and ``target/omop.duckdb`` at ``target/cdm``.

    ``cdm`` maps its tables to their keys, ``bad`` are the source's rejected rows. The tables are hard links of the
    results where the file system has such, so that nothing is written twice.
    """
    names = {table: table.removeprefix("cdm.") for table in cdm}
    versions = mark(restrict(private_folder(target / ".versions")))
    version = versions / digest(*cdm.values())[:16]
    if not version.exists():
        unfinished = version.with_name(f"{version.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for table, key in cdm.items():
            private_folder(unfinished / names[table])
            for file in work.files(table, key):
                _link(file, unfinished / names[table] / Path(file).name)
        write_atomic(unfinished / REJECTED, _csv(bad), private=True)
        unfinished.rename(version)
    link = target / "cdm"
    if not link.is_symlink() or os.readlink(link) != f".versions/{version.name}":
        fresh = target / ".cdm.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f".versions/{version.name}")
        fresh.replace(link)
    views(target, list(names.values()))
    for old in versions.iterdir():
        if old.is_dir() and old.name != version.name:
            shutil.rmtree(old)


def views(target: Path, tables: Sequence[str]) -> None:
    """Write ``omop.duckdb``: a view for each table, in the schema main, over the Parquet files in ``target/cdm``."""
    import duckdb

    fresh = target / f".{VIEWS}.new"
    fresh.unlink(missing_ok=True)
    with duckdb.connect(str(fresh)) as con:
        for table in tables:
            files = target.resolve() / "cdm" / table / "*.parquet"
            con.execute(f"create view {table} as select * from {scan([files])}")
    restrict(fresh).replace(target / VIEWS)


def remote(
    clients: Clients,
    work: Folder | Bucket,
    target: str,
    cdm: Mapping[str, str],
    bad: DataFrame,
    database: str | None,
) -> None:
    """Put the tables under ``target/work``, and say in ``target/ledger.json`` which folder is each table's.

    Tables of the Glue ``database`` then lead there (default: that of the stack, where there is one), and where the
    stack has a Redshift, it is told of the tables that it does not hold.
    """
    there = work if isinstance(work, Bucket) else Bucket(clients.s3, f"{target}/work")
    if isinstance(work, Folder):
        for table, key in cdm.items():
            there.bring(work, table, key)
    places = {table: f"{there.path(table, key)}/" for table, key in cdm.items()}
    bucket, prefix = split(target)
    clients.s3.put_object(Bucket=bucket, Key=f"{prefix}/{REJECTED}", Body=_csv(bad).encode())
    clients.s3.put_object(Bucket=bucket, Key=f"{prefix}/{LEDGER}", Body=json.dumps(places, indent=1).encode())
    outputs = clients.outputs(STACK)
    database = database or outputs.get("Database")
    if database and clients.backend.offers("glue"):
        glue.publish(clients, database, places)
    if "RedshiftWorkgroup" in outputs and clients.backend.offers("redshift-data"):
        held = redshift.loaded(clients)
        known = set(zip(held["table"], held["key"], strict=True))
        for table, key in cdm.items():
            name, rows = table.removeprefix("cdm."), (there.done(table, key) or {})["rows"]
            if (name, key) not in known:
                redshift.notify(clients, name, key, places[table], rows)


def _link(file: str, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # some network and foreign file systems have no hard links
        shutil.copy2(file, name)


def _csv(bad: DataFrame) -> str:
    return bad.to_csv(index=False, lineterminator="\n")
