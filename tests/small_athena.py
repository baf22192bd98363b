"""A small Athena: statements are told to it through botocore, read as Trino's and run by DuckDB over the S3 and Glue
of moto. It holds what Athena is strict about; Trino's own functions, planner, limits and prices it does not have."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import duckdb
import pyarrow as pa
import sqlglot
from moto import mock_aws
from sqlglot import exp
from trino_query_parser import parse_statement

from genokit.backends import Clients
from genokit.config import Settings
from genokit.omop.etl.engines.glue import TYPES
from genokit.omop.fields import fields, tables
from genokit.storage import split

REGION, BUCKET, WORKGROUP = "eu-central-1", "ours", "ours"
KINDS = {"BIGINT": "bigint", "INTEGER": "integer", "DOUBLE": "double", "VARCHAR": "varchar", "DATE": "date",
         "TIMESTAMP": "timestamp", "BOOLEAN": "boolean", "DECIMAL(10,2)": "decimal", "HUGEINT": "bigint"}  # fmt: skip
HIVE = {**TYPES, "DECIMAL(2,1)": "decimal(2,1)", "HUGEINT": "bigint"}  # Trino sums whole numbers as BIGINT


class SmallAthena:
    """Answers the calls of one Athena client; ``queries`` keeps all it was told."""

    def __init__(self, scratch: Path) -> None:
        with_region = {"region_name": REGION, "aws_access_key_id": "a", "aws_secret_access_key": "b"}
        self.s3, self.glue, self.athena = (boto3.client(name, **with_region) for name in ("s3", "glue", "athena"))
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.athena.create_work_group(Name=WORKGROUP, Configuration={"EnforceWorkGroupConfiguration": False})
        self.scratch = scratch
        self.queries: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.interrupt = ""  # a table at whose query the user's interrupt comes
        for name in ("start", "get", "results", "stop", "list", "batch"):
            operation = {"start": "StartQueryExecution", "get": "GetQueryExecution", "results": "GetQueryResults",
                         "stop": "StopQueryExecution", "list": "ListQueryExecutions",
                         "batch": "BatchGetQueryExecution"}[name]  # fmt: skip
            self.athena.meta.events.register(f"before-call.athena.{operation}", self._answering(getattr(self, name)))

    @property
    def clients(self) -> Clients:
        settings = Settings(backend="aws", region=REGION)
        return Clients(settings, s3=self.s3, glue=self.glue, athena=self.athena)

    def _answering(self, method):
        def answer(params, **_):
            return SimpleNamespace(status_code=200), method(json.loads(params["body"]))

        return answer

    # --- the calls

    def start(self, told):
        number, query = str(uuid.uuid4()), told["QueryString"]
        status, answer = {"State": "SUCCEEDED"}, {}
        try:
            answer = self.run(query)
        except (Refused, duckdb.Error) as error:
            status = {"State": "FAILED", "StateChangeReason": str(error)}
        if self.interrupt and self.interrupt in query:
            status = {"State": "RUNNING"}
        kind = "CREATE_TABLE_AS_SELECT" if query.startswith("CREATE TABLE") else "SELECT"
        self.queries[number] = {
            "QueryExecutionId": number, "Query": query, "Status": status, "WorkGroup": told["WorkGroup"],
            "StatementType": "DDL" if kind != "SELECT" else "DML", "SubstatementType": kind,
            "Statistics": {"DataScannedInBytes": 1000},
        }  # fmt: skip
        self.answers[number] = answer
        return {"QueryExecutionId": number}

    def get(self, told):
        found = self.queries[told["QueryExecutionId"]]
        if found["Status"]["State"] == "RUNNING" and self.interrupt:
            self.interrupt = ""
            raise KeyboardInterrupt
        return {"QueryExecution": found}

    def results(self, told):
        rows = self.answers[told["QueryExecutionId"]].get("rows", [])
        columns = [{"Name": "_col0", "Type": "bigint"}]
        data = [{"Data": [{"VarCharValue": "_col0"}]}, *({"Data": [{"VarCharValue": str(row[0])}]} for row in rows)]
        update = self.answers[told["QueryExecutionId"]].get("written")
        return {"ResultSet": {"Rows": data if rows else [], "ResultSetMetadata": {"ColumnInfo": columns}}} | (
            {} if update is None else {"UpdateCount": update}
        )

    def stop(self, told):
        self.queries[told["QueryExecutionId"]]["Status"] = {"State": "CANCELLED"}
        return {}

    def list(self, told):
        return {"QueryExecutionIds": list(reversed(self.queries))[: told["MaxResults"]]}

    def batch(self, told):
        return {"QueryExecutions": [self.queries[number] for number in told["QueryExecutionIds"]]}

    # --- what is behind them

    def run(self, query: str) -> dict[str, Any]:
        tree = sqlglot.parse_one(query, read="athena")
        con = duckdb.connect()
        con.execute("CREATE MACRO from_base(digits, base) AS CAST('0x' || digits AS BIGINT)")
        made = tree.this if isinstance(tree, exp.Create) else None
        for table in list(tree.find_all(exp.Table)):
            if table.db and table is not made:
                table.replace(exp.to_table(self.view(con, table.db, table.name)).as_(table.alias_or_name, table=True))
        if made is None:
            return {"rows": con.execute(tree.sql(dialect="duckdb")).fetchall()}
        told = {one.name: one.args["value"].name for one in tree.args["properties"].find_all(exp.Property)
                if isinstance(one.this, exp.Var)}  # fmt: skip
        return self.create(con, made, tree.expression, told["external_location"])

    def create(self, con, made, select, folder):
        bucket, prefix = split(folder)
        assert prefix.endswith("/")
        if self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents"):
            raise Refused(f"HIVE_PATH_ALREADY_EXISTS: Target directory for table '{made.name}' already exists")
        if made.name in {one["Name"] for one in self.glue.get_tables(DatabaseName=made.db)["TableList"]}:
            raise Refused(f"TABLE_ALREADY_EXISTS: line 1:1: Table '{made.name}' already exists")
        text = select.sql(dialect="duckdb")
        described = con.execute(f"DESCRIBE {text}").fetchall()
        for name, kind, *_ in described:
            if kind == '"NULL"':
                raise Refused(f"NOT_SUPPORTED: Column type is unknown: {name}")
        casts = ", ".join(f'CAST("{name}" AS BIGINT) AS "{name}"' if kind == "HUGEINT" else f'"{name}"'
                          for name, kind, *_ in described)  # fmt: skip
        file = self.scratch / str(uuid.uuid4())
        [(rows,)] = con.execute(f"COPY (SELECT {casts} FROM ({text})) TO '{file}' (FORMAT parquet)").fetchall()
        if rows:
            self.s3.upload_file(str(file), bucket, f"{prefix}20261122_120000_00001_abcde_{file.name}")
        columns = [{"Name": name, "Type": HIVE[kind]} for name, kind, *_ in described]
        about = {"Columns": columns, "Location": folder}
        self.glue.create_table(DatabaseName=made.db, TableInput={"Name": made.name, "StorageDescriptor": about})
        return {"written": rows}

    def view(self, con, database, name) -> str:
        """A view over a folder's files, in the types that the catalog tells and the files must have."""
        about = self.glue.get_table(DatabaseName=database, Name=name)["Table"]["StorageDescriptor"]
        bucket, prefix = split(about["Location"])
        files = []
        for one in self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []):
            if one["Key"][len(prefix) :][:1] not in "_.":
                files.append(self.scratch / one["ETag"].strip('"'))
                if not files[-1].exists():
                    self.s3.download_file(bucket, one["Key"], str(files[-1]))
        view = f"{database}_{name}"
        if not files:
            typed = ", ".join(f'"{one["Name"]}" {one["Type"]}' for one in about["Columns"])
            con.execute(f"CREATE TABLE IF NOT EXISTS {view} ({typed})")
            return view
        con.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM read_parquet({[str(file) for file in files]})")
        found = {name: HIVE[kind] for name, kind, *_ in con.execute(f"DESCRIBE {view}").fetchall()}
        told = {one["Name"]: one["Type"] for one in about["Columns"]}
        if found != told:
            raise Refused(f"HIVE_BAD_DATA: {name}: {found.items() ^ told.items()}")
        return view


