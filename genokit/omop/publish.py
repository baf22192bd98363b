"""A finished CDM put where readers look: the whole new one, or still the whole old one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.errors import InvalidParameters
from genokit.omop import glue, redshift
from genokit.omop.inputs import rejected
from genokit.omop.parquet import scan
from genokit.omop.plan import Step, digest
from genokit.omop.work import Bucket, Folder, split

if TYPE_CHECKING:
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


def local(work: Folder, target: Path, steps: Sequence[Step], given: Mapping[str, str]) -> None:
    """Point ``target/cdm`` at the new tables in one step, and ``target/omop.duckdb`` at ``target/cdm``.

    The tables are hard links of the results where the file system has such, so that nothing is written twice.
    """
    tables = {step.table.removeprefix("cdm."): step for step in steps if step.table.startswith("cdm.")}
    version = target / ".versions" / digest(*(step.key for step in tables.values()))[:16]
    if not version.exists():
        unfinished = version.with_name(f"{version.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, step in tables.items():
            (unfinished / name).mkdir(parents=True)
            for file in work.files(step.table, step.key):
                _link(file, unfinished / name / Path(file).name)
        (unfinished / REJECTED).write_text(_listing(rejected(work, given)), encoding="utf-8")
        unfinished.rename(version)
    link = target / "cdm"
    if not link.is_symlink() or os.readlink(link) != f".versions/{version.name}":
        fresh = target / ".cdm.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f".versions/{version.name}")
        fresh.replace(link)
    views(target, list(tables))
    for old in (target / ".versions").iterdir():
        if old.name != version.name:
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
    fresh.replace(target / VIEWS)


def remote(
    clients: Clients,
    here: Folder,
    work: Folder | Bucket,
    target: str,
    steps: Sequence[Step],
    given: Mapping[str, str],
    database: str | None,
) -> None:
    """Put the tables under ``target/work``, and say in ``target/ledger.json`` which folder is each table's.

    Tables of the Glue ``database`` then lead there (default: that of the stack, where there is one), and where the
    stack has a Redshift, it is told of the tables that it does not hold.
    """
    there = work if isinstance(work, Bucket) else Bucket(clients.s3, f"{target}/work")
    made = {step.table: step for step in steps if step.table.startswith("cdm.")}
    if isinstance(work, Folder):
        for step in made.values():
            there.bring(work, step.table, step.key)
    places = {table: f"{there.path(table, step.key)}/" for table, step in made.items()}
    bucket, prefix = split(target)
    clients.s3.put_object(Bucket=bucket, Key=f"{prefix}/{REJECTED}", Body=_listing(rejected(here, given)).encode())
    clients.s3.put_object(Bucket=bucket, Key=f"{prefix}/{LEDGER}", Body=json.dumps(places, indent=1).encode())
    outputs = clients.outputs(redshift.STACK)
    database = database or outputs.get("Database")
    if database and clients.offers("glue"):
        glue.publish(clients, database, places)
    if "RedshiftWorkgroup" in outputs and clients.offers("redshift-data"):
        held = redshift.loaded(clients)
        known = set(zip(held["table"], held["key"], strict=True))
        for table, step in made.items():
            name, rows = table.removeprefix("cdm."), (there.done(table, step.key) or {})["rows"]
            if (name, step.key) not in known:
                redshift.notify(clients, name, step.key, places[table], rows)


def _link(file: str, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # some network and foreign file systems have no hard links
        shutil.copy2(file, name)


def _listing(rows: Sequence[Mapping[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["table", "file", "line", "reason"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
