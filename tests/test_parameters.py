"""Typed parameters, and the values that pass between notebooks."""

from __future__ import annotations

import ast
import datetime
import json
import math
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genokit.errors import InvalidNotebook, InvalidParameters, NotFound
from genokit.pipelines import Schema, parameters, values
from genokit.pipelines.schema import COMPUTED

CELL = """
%matplotlib inline
from datetime import date, datetime
from pathlib import Path
epochs = 3                      # passes over the data
rate: float = 0.05              # of learning
shuffle = True
name = "a=b"
sizes: list[int] = [1, 2]
window: tuple[float, float] = (0, 1)
start = date(2020, 1, 2)
seen: datetime | None = None
out = Path("results") # where
engine: Literal["mxnet", "torch"] = "mxnet"
options = dict(a=1)
limit: "Optional[int]" = None
steps = 60 * 60
today = date.today()
"""


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema.parse(CELL, "lenet.ipynb")


def problems(schema: Schema, **given: object) -> str:
    with pytest.raises(InvalidParameters) as raised:
        schema.check(given)
    return str(raised.value)


def test_names_types_defaults_and_help_are_read_from_the_code(schema: Schema) -> None:
    kinds = {name: item.kind for name, item in schema.parameters.items()}
    assert kinds == {
        "epochs": "int",
        "rate": "float",
        "shuffle": "bool",
        "name": "str",
        "sizes": "list[int]",
        "window": "tuple[float, float]",
        "start": "date",
        "seen": "datetime | None",
        "out": "Path",
        "engine": "'mxnet' | 'torch'",
        "options": "dict",
        "limit": "int | None",
        "steps": "int",
        "today": "any",
    }
    assert schema.parameters["epochs"].help == "passes over the data"
    assert schema.parameters["out"].default == Path("results")
    assert schema.parameters["start"].default == datetime.date(2020, 1, 2)
    assert schema.parameters["steps"].default == 3600


def test_the_cell_is_never_executed(tmp_path: Path) -> None:
    code = f"x = open({str(tmp_path / 'made')!r}, 'w')\ny = 10 ** 10 ** 10\nz = __import__('os').getpid()"
    found = Schema.parse(code, "n.ipynb").parameters
    assert [item.default for item in found.values()] == [COMPUTED] * 3
    assert not (tmp_path / "made").exists()


def test_every_problem_is_listed_in_one_error_with_the_nearest_name(schema: Schema) -> None:
    said = problems(schema, epoch=2, rate="fast", shuffle=1)
    assert said.startswith("3 problems with the parameters of lenet.ipynb; nothing was run:")
    assert "'epoch' is not a parameter of it. Did you mean 'epochs'?" in said
    assert "'rate': expected float, got 'fast' (str)" in said
    assert "'shuffle': expected bool, got 1 (int)" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", True),
        ("epochs", 3.0),
        ("epochs", "3"),
        ("epochs", None),
        ("rate", True),
        ("name", 3),
        ("sizes", [1, "2"]),
        ("sizes", 3),
        ("window", (1, 2, 3)),
        ("start", "yesterday"),
        ("start", datetime.datetime(2020, 1, 1)),
        ("engine", "jax"),
        ("limit", 1.5),
        ("today", object()),
        ("today", pd.DataFrame({"a": [1]})),
        ("sizes", np.arange(3)),
    ],
)
def test_a_wrong_type_is_refused(schema: Schema, name: str, value: object) -> None:
    assert f"'{name}': " in problems(schema, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rate", 1, 1.0),
        ("rate", np.float32(0.5), 0.5),
        ("rate", np.int64(2), 2.0),
        ("rate", math.inf, math.inf),
        ("epochs", np.int64(7), 7),
        ("shuffle", np.bool_(False), False),
        ("name", np.str_("x"), "x"),
        ("name", Path("a/b"), "a/b"),
        ("sizes", (np.int8(1), 2), [1, 2]),
        ("window", [0, 1], (0.0, 1.0)),
        ("start", "2021-02-03", datetime.date(2021, 2, 3)),
        ("seen", pd.Timestamp("2021-02-03 04:05"), datetime.datetime(2021, 2, 3, 4, 5)),
        ("seen", np.datetime64("2021-02-03T04:05:00.000000000"), datetime.datetime(2021, 2, 3, 4, 5)),
        ("seen", None, None),
        ("out", "elsewhere", Path("elsewhere")),
        ("engine", "torch", "torch"),
        ("limit", 5, 5),
        ("today", {1, 2}, {1, 2}),
    ],
)
def test_what_means_the_same_is_converted(schema: Schema, name: str, value: object, expected: object) -> None:
    found = schema.check({name: value})[name]
    assert found == expected
    assert type(found) is type(expected)


