"""Redshift: what the news of a table makes of it, whoever sends the news, and what Redshift says that it holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import sqlglot
from botocore.stub import ANY, Stubber
from moto import mock_aws
from sqlglot import exp
from template import OMOP, Template

from genokit import Settings, backends
from genokit.errors import ConfigError, InvalidParameters, NotFound, ServiceError
from genokit.omop import fields
from genokit.omop.etl import redshift

BUCKET, REGION, KEY = "lab-omop", "us-east-1", "0123456789abcdef" * 4
FUNCTION = Template(OMOP, Redshift="true", BucketName=BUCKET).of("Lambda::Function")["LoadFunction"]
ROLE = "arn:aws:iam::123456789012:role/copy"


OUTPUTS = {"Bucket": BUCKET, "TableTopic": "arn:aws:sns:us-east-1:123456789012:genokit-omop-tables",
           "RedshiftWorkgroup": "genokit-omop", "RedshiftDatabase": "omop"}  # fmt: skip


def clients(outputs=OUTPUTS, **given):
    settings = Settings(backend="aws", region=REGION)
    made = backends.Clients(settings, **given)
    made.stack_outputs[redshift.STACK] = outputs
    made.backend = replace(made.backend, poll_s=0.0)
    return made


def stubbed(service):
    client = boto3.client(service, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    return client, Stubber(client)


# --- the tables as Redshift makes them


def ddl(table):
    """How Redshift makes a table."""
    listed = ", ".join(f'"{name}" {kind}' for name, kind in redshift.columns(table))
    return f"CREATE TABLE public.{table} ({listed})"


@pytest.mark.parametrize("table", fields.tables())
def test_every_table_of_the_cdm_is_one_of_redshifts(table):
    tree = sqlglot.parse_one(ddl(table), read="redshift")
    assert isinstance(tree, exp.Create)
    found = {one.name: one for one in tree.find_all(exp.ColumnDef)}
    assert list(found) == [one.name for one in fields.fields(table)]
    for field in fields.fields(table):
        column = found[field.name]
        assert bool(column.find(exp.NotNullColumnConstraint)) == field.required
        kind = redshift.TYPES.get(field.type, field.type)
        assert column.kind == exp.DataType.build(kind, dialect="redshift")


def test_an_unknown_table_is_told_with_its_nearest():
    with pytest.raises(NotFound, match="Did you mean 'person'"):
        ddl("persons")


# --- the news


def news(table="person", rows=2, location=f"s3://{BUCKET}/made/cdm.person-0123/"):
    """What notify publishes."""
    sent = []
    client, stubber = stubbed("sns")
    client.meta.events.register("provide-client-params.sns.Publish", lambda params, **_: sent.append(params))
    stubber.add_response("publish", {"MessageId": "1"}, {"TopicArn": ANY, "Message": ANY})
    with stubber:
        redshift.notify(clients(sns=client), table, KEY, location, rows)
    return json.loads(sent[0]["Message"])


def test_the_news_holds_names_and_counts_and_nothing_of_any_row():
    told = news()
    assert set(told) == {"table", "key", "location", "rows", "at", "columns"}
    assert [name for name, _ in told["columns"]] == [one.name for one in fields.fields("person")]
    assert len(json.dumps(told)) < 8_000
    assert all(len(json.dumps(news(table))) < 200_000 for table in ("drug_exposure", "measurement"))


def test_what_redshift_could_not_read_is_refused_before_it_is_told():
    with pytest.raises(InvalidParameters, match=f"reads only s3://{BUCKET}/"):
        redshift.notify(clients(), "person", KEY, "s3://lab-omop-2/x/", 0)
    with pytest.raises(NotFound, match="no table 'persons'"):
        redshift.notify(clients(), "persons", KEY, f"s3://{BUCKET}/x/", 0)


# --- the function


@pytest.fixture(scope="module")
def module():
    """The function's module with moto's S3, and a Data API that writes down what it is asked, held against its model;
    the bucket holds what Spark, Athena and the kit's work folder leave."""
    variables = FUNCTION["Environment"]["Variables"] | {"COPY_ROLE": ROLE, "AWS_DEFAULT_REGION": REGION}
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in {**variables, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        module = {"asked": []}
        exec(compile(FUNCTION["Code"]["ZipFile"], "index.py", "exec"), module)

        def answer(params, **_):
            module["asked"].append(json.loads(params["body"]))
            return type("Answer", (), {"status_code": 200})(), {"Id": f"id-{len(module['asked'])}"}

        module["redshift"].meta.events.register("before-call.redshift-data.BatchExecuteStatement", answer)
        module["s3"].create_bucket(Bucket=BUCKET)
        for name in ("part-0.parquet", "part-1", "_about.json", "_temporary/0/part-9", ".part-0.crc"):
            module["s3"].put_object(Bucket=BUCKET, Key=f"made/cdm.person-0123/{name}", Body=b"PAR1" * len(name))
        module["s3"].put_object(Bucket=BUCKET, Key="made/cdm.person-01234/part-0", Body=b"of another table")
        yield module


@pytest.fixture
def function(module):
    module["asked"].clear()
    for one in module["s3"].list_objects_v2(Bucket=BUCKET, Prefix="redshift/").get("Contents", []):
        module["s3"].delete_object(Bucket=BUCKET, Key=one["Key"])
    return module


def send(function, message):
    event = {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(message)}}]}
    return function["handler"](event, None)


