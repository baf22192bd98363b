"""MIMIC-III becomes a CDM: its fields and keys, and every fault of the pipeline that this one replaces."""

from __future__ import annotations

import datetime
import random

import duckdb
import pytest
from athena import download
from mimic3_rows import mimic3, one_patient
from transformed import mapped, run

from genokit.omop import synthetic
from genokit.omop.etl import transform
from genokit.omop.etl.macros import parse
from genokit.omop.etl.vocabulary import Vocabulary, vocabulary
from genokit.omop.fields import fields, tables


def cdm(known: Vocabulary | None = None, *, only: str | None = None, **rows):
    """A connection with the CDM of one patient (tests/mimic3_rows.py) and what is given."""
    con = mimic3(**one_patient(**rows))
    run(con, known, only=only)
    return con


def one(con, sql: str, *parameters):
    """The only row of a query, as a dict."""
    frame = con.execute(sql, list(parameters)).fetchall()
    assert len(frame) == 1, f"{len(frame)} rows"
    return dict(zip([column[0] for column in con.description], frame[0], strict=True))


def count(con, table: str) -> int:
    return con.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]


def column(con, name: str, table: str, by: str | None = None) -> list:
    """A column of a table, in the order of its key: that of the source's rows."""
    key = by or f"{table.removeprefix('cdm.')}_id"
    return [value for (value,) in con.execute(f"SELECT {name} FROM {table} ORDER BY {key}").fetchall()]


NOON = "2150-01-02 12:00:00"


def order(**values):
    return {"subject_id": 1, "hadm_id": 100, "startdate": "2150-01-02"} | values


def lab(**values):
    return {"subject_id": 1, "hadm_id": 100, "itemid": 50912, "charttime": "2150-01-02 06:00:00"} | values


def chart(**values):
    return lab(itemid=220045, icustay_id=1001, cgid=7, value="80", valuenum=80.0, valueuom="bpm") | values


def diagnosis(code: str | None, **values):
    return {"subject_id": 1, "hadm_id": 100, "seq_num": 1, "icd9_code": code} | values


@pytest.fixture(scope="module")
def athena(tmp_path_factory):
    return vocabulary(download(tmp_path_factory.mktemp("athena")))


# What the original pipeline got wrong, each with what it made of it.


def test_labs_are_not_multiplied_by_the_stays_of_their_admission():
    """It joined labs to intensive care stays by admission: two stays gave two rows."""
    con = cdm(only="measurement", labevents=[lab(), lab(itemid=50983)])
    assert count(con, "mimic3.icustays") == 2
    assert count(con, "cdm.measurement") == 2


def test_concepts_are_filled():
    """It wrote concept 0 nearly everywhere."""
    con = cdm(only="measurement", labevents=[lab(value="1.2", valuenum=1.2, valueuom="mg/dL")])
    row = one(con, "SELECT * FROM cdm.measurement")
    assert (row["measurement_concept_id"], row["unit_concept_id"], row["measurement_type_concept_id"]) == (
        3016723,
        8840,
        32856,
    )
    assert (row["value_as_number"], row["unit_source_value"], row["value_source_value"]) == (1.2, "mg/dL", "1.2")


def test_conditions_have_dates_and_a_visit():
    """It left both empty."""
    row = one(
        cdm(diagnoses_icd=[diagnosis("4019")], only="condition_occurrence"), "SELECT * FROM cdm.condition_occurrence"
    )
    assert row["condition_start_datetime"] == datetime.datetime(2150, 1, 1, 8)
    assert row["condition_end_date"] == datetime.date(2150, 1, 11)
    assert row["visit_occurrence_id"] == 100
    assert (row["condition_source_value"], row["condition_status_concept_id"]) == ("4019", 32902)


def test_the_afternoon_is_not_the_morning():
    """It wrote hours of 12 without saying which half of the day: 15:10 became 03:10."""
    con = cdm(
        only="measurement", labevents=[lab(charttime="2150-01-02 15:10:30"), lab(charttime="2150-01-02 03:10:30")]
    )
    times = con.execute("SELECT measurement_time, measurement_datetime FROM cdm.measurement ORDER BY 1").fetchall()
    assert times == [
        ("03:10:30", datetime.datetime(2150, 1, 2, 3, 10, 30)),
        ("15:10:30", datetime.datetime(2150, 1, 2, 15, 10, 30)),
    ]


def test_a_visit_is_an_admission_and_a_stay_in_intensive_care_its_detail():
    """Its visits were the stays, all of them emergencies."""
    con = cdm()
    visit = one(con, "SELECT * FROM cdm.visit_occurrence")
    assert (visit["visit_occurrence_id"], visit["person_id"], visit["visit_concept_id"]) == (100, 1, 262)
    assert visit["visit_end_datetime"] == datetime.datetime(2150, 1, 11, 12)
    details = con.execute("SELECT visit_detail_id, visit_occurrence_id, visit_detail_concept_id FROM cdm.visit_detail")
    assert sorted(details.fetchall()) == [(1001 * 16, 100, 32037), (1002 * 16, 100, 32037)]


def test_charts_are_converted():
    """It left out CHARTEVENTS, most of MIMIC-III."""
    row = one(cdm(chartevents=[chart()], only="measurement"), "SELECT * FROM cdm.measurement")
    assert (row["measurement_id"], row["measurement_concept_id"], row["value_as_number"]) == (17, 3027018, 80.0)
    assert (row["visit_detail_id"], row["visit_occurrence_id"], row["provider_id"]) == (1001 * 16, 100, 7)


def test_a_provider_is_a_caregiver():
    """It put the time of storing into provider_id."""
    given = {"subject_id": 1, "hadm_id": 100, "icustay_id": 1001, "cgid": 7, "itemid": 221906, "amount": 2.5,
             "amountuom": "mg", "starttime": "2150-01-02 06:00:00", "endtime": "2150-01-02 07:00:00",
             "storetime": "2150-01-02 09:00:00"}  # fmt: skip
    row = one(cdm(inputevents_mv=[given], only="drug_exposure"), "SELECT * FROM cdm.drug_exposure")
    assert (row["provider_id"], row["drug_concept_id"], row["quantity"]) == (7, 1321341, 2.5)
    assert row["drug_type_concept_id"] == 32818