def test_an_annotation_without_a_value_is_required() -> None:
    schema = Schema.parse("sample: str", "n.ipynb")
    assert "'sample' (str) has no default and was not given" in problems(schema)
    assert schema.check({"sample": "NA12878"}) == {"sample": "NA12878"}
    assert schema.check({}, later={"sample"}) == {}


@pytest.mark.parametrize("name", ["password", "API_KEY", "apikey", "aws_secret", "hub_token", "credentials"])
def test_a_secret_is_refused_and_never_repeated(name: str) -> None:
    schema = Schema.parse(f"{name} = ''\nmax_tokens = 5\ntokenizer = 'a'", "n.ipynb")
    said = problems(schema, **{name: "hunter2"})
    assert "looks like a secret" in said
    assert "environment or a secret store" in said
    assert "hunter2" not in said
    assert said.startswith("1 problem ")


def test_a_cell_that_is_not_python_is_named() -> None:
    with pytest.raises(InvalidParameters, match=r"parameters cell of n.ipynb is not valid Python: line 2"):
        Schema.parse("x = 1\ny = = 2", "n.ipynb")


def test_a_notebook_without_a_parameters_cell_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), path)
    schema = parameters(path)
    assert schema.check({}) == {}
    assert "no cell tagged 'parameters'" in problems(schema, x=2)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "lenet.ipynb")
    with pytest.raises(NotFound, match=r"lenett.ipynb does not exist. Did you mean 'lenet.ipynb'"):
        parameters(tmp_path / "lenett.ipynb")
    with pytest.raises(NotFound, match="is a folder"):
        parameters(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"worksheets": []}', '{"cells": [1]}', "\ufeff{}", "null"])
def test_a_corrupt_notebook_is_named_with_the_next_step(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_text(text)
    with pytest.raises(InvalidNotebook, match=r"broken.ipynb is not a notebook.*version control"):
        parameters(path)


def test_a_notebook_in_another_language_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}), path
    )
    with pytest.raises(InvalidNotebook, match="is a notebook in R"):
        parameters(path)


def test_the_schema_shows_itself_as_a_table(schema: Schema) -> None:
    shown = schema._repr_html_()
    assert "passes over the data" in shown
    assert "&#x27;mxnet&#x27; | &#x27;torch&#x27;" in shown
    hostile = Schema.parse("x = '<script>'  # <b>", "<i>.ipynb")
    assert "<script>" not in hostile._repr_html_()
    assert "<b>" not in hostile._repr_html_()


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.timedeltas()
    | st.text(alphabet="ab/.", min_size=1).map(Path)
)
keys = st.text() | st.integers() | st.dates()
plain_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=3)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@given(plain_values)
def test_a_value_survives_the_injected_cell_and_the_record(value: object) -> None:
    assert values.plain(value) == value
    namespace: dict[str, object] = {}
    exec(values.assignments({"x": value}), namespace)
    assert namespace["x"] == value
    assert values.evaluate(ast.parse(values.source(value), mode="eval").body) == value
    stored = json.loads(json.dumps(values.to_json(value), allow_nan=False))
    assert values.from_json(stored) == value


def test_not_a_number_survives_as_strict_json() -> None:
    stored = json.dumps(values.to_json([math.nan, -math.inf]), allow_nan=False)
    nan, infinity = values.from_json(json.loads(stored))
    assert math.isnan(nan)
    assert infinity == -math.inf


def test_an_injected_date_leaves_the_notebooks_own_names_alone() -> None:
    namespace: dict[str, object] = {"datetime": datetime.datetime, "Path": Path}
    exec(values.assignments({"start": datetime.date(2020, 1, 2), "out": Path("x")}), namespace)
    assert namespace["datetime"] is datetime.datetime
    assert namespace["start"] == datetime.date(2020, 1, 2)
