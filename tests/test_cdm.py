"""Cdm: one way to ask, whether patients lie in a DuckDB file, in Parquet, in an open connection, or in the sample."""

from __future__ import annotations

import os
import signal
import threading
import warnings
import zipfile

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from genokit import Cdm
from genokit.errors import InvalidParameters, InvalidSource, NotFound, QueryError
from genokit.omop.etl.mimic3 import identifier
from genokit.omop.fields import fields, tables
from genokit.omop.magic import completions
from genokit.omop.quality.quality import quality


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    return Cdm()


def small(con: duckdb.DuckDBPyConnection, schema: str = "main") -> None:
    """Two persons, in types that are not the CDM's."""
    con.execute(f"create schema if not exists {schema}")
    con.execute(
        f"create table {schema}.PERSON as select * from (values (1, '8507', 1950, 'a'), (2, '8532', 1960, null))"
        " as t(PERSON_ID, GENDER_CONCEPT_ID, YEAR_OF_BIRTH, NICKNAME)"
    )
    con.execute(f"create table {schema}.death as select 'PERSON_ID' as person_id, 'DEATH_DATE' as death_date")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'it\'s a "file".duckdb'
    with duckdb.connect(str(path)) as con:
        small(con)
    return path


def test_the_sample_has_every_table_in_the_cdm_s_types(cdm):
    schema = cdm.schema().set_index(["table", "column"])["type"]
    for table in tables():
        for field in fields(table):
            whole = {"BIGINT", "INTEGER"}
            found = schema[table, field.name]
            assert found == field.type or {found, field.type} <= whole, (table, field.name, found)
        cdm.query(f"select * from {table}", as_arrow=True)  # each value can be read in its type


def test_the_sample_s_empty_tables_are_empty(cdm):
    for table in ("death", "cost", "note", "care_site", "device_exposure", "episode"):
        assert cdm.table(table).count() == 0
    assert "ontime" not in cdm.tables()
    assert (cdm["person"].count(), cdm["condition_occurrence"].count()) == (2694, 65332)


def test_nulls_are_found_in_a_column_of_another_type(cdm):
    """The file has days where the CDM has times of day: DuckDB 2.0 finds 246 of 8,652 that are null by the cast."""
    nulls = "select count(*) as n from condition_occurrence where condition_end_datetime is null"
    held = cdm.query("select count(*) - count(condition_end_datetime) as n from condition_occurrence")["n"].item()
    assert (cdm.query(nulls)["n"].item(), held) == (8652, 8652)


def test_fields_that_5_4_renamed_are_found(cdm):
    assert cdm.query("select count(admitted_from_concept_id) as n from visit_occurrence")["n"].item() == 1037


def test_a_query_gives_cdm_types_whole_numbers_with_holes_too(cdm):
    frame = cdm.query(
        "select person_id, location_id, birth_datetime, person_source_value from person where person_id = $id", id=1
    )
    assert list(map(str, frame.dtypes))[:3] == ["Int64", "Int64", "datetime64[us]"]
    assert cdm.query("select 9007199254740993 as id union all select null")["id"].tolist()[0] == 9007199254740993
    assert str(cdm.query("select sum(person_id) as s, cast(null as date) as d from person").dtypes["s"]) == "Int64"
    assert cdm.query("select condition_start_date as d from condition_occurrence limit 1")["d"].dtype.kind == "M"


def test_arrow_is_whole_and_frames_are_capped_with_a_plain_warning(cdm):
    with pytest.warns(UserWarning, match="first 3 rows; the query has more"):
        frame = cdm.query("select person_id from person order by 1 desc", most=3)
    assert frame["person_id"].tolist() == [5343, 5337, 5335]
    assert cdm.last.cut
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cdm.query("select person_id from person", most=2694).shape[0] == 2694
        table = cdm.query("select person_id from person", as_arrow=True)
    assert isinstance(table, pa.Table)
    assert table.num_rows == 2694