def test_prescriptions_are_converted():
    """It did not use them."""
    order = {"subject_id": 1, "hadm_id": 100, "drug_type": "MAIN", "drug": "Heparin", "prod_strength": "5000 Units",
             "startdate": "2150-01-02", "enddate": "2150-01-04", "ndc": "0", "dose_val_rx": "5000",
             "dose_unit_rx": "UNIT", "form_val_disp": "1", "route": "SC"}  # fmt: skip
    row = one(cdm(prescriptions=[order], only="drug_exposure"), "SELECT * FROM cdm.drug_exposure")
    assert (row["drug_source_value"], row["sig"], row["quantity"]) == ("Heparin 5000 Units", "5000 UNIT", 1.0)
    assert (row["route_concept_id"], row["drug_concept_id"], row["drug_type_concept_id"]) == (4142048, 1367571, 32838)
    assert row["drug_exposure_end_date"] == datetime.date(2150, 1, 4)


def test_procedures_are_those_of_icd9_and_of_the_charts_too():
    """It knew CPT codes only."""
    con = cdm(
        only="procedure_occurrence",
        procedures_icd=[{"subject_id": 1, "hadm_id": 100, "seq_num": 1, "icd9_code": "9604"}],
        cptevents=[{"subject_id": 1, "hadm_id": 100, "cpt_cd": "99291", "chartdate": "2150-01-03"}],
        procedureevents_mv=[
            {"subject_id": 1, "hadm_id": 100, "icustay_id": 1001, "itemid": 225459, "starttime": "2150-01-03 09:00"}
        ],
    )
    found = con.execute(
        "SELECT procedure_source_value, procedure_concept_id, procedure_date FROM cdm.procedure_occurrence ORDER BY 1"
    ).fetchall()
    assert found == [
        ("225459", 4163872, datetime.date(2150, 1, 3)),
        ("9604", 0, datetime.date(2150, 1, 1)),
        ("99291", 0, datetime.date(2150, 1, 3)),
    ]


def test_the_day_a_line_was_put_in_is_that_of_a_procedure_and_other_days_are_observations():
    day = {"subject_id": 1, "hadm_id": 100, "charttime": "2150-01-03 09:00", "value": "2150-01-02 13:00"}
    con = cdm(
        datetimeevents=[day | {"itemid": 224288}, day | {"itemid": 225128}, day | {"itemid": 224288, "value": None}]
    )
    found = one(con, "SELECT * FROM cdm.procedure_occurrence")
    assert (found["procedure_concept_id"], found["procedure_date"]) == (4213288, datetime.date(2150, 1, 2))
    words = (
        "SELECT value_as_string FROM cdm.observation WHERE observation_type_concept_id = 32817 ORDER BY observation_id"
    )
    assert con.execute(words).fetchall() == [("2150-01-02 13:00:00",), (None,)]


def test_a_day_that_is_charted_in_every_shift_is_one_procedure():
    day = {"subject_id": 1, "hadm_id": 100, "itemid": 224288}
    shifts = [
        day | {"charttime": f"2150-01-0{n} 0{n}:00", "value": f"2150-01-02 {m}:00"} for n in (5, 4, 3) for m in (10, 13)
    ]
    con = cdm(datetimeevents=[*shifts, day | {"charttime": "2150-01-06 09:00", "value": "2150-01-06 08:00"}])
    found = con.execute("SELECT procedure_date, quantity FROM cdm.procedure_occurrence ORDER BY 1").fetchall()
    assert found == [(datetime.date(2150, 1, 2), 1), (datetime.date(2150, 1, 6), 1)]
    assert count(con, "cdm.observation WHERE observation_type_concept_id = 32817") == 0
    first = con.execute("SELECT MIN(procedure_occurrence_id) // 16 FROM cdm.procedure_occurrence").fetchone()
    assert first == (5,), "the row that was charted first, of rows 5 and 6 the one that the file has first"


@pytest.mark.parametrize("day", ["2150-01-12 09:00", "2149-12-31 23:00", "1150-01-02 09:00"])
def test_a_line_put_in_outside_of_the_visit_is_what_was_told_on_the_day_of_charting(day):
    charted = {"subject_id": 1, "hadm_id": 100, "itemid": 224288, "charttime": "2150-01-03 09:00", "value": day}
    con = cdm(datetimeevents=[charted, charted | {"charttime": "2150-01-04 09:00"}])
    assert count(con, "cdm.procedure_occurrence") == 0
    row = one(con, "SELECT * FROM cdm.observation WHERE observation_type_concept_id = 32817")
    assert (row["observation_concept_id"], row["observation_date"]) == (4213288, datetime.date(2150, 1, 3))
    assert row["value_as_string"] == f"{day}:00"
    period = one(con, "SELECT * FROM cdm.observation_period")
    assert period["observation_period_start_date"] == datetime.date(2150, 1, 1)
    assert period["observation_period_end_date"] == datetime.date(2150, 1, 11)


def test_what_was_billed_twice_for_one_day_is_one_row_of_quantity_two():
    code = {"subject_id": 1, "hadm_id": 100, "cpt_cd": "94003", "chartdate": "2150-01-03"}
    con = cdm(
        cptevents=[code, code, code | {"chartdate": "2150-01-04"}, code | {"chartdate": None}],
        procedures_icd=[{"subject_id": 1, "hadm_id": 100, "seq_num": n, "icd9_code": "9904"} for n in (2, 1)],
        diagnoses_icd=[diagnosis("4019", seq_num=n) for n in (3, 1)],
    )
    found = con.execute(
        "SELECT procedure_source_value, procedure_date, quantity FROM cdm.procedure_occurrence ORDER BY 1, 2, 3"
    ).fetchall()
    first, third, fourth = (datetime.date(2150, 1, day) for day in (1, 3, 4))
    assert found == [("94003", first, 1), ("94003", third, 2), ("94003", fourth, 1), ("9904", first, 2)]
    assert one(con, "SELECT condition_status_source_value AS nth FROM cdm.condition_occurrence")["nth"] == "1"