def test_a_table_is_loaded_in_one_transaction_from_the_files_that_are_its_own(function):
    told = news()
    assert send(function, told) == [{"table": "person", "key": KEY, "statement": "id-1"}]
    (asked,) = function["asked"]
    new, manifest = "person_0123456789abcdef", f"redshift/person-{KEY}.manifest"
    assert [re.sub(r" \(.*| CASE.*|(?<=IS) .*", "", sql) for sql in asked["Sqls"]] == [
        "SELECT 1 /",
        f"CREATE TABLE public.{new}",
        f"COPY public.{new} FROM 's3://{BUCKET}/{manifest}' IAM_ROLE '{ROLE}' FORMAT AS PARQUET MANIFEST",
        "SELECT 1 /",
        f"COMMENT ON TABLE public.{new} IS",
        f"GRANT SELECT ON public.{new} TO PUBLIC",
        "DROP TABLE IF EXISTS public.person",
        f"ALTER TABLE public.{new} RENAME TO person",
    ]
    assert "COUNT(*) = 2 " in asked["Sqls"][3]
    assert asked["Sqls"][4].endswith(f"IS '{told['at']} {KEY} 2'")
    assert (asked["WorkgroupName"], asked["Database"], asked["WithEvent"]) == (
        asked["StatementName"].split()[0],
        "omop",
        True,
    )
    listed = json.loads(function["s3"].get_object(Bucket=BUCKET, Key=manifest)["Body"].read())["entries"]
    folder = f"s3://{BUCKET}/made/cdm.person-0123/"
    assert [(one["url"], one["mandatory"], one["meta"]) for one in listed] == [
        (f"{folder}part-0.parquet", True, {"content_length": 56}),
        (f"{folder}part-1", True, {"content_length": 24}),
    ]


@pytest.mark.parametrize("table", fields.tables())
def test_every_table_is_taken_and_its_sql_parses(function, table):
    send(function, news(table))
    (asked,) = function["asked"]
    trees = [sqlglot.parse_one(sql, read="redshift") for sql in asked["Sqls"]]
    assert [type(tree) for tree in trees] == [
        exp.Select, exp.Create, exp.Copy, exp.Select, exp.Comment, exp.Grant, exp.Drop, exp.Alter,
    ]  # fmt: skip
    own = "".join(ddl(table).split()).partition("(")[2]
    assert "".join(asked["Sqls"][1].split()).partition("(")[2] == own


def test_a_table_without_rows_has_no_files_to_copy(function):
    send(function, news("death", 0, f"s3://{BUCKET}/made/cdm.death-0/"))
    (asked,) = function["asked"]
    assert len(asked["Sqls"]) == 7
    assert not [sql for sql in asked["Sqls"] if sql.startswith("COPY")]