def test_the_last_query_tells_what_it_took_but_no_value(cdm):
    cdm.query("select * from person where person_source_value <> $secret -- <b>", secret="Smith")
    assert (cdm.last.rows, cdm.last.parameters) == (2694, ("secret",))
    assert "2,694" in cdm.last._repr_html_()
    assert "&lt;b&gt;" in cdm.last._repr_html_()
    assert "Smith" not in cdm.last._repr_html_() + repr(cdm.last)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select * from persn", r"Table with name persn does not exist!\nDid you mean \"person\"\?"),
        ("select yaer_of_birth from person", r"\"yaer_of_birth\" not found[\s\S]*\"year_of_birth\""),
        ("selec 1", r"syntax error at or near \"selec\"[\s\S]*\^"),
        ("select 1\n, cast('x' as integer)", r"LINE 2: , cast"),
        ("drop table person", "only reads"),
        ("copy person to 'x.csv'", "only reads"),
        ("set threads = 1", "only reads"),
        ("attach ':memory:' as x", "only reads"),
        ("select 1; select 2", "several statements"),
        ("", "got 0"),
        ("select * from frame", "Table with name frame does not exist"),
    ],
)
def test_an_error_suggests_what_was_meant(cdm, sql, said):
    frame = pd.DataFrame({"a": [1]})  # a variable of Python's is no table
    with pytest.raises(QueryError, match=said) as caught:
        cdm.query(sql)
    assert caught.value.sql == sql
    assert len(frame) == 1


WRITES = [
    "with a as (delete from person returning *) select * from a",
    "with b as (with a as (update person set person_id = 2 returning *) from a) from b",
    "select (with a as (insert into person (person_id) values (3) returning *) select 1)",
    "with a as (copy person to '{folder}/out.csv') select * from a",
    "with a as (copy (select 1) to '{folder}/mine.csv' (use_tmp_file false)) select 1",
    "explain analyze delete from person",
    "EXPLAIN /* all */ ANALYZE with a as (delete from person returning *) from a",
    "explain (analyze, format json) copy person to '{folder}/out.csv'",
    "from enable_logging(storage = 'file', storage_path = '{folder}/log')",
    'explain select * from main."ENABLE_LOGGING"()',
    "from enable_profiling(save_location = '{folder}/profile')",
    "from checkpoint()",
    "from query('delete from person')",
    "from query_table('{folder}/mine.csv')",
    "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "select nextval('s'), write_log('x')",
    "attach '{folder}/new.duckdb'",
    "install spatial",
    "load '{folder}/x.duckdb_extension'",
    "update extensions",
    "pragma database_list",
    "call enable_logging()",
    "export database '{folder}/all'",
    "copy from database held to memory",
    "prepare v as select 1",
    "execute v",
    "create temp table x as select 1",
    "create macro m() as 1",
    "comment on table person is 'x'",
    "vacuum",
    "begin",
    "truncate person",
]
READS_FILES = [
    "from read_csv('{folder}/mine.csv')",
    "from '{folder}/mine.csv'",
    "describe '{folder}/mine.csv'",
    'summarize "{folder}/mine.csv"',
    "from glob('/etc/*')",
    "select 1 where exists (from read_text('/etc/passwd'))",
    "select [x for x in (select list(content) from read_blob('/etc/passwd'))]",
    "from sniff_csv('{folder}/mine.csv')",
    "from parquet_metadata('{folder}/mine.parquet')",
    "from 'https://example.org/x.parquet'",
]


@pytest.fixture(params=["file", "folder", "connection"])
def kept(request, tmp_path):
    """A CDM wherever it may lie, beside a file of somebody's own."""
    (tmp_path / "mine.csv").write_text("a\n1\n")
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as con:
        small(con)
        con.execute("create sequence s")
        (tmp_path / "cdm").mkdir()
        con.table("person").write_parquet(str(tmp_path / "cdm" / "person.parquet"))
        if request.param == "connection":
            yield lambda **options: Cdm(database=con, **options)
    if request.param != "connection":
        yield lambda **options: Cdm(tmp_path / ("cdm.duckdb" if request.param == "file" else "cdm"), **options)