def test_the_same_charted_procedure_counts_once_and_two_of_a_day_count_twice():
    done = {"subject_id": 1, "hadm_id": 100, "icustay_id": 1001, "itemid": 225459, "starttime": "2150-01-03 09:00"}
    con = cdm(
        only="procedure_occurrence",
        procedureevents_mv=[done, done, done | {"starttime": "2150-01-03 21:00"}, done | {"location": "left"}],
    )
    assert count(con, "cdm.procedure_occurrence") == 3


def test_a_visit_through_the_emergency_room_begins_there():
    admission = one_patient()["admissions"][0]
    came = {"edregtime": "2149-12-31 22:00", "edouttime": "2150-01-01 09:00"}
    for given, begin in (
        (came, "2149-12-31 22:00"),
        ({"edregtime": "2150-01-01 09:00"}, "2150-01-01 08:00"),
        ({}, "2150-01-01 08:00"),
    ):
        con = cdm(admissions=[admission | given], labevents=[lab(charttime="2149-12-31 23:30:00")])
        visit = one(con, "SELECT * FROM cdm.visit_occurrence")
        assert visit["visit_start_datetime"] == datetime.datetime.fromisoformat(begin)
        assert visit["visit_start_date"] == visit["visit_start_datetime"].date()
    con = cdm(admissions=[admission | came], labevents=[lab(charttime="2149-12-31 23:30:00")])
    visits = "cdm.visit_occurrence USING (visit_occurrence_id)"
    assert count(con, f"cdm.measurement JOIN {visits} WHERE measurement_datetime < visit_start_datetime") == 0
    assert count(con, f"cdm.visit_detail JOIN {visits} WHERE visit_detail_start_datetime < visit_start_datetime") == 0


def test_an_observation_period_covers_whatever_is_recorded_in_care():
    here = {"subject_id": 1, "hadm_id": 100}
    order = here | {"drug": "NS", "startdate": "2150-01-13", "enddate": "2150-02-20"}
    for last, rows in {
        "2150-01-12": {"labevents": [lab(charttime="2150-01-12 01:00")]},
        "2150-01-13": {"prescriptions": [order]},
        "2150-01-14": {"cptevents": [here | {"cpt_cd": "99291", "chartdate": "2150-01-14"}]},
        "2150-01-15": {"microbiologyevents": [{"subject_id": 1, "chartdate": "2150-01-15", "spec_itemid": 70077}]},
        "2150-01-16": {"chartevents": [chart(charttime="2150-01-16 09:00")]},
        "2150-01-17": {"services": [here | {"transfertime": "2150-01-17 08:05", "curr_service": "MED"}]},
    }.items():
        row = one(cdm(only="observation_period", **rows), "SELECT * FROM cdm.observation_period")
        assert str(row["observation_period_end_date"]) == last, rows


def test_a_death_that_the_hospital_knows_of_is_observed_and_one_of_the_index_alone_is_not():
    patient = one_patient()["patients"][0]
    for dead, last in (
        ({"dod": "2150-06-01", "dod_hosp": "2150-06-01"}, "2150-06-01"),
        ({"dod": "2150-06-02", "dod_ssn": "2150-06-02", "dod_hosp": "2150-06-01"}, "2150-06-01"),
        ({"dod": "2150-06-01", "dod_ssn": "2150-06-01"}, "2150-01-11"),
        ({"dod_ssn": "2150-06-01"}, "2150-01-11"),
    ):
        con = cdm(patients=[patient | dead])
        assert count(con, "cdm.death") == 1
        assert str(one(con, "SELECT * FROM cdm.observation_period")["observation_period_end_date"]) == last


def test_where_neither_an_amount_nor_a_rate_was_charted_nothing_was_given():
    row = {"subject_id": 1, "hadm_id": 100, "itemid": 30025}
    charted = [(None, None), (0.0, None), (None, 0.0), (None, 0.1), (2.0, None)]
    infused = [(0.0, None), (-3.0, None), (2.0, None)]
    con = cdm(
        inputevents_cv=[row | {"charttime": NOON, "amount": amount, "rate": rate} for amount, rate in charted],
        inputevents_mv=[row | {"starttime": NOON, "amount": amount, "rate": rate} for amount, rate in infused],
        only="drug_exposure",
    )
    assert column(con, "drug_exposure_id", "cdm.drug_exposure") == [3 * 16 + 1, 4 * 16 + 2, 5 * 16 + 2]


def test_a_quantity_may_have_commas_between_thousands():
    written = {
        "40,000": 40000.0,
        "1,234,567.5": 1234567.5,
        "4,00": None,
        "0": None,
        "1-2": None,
        "0.5": 0.5,
        "1,5": None,
    }
    con = cdm(prescriptions=[order(drug="NS", form_val_disp=text) for text in written], only="drug_exposure")
    assert column(con, "quantity", "cdm.drug_exposure") == list(written.values())


def test_a_common_drug_is_known_by_its_name_alone():
    known = {"Insulin": 19122121, "heparin sodium ": 1367571, "Vancomycin": 1707687, "Furosemide": 956874, "?": 0}
    con = cdm(prescriptions=[order(drug=drug, prod_strength="any") for drug in known], only="drug_exposure")
    assert column(con, "drug_concept_id", "cdm.drug_exposure") == list(known.values())


def test_common_infusions_are_known_by_their_items():
    given = {"subject_id": 1, "hadm_id": 100, "amount": 1.0}
    con = cdm(
        inputevents_cv=[given | {"itemid": 30045, "charttime": NOON}],
        inputevents_mv=[given | {"itemid": item, "starttime": NOON} for item in (223258, 225975, 225798)],
        only="drug_exposure",
    )
    found = column(con, "drug_concept_id", "cdm.drug_exposure", by="drug_exposure_id % 16, drug_exposure_id")
    assert found == [1596977, 1367571, 1707687, 1596977]


