"""A CDM characterized: the counts are Achilles' own, small ones never leave, and what did not change is kept."""

from __future__ import annotations

import re

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from small_cdm import empty_cdm

from genokit import Cdm
from genokit.errors import NotFound
from genokit.omop.characterize import achilles, result_file
from genokit.omop.characterize.achilles import SCANS, sql
from genokit.omop.characterize.characterization import Characterization
from genokit.omop.characterize.small_counts import _suppressed
from genokit.plots import omop as plots


@pytest.fixture(scope="module")
def sample(cdm: Cdm) -> Characterization:
    return cdm.characterize(progress=False)


def persons(con: duckdb.DuckDBPyConnection, *periods: tuple[int, str, str]) -> None:
    """Persons with these periods of observation; a woman has an even id, and all were born in 1950."""
    for number, (person, start, end) in enumerate(periods):
        con.execute(
            "insert into observation_period by name select ? as observation_period_id, ? as person_id,"
            " ?::date as observation_period_start_date, ?::date as observation_period_end_date",
            [number, person, start, end],
        )
    con.execute(
        "insert into person by name select distinct person_id, if(person_id % 2 = 0, 8532, 8507) as gender_concept_id,"
        " 1950 as year_of_birth, 0 as race_concept_id, 0 as ethnicity_concept_id from observation_period"
    )


def raw(con: duckdb.DuckDBPyConnection, name: str) -> pd.DataFrame:
    """All counts of a scan, small ones too, as nobody but a test sees them."""
    [scan] = [scan for scan in SCANS if scan.name == name]
    (results, spread), _ = achilles.run(con, scan)
    return pd.concat([results.to_pandas(), spread.to_pandas()]).astype({"analysis_id": int})