class AsksAthena(SmallAthena):
    """Finds tables without a schema in the database that the connection names, and answers in columns of any type."""

    def run(self, query):
        parse_statement(query)
        tree = sqlglot.parse_one(query, read="athena")
        con = duckdb.connect()
        named = {cte.alias for cte in tree.find_all(exp.CTE)}
        for table in list(tree.find_all(exp.Table)):
            if not table.db and table.name in named:
                continue
            name = self.view(con, table.db or "omop", table.name)
            table.replace(exp.to_table(name).as_(table.alias_or_name, table=True))
        self.statement = query
        answer = con.execute(tree.sql(dialect="duckdb"))
        columns = [(name, str(kind)) for name, kind, *_ in answer.description]
        return {"rows": answer.fetchall(), "columns": columns}

    def results(self, told):
        answer = self.answers[told["QueryExecutionId"]]
        info = [{"Name": name, "Label": name, "Type": KINDS[kind], "Precision": 10, "Scale": 2, "Nullable": "UNKNOWN",
                 "CatalogName": "hive", "SchemaName": "", "TableName": "", "CaseSensitive": False}
                for name, kind in answer["columns"]]  # fmt: skip
        rows = [[one["Name"] for one in info], *answer["rows"]]
        data = [{"Data": [{} if value is None else {"VarCharValue": _text(value)} for value in row]} for row in rows]
        return {"ResultSet": {"Rows": data, "ResultSetMetadata": {"ColumnInfo": info}}}

    def view(self, con, database, name):
        if name not in {one["Name"] for one in self.glue.get_tables(DatabaseName=database)["TableList"]}:
            raise duckdb.Error(f"TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.{database}.{name}' does not exist")
        return super().view(con, database, name)