def test_home_and_death_are_no_places_that_a_visit_ends_in():
    places = ["HOME", "HOME HEALTH CARE", "DEAD/EXPIRED", "LEFT AGAINST MEDICAL ADVI"]
    admission = one_patient()["admissions"][0]
    admissions = [admission | {"hadm_id": 100 + n, "discharge_location": place} for n, place in enumerate(places)]
    con = cdm(only="visit_occurrence", admissions=admissions)
    assert column(con, "discharged_to_concept_id", "cdm.visit_occurrence") == [0] * 4
    assert column(con, "discharged_to_source_value", "cdm.visit_occurrence") == places


def test_a_person_is_observed_from_the_first_to_the_last_contact():
    """It had no observation periods."""
    row = one(
        cdm(labevents=[lab(hadm_id=None, charttime="2151-06-01")], only="observation_period"),
        "SELECT * FROM cdm.observation_period",
    )
    assert row["observation_period_start_date"] == datetime.date(2150, 1, 1)
    assert row["observation_period_end_date"] == datetime.date(2151, 6, 1)


def test_numbers_are_numbers():
    """Its value_as_number was a text of 100 characters."""
    con = cdm(only="measurement", labevents=[lab(value="1.2", valuenum=1.2)])
    kinds = {row[0]: row[1] for row in con.execute("DESCRIBE cdm.measurement").fetchall()}
    assert (kinds["value_as_number"], kinds["measurement_id"], kinds["measurement_date"]) == (
        "DOUBLE",
        "BIGINT",
        "DATE",
    )


def test_a_note_keeps_its_commas_quotes_and_lines():
    """It took commas out, because its loader could not read them."""
    text = 'Pt stated, "I am fine";\nnot so.\r\n\tPlan: rest'
    note = {"subject_id": 1, "hadm_id": 100, "chartdate": "2150-01-02", "category": "Nursing ", "text": text}
    con = cdm(only="note", noteevents=[note, note | {"iserror": "1"}])
    row = one(con, "SELECT * FROM cdm.note")
    assert (row["note_text"], row["note_source_value"], row["note_date"]) == (
        text,
        "Nursing",
        datetime.date(2150, 1, 2),
    )


def test_ids_are_the_same_in_every_run_in_any_order_of_rows_and_number_of_threads():
    """Its ids were counted by the database as rows came in."""
    labs = [lab(row_id=n, itemid=50800 + n % 90, charttime=f"2150-01-0{1 + n % 9} 0{n % 10}:00") for n in range(1, 400)]
    codes = [diagnosis(f"{400 + n}9", row_id=n, seq_num=n) for n in range(1, 30)]
    found = []
    for threads, mixed in ((1, False), (4, True), (2, True)):
        if mixed:
            random.Random(threads).shuffle(labs)
            random.Random(threads).shuffle(codes)
        con = mimic3(duckdb.connect(config={"threads": threads}), **one_patient(labevents=labs, diagnoses_icd=codes))
        run(con)
        found.append(
            {table: sorted(map(repr, con.execute(f"SELECT * FROM cdm.{table}").fetchall())) for table in tables()}
        )
    assert found[0] == found[1] == found[2]
    assert len(found[0]["measurement"]) == 399


# The traps of the data that it ignored.


def test_a_birth_moved_300_years_back_becomes_an_age_of_91():
    patient = {"subject_id": 1, "gender": "F", "dob": "1850-01-01", "expire_flag": 0}
    row = one(cdm(patients=[patient], only="person"), "SELECT * FROM cdm.person")
    assert (row["year_of_birth"], row["month_of_birth"], row["day_of_birth"], row["birth_datetime"]) == (
        2150 - 91, None, None, None,
    )  # fmt: skip
    row = one(cdm(only="person"), "SELECT * FROM cdm.person")
    assert (row["year_of_birth"], row["month_of_birth"], row["day_of_birth"]) == (2090, 3, 4)


def test_labs_without_an_admission_stay_without_a_visit():
    con = cdm(only="measurement", labevents=[lab(hadm_id=None), lab(hadm_id=999)])
    assert con.execute("SELECT visit_occurrence_id FROM cdm.measurement").fetchall() == [(None,), (None,)]


def test_a_code_that_no_dictionary_knows_is_kept():
    row = one(
        cdm(diagnoses_icd=[diagnosis("71970")], only="condition_occurrence"), "SELECT * FROM cdm.condition_occurrence"
    )
    assert (row["condition_concept_id"], row["condition_source_value"]) == (0, "71970")
    row = one(
        cdm(labevents=[lab(itemid=51999, value="3", valuenum=3.0)], only="measurement"), "SELECT * FROM cdm.measurement"
    )
    assert (row["measurement_concept_id"], row["measurement_source_value"]) == (0, "51999")


@pytest.mark.parametrize("written", ["4019", "401.9", "4019.0", " 4019 "])
def test_a_code_may_have_its_dot_or_have_been_made_a_number(athena, written):
    row = one(
        cdm(athena, diagnoses_icd=[diagnosis(written)], only="condition_occurrence"),
        "SELECT * FROM cdm.condition_occurrence",
    )
    assert (row["condition_concept_id"], row["condition_source_value"]) == (320128, "4019")


def test_a_diagnosis_without_a_code_says_nothing():
    con = cdm(only="condition_occurrence", diagnoses_icd=[diagnosis(None, seq_num=None)])
    assert count(con, "cdm.condition_occurrence") == 0