def test_persons_counted_in_blocks_are_as_many(cdm, monkeypatch):
    con = cdm.database.con.cursor()
    con.execute("set schema = 'cdm'")
    [scan] = [scan for scan in SCANS if scan.name == "procedure_occurrence"]
    whole, rows = achilles.run(con, scan)
    monkeypatch.setattr(achilles, "BLOCK", rows // 6)
    blocks, _ = achilles.run(con, scan)
    assert all(one.equals(other) for one, other in zip(whole, blocks, strict=True))


def test_whoever_has_two_periods_in_a_month_or_year_is_there_once():
    con = empty_cdm()
    persons(
        con,
        (1, "2010-01-01", "2010-03-10"),
        (1, "2010-03-20", "2011-12-31"),
        (2, "2010-03-15", "2010-03-15"),
        (2, "2012-02-01", "2012-02-29"),
    )
    found = raw(con, "observation_period")

    def of(analysis_id: int) -> dict[str, int]:
        rows = found[found["analysis_id"] == analysis_id]
        return dict(zip(rows["stratum_1"], rows["count_value"].astype(int), strict=True))

    assert of(117)["201003"] == 2
    assert of(117)["201004"] == 1
    assert "201201" not in of(117)
    assert of(109) == {"2011": 1}
    assert of(110) == {"201001": 1, "201202": 1}  # of the months in which some period begins
    years = found[found["analysis_id"] == 116].sort_values(["stratum_1", "stratum_2"])
    assert years[["stratum_1", "stratum_2", "stratum_3", "count_value"]].to_numpy().tolist() == [
        ["2010", "8507", "6", 1], ["2010", "8532", "6", 1], ["2012", "8532", "6", 1],
    ]  # fmt: skip
    assert of(113) == {"2": 2}


def test_values_are_described_by_unit_and_position_in_their_range():
    con = empty_cdm()
    persons(con, *((one, "2010-01-01", "2010-12-31") for one in range(10)))
    con.execute(
        "insert into measurement by name select i as measurement_id, i % 10 as person_id, 3004249 as"
        " measurement_concept_id, date '2010-05-05' + i::integer as measurement_date, 8876 as unit_concept_id,"
        " i::double as value_as_number, 20.0 as range_low, 80.0 as range_high from range(101) t(i)"
    )
    found = raw(con, "measurement").set_index("analysis_id")
    value = found.loc[1815]
    assert list(value[["count_value", "p10_value", "p25_value", "median_value", "p75_value", "p90_value"]]) == [
        101, 10, 25, 50, 75, 90,
    ]  # fmt: skip
    assert value["stdev_value"] == pytest.approx(np.std(range(101), ddof=1))
    assert dict(zip(found.loc[1818, "stratum_3"], found.loc[1818, "count_value"], strict=True)) == {
        "Above Range High": 20, "Below Range Low": 20, "Within Range": 61,
    }  # fmt: skip


def test_no_small_count_is_kept(sample):
    for table in (sample.results, sample.distributions):
        assert min(table["count_value"].to_pylist()) >= 5
    assert not any(0 < n < 5 for name in sample.names for n in sample.table(name).get("persons", []))


def test_no_sum_reveals_a_small_count():
    strata = pa.table(
        {
            "analysis_id": pa.array([2] * 3 + [5] * 2, pa.int32()),
            "stratum_1": ["8507", "8532", "0", "1", "2"],
            "count_value": pa.array([100, 40, 2, 71, 71], pa.int64()),
        }
    )
    safe = _suppressed(strata, 5)
    assert safe.to_pydict() == {
        "analysis_id": [2, 5, 5], "stratum_1": ["8507", "1", "2"], "count_value": [100, 71, 71],
    }  # fmt: skip


def test_a_single_type_of_a_concept_is_never_hidden_alone(cdm, sample):
    con = cdm.database.con.cursor()
    con.execute("set schema = 'cdm'")
    true = raw(con, "drug_exposure")
    shown = pd.concat([sample.results.to_pandas(), sample.distributions.to_pandas()])
    keys = ["stratum_1", "stratum_2"]
    hid = 0
    for analysis_id in (705, 706):
        rows = true[true["analysis_id"] == analysis_id][[*keys, "count_value"]]
        seen = shown[shown["analysis_id"] == analysis_id][[*keys, "count_value"]]
        lost = rows.merge(seen, on=keys, how="left", suffixes=("", "_seen"))
        lost = lost[lost["count_value_seen"].isna()]
        hid += len(lost)
        for concept, group in lost.groupby("stratum_1"):
            whole = rows[rows["stratum_1"] == concept]
            # Alone it could only be what a hidden sum hides too.
            assert len(group) > 1 or len(whole) == 1 or whole["count_value"].sum() < 10, concept
    assert hid


def test_scans_nested_counts_and_rare_concepts_reveal_no_small_count():
    con = empty_cdm()
    persons(con, *((one, "2010-01-01", "2010-12-31") for one in range(60)))
    con.execute("insert into death by name select i as person_id, date '2010-12-31' as death_date from range(3) t(i)")
    con.execute(
        "insert into procedure_occurrence by name select row_number() over () as procedure_occurrence_id,"
        " i as person_id, concept as procedure_concept_id, date '2010-05-01' as procedure_date,"
        " 0 as procedure_type_concept_id"
        " from range(60) t(i), (values (1, 50), (2, 58), (3, 2)) as c(concept, n), range(20) as r(r)"
        " where i < n and (r = 0 or concept = 1 and r = 1 and i < 47 or concept = 3)"
    )
    found = Cdm(database=con).characterize(progress=False)
    passes = found.scans.set_index("table")["rows"]
    assert pd.isna(passes["death"])
    assert passes["person"] == 60
    counts = {
        number: dict(found.counts(number)[["procedure_concept_id", "count_value"]].to_numpy()) for number in (600, 601)
    }
    assert counts[600] == {"1": 50}  # 58 of 60 have the second, and 2 the third, 40 times
    assert "3" not in counts[601]
    assert found.counts(691)["count_value"].tolist() == [50]  # 47 have it twice or more
    assert "<td>3</td>" not in found._repr_html_()


def test_persons_who_are_observed_but_not_in_the_table_person_are_mentioned(sample):
    con = empty_cdm()
    persons(con, *((one, "2010-01-01", "2010-12-31") for one in range(60)))
    whole = Cdm(database=con).characterize(progress=False)
    assert "not in person" not in whole.note
    con.execute("delete from person where person_id >= 30")
    found = Cdm(database=con).characterize(progress=False)
    assert found.table("observed")["persons"].max() > found.counts(1)["count_value"].item()
    assert "not in person" in found.note
    assert found.note in found.explore()._repr_html_()
    assert "not in person" in found._repr_html_()
    assert "not in person" in found.page()


def test_results_are_achilles_tables_and_a_run_replaces_its_own_analyses_only(tmp_path):
    con = empty_cdm()
    persons(con, *((one, "2010-01-01", "2010-12-31") for one in range(20)))
    file = tmp_path / "results.duckdb"
    cdm = Cdm(database=con)
    found = cdm.characterize(file, progress=False)
    with duckdb.connect(str(file)) as results:
        names = [name for (name,) in results.execute("select column_name from (describe achilles_results)").fetchall()]
        assert names == ["analysis_id", *(f"stratum_{i}" for i in range(1, 6)), "count_value"]
        assert results.execute("select count(*) from achilles_results").fetchall() == [(found.results.num_rows,)]
        assert results.execute("select analysis_name from achilles_analysis where analysis_id = 2").fetchall() == [
            ("persons by gender",)
        ]
        results.execute("insert into achilles_results by name select 3000000 as analysis_id")  # somebody else's
    con.execute("update person set year_of_birth = 1951")
    cdm.characterize(file, progress=False)
    with duckdb.connect(str(file)) as results:
        [(years,)] = results.execute("select list(stratum_1) from achilles_results where analysis_id = 3").fetchall()
        assert years == ["1951"]
    cdm.characterize(file, min_cell=30, progress=False)
    with duckdb.connect(str(file), read_only=True) as results:
        assert results.execute("select analysis_id from achilles_results").fetchall() == [(3000000,)]


def test_a_run_that_is_interrupted_leaves_the_results_as_they_were(tmp_path, monkeypatch):
    con = empty_cdm()
    persons(con, *((one, "2010-01-01", "2010-12-31") for one in range(20)))
    file = tmp_path / "results.duckdb"
    Cdm(database=con).characterize(file, progress=False)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    con.execute("update person set year_of_birth = 1951")
    monkeypatch.setattr(result_file, "sql", lambda name: sql(name) if name == "tables" else interrupted())
    with pytest.raises(KeyboardInterrupt):
        Cdm(database=con).characterize(file, progress=False)
    with duckdb.connect(str(file), read_only=True) as results:
        found = results.execute("select stratum_1 from achilles_results where analysis_id = 3").fetchall()
    assert found == [("1950",)]


def test_no_analysis_reveals_a_concept_that_the_others_hide(cdm, tmp_path):
    cdm.characterize(tmp_path / "results.duckdb", min_cell=50, progress=False)
    with duckdb.connect(str(tmp_path / "results.duckdb"), read_only=True) as con:
        counts = con.execute("from achilles_result_concept_count").df().set_index("concept_id")
    assert list(counts.columns) == [
        "record_count", "descendant_record_count", "person_count", "descendant_person_count",
    ]  # fmt: skip
    assert tuple(counts.loc[40481087]) == (17268, 17268, 0, 0)  # viral sinusitis, which all but 8 persons have
    assert not ((counts > 0) & (counts < 50)).any(axis=None)


def test_every_analysis_has_a_name_and_strata(sample):
    known = sample.analyses()
    assert known["analysis_id"].is_unique
    assert len(known) == sum(len(scan.analyses) for scan in SCANS)
    for row in known.itertuples():
        rows = sample.results.to_pandas()
        rows = rows[rows["analysis_id"] == row.analysis_id]
        said = rows[[f"stratum_{i}" for i in range(len(row.strata.split()) + 1, 6)]]
        assert said.isna().all(axis=None), row
    assert list(sample.counts(404).columns) == [
        "condition_concept_id", "year", "gender_concept_id", "age_decile", "count_value",
    ]  # fmt: skip
    with pytest.raises(NotFound, match="no analysis 999"):
        sample.counts(999)


@pytest.mark.slow
def test_every_picture_can_be_drawn_of_the_sample_and_of_an_empty_cdm(sample):
    from matplotlib import pyplot as plt

    nothing = Cdm(database=empty_cdm()).characterize(progress=False)
    for name in sample.names:
        for of in (sample, nothing):
            of.plot(name).figure.canvas.draw()
            plt.close("all")
    with pytest.raises(NotFound, match="Did you mean 'condition_prevalence'"):
        sample.plot("conditions_prevalence")


def test_a_picture_without_data_says_so(sample):
    assert sample.table("device_prevalence").empty
    assert [text.get_text() for text in sample.plot("device_prevalence").texts] == ["Devices: no records"]


def test_numbers_of_pictures_are_those_of_the_analyses(sample):
    conditions = sample.table("condition_prevalence").set_index("concept_name")
    assert tuple(conditions.loc["Viral sinusitis", ["persons", "records"]]) == (2686, 17268)
    assert conditions.loc["Viral sinusitis", "share"] == pytest.approx(2686 / 2694)
    ax = sample.plot("population")
    shown = sum(abs(bar.get_width()) for bar in ax.patches)
    assert shown == sample.table("population")["persons"].sum()


def test_a_page_is_self_contained_and_says_what_is_hidden(sample, tmp_path):
    page = str(sample.page(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="http', page)
    assert "Counts of 1 to 4 persons are not shown" in page
    assert "<Characterization of Synthea" in repr(sample)
    assert "2,694" in sample._repr_html_()


@pytest.mark.parametrize("name", ["A condition with quite a long name", "WOMMWOMM MMWOMMWOW", "Immunoglobulinaemia"])
@pytest.mark.parametrize("n", [1, 100, 4000])
def test_a_treemap_is_legible_whatever_there_is(n, name):
    persons = [round(5 + 3000 / (i + 1) ** 0.7) for i in range(n)]
    names = [f"{name}, {i}" for i in range(n)]
    frame = pd.DataFrame({"concept_name": names, "persons": persons, "share": [one / 4000 for one in persons]})
    ax = plots.treemap(frame, what="condition")
    assert len(ax.patches) == min(n, plots.LABELLED)
    ax.figure.canvas.draw()
    words = ax.texts
    assert len(words) >= min(n, 10)
    tiles = [patch.get_window_extent() for patch in ax.patches]
    for text in ax.texts:
        word = text.get_window_extent()
        middle = (word.x0 + word.x1) / 2, (word.y0 + word.y1) / 2
        [tile] = [tile for tile in tiles if tile.contains(*middle)]
        assert word.width <= tile.width, text.get_text()
        assert word.height <= tile.height, text.get_text()
    assert ax.get_title(loc="left") == (f"the 60 most frequent of {n:,}" if n > 60 else "")


def test_rectangles_fill_the_map_with_areas_that_are_their_numbers():
    sizes = [500.0, 300, 100, 60, 30, 9, 1]
    made = plots.tiles(sizes, 0, 0, 2, 1)
    assert [w * h for _, _, w, h in made] == pytest.approx([2 * size / 1000 for size in sizes])
    assert max(x + w for x, _, w, _ in made) == pytest.approx(2)
    assert max(y + h for _, y, _, h in made) == pytest.approx(1)
