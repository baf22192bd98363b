"""A source in S3 is the same as in a folder: on the embedded S3, and by boto3 on moto's."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws
from test_omop_source import ADMISSIONS, CARERS, PATIENTS

from genokit import Settings
from genokit.backends import Clients, clients
from genokit.errors import InvalidSource, NotFound, ServiceError
from genokit.omop import Source, synthetic
from genokit.omop.etl.mimic3 import mimic3


class Asked:
    """Notes the keys of the files that a client fetches; at one of them the connection may break."""

    def __init__(self, s3: Clients, breaks_at: str = "") -> None:
        self.keys, self.breaks_at = [], breaks_at
        s3.s3.meta.events.register("provide-client-params.s3.GetObject", self.note)

    def note(self, params, **_) -> None:
        self.keys.append(params["Key"])
        if self.breaks_at and params["Key"].endswith(self.breaks_at):
            raise ReadTimeoutError(endpoint_url="https://s3")


@pytest.fixture(params=["embedded", "moto"])
def s3(request, tmp_path, monkeypatch) -> Iterator[Clients]:
    """The clients of an account with the bucket 'lab', and with a cache of its own."""
    settings = Settings(home=tmp_path / "account", cache=tmp_path / "cache")
    with mock_aws():
        if request.param == "moto":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
            made = Clients(settings, s3=boto3.client("s3", region_name="us-east-1"))
        else:
            made = clients(settings)
        made.s3.create_bucket(Bucket="lab")
        yield made


def put(s3: Clients, **objects: str | bytes) -> None:
    for key, content in objects.items():
        s3.s3.put_object(Bucket="lab", Key=key, Body=content)


def upload(s3: Clients, folder: Path, prefix: str) -> None:
    for file in (file for file in folder.rglob("*") if file.is_file()):
        put(s3, **{f"{prefix}/{file.relative_to(folder).as_posix()}": file.read_bytes()})


@pytest.fixture
def mimic(s3) -> Source:
    """The two tables that nothing goes without."""
    put(s3, **{"mimic/PATIENTS.csv": PATIENTS, "mimic/ADMISSIONS.csv": ADMISSIONS, "other/CAREGIVERS.csv": CARERS})
    return Source("s3://lab/mimic", clients=s3)


def fetched(s3: Clients) -> list[str]:
    return sorted(file.name for file in s3.settings.cache.rglob("*") if file.is_file())


def test_the_rows_are_those_of_the_folder(s3, tmp_path):
    local = synthetic(tmp_path / "made", persons=8, seed=3, density=0.01, progress=False)
    (tmp_path / "made" / "synthetic.json").unlink()
    caregivers = tmp_path / "made" / "caregivers.parquet"
    table = pq.read_table(caregivers)
    caregivers.unlink()
    caregivers.mkdir()
    (caregivers / "year=2100").mkdir()
    pq.write_table(table.slice(0, 3), caregivers / "part-0.parquet")
    pq.write_table(table.slice(3), caregivers / "year=2100" / "part-0.parquet")
    (caregivers / "_SUCCESS").touch()
    upload(s3, tmp_path / "made", "data/mimic")
    source = Source("s3://lab/data/mimic/", clients=s3)
    assert source.synthetic
    assert source.tables() == local.tables()
    assert "_SUCCESS" not in fetched(s3)
    here, there = duckdb.connect(), duckdb.connect()
    assert source.load(there, progress=False) == local.load(here, progress=False) == []
    for name in mimic3():
        query = f"select * from mimic3.{name} order by all"
        assert there.execute(query).fetchall() == here.execute(query).fetchall()


def test_looking_at_the_tables_fetches_nothing(s3, mimic):
    assert {name: form for name, form in mimic.tables().items() if form != "missing"} == {
        "admissions": "csv",
        "patients": "csv",
    }
    assert "2 of 26" in mimic._repr_html_()
    assert repr(mimic) == "<Source 's3://lab/mimic'>"
    assert fetched(s3) == []


def test_files_are_fetched_once_for_each_version(s3, mimic):
    first = mimic.files(progress=False)
    assert {table: path.read_text() for table, path in first.items()} == {
        "patients": PATIENTS,
        "admissions": ADMISSIONS,
    }
    asked = Asked(s3)
    assert Source("s3://lab/mimic", clients=s3).files(progress=False) == first
    assert asked.keys == []
    put(s3, **{"mimic/PATIENTS.csv": PATIENTS.replace(",F,", ",M,")})
    second = Source("s3://lab/mimic", clients=s3).files(progress=False)
    assert asked.keys == ["mimic/PATIENTS.csv"]
    assert ",M," in second["patients"].read_text()
    assert second["admissions"] == first["admissions"]
    assert first["patients"].read_text() == PATIENTS


def test_what_was_fetched_is_for_this_user_alone(mimic):
    assert {path.parent.stat().st_mode & 0o777 for path in mimic.files(progress=False).values()} == {0o700}


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_run_fetches_what_is_missing(s3, mimic):
    asked = Asked(s3, breaks_at="PATIENTS.csv")
    with pytest.raises(ServiceError, match=r"'s3://lab/mimic/PATIENTS\.csv': AWS could not be reached"):
        mimic.files(progress=False)
    assert [name for name in fetched(s3) if name != ".gitignore"] == ["ADMISSIONS.csv"]
    asked.breaks_at = ""
    asked.keys.clear()
    assert Source("s3://lab/mimic", clients=s3).files(progress=False)["patients"].read_text() == PATIENTS
    assert asked.keys == ["mimic/PATIENTS.csv"]


def test_a_file_that_changes_meanwhile_is_refused(s3, mimic):
    assert mimic.tables()["patients"] == "csv"
    put(s3, **{"mimic/PATIENTS.csv": PATIENTS + PATIENTS})
    with pytest.raises(InvalidSource, match=r"'s3://lab/mimic/PATIENTS\.csv' was changed while it was read"):
        mimic.files(progress=False)


def test_an_empty_file_is_one(s3, mimic):
    put(s3, **{"mimic/caregivers.csv": b"", "mimic/": b""})
    assert Source("s3://lab/mimic", clients=s3).files(progress=False)["caregivers"].read_bytes() == b""


def test_the_whole_bucket_may_be_the_folder(s3):
    put(s3, **{"PATIENTS.csv": PATIENTS, "ADMISSIONS.csv": ADMISSIONS})
    assert sorted(Source("s3://lab", clients=s3).files(progress=False)) == ["admissions", "patients"]


@pytest.mark.parametrize("key", ["../../x.parquet", "./x.parquet", "a//x.parquet", "a\\x.parquet"])
def test_a_key_that_leads_out_of_its_folder_is_refused(s3, mimic, key):
    put(s3, **{f"mimic/labevents/{key}": b""})
    with pytest.raises(InvalidSource, match="cannot be a file in a folder"):
        Source("s3://lab/mimic", clients=s3).tables()


def test_a_place_without_tables_is_named(s3, mimic):
    with pytest.raises(NotFound, match="There is nothing in 's3://lab/mimik'"):
        Source("s3://lab/mimik", clients=s3).tables()
    with pytest.raises(InvalidSource, match="has 1 of MIMIC-III's 26 tables, but not admissions and patients"):
        Source("s3://lab/other", clients=s3).tables()
    assert "There is nothing in" in Source("s3://lab/mimik", clients=s3)._repr_html_()


def test_two_files_of_one_table_are_named(s3, mimic):
    put(s3, **{"mimic/patients.parquet/part.parquet": b""})
    with pytest.raises(InvalidSource, match=r"are the table 'patients': 'PATIENTS\.csv' and 'patients\.parquet'"):
        Source("s3://lab/mimic", clients=s3).tables()


def test_synthetic_data_are_known_by_their_mark(s3, mimic):
    assert not mimic.synthetic
    put(s3, **{"mimic/synthetic.json": json.dumps({})})
    assert Source("s3://lab/mimic", clients=s3).title == "Synthetic MIMIC-III"
    with io.BytesIO() as file:
        pq.write_table(pa.table({"row_id": [1]}), file)
        put(s3, **{"plain/patients.parquet": file.getvalue()})
    assert not Source("s3://lab/plain", clients=s3).synthetic