def test_results_that_are_no_numbers_keep_what_they_say():
    told = {  # value: number, operator, concept
        "<0.1": (0.1, 4171756, None),
        ">= 60": (60.0, 4171755, None),
        "LESS THAN 5": (5.0, 4171756, None),
        "GREATER THAN 300": (300.0, 4172704, None),
        "NEG": (None, None, 45878583),
        "HEMOLYZED, 2 TUBES": (None, None, None),
        "0-2": (None, None, None),
        None: (None, None, None),
    }
    con = cdm(labevents=[lab(value=value) for value in told], only="measurement")
    columns = ("value_as_number", "operator_concept_id", "value_as_concept_id", "value_source_value")
    found = zip(*(column(con, name, "cdm.measurement") for name in columns), strict=True)
    assert list(found) == [(*said, value) for value, said in told.items()]


def test_ndcs_map_however_an_export_wrote_them(athena):
    bag = ("00338004904", "338004904", "338004904.0", "338,004,904.00", "00338-0049-04", "0338-0049-04",
           "00338-049-04", "00338-0049-4")  # fmt: skip
    concepts = dict.fromkeys(bag, 40220357) | dict.fromkeys(("3.4E+08", "0", "0.0", None, "99999999999"), 0)
    sources = ["Bag" if ndc in ("0", "0.0", None) else f"{ndc} Bag" for ndc in concepts]
    con = cdm(athena, prescriptions=[order(drug="Bag", ndc=ndc) for ndc in concepts], only="drug_exposure")
    assert column(con, "drug_concept_id", "cdm.drug_exposure") == list(concepts.values())
    assert column(con, "drug_source_value", "cdm.drug_exposure") == sources


def test_a_prescription_that_ends_before_it_starts_ends_as_it_starts():
    order = {"subject_id": 1, "hadm_id": 100, "drug": "NS", "startdate": "2150-01-05", "enddate": "2150-01-02"}
    row = one(cdm(prescriptions=[order], only="drug_exposure"), "SELECT * FROM cdm.drug_exposure")
    assert (row["drug_exposure_end_date"], row["verbatim_end_date"]) == (
        datetime.date(2150, 1, 5),
        datetime.date(2150, 1, 2),
    )


def test_what_was_cancelled_rewritten_or_wrong_did_not_happen():
    given = {"subject_id": 1, "hadm_id": 100, "itemid": 221906, "starttime": "2150-01-02 06:00"}
    out = {"subject_id": 1, "hadm_id": 100, "itemid": 226559, "charttime": "2150-01-02 06:00", "value": 200.0}
    con = cdm(
        inputevents_mv=[given, given | {"statusdescription": "Rewritten"}, given | {"cancelreason": 1}],
        chartevents=[chart(), chart(error=1)],
        outputevents=[out, out | {"iserror": 1}],
    )
    assert count(con, "cdm.drug_exposure") == 1
    assert count(con, "cdm.measurement") == 2


def test_charted_words_are_observations_unless_their_item_is_measured():
    con = cdm(
        chartevents=[
            chart(),
            chart(itemid=220048, value="SR (Sinus Rhythm)", valuenum=None),
            chart(itemid=223758, value="Full code", valuenum=None),
            chart(itemid=12, value="left leg", valuenum=None),
            chart(itemid=13, value="7", valuenum=7.0),
            chart(itemid=14, value=None, valuenum=None),
        ]
    )
    found = con.execute(
        "SELECT measurement_concept_id, value_as_concept_id, value_as_number FROM cdm.measurement"
        " ORDER BY measurement_id"
    ).fetchall()
    assert found == [(3027018, None, 80.0), (3022318, 45877096, None), (0, None, 7.0)]
    words = con.execute(
        "SELECT observation_concept_id, value_as_string FROM cdm.observation WHERE observation_type_concept_id = 32817"
    ).fetchall()
    assert sorted(words) == [(0, "left leg"), (4127294, "Full code")]


def test_codes_go_where_their_concept_belongs(athena):
    con = cdm(
        athena,
        diagnoses_icd=[diagnosis("4019"), diagnosis("V1582", seq_num=2), diagnosis("25011", seq_num=3)],
        procedures_icd=[{"subject_id": 1, "hadm_id": 100, "seq_num": 1, "icd9_code": "9604"}],
        cptevents=[{"subject_id": 1, "hadm_id": 100, "cpt_cd": "99291", "chartdate": "2150-01-03"}],
        prescriptions=[
            {"subject_id": 1, "hadm_id": 100, "drug": "Strip", "ndc": "193370701", "startdate": "2150-01-02"}
        ],
    )
    conditions = con.execute(
        "SELECT condition_occurrence_id, condition_concept_id, condition_source_concept_id"
        " FROM cdm.condition_occurrence ORDER BY 1"
    ).fetchall()
    # One code that means two things gives two rows; the first keeps the id that it has without the second.
    assert conditions == [(24, 320128, 1), (56, 201254, 3), (56 + 2**40, 443727, 3)]
    billed = "SELECT observation_concept_id FROM cdm.observation WHERE observation_type_concept_id = 32821 ORDER BY 1"
    assert con.execute(billed).fetchall() == [(5,), (4144272,)]
    assert con.execute("SELECT procedure_concept_id FROM cdm.procedure_occurrence").fetchall() == [(4202832,)]
    assert con.execute("SELECT device_concept_id FROM cdm.device_exposure").fetchall() == [(45768001,)]
    assert count(con, "cdm.drug_exposure") == 0


def test_a_loinc_code_of_the_dictionary_maps_what_the_own_list_does_not_know(athena):
    item = {"itemid": 50001, "label": "Sodium", "fluid": "Blood", "category": "Chemistry", "loinc_code": "2951-2"}
    row = one(
        cdm(athena, d_labitems=[item], labevents=[lab(itemid=50001)], only="measurement"),
        "SELECT * FROM cdm.measurement",
    )
    assert (row["measurement_concept_id"], row["measurement_source_concept_id"]) == (8, 8)
    assert row["measurement_source_value"] == "50001 Sodium in blood"


