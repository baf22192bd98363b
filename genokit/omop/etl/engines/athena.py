"""Athena: the same steps as CREATE TABLE AS over Parquet in S3, through pyathena and the Glue catalog.

What Athena does differently, and what is done about it:

- It reads folders, by tables of the catalog. Every table that a step reads or makes gets one in a working database,
  named after its folder; the published ones stand in a database of their own.
- CREATE TABLE AS wants an empty folder and a new name. What a broken-off run left is stopped, dropped and cleared.
- A workgroup that enforces its own place for results takes no other, and is refused before anything begins.
- Its files have no suffix, which is fine for a table over a folder. A result without rows has no file at all, so it
  is given one that has the columns, as who reads the folder by itself would not know them.
- Timestamps have milliseconds, as have those of no source that this kit reads; columns of no type are refused, so
  that every null in the SQL has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import exp

from genokit import backends
from genokit.backends import Clients, translated_errors
from genokit.errors import ConfigError, InvalidRequest, InvalidSource, NotFound, ServiceError, TransformFailed
from genokit.omop.etl.engines import glue
from genokit.omop.etl.plan import Step, digest
from genokit.omop.etl.result_store import STACK, Bucket
from genokit.refusals import translated_queries
from genokit.storage import split

LONGEST = 262_144  # bytes of a statement


@dataclass(frozen=True)
class Athena:
    """Amazon Athena as the engine of an ETL whose target is in S3.

    ``workgroup`` is where queries run and are billed (default: that of the stack ``omop``). ``database`` is the Glue
    database for the CDM; what lies between stands in another of that name with ``_work``.

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
        steps: Sequence[Step],
        inputs: Mapping[str, Sequence[str]],
        work: Bucket,
        progress: Callable[[str], object],
    ) -> None:
        """Make each step in the order given. ``inputs``: the folder of each table that is there already.

        An interrupt cancels the query that runs; a later call goes on. One ETL at a time may write below a root: a
        query that still writes there is taken for the rest of a killed run, and stopped. Raises ConfigError,
        AccessDenied, InvalidSource, NotFound, TransformFailed and
        what else AWS refuses.
        """
        clients = self.clients or backends.clients()
        workgroup = self.workgroup or clients.output("Workgroup", STACK)
        with closing(backends.athena(clients, workgroup, glue.checked(self.database))) as connection:
            athena = clients.client("athena")
            _check(athena, workgroup)
            _stop(athena, workgroup, work.root)
            glue.create(clients, self.staging)
            tables = self._register(clients, inputs)
            for step in steps:
                progress(step.table)
                tables[step.table] = self._make(clients, connection, step, tables, work)

    def sweep(self, keep: Mapping[str, str], clients: Clients | None = None) -> None:
        """Take out of the working database the tables of results that are kept no longer: all but those of the tables
        and folders named."""
        given = clients or self.clients or backends.clients()
        glue.sweep(given, self.staging, {table_name(table, folder) for table, folder in keep.items()})

    def _register(self, clients: Clients, inputs: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """A table of the catalog for each input, by its name in the SQL."""
        folders = {table: _folder(table, files) for table, files in inputs.items()}
        if len(set(folders.values())) < len(folders):
            raise InvalidSource("Two inputs lie in one folder of S3, but Athena reads folders as a whole: part them.")
        known, tables = set(glue.names(clients, self.staging)), dict[str, str]()
        for table, folder in folders.items():
            name = table_name(table, folder)
            if name not in known and table.startswith("stage."):
                raise NotFound(
                    f"The table '{table}' is made, but '{self.staging}.{name}' is not in the Glue catalog any more. "
                    f"Delete the folder {folder}, and it will be made anew."
                )
            if name not in known:
                glue.point(clients, self.staging, name, folder, glue.columns(table))
            tables[table] = f"{self.staging}.{name}"
        return tables

    def _make(self, clients: Clients, connection: Any, step: Step, tables: Mapping[str, str], work: Bucket) -> str:
        begun, folder = time.perf_counter(), work.path(step.table, step.key)
        name = table_name(step.table, folder)
        statement = create_table_as(step.sql, f"{self.staging}.{name}", folder, tables)
        glue.drop(clients, self.staging, [name])
        with translated_errors(f"folder '{folder}'"):
            work.clear(step.table, step.key)
        try:
            with translated_queries(f"table '{step.table}'"), connection.cursor() as cursor:
                cursor.execute(statement)
                scanned, rows = cursor.data_scanned_in_bytes or 0, cursor.rowcount
                if rows < 0:  # Athena has not told how many it wrote
                    [(rows,)] = cursor.execute(f"SELECT COUNT(*) FROM {self.staging}.{name}").fetchall()
        except (InvalidRequest, ServiceError) as error:
            raise TransformFailed(
                f"{error} What was made before stays, and so does the target; run the ETL again to go on from here.",
                table=step.table,
            ) from None
        with translated_errors(f"folder '{folder}'"):
            if not rows:
                bucket, prefix = split(folder)
                content = glue.without_rows(clients, self.staging, name)
                work.s3.put_object(Bucket=bucket, Key=f"{prefix}/none.parquet", Body=content)
            work.finish(step.table, step.key, rows, time.perf_counter() - begun, bytes_scanned=scanned)
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
            given = tables.get(f"{table.db}.{table.name}")
            if given is None:
                raise NotFound(f"'{name}' reads {table.db}.{table.name}, which is neither made before it nor given.")
            table.replace(exp.to_table(given, dialect="athena").as_(table.alias_or_name, table=True))
    told = {"format": "PARQUET", "write_compression": "SNAPPY", "external_location": f"{folder.rstrip('/')}/"}
    properties = ", ".join(f"{word}={exp.Literal.string(value).sql('athena')}" for word, value in told.items())
    statement = f"CREATE TABLE {name} WITH ({properties}) AS {tree.sql('athena')}"
    if len(statement.encode()) > LONGEST:
        raise NotFound(f"The SQL of {name} has {len(statement.encode())} bytes; Athena takes {LONGEST}.")
    return statement


def _folder(table: str, files: Sequence[str]) -> str:
    """The folder in S3 that holds a table's files and nothing else."""
    folders = {file.rpartition("/")[0] if file.endswith(".parquet") else file.rstrip("/") for file in files}
    if len(folders) != 1 or not all(folder.startswith("s3://") for folder in folders):
        raise InvalidSource(
            f"Athena reads '{table}' from one folder in S3, but is given "
            f"{', '.join(sorted(folders)[:3]) or 'none'}. Stage the inputs to the target first."
        )
    return folders.pop()


def _check(athena: Any, workgroup: str) -> None:
    """Refuse a workgroup in which nothing could be made."""
    with translated_errors(f"workgroup '{workgroup}'"):
        found = athena.get_work_group(WorkGroup=workgroup)["WorkGroup"]
    told = found.get("Configuration", {})
    if found.get("State") == "DISABLED":
        raise ConfigError(f"The workgroup '{workgroup}' of Athena is disabled. Enable it, or name another.")
    if told.get("EnforceWorkGroupConfiguration") and told.get("ResultConfiguration", {}).get("OutputLocation"):
        raise ConfigError(
            f"The workgroup '{workgroup}' of Athena enforces its own place for results, so that no table can be made "
            "elsewhere. Take the one of Stack('omop'), or turn 'Override client-side settings' off in this one."
        )


def _stop(athena: Any, workgroup: str, root: str) -> None:
    """Stop what a killed run left running below a root, and wait until it has ended: it would write on."""
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