def test_a_write_is_refused_anywhere_in_a_statement(kept, tmp_path):
    held = [kept(), kept(external_access=True)]
    for cdm in held:
        cdm.query("select 1")
    before = sorted(tmp_path.rglob("*"))
    for sql in WRITES:
        for cdm in held:
            with pytest.raises(QueryError, match="only reads"):
                cdm.query(sql.replace("{folder}", str(tmp_path)))
    assert held[0].query("select count(*) as n from person")["n"].item() == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_files_are_read_only_where_external_access_is_given(kept, tmp_path):
    for sql in READS_FILES:
        with pytest.raises(QueryError, match=r"reads files .*external_access=True"):
            kept().query(sql.replace("{folder}", str(tmp_path)))
    for sql in READS_FILES[:4]:
        assert len(kept(external_access=True).query(sql.replace("{folder}", str(tmp_path)))) == 1


def test_views_and_macros_of_a_file_are_confined_too(tmp_path):
    path = tmp_path / "hostile.duckdb"
    with duckdb.connect(str(path)) as con:
        small(con)
        con.execute("create view note as select content as note_text from read_text('/etc/passwd')")
        con.execute(f"create view cost as from enable_logging(storage = 'file', storage_path = '{tmp_path}/log')")
        con.execute("create macro secret() as (select content from read_text('/etc/passwd'))")
    cdm = Cdm(path)
    for sql in ("from note", "from cost", "from held.main.cost", "select held.main.secret()"):
        with pytest.raises(QueryError, match=r"disabled by configuration|has been locked"):
            cdm.query(sql)
    with pytest.raises(duckdb.Error, match="locked"):
        cdm.database.con.execute("set enable_external_access = true")
    with pytest.raises(InvalidSource, match=r"disabled by configuration|has been locked"):
        quality(path, progress=False)
    assert not (tmp_path / "log").exists()


def test_no_extension_is_installed_on_the_way(kept):
    installed = "select extension_name from duckdb_extensions() where installed"
    before = duckdb.execute(installed).fetchall()
    for sql in ("select st_area('x')", "from sqlite_scan('x', 'y')", "select spatial_thing(1)"):
        with pytest.raises(QueryError, match="has no function"):
            kept().query(sql)
    assert duckdb.execute(installed).fetchall() == before


@pytest.mark.parametrize(
    "sql",
    [
        "-- note\nexplain (analyze) select count(*) from person",
        "explain analyze select 1",
        "from (pivot person on gender_concept_id in (8507, 8532) using count(*))",
        "with recursive t(a) as (select 1 union all select a + 1 from t where a < 3) from t",
        'select \'"type":"DELETE_QUERY_NODE"\', \'{"function_name":"read_csv"}\' as "function_name"',
        "select * from range(3), unnest([1]), json_each('[]') union by name describe person",
        "summarize person",
        "show tables",
        "select " + "+".join(["1"] * 900),
    ],
)
def test_statements_that_only_read_are_run(cdm, sql):
    cdm.query(sql)


def test_an_unknown_name_suggests_a_similar_one(cdm):
    with pytest.raises(NotFound, match=r"'visit_occurence'\. Did you mean 'visit_occurrence'"):
        cdm.table("visit_occurence")
    with pytest.raises(NotFound, match=r"'yaer_of_birth'\. Did you mean 'year_of_birth'"):
        cdm["person"]["yaer_of_birth"]


def test_a_file_is_read_only_and_in_the_cdm_s_types(file):
    before = file.read_bytes()
    cdm = Cdm(file)
    frame = cdm.query("select * from person order by person_id")
    assert list(frame.columns[:3]) == ["person_id", "gender_concept_id", "year_of_birth"]
    assert frame.columns[-1] == "nickname"
    assert frame["gender_concept_id"].tolist() == [8507, 8532]
    assert frame["month_of_birth"].isna().all()
    assert cdm.table("death").count() == 0
    assert cdm.table("measurement").count() == 0
    with pytest.raises(duckdb.Error, match="read-only"):
        cdm.database.con.execute("create table held.main.x (a integer)")
    assert file.read_bytes() == before


