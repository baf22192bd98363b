"""A finished CDM put where readers look: they see all of the old one or all of the new one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genokit import storage
from genokit.errors import InvalidParameters
from genokit.files import mark, private_folder, restrict, write_atomic
from genokit.omop.etl import redshift
from genokit.omop.etl.engines import glue
from genokit.omop.etl.plan import digest
from genokit.omop.etl.result_store import STACK, MadeTable, ResultStore
from genokit.omop.parquet import scan

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients

VIEWS, LEDGER, REJECTED = "omop.duckdb", "ledger.json", "rejected.csv"


def check(target: Path) -> None:
    """Refuse a target where something else has the name of the CDM. Raises InvalidParameters."""
    if target.exists() and not target.is_dir():
        raise InvalidParameters(f"The target '{target}' is a file. Name a folder; it is made where it is missing.")
    if (target / "cdm").exists() and not (target / "cdm").is_symlink():
        raise InvalidParameters(
            f"'{target / 'cdm'}' exists and was not made by etl, which would have to replace it. Name another target."
        )


def to_folder(target: Path, cdm: Sequence[MadeTable], bad: DataFrame) -> None:
    """Point ``target/cdm`` at the new tables in one step, and ``target/omop.duckdb`` at ``target/cdm``.

    ``bad`` are the source's rejected rows. Tables are hard links to the results where the file system has such, so
    that nothing is written twice.
    """
    versions = mark(restrict(private_folder(target / ".versions")))
    version = versions / digest(*(made.key for made in cdm))[:16]
    if not version.exists():
        unfinished = version.with_name(f"{version.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for made in cdm:
            private_folder(unfinished / made.name)
            for file in made.parquet:
                _link(file, unfinished / made.name / Path(file).name)
        write_atomic(unfinished / REJECTED, _csv(bad), private=True)
        unfinished.rename(version)
    fresh = target / ".cdm.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(f".versions/{version.name}")
    fresh.replace(target / "cdm")
    views(target, [made.name for made in cdm])
    for old in versions.iterdir():
        if old.is_dir() and old.name != version.name:
            shutil.rmtree(old)


def views(target: Path, tables: Sequence[str]) -> None:
    """Write ``omop.duckdb``: a view of each table, in the schema main, over the Parquet files in ``target/cdm``."""
    import duckdb

    fresh = target / f".{VIEWS}.new"
    fresh.unlink(missing_ok=True)
    with duckdb.connect(str(fresh)) as con:
        for table in tables:
            files = target.resolve() / "cdm" / table / "*.parquet"
            con.execute(f"create view {table} as select * from {scan([files])}")
    restrict(fresh).replace(target / VIEWS)


def to_s3(clients: Clients, target: str, cdm: Sequence[MadeTable], bad: DataFrame, database: str | None) -> None:
    """Put the tables below ``target/work``, and write into ``target/ledger.json`` which folder is each table's.

    Then tables of the Glue ``database`` (default: the stack's, where there is one) are pointed at these folders, and
    where the stack has a Redshift, it is notified of the tables that it does not have.
    """
    work = ResultStore(f"{target}/work", clients)
    cdm = [work.copy(made) for made in cdm]
    folders = {made.table: f"{made.folder}/" for made in cdm}
    storage.write(f"{target}/{REJECTED}", _csv(bad), clients=clients)
    storage.write(f"{target}/{LEDGER}", json.dumps(folders, indent=1), clients=clients)
    outputs = clients.outputs(STACK)
    database = database or outputs.get("Database")
    if database and clients.backend.offers("glue"):
        glue.publish(clients, database, folders)
    if "RedshiftWorkgroup" in outputs and clients.backend.offers("redshift-data"):
        loaded = redshift.loaded(clients)
        for made in cdm:
            if (made.name, made.key) not in loaded:
                redshift.notify(clients, made.name, made.key, folders[made.table], made.rows)


def _link(file: str, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # some network and foreign file systems have no hard links
        shutil.copy2(file, name)


def _csv(bad: DataFrame) -> str:
    return bad.to_csv(index=False, lineterminator="\n")