def test_a_culture_is_told_from_its_specimen_and_its_antibiotics():
    grown = {"subject_id": 1, "hadm_id": 100, "chartdate": "2150-01-02", "charttime": "2150-01-02 09:00",
             "spec_itemid": 70012, "spec_type_desc": "BLOOD CULTURE", "org_itemid": 80002,
             "org_name": "ESCHERICHIA COLI", "isolate_num": 1}  # fmt: skip
    con = cdm(
        microbiologyevents=[
            grown | {"ab_itemid": 90019, "ab_name": "CIPROFLOXACIN", "interpretation": "S", "dilution_text": "<=0.25",
                     "dilution_comparison": "<=", "dilution_value": 0.25},
            grown | {"ab_itemid": 90004, "ab_name": "AMPICILLIN", "interpretation": "R"},
            {"subject_id": 1, "chartdate": "2150-01-03", "spec_itemid": 70077, "spec_type_desc": "URINE"},
        ]
    )  # fmt: skip
    assert sorted(con.execute("SELECT specimen_id, specimen_concept_id FROM cdm.specimen").fetchall()) == [
        (19, 4001225),
        (51, 4046280),
    ]
    found = con.execute(
        "SELECT measurement_id, measurement_concept_id, value_as_concept_id, operator_concept_id, value_as_number"
        " FROM cdm.measurement ORDER BY 1"
    ).fetchall()
    assert found == [
        (19, 4107893, 4011683, None, None),
        (20, 3020153, 45884178, 4171754, 0.25),
        (36, 3017595, 45878594, None, None),
        (51, 4024509, None, None, None),
    ]
    links = con.execute("SELECT fact_id_1, fact_id_2, relationship_concept_id FROM cdm.fact_relationship").fetchall()
    assert sorted(links) == [
        (19, 19, 32668), (19, 19, 32669), (19, 20, 581436), (19, 36, 581436), (20, 19, 581437), (36, 19, 581437),
        (51, 51, 32668), (51, 51, 32669),
    ]  # fmt: skip


def test_deaths_are_known_from_the_hospital_or_from_the_index():
    def patient(subject, **dead):
        return {"subject_id": subject, "gender": "F", "dob": "2090-01-01", "expire_flag": int(bool(dead))} | dead

    admission = one_patient()["admissions"][0]
    con = cdm(
        only="death",
        patients=[
            patient(1, dod="2150-01-11", dod_hosp="2150-01-11"),
            patient(2, dod="2152-05-05", dod_ssn="2152-05-05"),
            patient(3),
        ],
        admissions=[admission | {"deathtime": "2150-01-11 11:30:00"}],
    )
    found = con.execute("SELECT person_id, death_datetime, death_type_concept_id FROM cdm.death ORDER BY 1").fetchall()
    assert found == [
        (1, datetime.datetime(2150, 1, 11, 11, 30), 32817),
        (2, datetime.datetime(2152, 5, 5), 32885),
    ]


@pytest.mark.parametrize(
    ("answers", "race", "ethnicity"),
    [
        (["WHITE"], 8527, 38003564),
        (["WHITE", "UNKNOWN/NOT SPECIFIED"], 8527, 38003564),
        (["ASIAN", "WHITE"], 8527, 38003564),
        (["HISPANIC OR LATINO"], 0, 38003563),
        (["UNABLE TO OBTAIN"], 0, 0),
    ],
)
def test_race_and_ethnicity_are_the_latest_answer_that_says_something(answers, race, ethnicity):
    first = one_patient()["admissions"][0]
    admissions = [
        first | {"hadm_id": 100 + n, "admittime": f"215{n}-01-01", "dischtime": f"215{n}-01-02", "ethnicity": answer}
        for n, answer in enumerate(answers)
    ]
    con = cdm(admissions=admissions)
    row = one(con, "SELECT * FROM cdm.person")
    assert (row["race_concept_id"], row["ethnicity_concept_id"]) == (race, ethnicity)
    before = con.execute("SELECT preceding_visit_occurrence_id FROM cdm.visit_occurrence ORDER BY visit_start_date")
    assert before.fetchall() == [(None,), (100,)][: len(answers)]


def test_eras_join_what_lies_no_more_than_30_days_apart(athena):
    first = one_patient()["admissions"][0]
    days = [("2150-01-01", "2150-01-05"), ("2150-02-04", "2150-02-06"), ("2150-03-09", "2150-03-10")]
    admissions = [
        first | {"hadm_id": 100 + n, "admittime": start, "dischtime": end} for n, (start, end) in enumerate(days)
    ]
    rows = [diagnosis("4019", hadm_id=100 + n) for n in range(3)] + [diagnosis("7999")]
    orders = [
        {"subject_id": 1, "hadm_id": 100, "drug": "NS", "ndc": "00338004904", "startdate": start, "enddate": end}
        for start, end in days
    ]
    con = cdm(athena, admissions=admissions, diagnoses_icd=rows, prescriptions=orders)
    found = con.execute(
        "SELECT condition_concept_id, condition_era_start_date, condition_era_end_date, condition_occurrence_count"
        " FROM cdm.condition_era ORDER BY 2"
    ).fetchall()
    assert found == [
        (320128, datetime.date(2150, 1, 1), datetime.date(2150, 2, 6), 2),
        (320128, datetime.date(2150, 3, 9), datetime.date(2150, 3, 10), 1),
    ]
    drugs = con.execute(
        "SELECT drug_concept_id, drug_exposure_count, gap_days FROM cdm.drug_era ORDER BY drug_era_start_date"
    ).fetchall()
    assert drugs == [(967823, 2, 29), (967823, 1, 0)]


def test_what_began_on_the_same_day_is_one_era_however_it_is_sorted(athena):
    given = {"subject_id": 1, "hadm_id": 100, "itemid": 221906, "starttime": "2150-01-02 06:00"}
    ends = ["2150-01-02 07:00"] * 40 + ["2150-01-04 07:00"] * 40
    con = cdm(athena, only="drug_era", inputevents_mv=[given | {"endtime": end} for end in ends])
    row = one(con, "SELECT * FROM cdm.drug_era")
    assert (row["drug_exposure_count"], row["gap_days"]) == (80, 0)
    assert row["drug_era_end_date"] == datetime.date(2150, 1, 4)