def test_the_same_news_twice_is_one_request_to_redshift_and_other_news_another(function):
    told = news()
    send(function, told), send(function, told), send(function, told | {"at": "2100-01-01T00:00:00.000000Z"})
    tokens = [asked["ClientToken"] for asked in function["asked"]]
    assert tokens[0] == tokens[1] != tokens[2]
    assert all(len(token) == 64 for token in tokens)


HOSTILE = [
    {"table": "pg_user"},
    {"table": "person; DROP TABLE person"},
    {"table": "Person"},
    {"key": "x'; DROP TABLE person; --"},
    {"key": "0" * 15},
    {"key": KEY + "\n"},
    {"key": "٠" * 16},
    {"at": "now"},
    {"at": "2100-01-01T00:00:00.000000Z' OR '1' = '1"},
    {"rows": -1},
    {"rows": "1 OR TRUE"},
    {"rows": True},
    {"rows": 1.5},
    {"rows": None},
    {"location": "s3://another/made/"},
    {"location": f"s3://{BUCKET}-2/made/"},
    {"location": f"s3://{BUCKET}"},
    {"location": f"s3://{BUCKET}/"},
    {"location": f"s3://{BUCKET}/made"},
    {"location": f"s3://{BUCKET}/wo'rk/"},
    {"location": f"s3://{BUCKET}//another/"},
    {"location": f"https://{BUCKET}/made/"},
    {"columns": [["person_id) AS SELECT 1; --", "BIGINT"]]},
    {"columns": [['person"id', "BIGINT"]]},
    {"columns": [["person_id", "BIGINT DEFAULT 1"]]},
    {"columns": [["person_id", "VARCHAR(65535) NOT NULL\n"]]},
    {"columns": []},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=lambda one: str(one)[:60])
def test_news_that_cannot_be_a_tables_is_refused_and_nothing_is_asked(function, changes):
    with pytest.raises(function["InvalidEvent"]):
        send(function, news() | changes)
    assert function["asked"] == []
    assert "Contents" not in function["s3"].list_objects_v2(Bucket=BUCKET, Prefix="redshift/")


# --- what Redshift holds


def held(*pages, status="FINISHED"):
    client, stubber = stubbed("redshift-data")
    stubber.add_response(
        "execute_statement", {"Id": "a"}, {"WorkgroupName": "genokit-omop", "Database": "omop", "Sql": ANY}
    )
    stubber.add_response("describe_statement", {"Id": "a", "Status": "STARTED"}, {"Id": "a"})
    stubber.add_response("describe_statement", {"Id": "a", "Status": status, "Error": "no such thing"}, {"Id": "a"})
    for place, rows in enumerate(pages):
        records = [[{"stringValue": value} for value in row] for row in rows]
        more = {"NextToken": f"page{place + 1}"} if place + 1 < len(pages) else {}
        asked = {"Id": "a"} | ({"NextToken": f"page{place}"} if place else {})
        stubber.add_response("get_statement_result", {"Records": records, **more}, asked)
    return client, stubber


def test_what_redshift_holds_is_read_from_its_tables_comments():
    at = "2026-11-22T20:00:00.000000Z"
    first = [("death", f"{at} {KEY} 0"), ("mine", "a table of my own")]
    client, stubber = held(first, [("person", f"{at} {KEY} 46520"), ("note", "somebody wrote something here")])
    with stubber:
        found = redshift.loaded(clients(**{"redshift-data": client}))
    stubber.assert_no_pending_responses()
    assert found == {("death", KEY), ("person", KEY)}
    assert isinstance(sqlglot.parse_one(redshift.LOADED, read="redshift"), exp.Select)


def test_a_query_that_fails_is_told_as_redshift_told_it():
    client, stubber = held(status="FAILED")
    with stubber, pytest.raises(ServiceError, match="'genokit-omop': the query FAILED: no such thing"):
        redshift.loaded(clients(**{"redshift-data": client}))


def test_without_redshift_it_is_said_how_to_get_it(tmp_path):
    with pytest.raises(ConfigError, match=r"no output 'RedshiftWorkgroup'. Deploy it with Stack\('omop'\)"):
        redshift.loaded(backends.clients(Settings(home=tmp_path)))
    assert Path(OMOP).is_file()