def test_tables_of_any_name_are_read(tmp_path):
    path, odd, column = tmp_path / "odd.duckdb", 'a "table"; drop -- ', 'b"'
    with duckdb.connect(str(path)) as con:
        con.execute("create schema \"it's\"; set schema = 'it''s'")
        con.execute(
            f'create table person as select 1 as person_id; create table {identifier(odd)} as select 1 as "b"""'
        )
    for open_ in (lambda: Cdm(path), lambda: Cdm(database=duckdb.connect(str(path), read_only=True))):
        cdm = open_()
        assert cdm.table(odd).count() == 1
        assert cdm[odd][column].tolist() == [1]
        assert "drop" in cdm[odd]._repr_html_()
        assert cdm[odd].head().shape == (1, 1)


def test_an_open_file_says_so(file):
    with duckdb.connect(str(file)) as con:
        with pytest.raises(InvalidSource, match="Cdm\\(database=con\\)"):
            Cdm(file).query("select 1")
        assert Cdm(database=con).query("select count(*) as n from person")["n"].item() == 2


@pytest.mark.parametrize("layout", ["files", "folders", "etl"])
def test_a_folder_of_parquet_is_a_cdm(tmp_path, layout):
    folder = tmp_path / "o'data"
    inside = folder / "cdm" if layout == "etl" else folder
    target = inside / ("PERSON.parquet" if layout == "files" else "person/part-0.parquet")
    target.parent.mkdir(parents=True)
    with duckdb.connect() as con:
        small(con)
        con.table("person").write_parquet(str(target))
    (inside / "_SUCCESS").touch()
    cdm = Cdm(folder)
    assert cdm.query("select person_id from cdm.person where year_of_birth > 1955")["person_id"].tolist() == [2]
    assert cdm.database.columns()


def test_a_connection_is_used_where_its_persons_are_and_left_as_it_was():
    con = duckdb.connect()
    small(con, "mine")
    con.execute("create table other as select 42 as a")
    cdm = Cdm(database=con)
    assert cdm.query("select count(*) as n from person")["n"].item() == 2
    assert con.execute("select a from other").fetchone() == (42,)
    small(con, "yours")
    with pytest.raises(InvalidSource, match="mine, yours"):
        Cdm(database=con).query("select 1")
    assert Cdm(database=con, schema="yours").table("person").count() == 2


def test_a_database_that_is_not_a_cdm_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"no 'nowhere\.duckdb'"):
        Cdm("nowhere.duckdb").query("select 1")
    (tmp_path / "x.parquet").touch()
    with pytest.raises(InvalidSource, match="cannot be read as a CDM"):
        Cdm(tmp_path).query("select 1")
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(NotFound, match="no table 'person'"):
        Cdm(tmp_path).query("select 1")
    (tmp_path / "x.duckdb").write_bytes(b"no database" * 999)
    with pytest.raises(InvalidSource, match="cannot be read as a CDM"):
        Cdm(tmp_path / "x.duckdb").query("select 1")
    with pytest.raises(NotFound, match="asked through Athena"):
        Cdm("s3://bucket/omop").query("select 1")
    with pytest.raises(InvalidParameters):
        Cdm("a", database=duckdb.connect())


def partial(con: duckdb.DuckDBPyConnection, id: str = "1") -> duckdb.DuckDBPyConnection:
    """Three tables, as few columns as can be, in letters of any case; and a table of somebody's own."""
    con.execute(
        f"create schema Mine; create table Mine.PERSON as select {id} as PERSON_ID, 8507 as Gender_Concept_Id,"
        f" 1950 as year_of_birth; create table Mine.Observation_Period as select {id} as person_id,"
        " date '2000-01-01' as observation_period_start_date, date '2010-01-01' as observation_period_end_date;"
        f"create view Mine.condition_occurrence as select {id} as person_id, 201826 as condition_concept_id,"
        " '2001-01-01' as condition_start_date; create table Mine.others as select 7 as a"
    )
    return con