# The CDM as a whole.


@pytest.fixture(scope="module")
def whole(athena):
    """A bit of everything, with references to admissions, stays and caregivers that do not exist."""
    lost = {"hadm_id": 999, "icustay_id": 9999, "cgid": 99}
    here = {"subject_id": 1, "hadm_id": 100}
    given = here | {"icustay_id": 1001, "cgid": 7}
    admission = one_patient()["admissions"][0]
    return cdm(
        athena,
        admissions=[admission | {"edregtime": "2150-01-01 02:00", "edouttime": "2150-01-01 07:00", "religion": "JEWISH",
                                 "marital_status": "MARRIED", "language": "ENGL", "diagnosis": "SEPSIS"}],
        transfers=[
            {"subject_id": 1, "hadm_id": 100, "icustay_id": 1001, "eventtype": "admit", "curr_careunit": "MICU",
             "curr_wardid": 12, "intime": "2150-01-01 10:00", "outtime": "2150-01-03 10:00"},
            {"subject_id": 1, "hadm_id": 100, "eventtype": "transfer", "prev_careunit": "MICU", "curr_wardid": 5,
             "intime": "2150-01-03 10:00"},
            {"subject_id": 1, "hadm_id": 100, "eventtype": "discharge", "prev_wardid": 5, "intime": "2150-01-11 12:00"},
        ],
        services=[here | {"transfertime": "2150-01-01 08:05", "curr_service": "MED"}],
        drgcodes=[here | {"drg_type": "HCFA", "drg_code": "416", "description": "SEPTICEMIA"}],
        diagnoses_icd=[diagnosis("4019"), diagnosis("25011", seq_num=2), diagnosis("4019", hadm_id=999)],
        procedures_icd=[here | {"seq_num": 1, "icd9_code": "9604"}],
        cptevents=[here | {"hadm_id": 999, "cpt_cd": "99291", "chartdate": "2150-01-03"}],
        labevents=[lab(), lab(hadm_id=None), lab(subject_id=555)],
        chartevents=[chart(), chart(**lost), chart(itemid=223758, value="DNR", valuenum=None, **lost)],
        outputevents=[given | lost | {"itemid": 226559, "charttime": "2150-01-02 06:00", "value": 200.0}],
        inputevents_mv=[
            given | lost | {"itemid": 221906, "starttime": "2150-01-02 06:00", "rate": 0.1, "rateuom": "mcg"}
        ],
        inputevents_cv=[given | {"itemid": 30120, "charttime": "2150-01-02 06:00", "originalroute": "IV Drip"}],
        prescriptions=[here | {"drug": "NS", "ndc": "00338004904", "startdate": "2150-01-02"}],
        procedureevents_mv=[
            given | lost | {"itemid": item, "starttime": "2150-01-03 09:00"}
            for item in (225459, 225466, 225401, 228128)
        ],
        datetimeevents=[
            given | {"itemid": item, "charttime": "2150-01-03 09:00", "value": "2150-01-02 13:00"}
            for item in (224183, 226515)
        ],
        microbiologyevents=[
            {"subject_id": 1, "chartdate": "2150-01-03", "spec_itemid": 70077, "ab_name": "AMPICILLIN"}
        ],
        noteevents=[here | {"hadm_id": 999, "chartdate": "2150-01-02", "text": "well", "cgid": 99}],
    )  # fmt: skip


@pytest.mark.parametrize("table", tables())
def test_every_table_has_the_fields_of_the_cdm_in_order_and_type(whole, table):
    found = [row[:2] for row in whole.execute(f"DESCRIBE cdm.{table}").fetchall()]
    assert found == [(field.name, field.type) for field in fields(table)]


@pytest.mark.parametrize("table", tables())
def test_what_the_cdm_requires_is_there_and_keys_are_unique(whole, table):
    for field in fields(table):
        name = f'"{field.name}"'
        if field.required and field.name != "standard_concept":
            assert one(whole, f"SELECT COUNT(*) AS n FROM cdm.{table} WHERE {name} IS NULL")["n"] == 0, field
        if field.key:
            twice = f"SELECT COUNT(*) - COUNT(DISTINCT {name}) AS n FROM cdm.{table}"
            assert one(whole, twice)["n"] == 0, field


@pytest.mark.parametrize("table", [table for table in tables() if f"cdm.{table}" in transform.statements()])
def test_every_reference_leads_to_a_row(whole, table):
    for field in fields(table):
        # The kit's lists are called vocabularies in the source's columns only.
        if field.table in (None, "vocabulary"):
            continue
        target = next((other.name for other in fields(field.table) if other.key), "")
        lost = (
            f"SELECT DISTINCT {field.name} FROM cdm.{table} WHERE {field.name} IS NOT NULL"
            f" AND {field.name} NOT IN (SELECT {target} FROM cdm.{field.table})"
        )
        assert whole.execute(lost).fetchall() == [], f"{table}.{field.name} -> {field.table}"


def test_every_clinical_table_that_has_sources_has_rows(whole):
    empty = {table for table in transform.statements() if count(whole, table) == 0}
    assert empty == {"cdm.death", "cdm.device_exposure"}


def test_no_source_gives_more_measurements_than_it_has_rows(whole):
    sources = {0: "labevents", 1: "chartevents", 2: "outputevents", 3: "microbiologyevents", 4: "microbiologyevents",
               8: "diagnoses_icd", 9: "procedures_icd", 10: "cptevents", 11: "procedureevents_mv"}  # fmt: skip
    found = whole.execute("SELECT measurement_id & 15 AS tag, COUNT(*) FROM cdm.measurement GROUP BY ALL").fetchall()
    assert {tag for tag, _ in found} >= {0, 1, 2, 3, 4, 11}
    for tag, rows in found:
        assert rows <= count(whole, f"mimic3.{sources[tag]}"), sources[tag]


