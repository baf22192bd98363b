"""Published tables in Redshift: a notification starts a table's load, and the loaded tables can be listed.

The stack "omop" with ``redshift=True`` deploys Redshift Serverless, a topic and a function. The function is notified of
a published table and loads its Parquet files by COPY in one transaction: the new table is made beside the old one, its
rows are counted, and it replaces the old one, or the old one stays. The same notification twice loads once, and a late
one never replaces a newer table. Each table's comment has its version, so no ledger can disagree with it.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients, translated_errors
from genokit.errors import InvalidParameters, ServiceError
from genokit.omop import fields
from genokit.omop.etl.result_store import STACK

if TYPE_CHECKING:
    import pandas as pd

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


def notify(clients: Clients, table: str, key: str, location: str, rows: int, *, stack: str = STACK) -> bool:
    """Notify the stack that a table of the CDM is published; False where the stack has no topic for this.

    ``location`` is the folder of its Parquet files, in the stack's bucket. Returns once the notification is sent.
    """
    outputs = clients.outputs(stack)
    if "TableTopic" not in outputs:
        return False
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
    return True


def loaded(clients: Clients, *, stack: str = STACK) -> pd.DataFrame:
    """The tables in Redshift: each with the key of its version, its rows, and when it was published.

    A table that was published and is not listed is still loading, or is listed by ``failed``.
    """
    import pandas as pd

    workgroup, database = (clients.output(key, stack) for key in ("RedshiftWorkgroup", "RedshiftDatabase"))
    found = []
    for table, version in _rows(clients, workgroup, database, LOADED):
        words = version.split(" ")
        if len(words) == 3 and table in fields.tables():
            found.append((table, words[1], int(words[2]), pd.Timestamp(words[0])))
    return pd.DataFrame(found, columns=["table", "key", "rows", "published"])


def failed(clients: Clients, *, stack: str = STACK) -> pd.DataFrame:
    """The loads of the last two weeks that failed: table, key, time and reason.

    Redshift's own messages are in its ``sys_load_error_detail``: they may quote values of a row, and are not fetched.
    """
    from genokit.frames import Frame

    queue, found = clients.output("LoadFailures", stack), dict[str, tuple[str, str, str, str]]()
    while True:
        with translated_errors(f"queue '{queue.rpartition('/')[2]}'"):
            page = clients.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=0, MaxNumberOfMessages=10)
        new = {one["MessageId"]: _failure(json.loads(one["Body"])) for one in page.get("Messages", [])}
        if not new.keys() - found.keys():
            failures = sorted(found.values(), key=lambda one: one[2])
            return Frame(failures, columns=["table", "key", "at", "reason"])
        found |= new


def _failure(message: dict[str, Any]) -> tuple[str, str, str, str]:
    """The content of a message: a statement that failed in Redshift, or a notification that the function refused."""
    if "detail" in message:
        statement = message["detail"]
        _, table, key = statement["statementName"].split(" ")
        return table, key, message["time"], f"Redshift: {statement['state']}, statement {statement['statementId']}"
    news = json.loads(message["requestPayload"]["Records"][0]["Sns"]["Message"])
    reason = message.get("responsePayload", {}).get("errorMessage", message["requestContext"].get("condition", ""))
    return str(news.get("table", "")), str(news.get("key", "")), message["timestamp"], str(reason)


def _rows(clients: Clients, workgroup: str, database: str, sql: str) -> list[tuple[str, ...]]:
    """The rows of a query, all of them texts. Raises ServiceError."""
    data, thing = clients.client("redshift-data"), f"Redshift workgroup '{workgroup}'"
    with translated_errors(thing):
        query = data.execute_statement(WorkgroupName=workgroup, Database=database, Sql=sql)["Id"]
        while (found := data.describe_statement(Id=query))["Status"] not in ("FINISHED", "FAILED", "ABORTED"):
            time.sleep(clients.backend.poll_s / 4)
        if found["Status"] != "FINISHED":
            raise ServiceError(f"{thing}: the query {found['Status']}: {found.get('Error', '')}", code=found["Status"])
        pages = data.get_paginator("get_statement_result").paginate(Id=query)
        return [tuple(value.get("stringValue", "") for value in row) for page in pages for row in page["Records"]]
