"""Published tables in Redshift: a notification starts a table's load; the tables' comments say what is loaded.

The stack "omop" with ``redshift=True`` deploys Redshift Serverless, a topic and a function. The function is notified of
a published table and loads its Parquet files by COPY in one transaction: the new table is made beside the old one, its
rows are counted, and it replaces the old one, or the old one stays. The same notification twice loads once, and a late
one never replaces a newer table. Each table's comment has its version, so no ledger can disagree with it.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

from genokit.backends import Clients, translated_errors
from genokit.errors import InvalidParameters, ServiceError
from genokit.omop import fields
from genokit.omop.etl.result_store import STACK

# Texts have no limit in the CDM of this kit; this is the widest that a bare VARCHAR can be.
TYPES = {"DOUBLE": "DOUBLE PRECISION", "VARCHAR": "VARCHAR(65535)"}
LOADED = (
    "SELECT c.relname AS table_name, d.description AS version FROM pg_class AS c"
    " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " JOIN pg_description AS d ON d.objoid = c.oid AND d.objsubid = 0"
    " WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY c.relname"
)


def columns(table: str) -> list[tuple[str, str]]:
    """The columns of a table of the CDM with Redshift's types. Raises NotFound.

    >>> columns("cohort")[:2]
    [('cohort_definition_id', 'BIGINT NOT NULL'), ('subject_id', 'BIGINT NOT NULL')]
    """
    return [(one.name, TYPES.get(one.type, one.type) + " NOT NULL" * one.required) for one in fields.fields(table)]


def notify(clients: Clients, table: str, key: str, location: str, rows: int, *, stack: str = STACK) -> None:
    """Notify the stack, which must have Redshift, that a table of the CDM is published.

    ``location`` is the folder of its Parquet files, in the stack's bucket. Returns once the notification is sent.
    """
    outputs = clients.outputs(stack)
    typed = columns(table)
    if not location.startswith(f"s3://{outputs['Bucket']}/"):
        raise InvalidParameters(
            f"Redshift cannot load '{table}' from '{location}': the stack '{stack}' reads only "
            f"s3://{outputs['Bucket']}/. Give the ETL a target in that bucket."
        )
    news = {
        "table": table,
        "key": key,
        "location": location.rstrip("/") + "/",
        "rows": rows,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "columns": typed,
    }
    with translated_errors(f"news of table '{table}'"):
        clients.client("sns").publish(TopicArn=outputs["TableTopic"], Message=json.dumps(news))


def loaded(clients: Clients, *, stack: str = STACK) -> set[tuple[str, str]]:
    """The tables in Redshift, each with the key of its version. A published table that is not among them is still
    loading, or its load failed. Raises ServiceError."""
    workgroup, database = (clients.output(key, stack) for key in ("RedshiftWorkgroup", "RedshiftDatabase"))
    data, thing = clients.client("redshift-data"), f"Redshift workgroup '{workgroup}'"
    with translated_errors(thing):
        query = data.execute_statement(WorkgroupName=workgroup, Database=database, Sql=LOADED)["Id"]
        while (found := data.describe_statement(Id=query))["Status"] not in ("FINISHED", "FAILED", "ABORTED"):
            time.sleep(clients.backend.poll_s / 4)
        if found["Status"] != "FINISHED":
            raise ServiceError(f"{thing}: the query {found['Status']}: {found.get('Error', '')}", code=found["Status"])
        pages = data.get_paginator("get_statement_result").paginate(Id=query)
        rows = [[value.get("stringValue", "") for value in row] for page in pages for row in page["Records"]]
    versions = {table: comment.split(" ") for table, comment in rows if table in fields.tables()}
    return {(table, words[1]) for table, words in versions.items() if len(words) == 3}