def test_a_stay_has_its_place_and_its_parent(whole):
    found = whole.execute(
        "SELECT visit_detail_source_value, visit_detail_concept_id, parent_visit_detail_id, visit_detail_end_datetime"
        " FROM cdm.visit_detail ORDER BY visit_detail_id"
    ).fetchall()
    until = datetime.datetime(2150, 1, 3, 10)
    assert found == [
        ("MICU", 32037, 16016, until),
        ("emergency room", 9203, None, datetime.datetime(2150, 1, 1, 7)),
        ("ward 5", 9201, None, datetime.datetime(2150, 1, 11, 12)),
        ("MICU", 32037, None, until),
        ("MICU", 32037, None, datetime.datetime(2150, 1, 7, 10)),
    ]
    names = {row[0] for row in whole.execute("SELECT care_site_name FROM cdm.care_site").fetchall()}
    assert names == {"hospital", "MICU", "ward 5", "emergency room"}


def test_the_share_of_mapped_rows_is_shown_beside_the_originals(whole):
    shares = mapped(whole).set_index("domain")
    assert list(shares.columns) == ["cdm_table", "rows", "mapped", "share", "original"]
    assert shares.loc["condition", "original"] == 0
    assert shares.loc["condition", "share"] == 1
    assert shares.loc["person: gender", ["rows", "mapped", "share", "original"]].tolist() == [1, 1, 1.0, 1.0]
    assert shares.loc["drug", "cdm_table"] == "drug_exposure"
    assert shares.loc["device", "share"] is not None
    assert 0 < shares.loc["observation", "share"] < 1


def test_sources_may_be_views_and_tables_may_be_there_already():
    con = mimic3(**one_patient(labevents=[lab()]))
    con.execute("ALTER TABLE mimic3.labevents RENAME TO labs; CREATE VIEW mimic3.labevents AS FROM mimic3.labs")
    told: list[str] = []
    first = run(con, progress=told.append)
    assert [built.table for built in first] == told
    assert [(built.table, built.rows) for built in run(con)] == [(built.table, built.rows) for built in first]


def test_each_sql_of_the_cdm_names_its_fields_and_all_that_the_cdm_requires():
    for table, sql in transform.statements().items():
        if table.startswith("cdm."):
            given = [column.alias_or_name for column in parse(sql).selects]
            known = fields(table.removeprefix("cdm."))
            assert set(given) <= {field.name for field in known}, table
            assert {field.name for field in known if field.required} <= set(given), table


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """Synthetic data with all the dirt of the real ones."""
    con = duckdb.connect()
    source = synthetic(tmp_path_factory.mktemp("mimic3"), persons=40, density=0.05, progress=False)
    source.load(con, progress=False)
    run(con)
    return con


def test_synthetic_data_make_a_whole_cdm(made_up):
    for table in tables():
        for field in fields(table):
            name = f'"{field.name}"'
            if field.required and field.name != "standard_concept":
                assert one(made_up, f"SELECT COUNT(*) AS n FROM cdm.{table} WHERE {name} IS NULL")["n"] == 0, field
            if field.key:
                twice = f"SELECT COUNT(*) - COUNT(DISTINCT {name}) AS n FROM cdm.{table}"
                assert one(made_up, twice)["n"] == 0, field
    for table in transform.statements():
        assert count(made_up, table) > 0 or table in ("cdm.device_exposure", "cdm.condition_era"), table
    for table in ("measurement", "observation", "drug_exposure", "note"):
        for column, target in (("visit_occurrence_id", "visit_occurrence"), ("provider_id", "provider")):
            lost = f"SELECT {column} FROM cdm.{table} EXCEPT SELECT {column} FROM cdm.{target}"
            assert made_up.execute(lost).fetchall() in ([], [(None,)])


def test_no_row_of_a_synthetic_source_is_lost_or_doubled_without_a_reason(made_up):
    """What is left out is what the headers of the SQL say."""
    expected = {
        "person": "SELECT COUNT(*) FROM mimic3.patients",
        "visit_occurrence": "SELECT COUNT(*) FROM mimic3.admissions",
        "condition_occurrence": "SELECT COUNT(DISTINCT (hadm_id, icd9_code)) FROM mimic3.diagnoses_icd"
        " WHERE icd9_code IS NOT NULL",
        "measurement WHERE measurement_id & 15 = 0": "SELECT COUNT(*) FROM mimic3.labevents"
        " WHERE charttime IS NOT NULL",
        "measurement WHERE measurement_id & 15 = 2": "SELECT COUNT(*) FROM mimic3.outputevents"
        " WHERE charttime IS NOT NULL AND COALESCE(iserror, 0) = 0",
        "drug_exposure WHERE drug_type_concept_id = 32838": "SELECT COUNT(*) FROM mimic3.prescriptions",
        "note": "SELECT COUNT(*) FROM mimic3.noteevents WHERE text IS NOT NULL AND COALESCE(iserror, '0') <> '1'",
    }
    for table, source in expected.items():
        assert count(made_up, f"cdm.{table}") == made_up.execute(source).fetchall()[0][0], table
    charted = count(made_up, "cdm.measurement WHERE measurement_id & 15 = 1") + count(
        made_up, "cdm.observation WHERE observation_id & 15 = 7"
    )
    said = "mimic3.chartevents WHERE COALESCE(error, 0) = 0 AND (value IS NOT NULL OR valuenum IS NOT NULL)"
    assert charted == count(made_up, said)


def test_most_of_what_was_measured_is_mapped_without_a_download(made_up):
    shares = mapped(made_up).set_index("domain")["share"]
    assert shares["measurement"] > 0.9
    assert shares["measurement: unit"] > 0.9
    assert shares["visit"] == 1
    assert shares["condition"] == 0


def test_nobody_is_older_than_a_century_at_birthdays_that_were_moved(made_up):
    oldest = one(
        made_up,
        "SELECT MAX(EXTRACT(YEAR FROM visit_start_date) - year_of_birth) AS age"
        " FROM cdm.visit_occurrence JOIN cdm.person USING (person_id)",
    )
    assert oldest["age"] <= 120
