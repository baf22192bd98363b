"""Athena as an engine: the same steps as CREATE TABLE AS over Parquet on S3, through pyathena and the Glue catalog.

Where Athena differs, and how this is handled:

- It reads folders, through tables of the catalog. Every table that a step reads or makes has one in a working
  database, named after its folder; the published ones are in another database.
- CREATE TABLE AS needs an empty folder and a new name. What an interrupted run left is stopped, dropped and deleted.
- Its files have no suffix, which is fine for a table over a folder. A result without rows has no file at all.
- Timestamps have milliseconds, which is enough for every source that this kit reads. Columns without a type are
  refused, so every null in the SQL has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import exp

from genokit import backends, storage
from genokit.backends import Clients, translated_errors
from genokit.errors import InvalidRequest, ServiceError, TransformFailed
from genokit.omop.etl.engines import glue
from genokit.omop.etl.plan import TableStep, digest
from genokit.omop.etl.result_store import STACK, MadeTable, ResultStore
from genokit.refusals import translated_queries


@dataclass(frozen=True)
class Athena:
    """Amazon Athena as the engine of an ETL whose target is on S3.

    Queries run and are billed in ``workgroup`` (default: that of the stack ``omop``). ``database`` is the Glue database
    of the CDM; intermediate tables are in another one, whose name ends with ``_work``.

    >>> Athena("ours", database="mimic").staging
    'mimic_work'
    """

    workgroup: str | None = None
    database: str = "omop"
    clients: Clients | None = field(default=None, repr=False, compare=False)
    name = "athena"
    dialect = "athena"

    @property
    def staging(self) -> str:
        return f"{self.database}_work"

    def build(
        self,
        steps: Sequence[TableStep],
        inputs: Mapping[str, MadeTable],
        work: ResultStore,
        progress: Callable[[str], object],
    ) -> None:
        """Make each step, in this order. ``inputs`` are the tables that exist already.

        An interrupt cancels the running query; a later call continues. One ETL at a time may write below a root: a
        query that still writes there is taken for the rest of a killed run, and stopped. Raises NotFound,
        TransformFailed and AWS's refusals.
        """
        clients = self.clients or backends.clients()
        workgroup = self.workgroup or clients.output("Workgroup", STACK)
        with closing(backends.athena(clients, workgroup, glue.checked(self.database))) as connection:
            _stop(clients.client("athena"), workgroup, str(work.root))
            glue.create(clients, self.staging)
            tables = self._register(clients, inputs)
            for step in steps:
                progress(step.table)
                tables[step.table] = self._make(clients, connection, step, tables, work)

    def sweep(self, keep: Mapping[str, str]) -> None:
        """Remove from the working database all tables but those of the tables and folders given."""
        clients = self.clients or backends.clients()
        kept = {table_name(table, folder) for table, folder in keep.items()}
        glue.drop(clients, self.staging, set(glue.names(clients, self.staging)) - kept)

    def _register(self, clients: Clients, inputs: Mapping[str, MadeTable]) -> dict[str, str]:
        """A table of the catalog for each input, by its name in the SQL."""
        known, tables = set(glue.names(clients, self.staging)), dict[str, str]()
        for table, made in inputs.items():
            name = table_name(table, made.folder)
            if name not in known:
                glue.point(clients, self.staging, name, made.folder, glue.columns(table))
            tables[table] = f"{self.staging}.{name}"
        return tables

    def _make(
        self, clients: Clients, connection: Any, step: TableStep, tables: Mapping[str, str], work: ResultStore
    ) -> str:
        begun, folder = time.perf_counter(), work.folder(step.table, step.key)
        name = table_name(step.table, folder)
        statement = create_table_as(step.sql, f"{self.staging}.{name}", folder, tables)
        glue.drop(clients, self.staging, [name])
        storage.delete(folder, clients=clients)
        try:
            with translated_queries(f"table '{step.table}'"), connection.cursor() as cursor:
                cursor.execute(statement)
                rows = cursor.rowcount
                if rows < 0:  # Athena did not report the number of rows
                    [(rows,)] = cursor.execute(f"SELECT COUNT(*) FROM {self.staging}.{name}").fetchall()
        except (InvalidRequest, ServiceError) as error:
            raise TransformFailed(
                f"{error} Finished tables are kept, and the target is unchanged; run the ETL again to continue.",
                table=step.table,
            ) from None
        work.finish(MadeTable(step.table, step.key, folder, rows, round(time.perf_counter() - begun, 3)))
        return f"{self.staging}.{name}"


def table_name(table: str, folder: str) -> str:
    """The name in the catalog of a table whose files lie in a folder: one folder, one name.

    >>> table_name("cdm.person", "s3://ours/omop/cdm.person-7f1f0b87")
    'cdm_person_ff48eb1ef071ebf4'
    """
    return glue.checked(f"{table.replace('.', '_')}_{digest(folder.rstrip('/'))[:16]}")


def create_table_as(select: str, name: str, folder: str, tables: Mapping[str, str]) -> str:
    """The statement that writes a SELECT's rows as Parquet into a folder, with the catalog's names for ``tables``.

    >>> made = create_table_as("SELECT p.dob FROM cdm.person AS p", "w.born", "s3://b/born", {"cdm.person": "w.p"})
    >>> made.split(", ")[-1]
    "external_location='s3://b/born/') AS SELECT p.dob FROM w.p AS p"
    """
    tree = sqlglot.parse_one(select, read="athena")
    for table in list(tree.find_all(exp.Table)):
        if table.db:  # without, it is the name of a WITH
            given = tables[f"{table.db}.{table.name}"]
            table.replace(exp.to_table(given, dialect="athena").as_(table.alias_or_name, table=True))
    options = {"format": "PARQUET", "write_compression": "SNAPPY", "external_location": f"{folder.rstrip('/')}/"}
    properties = ", ".join(f"{word}={exp.Literal.string(value).sql('athena')}" for word, value in options.items())
    return f"CREATE TABLE {name} WITH ({properties}) AS {tree.sql('athena')}"


def _stop(athena: Any, workgroup: str, root: str) -> None:
    """Stop the queries that a killed run left running below a root, and wait until they have ended."""
    with translated_errors(f"workgroup '{workgroup}'"):
        ids = athena.list_query_executions(WorkGroup=workgroup, MaxResults=50).get("QueryExecutionIds", [])
        while ids:
            found = athena.batch_get_query_execution(QueryExecutionIds=ids)["QueryExecutions"]
            ids = [
                one["QueryExecutionId"]
                for one in found
                if one["Status"]["State"] in ("QUEUED", "RUNNING") and f"'{root}/" in one["Query"]
            ]
            for one in ids:
                athena.stop_query_execution(QueryExecutionId=one)
            if ids:
                time.sleep(1)