def test_an_open_connection_has_every_table_and_field_too():
    con = partial(duckdb.connect())
    cdm = Cdm(database=con)
    assert set(tables()) < set(cdm.tables())
    assert cdm["care_site"].count() == cdm["concept"].count() == 0
    assert cdm["others"]["a"].tolist() == [7]
    assert cdm.query("select day_of_birth, race_concept_id from person").isna().all(axis=None)
    assert (
        str(cdm.query("select condition_start_date as d from condition_occurrence")["d"].item())
        == "2001-01-01 00:00:00"
    )
    assert cdm.cohort(condition=201826, min_cell=1).persons == 1
    assert "Characterization" in repr(cdm.characterize(progress=False))
    checked = quality(cdm, progress=False).table.query("check_name == 'cdmTable' and failed == 1")
    assert len(checked) == 36, "what is empty here lacks there"
    assert con.execute("select count(*) from duckdb_views() where not internal").fetchone() == (1,)
    assert con.execute("show databases").fetchall() == [("memory",)]


def test_a_file_that_a_connection_attached_is_found(tmp_path):
    with duckdb.connect(str(tmp_path / "x.duckdb")) as con:
        partial(con)
    con = duckdb.connect()
    con.execute(f"attach '{tmp_path / 'x.duckdb'}' as \"my file\" (read_only)")
    cdm = Cdm(database=con)
    assert cdm["others"]["a"].tolist() == [7]
    assert cdm.cohort(condition=201826, min_cell=1).persons == 1
    assert "Characterization" in repr(cdm.characterize(progress=False))


def test_a_value_of_another_type_is_refused_in_the_kit_s_words_by_a_characterization_too():
    con = partial(duckdb.connect())
    con.execute("alter table Mine.PERSON alter Gender_Concept_Id type varchar using 'F'")
    with pytest.raises(QueryError, match=r"query was refused[\s\S]*Gender_Concept_Id"):
        Cdm(database=con).characterize(progress=False)


def test_a_damaged_file_is_not_taken_for_a_locked_one(tmp_path):
    with duckdb.connect(str(tmp_path / "x.duckdb")) as con:
        small(con)
    content = bytearray((tmp_path / "x.duckdb").read_bytes())
    content[4096:12288] = bytes(8192)
    (tmp_path / "x.duckdb").write_bytes(content)
    with pytest.raises(InvalidSource, match="Name a DuckDB file"):
        Cdm(tmp_path / "x.duckdb").query("select 1")


@pytest.mark.parametrize("id", ["'p-1'", "uuid()", "1.5", "1e30"])
def test_persons_that_are_not_numbered_are_refused_with_what_to_do(tmp_path, id):
    con = partial(duckdb.connect(str(tmp_path / "x.duckdb")), id)
    for open_ in (lambda: Cdm(database=con), lambda: Cdm(tmp_path / "x.duckdb")):
        with pytest.raises(InvalidSource, match=r"person\.person_id.*Give each person a number"):
            open_().query("select 1")
        con.close() if open_().place is None else None
    with pytest.raises(InvalidSource, match="connection cannot be read"):
        Cdm(database=con).query("select 1")


@pytest.mark.parametrize("id", ["'1'", "1::tinyint", "1::uhugeint", "1.0", "'1'::varchar"])
def test_ids_of_other_types_that_are_whole_are_read(id):
    cdm = Cdm(database=partial(duckdb.connect(), id))
    assert cdm.query("select person_id from person")["person_id"].tolist() == [1]
    assert cdm.cohort(condition=201826, min_cell=1).persons == 1


def test_a_folder_of_csvs_says_what_is_there_and_what_to_do(tmp_path):
    for name in ("PERSON.csv", "visit_occurrence.csv.gz", "CONCEPT.tsv"):
        (tmp_path / name).write_text("a")
    with pytest.raises(InvalidSource, match=r"table concept as CONCEPT\.tsv, but .* to 'concept\.parquet'"):
        Cdm(tmp_path).query("select 1")
    with duckdb.connect() as con:
        small(con)
        con.table("person").write_parquet(str(tmp_path / "Person.parquet"))
    with pytest.raises(InvalidSource, match=r"as CONCEPT\.tsv"):
        Cdm(tmp_path).query("select 1")
    (tmp_path / "PERSON").mkdir()
    (tmp_path / "PERSON" / "part-0.parquet").write_bytes((tmp_path / "Person.parquet").read_bytes())
    with pytest.raises(InvalidSource, match=r"person twice, also as Person\.parquet"):
        Cdm(tmp_path).query("select 1")