def _text(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S.%f}"[:-3] if isinstance(value, datetime.datetime) else str(value)


class Refused(Exception):
    """What Athena says where it fails."""


@contextmanager
def small_athena(scratch: Path) -> Iterator[SmallAthena]:
    with mock_aws():
        yield SmallAthena(scratch)


def hold(athena: SmallAthena, con: duckdb.DuckDBPyConnection, only: Iterable[str] = tables()) -> None:
    """A CDM's tables as Parquet in S3, and in the database omop of Glue, in the CDM's types."""
    athena.glue.create_database(DatabaseInput={"Name": "omop"})
    for table in only:
        folder = f"s3://{BUCKET}/{table}"
        typed = ", ".join(f'"{field.name}"::{field.type} as "{field.name}"' for field in fields(table))
        if con.execute(f"select 1 from {table} limit 1").fetchall():
            put(athena, con, f"select {typed} from {table}", folder)
        columns = [{"Name": field.name, "Type": TYPES[field.type]} for field in fields(table)]
        about = {"Columns": columns, "Location": f"{folder}/"}
        athena.glue.create_table(DatabaseName="omop", TableInput={"Name": table, "StorageDescriptor": about})


def put(athena: SmallAthena, con: duckdb.DuckDBPyConnection, query: str, folder: str) -> None:
    """The rows of a query as Parquet, in a folder of S3."""
    bucket, prefix = split(folder)
    file = athena.scratch / str(uuid.uuid4())
    con.execute(f"COPY ({query}) TO '{file}' (FORMAT parquet)")
    athena.s3.upload_file(str(file), bucket, f"{prefix}/part-0.parquet")


def cells(rows: pa.Table) -> list[tuple[str, ...]]:
    """A result's rows in one order, its numbers to nine digits; no row says nothing."""

    def text(value: object) -> str:
        return "" if value is None or value != value else f"{value:.9g}" if isinstance(value, float) else str(value)

    found = (tuple(map(text, row.values())) for row in rows.to_pylist() if row["count_value"])
    return sorted(found)
