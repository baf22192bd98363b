"""Published tables in Redshift: the news of one starts its load, and what Redshift holds can be asked.

The stack "omop" with ``redshift=True`` brings Redshift Serverless, a topic and a function. The function hears that a
table is published and loads its Parquet files by COPY in one transaction: the table is made beside the old one, its
rows are counted, and it takes the old one's place, or the old one stays. The same news twice loads once, late news
never over newer. Each table says in its comment which version it is, so no ledger can disagree with it.
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
HELD = (
    "SELECT c.relname AS table_name, d.description AS told FROM pg_class AS c"
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


def ddl(table: str) -> str:
    """How Redshift creates a table of the CDM, for those who load by themselves. Raises NotFound."""
    listed = ",\n".join(f'    "{name}" {kind}' for name, kind in columns(table))
    return f"CREATE TABLE public.{table} (\n{listed}\n)"


def notify(clients: Clients, table: str, key: str, location: str, rows: int, *, stack: str = STACK) -> bool:
    """Tell the stack that a table of the CDM is published; False where the stack has nobody who wants to know.

    ``location`` is the folder of its Parquet files, in the stack's bucket. It returns as soon as the news is out.
    """
    outputs = clients.outputs(stack)
    if "TableTopic" not in outputs:
        return False
    told = columns(table)
    if not location.startswith(f"s3://{outputs['Bucket']}/"):
        raise InvalidParameters(
            f"Redshift cannot load '{table}' from '{location}': the stack '{stack}' reads s3://{outputs['Bucket']}/ "
            "alone. Give the ETL a target in there."
        )
    news = {
        "table": table,
        "key": key,
        "location": location.rstrip("/") + "/",
        "rows": rows,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "columns": told,
    }
    with translated_errors(f"news of table '{table}'"):
        clients.client("sns").publish(TopicArn=outputs["TableTopic"], Message=json.dumps(news))
    return True


def loaded(clients: Clients, *, stack: str = STACK) -> pd.DataFrame:
    """What Redshift holds: each table with the key of its version, its rows, and when it was published.

    A table that was published and is not here is loading still, or among those that ``failed``.
    """
    import pandas as pd

    workgroup, database = (clients.output(key, stack) for key in ("RedshiftWorkgroup", "RedshiftDatabase"))
    found = []
    for table, told in _rows(clients, workgroup, database, HELD):
        words = told.split(" ")
        if len(words) == 3 and table in fields.tables():
            found.append((table, words[1], int(words[2]), pd.Timestamp(words[0])))
    return pd.DataFrame(found, columns=["table", "key", "rows", "published"])


def failed(clients: Clients, *, stack: str = STACK) -> pd.DataFrame:
    """The loads of the last two weeks that came to nothing: table, key, when, and why, as far as it can be told.

    Redshift's own words are in its ``sys_load_error_detail``: they may quote what a row holds, and are not fetched.
    """
    from genokit.frames import Frame

    queue, found = clients.output("LoadFailures", stack), dict[str, tuple[str, str, str, str]]()
    while True:
        with translated_errors(f"queue '{queue.rpartition('/')[2]}'"):
            page = clients.client("sqs").receive_message(QueueUrl=queue, VisibilityTimeout=0, MaxNumberOfMessages=10)
        new = {one["MessageId"]: _failure(json.loads(one["Body"])) for one in page.get("Messages", [])}
        if not new.keys() - found.keys():
            told = sorted(found.values(), key=lambda one: one[2])
            return Frame(told, columns=["table", "key", "at", "reason"])
        found |= new


def _failure(message: dict[str, Any]) -> tuple[str, str, str, str]:
    """What a message says: of a statement that failed in Redshift, or of news that the function did not take."""
    if "detail" in message:
        told = message["detail"]
        _, table, key = told["statementName"].split(" ")
        return table, key, message["time"], f"Redshift: {told['state']}, statement {told['statementId']}"
    news = json.loads(message["requestPayload"]["Records"][0]["Sns"]["Message"])
    reason = message.get("responsePayload", {}).get("errorMessage", message["requestContext"].get("condition", ""))
    return str(news.get("table", "")), str(news.get("key", "")), message["timestamp"], str(reason)


def _rows(clients: Clients, workgroup: str, database: str, sql: str) -> list[tuple[str, ...]]:
    """The rows of a query, all of them texts. Raises ServiceError."""
    data, thing, rows = clients.client("redshift-data"), f"Redshift workgroup '{workgroup}'", []
    with translated_errors(thing):
        asked = data.execute_statement(WorkgroupName=workgroup, Database=database, Sql=sql)["Id"]
        while (found := data.describe_statement(Id=asked))["Status"] not in ("FINISHED", "FAILED", "ABORTED"):
            time.sleep(clients.backend.poll_s / 4)
        if found["Status"] != "FINISHED":
            raise ServiceError(f"{thing}: the query {found['Status']}: {found.get('Error', '')}", code=found["Status"])
        page: dict[str, Any] = {"NextToken": ""}
        while "NextToken" in page:
            token = {"NextToken": page["NextToken"]} if page["NextToken"] else {}
            page = data.get_statement_result(Id=asked, **token)
            rows += [tuple(value.get("stringValue", "") for value in row) for row in page["Records"]]
    return rows