def test_an_archive_or_another_folder_says_what_is_there(tmp_path):
    with zipfile.ZipFile(tmp_path / "cdm.zip", "w") as archive:
        archive.writestr("person.csv", "a")
    with pytest.raises(InvalidSource, match="unpack an archive first"):
        Cdm(tmp_path / "cdm.zip").query("select 1")
    with pytest.raises(NotFound, match=r"It holds: cdm\.zip\. Name a"):
        Cdm(tmp_path).query("select 1")


def test_nothing_is_opened_before_the_first_question():
    assert repr(Cdm("nowhere")) == "<Cdm nowhere>"
    assert "GiBleed" in repr(Cdm())


def test_a_column_is_a_series_and_tab_knows_tables_and_columns(cdm):
    assert cdm["person"]["year_of_birth"].min() == 1908
    assert "condition_era" in cdm._ipython_key_completions_()
    assert "year_of_birth" in cdm["person"]._ipython_key_completions_()
    assert cdm["person"].head(2).shape == (2, 18)
    assert completions(cdm, "select  from visit_occ", "visit_occ") == ["visit_occurrence"]
    assert completions(cdm, "select p.gender from person p", "p.gender")[0] == "p.gender_concept_id"


def test_cards_show_the_cdm_and_a_table_but_no_patient(cdm):
    card = cdm._repr_html_()
    assert "2,694" in card
    assert "synthetic patients" in card
    table = cdm["person"]._repr_html_()
    assert "gender_concept_id" in table
    assert cdm["person"].head(1)["person_source_value"].item() not in table


def test_an_interrupt_ends_the_query_and_the_next_one_runs(cdm):
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        # It would take days.
        cdm.query("select count(*) from range(10000000) a(i), range(1000000) b(j) where (a.i * b.j) % 7 = 3")
    assert cdm.query("select 1 as a")["a"].tolist() == [1]


@pytest.fixture
def shell():
    shell = InteractiveShell()
    shell.extension_manager.load_extension("genokit")
    yield shell
    shell.reset()


def test_a_cell_of_sql_takes_its_parameters_from_the_notebook(shell):
    shell.user_ns |= {"year": 1980, "ids": [8507]}
    frame = shell.run_cell_magic(
        "omop", "", "select count(*) as n from person where year_of_birth > $year and gender_concept_id in $ids"
    )
    assert frame["n"].tolist() == [43]


def test_a_cell_keeps_its_rows_under_a_name(shell):
    shell.run_cell_magic("omop", "-o rows", "select person_id from person")
    assert shell.user_ns["rows"].shape == (2694, 1)
    with pytest.raises(InvalidParameters, match="cannot be the name"):
        shell.run_cell_magic("omop", "-o 1x", "select 1")


def test_a_cell_queries_the_cdm_that_it_names(shell, file):
    shell.user_ns |= {"mine": Cdm(file), "cdm": Cdm()}
    assert shell.run_cell_magic("omop", "mine", "select count(*) as n from person")["n"].item() == 2
    assert shell.run_cell_magic("omop", "", "select count(*) as n from person")["n"].item() == 2694
    with pytest.raises(InvalidParameters, match=r"no Cdm 'mien'\. Did you mean 'mine'"):
        shell.run_cell_magic("omop", "mien", "select 1")


def test_a_cell_only_reads(shell, file):
    shell.user_ns["cdm"] = Cdm(file)
    for sql in ("with a as (delete from person returning *) from a", "explain analyze delete from person"):
        with pytest.raises(QueryError, match="only reads"):
            shell.run_cell_magic("omop", "", sql)


def test_a_cell_without_its_variable_names_it(shell):
    with pytest.raises(InvalidParameters, match=r"\$yaer.*set variables of these names"):
        shell.run_cell_magic("omop", "", "select $yaer")


def test_tab_in_a_cell_completes_tables_and_columns(shell):
    text = "%%omop\nselect year_of from person"
    with provisionalcompleter():
        found = [one.text for one in shell.Completer.completions(text, text.index(" from"))]
    assert "year_of_birth" in found
