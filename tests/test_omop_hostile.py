"""Whatever a parameter holds, it stays a value: on DuckDB it is bound, on Athena it is a literal of Trino's grammar."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum

import duckdb
import numpy as np
import pandas as pd
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp
from trino_query_parser import parse_statement

from genokit import Cdm
from genokit.errors import InvalidParameters, QueryError
from genokit.omop.parameters import bind, cleaned

TEXTS = [
    "", " ", "'", "''", "'''", '"', '""', "`", "\\", "\\'", "\\\\'", "'; drop table person; --",
    "' or '1'='1", "' or 1=1 --",
    "1; delete from person", "'/*", "*/'", "/* x */", "--", "-- '", "#", "$x", "$1", "$$",
    "$tag$ x $tag$", "${x}", "?", "%s",
    "%(x)s", ":x", "@x", "{x}", "{{x}}", "{0}", "\n", "\r", "\r\n", "\t", "a\nb'c", "\x01", "\x7f",
    "\x1b[31m", "\u00a0",
    "\u2028", "\u2029", "\u200b", "\u202e", "\ufeff", "ʼ", "’", "‘", "＇", "ʹ", "é", "é", "ß", "İ", "ı",
    "日本語", "🧬", "👩‍🔬",
    "null", "NULL", "true", "select 1", "U&'\\0041'", "X'41'", "E'\\n'", "date '2020-01-01'", "it''s",
    "O'Hara", "a''b'c",
    "' || (select 1) || '", "' union select * from person --", "') or ('1'='1", "1) or (1=1", "\\u0027",
    "%27", "&#39;",
    "' \n or '1'='1", "'\r--", "x" * 5000, "'" * 999, "\\" * 7, "🧬'" * 50, "\ud7ff\ue000", "\U0010ffff",
    "0x41", "1e9", "-0",
    "--\nselect", "/*/", "*/ select 1 /*", "';--\x00".replace("\x00", ""), "{{ 7*7 }}", "<b>", "&amp;",
    "a;b", ";", "()", "(", ")",
    "in ($x)", "in $x", "array[1]", "E'", "U&'", "x'", "b'", "_utf8'", "N'", "$'", "$x$", "'$x'", "%",
    "_", "~", "^", "|", "||",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**63) + 1, True,
    False, 0.0, -0.0, 0.1,
    -1.5, 1e300, -1e300, 5e-324, 1e22, 1e-7, 123456789.123, 2.5, 1 / 3, math.pi, float("inf"),
    float("-inf"), float("nan"),
    np.int64(7), np.int8(-7), np.float32(0.5), np.float64(0.25), np.bool_(True), Decimal("1.50"), Decimal("-0.001"),
    Decimal("1E+3"), Decimal("12345678901234567890123456789012345678"), Decimal(0),
]  # fmt: skip
DAYS = [
    datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(2020, 2, 29), datetime.date(1582, 10, 10),
    datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 23, 59, 59, 999999), datetime.datetime(1, 1, 1),
    datetime.datetime(1999, 12, 31, 1, 2, 3, 4000), pd.Timestamp("2020-01-01 10:00"), np.datetime64("2020-01-01"),
    np.datetime64("2020-01-01T10:00:00.000000001"), None, pd.NA, pd.NaT,
]  # fmt: skip
LISTS = [
    [], [1], [1, 2, 3], list(range(1000)), (1, 2), {3, 1}, frozenset({"a"}), range(3), ["'", "--", "/*"],
    ["a", "'; drop table x"],
    np.array([1, 2]), np.array(["a", "'b"]), np.array(["2020-01-01"], dtype="datetime64[ns]"),
    pd.Series([1, 2]), pd.Index([5]),
    pd.Series(["x", "'y'"]), pd.Series(pd.to_datetime(["2020-01-01"])), [datetime.date(2020, 1, 1)],
    [0.5, -1.0], [True],
    [Decimal("1.5")], [2**63 - 1, -(2**63)], ["🧬", ""], [float("inf")], pd.array([1, 2], dtype="Int64"),
]  # fmt: skip
REFUSED = [
    2**63, -(2**63) - 1, 2**200, Decimal("NaN"), Decimal("Infinity"), Decimal("1E+40"), "a\x00b",
    "\ud800", "x\udfff'", b"bytes",
    bytearray(b"x"), {"a": 1}, [[1]], [1, [2]], [1, "a"], [1, None], [None], [1, 2.5], ["a", b"b"],
    ["\ud800"], [2**64],
    object(), datetime.time(10), datetime.timedelta(1),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), 1j, print, int,
    np.array([[1, 2]]), pd.DataFrame({"a": [1]}), ..., Cdm(), [pd.NA, 1],
]  # fmt: skip
HELD = [*TEXTS, *NUMBERS, *DAYS, *LISTS]

# What stands around a parameter is as nasty as what is in it.
SQL = """select '$x' as "a$x", $x as x -- $x '
, 1 as "b""$x" /* $x ' */ , 'it''s $x' as c"""


def test_there_are_two_hundred_of_them():
    assert len([*HELD, *REFUSED]) >= 200


def same(got: object, given: object) -> bool:
    if isinstance(given, float) and math.isnan(given):
        return isinstance(got, float) and math.isnan(got)
    if isinstance(given, list):
        return isinstance(got, list) and len(got) == len(given) and all(map(same, got, given))
    if isinstance(given, float) and isinstance(got, float):
        return got == given and math.copysign(1, got) == math.copysign(1, given)
    return got == given


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    con = duckdb.connect()
    con.execute("create table person as select 1 as person_id, 'x' as person_source_value")
    return Cdm(database=con)


@pytest.mark.parametrize("value", HELD, ids=lambda value: repr(value)[:20].encode("ascii", "replace").decode())
def test_a_bound_value_comes_back_as_itself(cdm, value):
    table = cdm.query(SQL, as_arrow=True, x=value)
    assert table.column_names == ["a$x", "x", 'b"$x', "c"]
    [row] = table.to_pylist()
    assert (row["a$x"], row['b"$x'], row["c"]) == ("$x", 1, "it's $x")
    assert same(row["x"], cleaned("x", value))
    assert cdm.query("select count(*) as n from person")["n"].tolist() == [1]


@pytest.mark.parametrize("value", HELD, ids=lambda value: repr(value)[:20].encode("ascii", "replace").decode())
@pytest.mark.parametrize("dialect", ["trino", "athena"])
def test_a_literal_is_one_value_in_the_tree_of_the_statement(value, dialect):
    plain = cleaned("x", value)
    text, values = bind(SQL, {"x": value}, "athena")
    assert values == {}
    parse_statement(text)
    tree = sqlglot.parse_one(text, read=dialect)
    assert [select.alias for select in tree.selects] == ["a$x", "x", 'b"$x', "c"]
    assert [tree.selects[i].this.this for i in (0, 2, 3)] == ["$x", "1", "it's $x"]
    assert same(valued(tree.selects[1].this), plain)


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: repr(value)[:20].encode("ascii", "replace").decode())
@pytest.mark.parametrize("dialect", ["duckdb", "athena"])
def test_a_value_that_no_cdm_can_have_is_refused_by_name(value, dialect):
    with pytest.raises(InvalidParameters, match="'x'"):
        bind("select $x", {"x": value}, dialect)


@pytest.mark.parametrize("value", [one for one in LISTS if len(one)], ids=lambda value: repr(value)[:20])
def test_a_list_after_in_is_its_values(cdm, value):
    plain = cleaned("x", value)
    for sql in ("select $one in $x as found", "select $one in ($x) as found"):
        assert cdm.query(sql, one=plain[0], x=value)["found"].tolist() == [True]
        tree = sqlglot.parse_one(bind(sql, {"one": plain[0], "x": value}, "athena")[0], read="trino")
        inside = tree.find(exp.In)
        assert [valued(one) for one in inside.expressions] == plain
    assert cdm.query("select $one not in $x as found", one=plain[0], x=value)["found"].tolist() == [False]


def test_an_empty_list_holds_nothing_on_either_side(cdm):
    assert cdm.query("select 1 as a where 1 in $x", x=[]).shape[0] == 0
    assert cdm.query("select 1 as a where 'a' not in ($x)", x=[]).shape[0] == 1
    for sql in ("select 1 where 1 in $x", "select 1 where 'a' not in ($x)"):
        text, _ = bind(sql, {"x": []}, "athena")
        assert sqlglot.parse_one(text, read="trino").find(exp.In).args["query"] is not None


VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.booleans(),
    st.none(),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**20), max_value=10**20),
)


@given(VALUES)
def test_any_value_stays_itself_in_trinos_grammar_and_in_duckdb(value):
    text, _ = bind(SQL, {"x": value}, "athena")
    assert same(valued(sqlglot.parse_one(text, read="trino").selects[1].this), cleaned("x", value))
    # Most literals of Trino are also DuckDB's, which then must read the very value.
    if not (isinstance(value, Decimal) or (isinstance(value, float) and not math.isfinite(value))):
        [row] = duckdb.sql(text).fetchall()
        assert same(row[1], cleaned("x", value))


@pytest.mark.parametrize("dialect", ["duckdb", "athena"])
@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("select 'abc $x", {"x": "a' or 1=1 --"}),
        ("select 1 /* $x", {"x": "*/ or 1=1"}),
        ('select "abc $x', {"x": 'a"'}),
        ("select /* a /* $x */ b */ 1", {"x": 1}),
        ("select ? , $x", {"x": 1}),
        ("select $1", {"x": 1}),
        ("select $x; drop table person", {"x": 1}),
        ("select $x; select 1", {"x": 1}),
    ],
)
def test_ambiguous_sql_is_refused(sql, values, dialect):
    with pytest.raises(QueryError):
        bind(sql, values, dialect)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "drop table person",
        "DROP TABLE person",
        "insert into x select $x",
        "alter table x",
        "msck repair table x",
        "/* select */ delete from x",
        "show tables",
        "unload (select 1)",
    ],
)
def test_athena_gets_only_statements_that_read(sql):
    with pytest.raises(QueryError, match="begins with"):
        bind(sql, {"x": 1} if "$x" in sql else {}, "athena")


@pytest.mark.parametrize("dialect", ["duckdb", "athena"])
def test_surplus_and_missing_parameters_are_refused_with_what_was_meant(dialect):
    with pytest.raises(InvalidParameters, match=r"no \$yaer\. Did you mean 'year'\?"):
        bind("select $year", {"year": 1, "yaer": 2}, dialect)
    with pytest.raises(InvalidParameters, match=r"needs values for \$day, \$year"):
        bind("select $year, $day, '$other'", {}, dialect)


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("with a as (delete from person returning *) select * from a", "DELETE"),
        ("select * from (insert into person values (1))", "INSERT"),
        ("with a as (/* x */ UPDATE person set a = 1) select 1", "UPDATE"),
        ("select * from (merge into person using b on true when matched then delete)", "MERGE"),
        ("with a as (copy person to 's3://b') select 1", "COPY"),
        ("with a as (unload (select 1) to 's3://b') select 1", "UNLOAD"),
        ("select * from table(postgres.system.query(query => 'delete from person'))", "QUERY"),
        ("select * from table(es.system.\"raw_query\"('x'))", "RAW_QUERY"),
    ],
)
def test_athena_gets_no_statement_that_writes_anywhere_in_it(sql, word):
    with pytest.raises(QueryError, match=f"only reads, but this statement contains .?{word}"):
        bind(sql, {}, "athena")


def test_words_of_statements_may_be_names_in_athena():
    for sql in ("select max(update) from t", "select (delete), replace(a, 'insert') from t", "select t.query from t"):
        assert bind(sql, {}, "athena")[0] == sql


class Text(str):
    __str__ = __repr__ = lambda self: "' or 1 = 1 --"


class Whole(int):
    __str__ = __repr__ = lambda self: "1 or 1 = 1"


class Real(float):
    __str__ = __repr__ = lambda self: "1 or 1 = 1"


class Day(datetime.date):
    isoformat = __str__ = __repr__ = lambda self, *a, **k: "' or 1 = 1 --"


class Exact(Decimal):
    __str__ = __repr__ = __format__ = lambda self, *a: "1' or '1' = '1"


@pytest.mark.parametrize("dialect", ["duckdb", "athena"])
@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (Enum("S", {"a": "x"}).a, "x"),
        (Enum("S", {"a": "x"}, type=str).a, "x"),
        (StrEnum("S", {"a": "x"}).a, "x"),
        (IntEnum("S", {"a": 8507}).a, 8507),
        (IntFlag("S", "a b").b, 2),
        (Flag("S", "a b").b, 2),
        (Enum("S", {"a": 1.5}, type=float).a, 1.5),
        (Enum("S", {"a": datetime.date(2020, 1, 31)}).a, datetime.date(2020, 1, 31)),
        ([Enum("S", {"a": "x"}, type=str).a, "y"], ["x", "y"]),
        ({IntEnum("S", {"a": 8507}).a, 8532}, [8507, 8532]),
        (Text("x"), "x"),
        (Whole(7), 7),
        (Real(2.5), 2.5),
        (Day(2020, 1, 31), datetime.date(2020, 1, 31)),
        (Exact("2.5"), Decimal("2.5")),
        (np.array(None, dtype=object), None),
        (np.datetime64("NaT", "ns"), None),
    ],
)
def test_an_enum_or_a_class_of_ones_own_is_its_plain_value(dialect, given, plain):
    value = cleaned("x", given)
    assert (repr(value), type(value)) == (repr(plain), type(plain))
    assert bind("select $x", {"x": given}, dialect) == bind("select $x", {"x": plain}, dialect)


def test_words_do_not_grow_together_with_a_value():
    text, _ = bind("select a-$x, 'b'$y, U&$y from t", {"x": -1, "y": "c"}, "athena")
    assert "--" not in text
    assert "'b' 'c'" in text
    assert "U& 'c'" in text


def valued(node: exp.Expression) -> object:
    """The Python value of a literal in a tree."""
    if isinstance(node, exp.Paren):
        return valued(node.this)
    if isinstance(node, exp.Neg):
        return -valued(node.this)
    if isinstance(node, exp.Null):
        return None
    if isinstance(node, exp.Boolean):
        return node.this
    if isinstance(node, exp.Array):
        return [valued(one) for one in node.expressions]
    if isinstance(node, exp.Cast):
        kind, text = node.to.this.name, node.this.name
        if kind == "BIGINT":
            return int(text)
        if kind == "DECIMAL":
            return Decimal(text)
        if kind == "DATE":
            return datetime.date.fromisoformat(text)
        assert kind.startswith("TIMESTAMP"), kind
        return datetime.datetime.fromisoformat(text)
    if isinstance(node, (exp.Anonymous, exp.Func)):
        return {"nan": math.nan, "infinity": math.inf}[(node.name or node.sql_name()).lower()]
    assert isinstance(node, exp.Literal), node
    if node.is_string:
        return node.this
    return float(node.this) if set(node.this.upper()) & set(".E") else int(node.this)
