"""Achilles' analyses of the sample are what Achilles' own SQL says, run by duckcdm on DuckDB; and ATLAS reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from duckcdm import achilles as theirs
from duckcdm.webapi.reports import Reports
from duckcdm.webapi.sources import Source, sql_resource

from genokit import Cdm
from genokit.omop.characterize.achilles import SCANS, run
from genokit.omop.characterize.analyses import analyses
from genokit.omop.characterize.result_file import TABLES, opened, write

DOMAINS = ("condition", "conditionera", "drug", "drugera", "measurement", "observation", "procedure", "visit")


@pytest.fixture(scope="module")
def file(cdm: Cdm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with the results of both, small counts and all: Achilles' in `theirs`, the kit's in `main`."""
    path = tmp_path_factory.mktemp("achilles") / "both.duckdb"
    con = Cdm(external_access=True).database.con.cursor()
    con.execute(f"attach '{path}' as copied; create schema copied.cdm; set schema = 'cdm'")
    for name in cdm.tables():
        con.execute(f'create table copied.cdm."{name}" as from cdm."{name}"')
    con.execute("detach copied")
    counted = zip(*(run(con, scan)[0] for scan in SCANS), strict=True)
    with opened(path) as kept:
        write(kept, *map(pa.concat_tables, counted), con.sql("from concept_ancestor").to_arrow_table())
    con = duckdb.connect(str(path))
    wanted = list(analyses())
    done, failed = theirs.run_achilles(
        con, "cdm", "theirs", small_cell_count=None, log=None, cdm_version="5.4", analysis_ids=wanted
    )
    assert (set(done), failed) == (set(wanted), [])
    con.close()
    return path


@pytest.fixture
def con(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(file), read_only=True) as con:
        yield con


def cells(rows: Iterable[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    """Rows in an order, as text: numbers to nine digits, and a decile, which Achilles writes as 3.0, as 3."""
    return sorted(
        (
            *("" if cell is None else str(cell).removesuffix(".0") for cell in strata),
            *("" if cell is None else f"{float(cell):.9g}" for cell in numbers),
        )
        for strata, numbers in ((row[1:6], row[6:]) for row in rows)
    )


@pytest.mark.parametrize("scan", SCANS[1:], ids=lambda scan: scan.name)  # the first says who made it, and when
def test_every_cell_of_the_sample_is_what_achilles_sql_says(scan, con):
    for analysis_id in scan.analyses:
        for table in TABLES:
            ours, right = (
                con.execute(f"from {schema}.{table} where analysis_id = ?", [analysis_id]).fetchall()
                for schema in ("main", "theirs")
            )
            assert cells(ours) == cells(right), analysis_id


def test_concepts_are_counted_with_all_that_is_below_them(con):
    # Achilles leaves out what the vocabulary does not know.
    known = "select concept_id from cdm.concept union select ancestor_concept_id from cdm.concept_ancestor"
    ours = con.execute(f"from main.achilles_result_concept_count where concept_id in ({known})").fetchall()
    right = con.execute(
        "select concept_id::bigint, * exclude (concept_id) from theirs.achilles_result_concept_count"
        " where descendant_record_count > 0 or descendant_person_count > 0 order by 1"
    ).fetchall()
    assert len(ours) > 300
    assert ours == right


def test_every_report_of_atlas_is_the_same_over_both(file):
    ours, right = reports(file, "main"), reports(file, "theirs")
    for name in ("dashboard", "person", "data_density", "death", "observation_period"):
        shown, meant = (alike(getattr(one, name)()) for one in (ours, right))
        for report in (shown, meant):
            report.pop("summary", None)  # the names of analyses, which are the kit's own
        assert shown == meant, name
    for domain in DOMAINS:
        rows = right.treemap(domain)
        assert rows
        assert alike(ours.treemap(domain)) == alike(rows)
        for concept in rows[:1]:
            assert alike(ours.drilldown(domain, concept["conceptId"])) == alike(
                right.drilldown(domain, concept["conceptId"])
            ), (domain, concept)


def reports(file: Path, schema: str) -> Reports:
    """WebAPI's reports over results in a schema, with the concepts' hierarchy, which WebAPI makes for itself."""
    source = Source(1, "sample", "sample", str(file), cdm_schema="cdm", results_schema=schema)
    for name in ("concept_hierarchy", "init_concept_hierarchy"):
        source.execute_script(
            sql_resource("results", f"{name}.sql").replace("@results_schema", schema).replace("@vocab_schema", "cdm")
        )
    return Reports(source)


def alike(report: Any) -> Any:
    """A report without the order of its rows."""
    if isinstance(report, dict):
        return {name: alike(rows) for name, rows in report.items()}
    return sorted(repr(sorted(row.items(), key=str)) for row in report)
