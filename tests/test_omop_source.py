"""A source is held against MIMIC-III's names and types: good rows load, bad ones are listed, no value is repeated."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genokit.errors import InvalidSource, NotFound
from genokit.omop import Source, etl
from genokit.omop.etl.csvs import Bad
from genokit.omop.etl.mimic3 import mimic3

PATIENTS = "row_id,subject_id,gender,dob,dod,dod_hosp,dod_ssn,expire_flag\n1,10,F,2100-01-01 00:00:00,,,,0\n"
ADMISSIONS = (
    ",".join(mimic3()["admissions"].columns)
    + "\n1,10,100,2150-01-01 08:00:00,2150-01-05 13:00:00,,EMERGENCY,EMERGENCY ROOM ADMIT,HOME,Medicare,ENGL,CATHOLIC,"
    "MARRIED,WHITE,,,SEPSIS,0,1\n"
)
CARERS = "row_id,cgid,label,description\n"
LABS = "row_id,subject_id,hadm_id,itemid,charttime,value,valuenum,valueuom,flag\n"
NOTES = "row_id,subject_id,hadm_id,chartdate,charttime,storetime,category,description,cgid,iserror,text\n"
SECRET = "Xylophone"  # stands for what only a patient's row holds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "PATIENTS.csv").write_text(PATIENTS)
    (tmp_path / "ADMISSIONS.csv").write_text(ADMISSIONS)
    return tmp_path


@pytest.fixture
def con():
    with duckdb.connect() as con:
        yield con


def load(folder: Path, con, **options) -> list[Bad]:
    return Source(folder, **options).load(con, progress=False)


def rejected(bad: list[Bad], table: str) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for one in bad if one.table == table]


def count(con, table: str) -> int:
    return con.execute(f"select count(*) from mimic3.{table}").fetchone()[0]


def ids(con, table: str) -> list[int]:
    return [row_id for (row_id,) in con.execute(f"select row_id from mimic3.{table} order by row_id").fetchall()]


def test_missing_tables_are_listed_and_there_and_empty(folder, con):
    assert load(folder, con) == []
    for name, table in mimic3().items():
        found = con.execute(f"describe mimic3.{name}").fetchall()
        assert [(column, kind) for column, kind, *_ in found] == [(c.name, c.type) for c in table.columns.values()]
    assert count(con, "chartevents") == 0
    assert [form for form in Source(folder).tables().values() if form != "missing"] == ["csv", "csv"]


def test_without_patients_or_admissions_nothing_goes(tmp_path):
    (tmp_path / "PATIENTS.csv").write_text(PATIENTS)
    with pytest.raises(InvalidSource, match="1 of MIMIC-III's 26 tables, but not admissions"):
        Source(tmp_path).tables()


def test_a_place_that_is_no_folder_is_said():
    with pytest.raises(NotFound, match="no folder 'nowhere'"):
        Source("nowhere").tables()
    with pytest.raises(InvalidSource, match="neither a folder of this machine nor one on S3"):
        Source("https://example.org/mimic").tables()


@pytest.mark.parametrize("name", ["CAREGIVERS.csv", "caregivers.CSV", "Caregivers.csv.gz", "caregivers.CSV.GZ"])
def test_files_are_found_in_any_case_and_packed_or_not(folder, con, name):
    content = (CARERS + "1,14000,RN,\n2,14001,,Attending\n").encode()
    (folder / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    load(folder, con)
    assert con.execute("from mimic3.caregivers").fetchall() == [(1, 14000, "RN", None), (2, 14001, None, "Attending")]


def test_a_table_twice_is_refused(folder):
    (folder / "patients.csv.gz").write_bytes(gzip.compress(PATIENTS.encode()))
    with pytest.raises(InvalidSource, match=r"'patients': 'PATIENTS.csv' and 'patients.csv.gz'"):
        Source(folder).tables()


@pytest.mark.parametrize(
    "content",
    [
        '"ROW_ID","CGID","LABEL","DESCRIPTION"\n1,14000,"RN",\n',
        "description,Label,cgid,row_id\n,RN,14000,1\n",
        "\ufeffrow_id,cgid,label,description\n1,14000,RN,\n",
        "row_id, cgid ,label,description\r\n1,14000,RN,\r\n",
        "row_id,cgid,extra,label,description\n1,14000,whatever,RN,\n",
        '"row_id","cgid","label","description"\n"1","14000","RN",""\n',
        "row_id,cgid,label\n1,14000,RN",
        "row_id,cgid,label,description\r\n1,14000,RN,\n",
    ],
    ids=["quoted capitals", "another order", "BOM", "CRLF", "one more", "all quoted", "one less", "mixed line ends"],
)
def test_a_header_may_be_as_it_likes(folder, con, content):
    (folder / "caregivers.csv").write_bytes(content.encode())
    assert load(folder, con) == []
    assert con.execute("from mimic3.caregivers").fetchall() == [(1, 14000, "RN", None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column 'cgid', 'row_id'"),
        ("row_id,carer,label,description\n", "has no column 'cgid'"),
        ("row_id;cgid;label;description\n1;2;3;4\n", "separated by commas"),
        ("row_id,cgid,cgid,label,description\n", "has the column 'cgid' twice"),
        (f"1,14000,{SECRET},\n", "has no column 'cgid', 'row_id'"),
    ],
)
def test_a_header_that_cannot_be_the_tables_is_refused(folder, con, content, message):
    (folder / "caregivers.csv").write_text(content)
    with pytest.raises(InvalidSource, match=message) as caught:
        load(folder, con)
    assert SECRET not in str(caught.value)


def test_a_damaged_gzip_is_refused_by_name(folder, con):
    whole = gzip.compress((CARERS + "1,2,RN,\n" * 5000).encode())
    (folder / "caregivers.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidSource, match=r"caregivers.csv.gz"):
        load(folder, con)
    (folder / "caregivers.csv.gz").write_bytes(b"no gzip at all")
    with pytest.raises(InvalidSource, match=r"caregivers.csv.gz"):
        load(folder, con)


BROKEN = [
    (f"{SECRET},10,100,50912,2150-01-02 08:00:00,1,1,mg,\n", "column 'row_id' is not a whole number (INTEGER)"),
    ("9,10.5,100,50912,2150-01-02 08:00:00,1,1,mg,\n", "column 'subject_id' is not a whole number (INTEGER)"),
    ("9,99999999999,100,50912,,1,1,mg,\n", "column 'subject_id' is not a whole number (INTEGER)"),
    (f"9,10,100,50912,{SECRET},1,1,mg,\n", "column 'charttime' is not a time (TIMESTAMP)"),
    ("9,10,100,50912,2150-02-30 08:00:00,1,1,mg,\n", "column 'charttime' is not a time (TIMESTAMP)"),
    (f"9,10,100,50912,,1,{SECRET},mg,\n", "column 'valuenum' is not a number (DOUBLE)"),
    ("9,10,100,50912,,1,nan,mg,\n", "column 'valuenum' is not a number (DOUBLE): nan is pandas' missing value"),
    ("9,10,NA,50912,,1,1,mg,\n", "column 'hadm_id' is not a whole number (INTEGER): NA is R's missing value"),
    ("9,10,100,50912,,1,.,mg,\n", "column 'valuenum' is not a number (DOUBLE): . is SAS's missing value"),
    (
        "9,10,100,50912,NULL,1,1,mg,\n",
        "column 'charttime' is not a time (TIMESTAMP): NULL is a database's missing value",
    ),
    ('9,10,100,50912,,1,"1,5",mg,\n', "column 'valuenum' is not a number (DOUBLE)"),
    *(
        (f"9,10,100,50912,{time},1,1,mg,\n", "column 'charttime' is not a time (TIMESTAMP)")
        for time in (
            "6/10/01 0:00",
            "06/10/2101 00:00:00",
            "50-01-02",
            "epoch",
            "infinity",
            "-infinity",
            "45292.33",
            "2150/01/02",
            "1799-12-31 23:59:59",
            "2221-01-01",
            "2150-01-02 08:00:00+05:00",
            "2150-01-02 08:00:00Z",
            "20150102",
        )
    ),
    ("9,10,100,50912,,1,inf,mg,\n", "column 'valuenum' is not a number (DOUBLE)"),
    (",10,100,50912,,1,1,mg,\n", "column 'row_id' is empty, but must not be"),
    ("9,,100,50912,,1,1,mg,\n", "column 'subject_id' is empty, but must not be"),
    ('9,"",100,50912,,1,1,mg,\n', "column 'subject_id' is empty, but must not be"),
    (f"9,10,100,50912,,{SECRET}\n", "6 columns, but the first line has 9"),
    (f"9,10,100,50912,,1,1,mg,,{SECRET}\n", "10 columns, but the first line has 9"),
    (f'9,10,100,50912,,"a "{SECRET}" b",1,mg,\n', "quotes are broken"),
    (f'9,10,100,50912,,"{SECRET},1,mg,\n', "quotes are broken"),
    (f'9,10,100,50912,,"{SECRET}"x,1,mg,\n', "quotes are broken"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["csv", "csv.gz"])
@pytest.mark.parametrize(("broken", "reason"), BROKEN, ids=[f"{i} {reason}" for i, (_, reason) in enumerate(BROKEN)])
def test_a_broken_row_is_listed_and_its_neighbours_load(folder, con, broken, reason, packed):
    good = '{},10,,50912,2150-01-02 08:00:00,"a ""b"", c\nd",1.5,mg,\n'
    content = (LABS + good.format(1) + good.format(2) + broken + good.format(3) + broken + good.format(4)).encode()
    file = folder / ("LABEVENTS.csv.gz" if packed else "LABEVENTS.csv")
    file.write_bytes(gzip.compress(content) if packed else content)
    bad = load(folder, con)
    assert ids(con, "labevents") == [1, 2, 3, 4]
    assert rejected(bad, "labevents") == [(6, reason), (9, reason)]
    assert con.execute("select value, valuenum from mimic3.labevents limit 1").fetchone() == ('a "b", c\nd', 1.5)
    assert SECRET not in str(bad)


TIMES = [
    "2150-01-02 08:00:00",
    "2150-01-02 08:00",
    "2150-01-02T08:00:00",
    "2150-01-02 08:00:00.0",
    " 2150-01-02 08:00 ",
]


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_time_may_be_written_with_or_without_seconds(folder, con, time, form):
    row = dict(zip(LABS.strip().split(","), (1, 10, 100, 50912, time, "1", 1.0, "mg", None), strict=True))
    if form == "csv":
        (folder / "labevents.csv").write_text(LABS + f"1,10,100,50912,{time},1,1,mg,\n2,10,100,50912,2150-01-02,,,,\n")
    else:
        late = row | {"row_id": 2, "charttime": "2150-01-02"}
        pq.write_table(pa.Table.from_pylist([row, late]), folder / "labevents.parquet")
    load(folder, con)
    found = con.execute("select charttime from mimic3.labevents order by row_id").fetchall()
    assert found == [(datetime.datetime(2150, 1, 2, 8),), (datetime.datetime(2150, 1, 2),)]


def test_births_that_were_moved_300_years_back_are_times(folder, con):
    (folder / "PATIENTS.csv").write_text(PATIENTS.replace("2100-01-01 00:00:00", "1800-07-02 00:00:00"))
    load(folder, con)
    assert con.execute("select dob from mimic3.patients").fetchone() == (datetime.datetime(1800, 7, 2),)
    (folder / "PATIENTS.csv").write_text(PATIENTS.replace("2100-01-01 00:00:00", "1900-01-01 00:00:00"))
    assert load(folder, con) == []


@pytest.mark.parametrize(
    ("time", "why"),
    [
        ("6/10/01 0:00", "column 'dob' is not a time"),
        ("2100-01-01 00:00:00+01:00", "column 'dob' is not a time"),
        ("NaT", "NaT is pandas' missing value"),
        ("NA", "NA is R's missing value"),
        ("2100-01-01 00:00:00,,,,0,1", "13 columns, but the first line has 8"),
        ('"2100"x', "quotes are broken"),
    ],
)
def test_a_source_that_loses_most_of_a_table_is_refused_with_the_reason(folder, con, tmp_path, time, why):
    head, row = PATIENTS.splitlines()
    lines = [row.replace("2100-01-01 00:00:00", "2100-01-01 00:00:00" if n == 50 else time) for n in range(100)]
    (folder / "PATIENTS.csv").write_text("\n".join([head, *lines]) + "\n")
    with pytest.raises(InvalidSource, match=rf"'PATIENTS.csv' was not loaded: 99 of its 100 rows.*{why}"):
        load(folder, con)
    with pytest.raises(InvalidSource, match="99 of its 100 rows"):
        etl(Source(folder), tmp_path / "omop", progress=False)
    assert not (tmp_path / "omop" / "cdm").exists()


def test_parquet_that_loses_most_of_a_table_is_refused_too(folder, con):
    times = ["6/10/01 0:00"] * 11 + ["2150-01-02 08:00:00"]
    columns = {name: [1] * 12 for name in ("row_id", "subject_id", "itemid")} | {"charttime": times}
    pq.write_table(pa.table(columns), folder / "labevents.parquet")
    with pytest.raises(InvalidSource, match=r"'labevents.parquet' was not loaded: 11 of its 12 rows"):
        load(folder, con)
    pq.write_table(pa.table(columns | {"charttime": [2150] * 12}), folder / "labevents.parquet")
    with pytest.raises(InvalidSource, match="column 'charttime' is not a time"):
        load(folder, con)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_other_programs_missing_values_are_read_as_such_where_they_are_named(folder, con, form):
    if form == "csv":
        (folder / "labevents.csv").write_text(
            LABS + '1,10,NA,50912,"NA",x,NA,.,mg\n2,NA,1,1,NA,x,1,mg,\n3,1,1,1,,,,,\n'
        )
    else:
        names = LABS.strip().split(",")
        rows = [(1, "10", "NA", 50912, "NA", "x", "NA", ".", "mg"), (2, "NA", "1", 1, "NA", "x", "1", "mg", None),
                (3, "1", "1", 1, None, None, None, None, None)]  # fmt: skip
        frame = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
        pq.write_table(frame, folder / "labevents.parquet")
    bad = load(folder, con, null_texts=["NA", "."])
    first = con.execute("select hadm_id, charttime, valuenum, value, valueuom from mimic3.labevents").fetchone()
    assert first == (None, None, None, "x", None)
    assert [one.reason for one in bad] == ["column 'subject_id' is empty, but must not be"]


def test_a_time_with_a_zone_is_that_of_utc_whatever_this_machines_zone_is(folder, con):
    time = pa.array([datetime.datetime(2150, 1, 2, 8)], pa.timestamp("us", tz="UTC"))
    columns = {name: [1] for name in ("row_id", "subject_id", "itemid")} | {"charttime": time}
    pq.write_table(pa.table(columns), folder / "labevents.parquet")
    con.execute("set timezone = 'America/New_York'")
    load(folder, con)
    assert con.execute("select charttime from mimic3.labevents").fetchone() == (datetime.datetime(2150, 1, 2, 8),)


def test_a_text_that_must_be_there_and_is_not_is_listed(folder, con):
    row = "{},10,100,,2150-01-01 00:00:00,,MAIN,{},,,,,,,,,,,\n"
    drugs = ["Aspirin", "", '""', "Heparin"]
    rows = [row.format(i, drug) for i, drug in enumerate(drugs, 1)]
    (folder / "PRESCRIPTIONS.csv").write_text(",".join(mimic3()["prescriptions"].columns) + "\n" + "".join(rows))
    bad = load(folder, con)
    assert ids(con, "prescriptions") == [1, 4]
    assert rejected(bad, "prescriptions") == [(line, "column 'drug' is empty, but must not be") for line in (3, 4)]


def test_bytes_that_are_not_utf8_cost_their_row_only(folder, con):
    (folder / "caregivers.csv").write_bytes(CARERS.encode() + b"1,2,RN,\n2,3,K\xe4the,\n3,4,RN,\n")
    bad = load(folder, con)
    assert ids(con, "caregivers") == [1, 3]
    assert rejected(bad, "caregivers") == [(3, "not text in UTF-8")]


def test_a_quote_that_never_closes_does_not_swallow_the_file(folder, con):
    rows = [f"{i},10,,50912,2150-01-02 08:00:00,x,1,mg,\n" for i in range(1, 60_001)]
    rows[6] = rows[6].replace(",x,", ',"x,')
    (folder / "labevents.csv").write_text(LABS + "".join(rows))
    bad = load(folder, con)
    assert len(ids(con, "labevents")) == 59_999
    assert rejected(bad, "labevents") == [(8, "quotes are broken")]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_broken_among_notes_every_good_one_loads_and_every_bad_one_is_listed(folder, con, seed):
    """Notes full of quotes, commas, newlines and lines that look like rows, some broken, against what was put in."""
    chance = random.Random(seed)
    pieces = ['say "hi"', "a, b", "\n17,3,100001,,,,Nursing,x,,,y\n", "\r\n", '""', "word", "\n", ",", "\n12,", '"']
    good, bad = {}, {}
    out = io.StringIO(newline="")
    out.write(NOTES)
    for i in range(1, 400):
        line = out.getvalue().count("\n") + 1
        # Begun with a word: a quote left open before a text that begins with one is a riddle with two answers.
        text = "Pt " + "".join(chance.choices(pieces, k=chance.randrange(12))) + "."
        begin = f"{i},10,100,2150-01-01 00:00:00,,,Nursing,Report,,,"
        broken = chance.choice([None] * 12 + ["open", "inside", "short", "type", "null"])
        if broken is None:
            csv.writer(out, lineterminator="\n").writerow([*begin.split(",")[:-1], text])
            good[i] = text
            continue
        bad[line] = broken
        simple = text.replace('"', "").replace("\n", " ").replace("\r", "")
        out.write({
            "open": f'{begin}"{simple}\n',
            "inside": f'{begin}"a "{simple}" b"\n',
            "short": f'{i},10,"{simple}"\n',
            "type": begin.replace("2150-01-01", "21-01") + '"a\nb"\n',
            "null": begin.replace(",10,", ",,", 1) + '"a\nb"\n',
        }[broken])  # fmt: skip
    (folder / "NOTEEVENTS.csv").write_bytes(out.getvalue().encode())
    found = load(folder, con)
    assert dict(con.execute("select row_id, text from mimic3.noteevents").fetchall()) == good
    assert {line for line, _ in rejected(found, "noteevents")} == set(bad)


def test_lines_are_counted_through_values_with_newlines(folder, con):
    rows = [f'{i},10,,50912,,"a\n\nb",{"x" if i % 50 == 0 else 1},mg,\n' for i in range(1, 501)]
    (folder / "labevents.csv").write_text(LABS + "".join(rows))
    bad = load(folder, con)
    assert [line for line, _ in rejected(bad, "labevents")] == [2 + 3 * (i - 1) for i in range(50, 501, 50)]


def test_a_second_load_replaces_the_first(folder, con):
    load(folder, con)
    (folder / "caregivers.csv").write_text(CARERS + "1,2,RN,\n")
    load(folder, con)
    assert (count(con, "caregivers"), count(con, "patients")) == (1, 1)


@pytest.mark.parametrize("as_folder", [False, True])
def test_parquet_is_read_by_name_and_type_whatever_its_order_case_and_types(folder, con, as_folder):
    table = pa.table({"LABEL": ["RN", None], "CGID": pa.array([5, 6], pa.int64()), "ROW_ID": ["1", "2"]})
    path = folder / "CAREGIVERS" / "part-0.parquet" if as_folder else folder / "Caregivers.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    (path.parent / "_SUCCESS").touch()
    load(folder, con)
    assert con.execute("from mimic3.caregivers").fetchall() == [(1, 5, "RN", None), (2, 6, None, None)]
    assert [kind for _, kind, *_ in con.execute("describe mimic3.caregivers").fetchall()][:2] == ["INTEGER", "INTEGER"]


def test_bad_rows_of_parquet_are_listed_by_file_and_number(folder, con):
    (folder / "caregivers").mkdir()
    table = pa.table({"row_id": [1.0, 2.5, 3.0, 4.0], "cgid": [1, None, 2**40, 7], "label": [SECRET] * 4})
    pq.write_table(table, folder / "caregivers" / "part-0.parquet")
    pq.write_table(table.slice(1, 2), folder / "caregivers" / "part-1.parquet")
    bad = load(folder, con)
    assert ids(con, "caregivers") == [1, 4]
    assert [(one.file, one.line, one.reason) for one in bad] == [
        ("part-0.parquet", 2, "column 'row_id' is not a whole number (INTEGER)"),
        ("part-0.parquet", 3, "column 'cgid' is not a whole number (INTEGER)"),
        ("part-1.parquet", 1, "column 'row_id' is not a whole number (INTEGER)"),
        ("part-1.parquet", 2, "column 'cgid' is not a whole number (INTEGER)"),
    ]


def test_parquet_that_is_none_or_lacks_a_column_is_refused(folder, con):
    (folder / "caregivers.parquet").write_bytes(b"no parquet")
    with pytest.raises(InvalidSource, match=r"'caregivers.parquet' cannot be read as Parquet"):
        load(folder, con)
    pq.write_table(pa.table({"row_id": [1]}), folder / "caregivers.parquet")
    with pytest.raises(InvalidSource, match="has no column 'cgid'"):
        load(folder, con)


def test_memory_stays_small_however_large_the_file(folder, tmp_path):
    row = "{},10,100,50912,2150-01-02 08:00:00,1.5,1.5,mg/dL,abnormal and more text to make it long\n"
    with (folder / "labevents.csv").open("w") as file:
        file.write(LABS)
        file.writelines(row.format(i) for i in range(1, 300_001))
    with duckdb.connect(tmp_path / "some.duckdb", config={"memory_limit": "150MB", "threads": 2}) as con:
        load(folder, con)
        assert count(con, "labevents") == 300_000


def test_a_source_is_shown_as_a_card(folder):
    assert repr(Source(folder)) == f"<Source '{folder}'>"
    assert "2 of 26" in Source(folder)._repr_html_()
    assert "problem" in Source("nowhere")._repr_html_()
