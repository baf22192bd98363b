"""One run makes a CDM; the next makes only what changed; killed, refused or out of memory, nothing is lost."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import duckdb
import pytest
import sqlglot
from transformed import run

from genokit import Cdm, Settings, backends
from genokit.errors import InvalidParameters, QualityFailed, TransformFailed
from genokit.files import MARK
from genokit.omop import Source, fields, synthetic
from genokit.omop.etl import transform
from genokit.omop.etl.engines import duck
from genokit.omop.etl.engines.duck import DuckDB, branches
from genokit.omop.etl.etl import etl
from genokit.omop.etl.plan import TableStep
from genokit.omop.etl.publish import LEDGER, views
from genokit.omop.etl.report import DICTIONARIES, origins
from genokit.omop.etl.result_store import ResultStore


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return synthetic(
        tmp_path_factory.mktemp("mimic3"), persons=25, density=0.05, chartevents_per_stay=40, progress=False
    )


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """A target and the report of the run that made it; tests only read it."""
    target = tmp_path_factory.mktemp("etl") / "omop"
    before = os.umask(0o022)
    try:
        return target, etl(source, target, progress=False)
    finally:
        os.umask(before)


def sums(target: Path) -> dict[str, str]:
    """What every file of the CDM holds."""
    cdm = target / "cdm"
    files = sorted(file for file in cdm.resolve().rglob("*") if file.is_file())
    return {str(file.relative_to(cdm.resolve())): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def open_to_others(folder: Path) -> list[Path]:
    return [one for one in (folder, *folder.rglob("*")) if not one.is_symlink() and one.stat().st_mode & 0o077]


def test_what_is_made_of_patients_rows_is_for_its_owner_alone_and_marked_as_data(made, tmp_path):
    before = os.umask(0o022)
    try:
        source = synthetic(tmp_path / "deep" / "mimic3", persons=5, density=0.02, format="csv", progress=False)
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "notes").write_text("")
        etl(source, mine, progress=False)
        cdm = Cdm(made[0])
        cdm.cohort(visit=9201).to_parquet(tmp_path / "cohorts")
        cdm.characterize(tmp_path / "results.duckdb", progress=False)
    finally:
        os.umask(before)
    marks = [tmp_path / "deep" / "mimic3", made[0], tmp_path / "cohorts", mine / ".work", mine / ".versions"]
    for folder in marks:
        assert open_to_others(folder) == []
        assert (folder / ".gitignore").read_text().startswith(MARK)
    assert sorted(open_to_others(mine)) == [mine, mine / "notes"]  # the user's own stay as they are
    assert not (mine / ".gitignore").exists()
    assert (tmp_path / "results.duckdb").stat().st_mode & 0o777 == 0o600


def as_csv(source: Source, folder: Path) -> Path:
    """The same data as CSV files."""
    folder.mkdir()
    with duckdb.connect() as con:
        source.load(con, progress=False)
        for table in source.files():
            con.execute(f"COPY mimic3.{table} TO '{folder / table.upper()}.csv' (FORMAT csv, HEADER)")
    return folder


@pytest.fixture(scope="module")
def made_of_csv(source, tmp_path_factory):
    """The same data as CSV files, and a target made of them."""
    root = tmp_path_factory.mktemp("csv")
    etl(as_csv(source, root / "csv"), root / "omop", progress=False)
    return root


@pytest.fixture
def folder(made_of_csv, tmp_path):
    """CSV files to change; ``tmp_path / "omop"`` was made of them."""
    shutil.copytree(made_of_csv, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "csv"


def test_the_folders_hold_what_the_sql_makes(source, made):
    target, _ = made
    con = duckdb.connect()
    source.load(con, progress=False)
    run(con)
    for table in fields.tables():
        files = f"read_parquet('{target}/cdm/{table}/*.parquet')"
        for one, other in ((f"cdm.{table}", files), (files, f"cdm.{table}")):
            assert con.execute(f"SELECT COUNT(*) FROM (FROM {one} EXCEPT ALL FROM {other})").fetchone() == (0,), table
        types = [row[1] for row in con.execute(f"DESCRIBE FROM {files}").fetchall()]
        assert types == [field.type for field in fields.fields(table)], table


def test_the_views_show_the_same_tables(made):
    target, report = made
    with duckdb.connect(str(target / "omop.duckdb"), read_only=True) as con:
        names = {name for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        assert names == set(fields.tables())
        rows = dict(zip(report.tables["table"], report.tables["rows"], strict=True))
        assert con.execute("SELECT COUNT(*) FROM measurement").fetchone() == (rows["measurement"],)


def test_made_up_data_are_called_so_in_the_cdm_itself(made):
    [(name, description)] = duckdb.sql(
        f"SELECT cdm_source_name, source_description FROM '{made[0]}/cdm/cdm_source/*.parquet'"
    ).fetchall()
    assert name == "Synthetic MIMIC-III"
    assert "no person is behind it" in description


def test_a_second_run_makes_nothing_and_changes_no_byte(source, made):
    target, first = made
    before, stamps = sums(target), [file.stat().st_mtime_ns for file in sorted(target.rglob("*.parquet"))]
    second = etl(source, target, progress=False)
    assert set(first.tables["state"]) == {"made"}
    assert set(second.tables["state"]) == {"unchanged"}
    assert sums(target) == before
    assert [file.stat().st_mtime_ns for file in sorted(target.rglob("*.parquet"))] == stamps
    assert list(second.tables["rows"]) == list(first.tables["rows"])


def test_another_run_in_another_folder_writes_the_same_bytes(source, made, tmp_path):
    etl(source, tmp_path / "again", DuckDB(memory_gib=0.4, threads=1), progress=False)
    assert sums(tmp_path / "again") == sums(made[0])


def test_what_a_changed_input_touches_is_made_anew_and_nothing_else(folder, tmp_path):
    notes = folder / "NOTEEVENTS.csv"
    with duckdb.connect() as con:
        con.execute(f"COPY (FROM '{notes}' OFFSET 1) TO '{tmp_path}/fewer.csv' (FORMAT csv, HEADER)")
    (tmp_path / "fewer.csv").replace(notes)
    report = etl(folder, tmp_path / "omop", progress=False)
    again = set(report.tables.loc[report.tables["state"] == "made", "table"])
    assert again == {"note", "observation_period"}
    assert not list((tmp_path / "omop" / ".versions").glob("*.unfinished"))
    assert len(list((tmp_path / "omop" / ".versions").glob("[!.]*"))) == 1
    assert len(list((tmp_path / "omop" / ".work").glob("cdm.note-*"))) == 1, "the old result is swept"


@pytest.mark.slow
def test_what_a_changed_statement_touches_is_made_anew_and_nothing_else(source, made, tmp_path, monkeypatch):
    shutil.copytree(made[0], tmp_path, symlinks=True, dirs_exist_ok=True)
    death = transform.statements()["cdm.death"]

    def made_with(sql: str) -> set[str]:
        changed = transform.statements() | {"cdm.death": sql}
        with monkeypatch.context() as during:
            during.setattr(transform, "statements", lambda: changed)
            transform.select.cache_clear()
            tables = etl(source, tmp_path, progress=False).tables
        transform.select.cache_clear()
        return set(tables.loc[tables["state"] == "made", "table"])

    assert made_with(f"-- a remark changes nothing\n{death}") == set()
    assert made_with(f"{death} AND patient.subject_id > 0") == {"death", "observation_period"}


def test_a_table_has_no_more_rows_than_the_sources_it_is_made_of(made):
    rows = made[1].tables.set_index("table")
    assert 0 < rows.loc["measurement", "rows"] <= rows.loc["measurement", "rows_in"]
    assert origins("cdm.measurement") >= {"mimic3.labevents", "mimic3.chartevents", "mimic3.outputevents"}
    assert rows.loc["person", "rows"] == 25


def test_the_report_says_what_is_mapped_beside_the_original(made):
    _, report = made
    shares = report.mapped.set_index("domain")
    assert shares.loc["measurement", "share"] > 0.9
    assert shares.loc["measurement", "original"] == 0
    shown = report._repr_html_()
    assert shown.index("by the original pipeline") < shown.index("rejected")
    assert "Synthetic MIMIC-III" in shown
    assert repr(report).startswith("<Report Synthetic MIMIC-III to ")


def test_every_row_of_the_source_is_accounted_for(source, made):
    target, report = made
    accounts, con = report.accounts, duckdb.connect()
    source.load(con, progress=False)
    dictionaries = {name.removeprefix("mimic3.") for name in DICTIONARIES}
    assert set(accounts["source_table"]) == set(source.files()) - dictionaries
    for table, rows in accounts.groupby("source_table")["rows"].sum().items():
        assert con.execute(f"SELECT COUNT(*) FROM mimic3.{table}").fetchone() == (rows,), table
    carried = accounts[accounts["became"].str.startswith("carried over")].groupby("source_table")["rows"].sum()
    found = {
        "patients": "person", "admissions": "visit_occurrence", "noteevents": "note", "caregivers": "provider",
        "labevents": "measurement WHERE measurement_id % 16 = 0",
        "outputevents": "measurement WHERE measurement_id % 16 = 2",
        "prescriptions": "drug_exposure WHERE drug_exposure_id % 16 = 0",
        "inputevents_mv": "drug_exposure WHERE drug_exposure_id % 16 = 1",
        "inputevents_cv": "drug_exposure WHERE drug_exposure_id % 16 = 2",
        "icustays": "visit_detail WHERE visit_detail_id % 16 = 0",
        "transfers": "visit_detail WHERE visit_detail_id % 16 = 1",
        "diagnoses_icd": "condition_occurrence WHERE condition_occurrence_id % 16 = 8",
        "procedures_icd": "procedure_occurrence WHERE procedure_occurrence_id % 16 = 9",
        "cptevents": "procedure_occurrence WHERE procedure_occurrence_id % 16 = 10",
        "services": "observation WHERE observation_id % 16 = 12",
        "drgcodes": "observation WHERE observation_id % 16 = 5",
    }  # fmt: skip
    with duckdb.connect(str(target / "omop.duckdb"), read_only=True) as cdm:
        for table, rows in found.items():
            assert cdm.execute(f"SELECT COUNT(*) FROM {rows}").fetchone() == (carried[table],), table
        both = {"chartevents": (1, 7), "datetimeevents": (6, 6)}
        for table, (one, other) in both.items():
            first = "measurement" if one == 1 else "procedure_occurrence"
            [(count,)] = cdm.execute(
                f"SELECT (SELECT COUNT(*) FROM {first} WHERE {first}_id % 16 = {one})"
                f" + (SELECT COUNT(*) FROM observation WHERE observation_id % 16 = {other})"
            ).fetchall()
            assert count == carried[table], table
    assert {"cancelled", "marked as an error", "no place in the CDM"} <= set(accounts["became"])
    assert f"{accounts['rows'].sum():,} rows: {carried.sum():,} carried over, 0 not readable" in report._repr_html_()


def test_a_missing_table_and_rejected_rows_are_said_and_the_pill_is_no_ok(folder, tmp_path):
    (folder / "CHARTEVENTS.csv").unlink()
    labs = folder / "LABEVENTS.csv"
    labs.write_text(labs.read_text() + "x\n")
    report = etl(folder, tmp_path / "omop", progress=False)
    assert report.missing == ("chartevents",)
    shown = report._repr_html_()
    assert re.search(r"missing tables</th><td>\W*chartevents", shown)
    assert "gk-warn" in shown[shown.index("MIMIC-III as OMOP CDM 5.4") :][:200]
    own = report.accounts[report.accounts["source_table"] == "labevents"].set_index("became")["rows"]
    assert own["could not be read"] == 1
    assert own.sum() == len(labs.read_text().splitlines()) - 1


def test_concepts_are_of_their_fields_domains_and_quantities_above_0(made):
    failed = made[1].quality.failed
    assert failed[failed["check_name"].isin(["fkDomain", "isForeignKey", "plausibleValueLow"])].empty


def test_broken_rows_are_listed_and_the_others_come_in(folder, tmp_path):
    labs = folder / "LABEVENTS.csv"
    lines = labs.read_text().splitlines()
    lines[3] = lines[3].replace(",", ";")
    lines[7] = "not-a-number" + lines[7][lines[7].index(",") :]
    labs.write_text("\n".join(lines) + "\n")
    report = etl(folder, tmp_path / "omop", progress=False)
    rows = report.tables.set_index("table")
    assert rows.loc["measurement", "rejected"] == 2
    with (tmp_path / "omop" / "cdm" / "rejected.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(row["file"], row["line"]) for row in listed] == [("LABEVENTS.csv", "4"), ("LABEVENTS.csv", "8")]
    assert listed[1]["reason"] == "column 'row_id' is not a whole number (INTEGER)"
    assert "2 rows of the source, listed in rejected.csv" in report._repr_html_()
    assert len(etl(folder, tmp_path / "omop", progress=False).rejected) == 2, "known without reading the file again"


def test_a_cdm_that_breaks_a_rule_does_not_replace_the_old_one(folder, tmp_path):
    before = sums(tmp_path / "omop")
    patients = folder / "PATIENTS.csv"
    lines = patients.read_text().splitlines()
    patients.write_text("\n".join([*lines, lines[1]]) + "\n")
    said = r"failed \d+ mandatory checks \(first: field_isprimarykey_.*\) and was not published; '.*omop' is unchanged"
    with pytest.raises(QualityFailed, match=said) as raised:
        etl(folder, tmp_path / "omop", progress=False)
    assert "person" in set(raised.value.quality.fatal["cdm_table_name"])
    assert sums(tmp_path / "omop") == before
    patients.write_text("\n".join(lines) + "\n")
    report = etl(folder, tmp_path / "omop", progress=False)
    assert set(report.tables["state"]) == {"unchanged"}, "what the old CDM was made of is still there"


@pytest.mark.slow
def test_the_first_run_that_fails_leaves_no_target(source, tmp_path):
    folder = as_csv(source, tmp_path / "csv")
    patients = folder / "PATIENTS.csv"
    lines = patients.read_text().splitlines()
    patients.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(QualityFailed):
        etl(folder, tmp_path / "omop", progress=False)
    assert not (tmp_path / "omop" / "cdm").exists()


def test_two_runs_do_not_write_to_one_target(source, tmp_path):
    (tmp_path / ".work").mkdir()
    with (tmp_path / ".work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InvalidParameters, match="Another run is writing"):
            etl(source, tmp_path, progress=False)


def test_a_target_that_holds_something_else_is_refused(source, tmp_path):
    (tmp_path / "cdm").mkdir()
    with pytest.raises(InvalidParameters, match="was not made by etl"):
        etl(source, tmp_path, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidParameters, match="is a file"):
        etl(source, tmp_path / "file", progress=False)
    with pytest.raises(InvalidParameters, match=r"no engine 'duckbd'.*duckdb"):
        etl(source, tmp_path / "new", "duckbd", progress=False)
    with pytest.raises(InvalidParameters, match=r"Athena writes to S3 only, not to '.*new'"):
        etl(source, tmp_path / "new", "athena", progress=False)


def test_no_value_of_a_row_is_in_an_engines_error(tmp_path):
    step = TableStep("cdm.death", "0" * 64, "SELECT CAST('Mr Secret' AS INTEGER) AS person_id", ())
    with pytest.raises(
        TransformFailed, match=r"'cdm.death' could not be made by DuckDB \(ConversionException\)"
    ) as raised:
        DuckDB().build([step], {}, ResultStore(tmp_path), print)
    assert raised.value.table == "cdm.death"
    assert "Secret" not in "".join(traceback.format_exception(raised.value))


def test_what_a_killed_run_left_is_used_only_where_it_is_the_same(tmp_path):
    folder = tmp_path / f"stage.two-{'4' * 16}"
    step = TableStep("stage.two", "4" * 64, "SELECT 1 AS a UNION ALL SELECT 2 AS a", ())
    DuckDB().build([step], {}, ResultStore(tmp_path), print)
    first, second = sorted(folder.glob("*.parquet"))
    stamp = first.stat().st_mtime_ns
    (folder / "_about.json").unlink()
    second.unlink()
    for stray in ("part-00001-0a0a0a0a.parquet", "part-00001.unfinished"):
        (folder / stray).write_bytes(b"of another time")
    DuckDB().build([step], {}, ResultStore(tmp_path), print)
    assert sorted(folder.glob("part*")) == [first, second]
    assert first.stat().st_mtime_ns == stamp
    assert ResultStore(tmp_path).find("stage.two", "4" * 64).rows == 2


def test_too_little_memory_says_what_to_do_and_keeps_what_is_done(tmp_path):
    easy = TableStep("stage.easy", "1" * 64, "SELECT 1 AS a", ())
    greedy = "SELECT i AS a, MD5(CAST(i AS VARCHAR)) || MD5(CAST(i + 1 AS VARCHAR)) AS b FROM range(20000000) AS t(i)"
    hard = TableStep("stage.hard", "2" * 64, f"SELECT LIST(b) AS c FROM ({greedy})", ())
    with pytest.raises(TransformFailed, match=r"'stage.hard' could not be made .*OutOfMemory.*memory_gib") as raised:
        DuckDB(memory_gib=0.1).build([easy, hard], {}, ResultStore(tmp_path), lambda table: None)
    assert raised.value.table == "stage.hard"
    work = ResultStore(tmp_path)
    assert work.find("stage.easy", "1" * 64).rows == 1
    assert work.find("stage.hard", "2" * 64) is None


@pytest.mark.slow
def test_an_event_table_is_written_in_parts_that_make_the_whole(source, tmp_path, monkeypatch):
    monkeypatch.setattr(duck, "WIDTH", 500)
    etl(source, tmp_path / "parts", progress=False)
    parts = list((tmp_path / "parts" / "cdm" / "measurement").glob("*.parquet"))
    monkeypatch.undo()
    etl(source, tmp_path / "whole", progress=False)
    assert len(parts) > len(list((tmp_path / "whole" / "cdm" / "measurement").glob("*.parquet")))
    sql = "SELECT COUNT(*) FROM (FROM '{}/*.parquet' EXCEPT ALL FROM '{}/*.parquet')"
    one, other = (tmp_path / name / "cdm" / "measurement" for name in ("parts", "whole"))
    assert duckdb.sql(sql.format(one, other)).fetchall() == duckdb.sql(sql.format(other, one)).fetchall() == [(0,)]


@pytest.mark.parametrize("table", sorted(transform.statements()))
def test_the_branches_of_a_statement_have_its_rows(table, source, request):
    """Held on real rows: a UNION is only taken apart where that changes nothing."""
    con = request.getfixturevalue("loaded")
    sql = transform.select(table, "duckdb")
    apart = " UNION ALL ".join(
        f"({one.sql(dialect='duckdb', identify=True)})" for one in branches(sqlglot.parse_one(sql, read="duckdb"))
    )
    for one, other in ((sql, apart), (apart, sql)):
        assert con.execute(f"SELECT COUNT(*) FROM (FROM ({one}) EXCEPT ALL FROM ({other}))").fetchone() == (0,)


@pytest.fixture(scope="module")
def loaded(source):
    con = duckdb.connect()
    source.load(con, progress=False)
    run(con)
    return con


def test_a_bucket_gets_the_tables_and_a_ledger_that_names_them(source, made, tmp_path):
    settings = Settings(backend="local", home=tmp_path / "home", cache=tmp_path / "cache")
    clients = backends.clients(settings)
    report = etl(source, "s3://genokit/cdm/", clients=clients, progress=False)
    assert report.target == "s3://genokit/cdm"
    places = json.loads(clients.s3.get_object(Bucket="genokit", Key=f"cdm/{LEDGER}")["Body"].read())
    assert set(places) == {f"cdm.{table}" for table in fields.tables()}
    work = ResultStore("s3://genokit/cdm/work", clients)
    bucket, key = "genokit", places["cdm.person"].removeprefix("s3://genokit/") + "part-00000.parquet"
    clients.s3.download_file(bucket, key, str(tmp_path / "person.parquet"))
    assert duckdb.sql(f"SELECT COUNT(*) FROM '{tmp_path}/person.parquet'").fetchall() == [(25,)]
    again = etl(source, "s3://genokit/cdm", clients=clients, progress=False)
    assert set(again.tables["state"]) == {"unchanged"}
    assert work.find("cdm.person", places["cdm.person"].rstrip("/").rpartition("-")[2]).rows == 25


@pytest.mark.slow
def test_views_may_be_written_again_for_a_folder_that_moved(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "there", symlinks=True)
    views(tmp_path / "there", fields.tables())
    with duckdb.connect(str(tmp_path / "there" / "omop.duckdb"), read_only=True) as con:
        assert con.execute("SELECT COUNT(*) FROM person").fetchone() == (25,)


@pytest.mark.slow
def test_killed_at_twenty_points_a_run_converges_to_the_same_bytes(source, made, tmp_path):
    """SIGKILL, so that nothing can tidy up; after each the next run goes on."""
    folder, chance = as_csv(source, tmp_path / "csv"), random.Random(20)
    whole, target = tmp_path / "whole", tmp_path / "omop"
    begun = time.monotonic()
    etl(folder, whole, progress=False)
    took, killed = time.monotonic() - begun, 0
    code = (
        "import sys; from genokit.omop.etl.etl import etl; print('go', flush=True); etl(*sys.argv[1:], progress=False)"
    )
    while killed < 20:
        with subprocess.Popen([sys.executable, "-c", code, str(folder), str(target)], stdout=subprocess.PIPE) as run:
            assert run.stdout.readline() == b"go\n"
            time.sleep(chance.random() * took / 4)
            run.send_signal(signal.SIGKILL)
            if run.wait() == 0:  # it was done: from the beginning once more
                assert sums(target) == sums(whole)
                (target / "cdm").unlink()
                for part in sorted((target / ".work").rglob("_about.json"), key=str):
                    part.unlink()
            else:
                killed += 1
        assert not (target / "cdm").exists() or sums(target) == sums(whole), "old or new, never half"
    etl(folder, target, progress=False)
    assert sums(target) == sums(whole)
