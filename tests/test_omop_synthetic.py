"""Synthetic MIMIC-III: the whole schema, right references, real dirt, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from genokit.errors import ConfirmationNeeded, InvalidParameters
from genokit.omop import Source, synthetic
from genokit.omop.etl.mimic3 import mimic3

# Which ids lead where.
REFERENCES = {
    "subject_id": "patients",
    "hadm_id": "admissions",
    "icustay_id": "icustays",
}
DICTIONARIES = {
    "labevents": "d_labitems",
    **dict.fromkeys(("chartevents", "outputevents", "datetimeevents", "procedureevents_mv"), "d_items"),
    **dict.fromkeys(("inputevents_cv", "inputevents_mv"), "d_items"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return synthetic(tmp_path_factory.mktemp("made") / "mimic", 600, density=0.05, progress=False)


@pytest.fixture(scope="module")
def con(made):
    with duckdb.connect() as con:
        assert made.load(con, progress=False) == [], "no row of it is bad"
        con.execute("use memory.mimic3")
        yield con


def one(con, query: str):
    return con.execute(query).fetchone()[0]


def share(con, what: str, table: str) -> float:
    return one(con, f"select avg(({what})::int) from {table}")


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_all_26_tables_are_there_by_name_order_and_type(con, made):
    for name, table in mimic3().items():
        files = list((Path(made.place) / name).glob("*.parquet")) or [Path(made.place) / f"{name}.parquet"]
        found = con.execute(f"describe select * from read_parquet({[str(file) for file in files]})").fetchall()
        assert [(column, kind) for column, kind, *_ in found] == [(c.name, c.type) for c in table.columns.values()], (
            name
        )
        assert one(con, f"select count(*) from {name}") > 0, name


@pytest.mark.parametrize("name", mimic3())
def test_row_ids_count_up_from_one(con, name):
    numbers = con.execute(f"select min(row_id), max(row_id), count(distinct row_id), count(*) from {name}").fetchone()
    assert numbers == (1, *numbers[-1:] * 3)


@pytest.mark.parametrize("name", mimic3())
def test_every_id_leads_somewhere(con, name):
    for column, target in REFERENCES.items():
        if column in mimic3()[name].columns:
            lost = one(con, f"select count(*) from {name} where {column} not in (select {column} from {target})")
            assert lost == 0, f"{name}.{column}"
    if name in DICTIONARIES:
        assert (
            one(con, f"select count(*) from {name} where itemid not in (select itemid from {DICTIONARIES[name]})") == 0
        )


def test_keys_are_unique_and_a_stay_is_of_the_admission_and_patient_that_it_names(con):
    for table, key in {
        "patients": "subject_id",
        "admissions": "hadm_id",
        "icustays": "icustay_id",
        "caregivers": "cgid",
    }.items():
        assert one(con, f"select count(*) - count(distinct {key}) from {table}") == 0
    for table in ("chartevents", "labevents", "prescriptions", "transfers", "noteevents"):
        assert (
            one(
                con,
                f"select count(*) from {table} t join admissions a using (hadm_id) where t.subject_id <> a.subject_id",
            )
            == 0
        )


def test_dates_lie_in_the_shifted_years(con):
    assert one(con, "select min(year(admittime)) >= 2100 and max(year(dischtime)) <= 2210 from admissions")
    assert one(con, "select min(year(charttime)) >= 2100 and max(year(charttime)) <= 2210 from labevents")


def test_who_is_over_89_was_born_300_years_before(con):
    ages = "select date_diff('year', dob, admittime) as age from patients join admissions using (subject_id)"
    assert one(con, f"select max(age) between 299 and 330 from ({ages})")
    assert one(con, f"select count(*) from ({ages}) where age between 91 and 298") == 0
    assert 0.03 < share(con, "year(dob) < 2000", "patients") < 0.09


@pytest.mark.parametrize(("table", "column"), [("labevents", "charttime"), ("datetimeevents", "value")])
def test_nothing_is_dated_before_the_birth(con, table, column):
    """Outpatient results and older lines lie around an admission; a newborn has none before it."""
    assert one(con, f"select count(*) from {table} join patients using (subject_id) where {column} < dob") == 0


def test_no_outpatient_result_is_long_after_a_death(con):
    dead = "select subject_id, max(deathtime) as deathtime from admissions where deathtime is not null group by all"
    late = (
        f"select count(*) from labevents join ({dead}) using (subject_id) where charttime > deathtime + interval 60 day"
    )
    assert one(con, late) == 0


def test_the_dirt_has_the_real_proportions(con):
    assert 0.15 < share(con, "hadm_id is null", "labevents") < 0.23
    assert 0.10 < share(con, "valuenum is null", "labevents") < 0.14
    assert 0.12 < share(con, "ndc is null or ndc = '0'", "prescriptions") < 0.165
    known = "icd9_code in (select icd9_code from d_icd_diagnoses)"
    assert 0.02 < share(con, f"not {known}", "diagnoses_icd") < 0.035


def test_values_that_are_not_numbers_are_among_the_labs(con):
    found = {
        value for (value,) in con.execute("select distinct value from labevents where valuenum is null").fetchall()
    }
    assert {"<0.1", ">300", "NEG"} <= found


def test_stays_repeat_and_overlap_and_some_die_after_they_left(con):
    assert one(con, "select max(n) from (select count(*) n from icustays group by hadm_id)") >= 2
    for table, begin, end in (("icustays", "intime", "outtime"), ("admissions", "admittime", "dischtime")):
        later = f"lead({begin}) over (partition by subject_id order by {begin})"
        assert one(con, f"select count(*) from (select {end}, {later} as later from {table}) where later < {end}") > 0
    assert one(con, "select count(*) from admissions where deathtime > dischtime") > 0
    assert one(con, "select count(*) from patients where dod > dod_hosp or (dod is not null and dod_hosp is null)") > 0


def test_both_eras_have_their_own_item_ids(con):
    stays = "(select * from icustays where dbsource <> 'both')"
    eras = f"select distinct dbsource, t.itemid >= 220000 from {{}} t join {stays} using (icustay_id)"
    assert set(con.execute(eras.format("chartevents")).fetchall()) == {("carevue", False), ("metavision", True)}
    assert set(con.execute(eras.format("inputevents_cv")).fetchall()) == {("carevue", False)}
    assert set(con.execute(eras.format("inputevents_mv")).fetchall()) == {("metavision", True)}


def test_notes_hold_what_breaks_careless_readers(con):
    for sign in ('"', ",", "\n", "\r\n", '""'):
        assert one(con, f"select count(*) from noteevents where contains(text, '{sign}')") > 0


def test_the_same_arguments_give_the_same_bytes_whatever_the_threads(tmp_path):
    digests = {
        digest(Path(synthetic(tmp_path / f"{threads}", 60, density=0.02, threads=threads, progress=False).place))
        for threads in (1, 2, 5)
    }
    assert len(digests) == 1
    other = synthetic(tmp_path / "other", 60, 8, density=0.02, progress=False)
    assert digest(Path(other.place)) not in digests


def test_csv_and_parquet_hold_the_same_rows(tmp_path):
    hashes = []
    for format in ("csv", "parquet"):
        source = synthetic(tmp_path / format, 30, density=0.02, format=format, progress=False)
        with duckdb.connect() as con:
            assert source.load(con, progress=False) == []
            hashes.append({name: one(con, f"select bit_xor(hash(t)) from mimic3.{name} t") for name in mimic3()})
    assert hashes[0] == hashes[1]
    assert (tmp_path / "csv" / "PATIENTS.csv.gz").is_file()


def test_events_can_be_few_or_many(tmp_path):
    source = synthetic(tmp_path / "few", 50, density=0.001, chartevents_per_stay=40, progress=False)
    rows = json.loads((Path(source.place) / "synthetic.json").read_text())["rows"]
    assert 30 * rows["icustays"] < rows["chartevents"] < 50 * rows["icustays"]
    assert rows["labevents"] < 2 * rows["admissions"]
    assert (
        synthetic(tmp_path / "none", 1, chartevents_per_stay=0, density=0.001, progress=False).tables()["chartevents"]
        == "parquet"
    )


def test_it_says_everywhere_that_it_is_synthetic(made):
    assert made.synthetic
    assert "Synthetic" in made._repr_html_()
    for file in Path(made.place).rglob("*.parquet"):
        assert b"synthetic" in pq.read_metadata(file).metadata


def test_its_files_say_so_without_their_folder(made, tmp_path):
    for file in ("patients.parquet", "admissions.parquet"):
        (tmp_path / file).write_bytes((Path(made.place) / file).read_bytes())
    assert Source(tmp_path).synthetic
    (tmp_path / "patients.parquet").write_bytes(b"")
    assert not Source(tmp_path).synthetic


def test_what_is_not_its_own_is_never_overwritten(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "PATIENTS.csv").write_text("precious")
    with pytest.raises(ConfirmationNeeded, match="would be lost"):
        synthetic(tmp_path / "real", 10, progress=False)
    assert (tmp_path / "real" / "PATIENTS.csv").read_text() == "precious"


def test_an_older_set_is_replaced_and_nothing_else_is_left(tmp_path):
    synthetic(tmp_path / "mimic", 10, density=0.01, format="csv", progress=False)
    source = synthetic(tmp_path / "mimic", 10, density=0.01, progress=False)
    assert set(source.tables().values()) == {"parquet"}
    assert [path.name for path in tmp_path.iterdir()] == ["mimic"]


def test_an_older_set_stays_where_a_new_one_cannot_be_made(tmp_path, monkeypatch):
    source = synthetic(tmp_path / "mimic", 10, density=0.01, progress=False)
    before = digest(Path(source.place))
    monkeypatch.setitem(
        sys.modules["genokit.omop.etl.synthetic"].FORMATS, "parquet", "format parquet, compression nonsense"
    )
    with pytest.raises(duckdb.Error):
        synthetic(tmp_path / "mimic", 11, density=0.01, progress=False)
    assert digest(Path(source.place)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mimic"]


@pytest.mark.parametrize("wrong", [{"persons": 0}, {"density": 0}, {"format": "xls"}, {"chartevents_per_stay": -1}])
def test_what_cannot_be_made_is_said_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(InvalidParameters, match=next(iter(wrong))):
        synthetic(tmp_path / "mimic", **wrong, progress=False)
    assert list(tmp_path.iterdir()) == []
