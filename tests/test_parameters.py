"""Typed parameters, and the values that pass between notebooks."""

from __future__ import annotations

import ast
import datetime
import json
import math
import re
import sys
from pathlib import Path

import jsonschema
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genokit.errors import InvalidNotebook, InvalidParameters, NotFound
from genokit.pipelines import Schema, parameters, values
from genokit.pipelines.schema import COMPUTED
from genokit.pipelines.values import Text

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
limit: Optional[int] = None
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
        "engine": "Literal['mxnet', 'torch']",
        "options": "dict",
        "limit": "Optional[int]",
        "steps": "any",
        "today": "any",
    }
    assert schema.parameters["epochs"].help == "passes over the data"
    assert schema.parameters["out"].default == Path("results")
    assert schema.parameters["start"].default == datetime.date(2020, 1, 2)
    assert schema.parameters["steps"].default is COMPUTED


def test_the_cell_is_never_executed(tmp_path: Path) -> None:
    code = f"x = open({str(tmp_path / 'made')!r}, 'w')\ny = 10 ** 10 ** 10\nz = __import__('os').getpid()"
    found = Schema.parse(code, "n.ipynb").parameters
    assert [item.default for item in found.values()] == [COMPUTED] * 3
    assert not (tmp_path / "made").exists()


def test_every_problem_is_listed_in_one_error_with_the_nearest_name(schema: Schema) -> None:
    said = problems(schema, epoch=2, rate="fast", shuffle=1)
    assert said.startswith("3 problems with the parameters of lenet.ipynb; nothing was run:")
    assert "'epoch' is not one of its parameters. Did you mean 'epochs'?" in said
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
def test_a_value_is_converted_without_loss(schema: Schema, name: str, value: object, expected: object) -> None:
    found = schema.check({name: value})[name]
    assert found == expected
    assert type(found) is type(expected)


TYPED = """
from pathlib import Path
text: str = "a"
maybe: str | None = None
flag = False
count = 3
rate = .5
sizes: list[int] = [1]
names: list[str] = []
pair: tuple[float, str] = (1, "a")
out = Path("x")
mode: Literal["a", 1] = "a"
start: date | None = None
either: int | str = 1
options: dict = {}
free = None
"""
REFUSED = object()


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("text", "2", "2"), ("text", "1e5", "1e5"), ("text", "nan", "nan"), ("text", "None", "None"),
        ("text", '"3"', "3"), ("text", "it's", "it's"), ("text", "", ""),
        ("text", "1\nx = 2", "1\nx = 2"), ("maybe", "None", None),
        ("maybe", '"None"', "None"), ("maybe", "2", "2"), ("flag", "True", True), ("flag", "false", False),
        ("flag", "2", REFUSED), ("count", "-3", -3), ("count", "1e5", 100_000), ("count", "1.5", REFUSED),
        ("count", "True", REFUSED), ("count", "inf", REFUSED), ("rate", ".5", 0.5), ("rate", "-1e-4", -1e-4),
        ("rate", "3", 3.0), ("rate", "-inf", -math.inf), ("rate", "fast", REFUSED), ("sizes", "[1, 2]", [1, 2]),
        ("sizes", "1,2", [1, 2]), ("sizes", "1,x", REFUSED), ("names", "[1, X]", ["1", "X"]), ("names", "['a']", ["a"]),
        ("names", "[[1,2],[X]]", REFUSED), ("pair", "1,2", (1.0, "2")), ("out", "2", Path("2")), ("mode", "1", 1),
        ("start", "2020-01-02", datetime.date(2020, 1, 2)), ("start", "None", None),
        ("start", "soon", REFUSED), ("either", "2", 2), ("either", "x", "x"), ("options", "{'a': 1}", {"a": 1}),
        ("options", '{"a": 1}', {"a": 1}), ("free", "null", None), ("free", "3", 3),
        ("free", "True", True), ("free", "007", "007"), ("free", "2026-11-22", "2026-11-22"), ("free", "a=b", "a=b"),
    ],
)  # fmt: skip
def test_a_command_line_text_is_read_by_the_parameter_s_type(name: str, text: str, meant: object) -> None:
    schema = Schema.parse(TYPED, "n.ipynb")
    if meant is REFUSED:
        assert f"'{name}': expected {schema.parameters[name].kind}, got '{text}'" in problems(
            schema, **{name: Text(text)}
        )
    else:
        found = schema.check({name: Text(text)})[name]
        assert found == meant
        assert type(found) is type(meant)


def test_a_wrong_type_is_refused_with_a_way_out() -> None:
    schema = Schema.parse("rate = 1\nname = 'a'", "n.ipynb")
    assert "the type comes from the default: to change it, annotate `rate: TYPE = 1`" in problems(schema, rate=0.5)
    assert "expected str, got 2 (int); the type comes from the default" in problems(schema, name=2)


def test_the_error_shows_what_is_of_a_wrong_type(schema: Schema) -> None:
    assert problems(schema, sizes=[1, "2"]).endswith("'sizes': expected an item of list[int], got '2' (str)")
    assert problems(schema, sizes=3).endswith("'sizes': expected list[int], got 3 (int)")
    assert problems(schema, window=(1, 2, 3)).endswith("expected tuple[float, float], got 3 items: (1, 2, 3)")


def test_the_words_of_a_literal_are_listed() -> None:
    schema = Schema.parse("engine: Literal['mxnet', 'torch'] = 'mxnet'", "n.ipynb")
    assert problems(schema, engine="tf").endswith("'engine': expected 'mxnet' or 'torch', got 'tf' (str)")


def test_a_parameter_whose_default_is_none_takes_none_again() -> None:
    schema = Schema.parse("when: date = None\nname: Literal['a'] = None\nsample: str", "n.ipynb")
    assert schema.check({"when": None, "name": None, "sample": "s"})["when"] is None
    assert schema.check({"when": "2026-01-02", "sample": "s"})["when"] == datetime.date(2026, 1, 2)
    assert {"type": "null"} in schema.json_schema()["properties"]["when"]["anyOf"]
    assert "'sample': expected str, got None" in problems(schema, sample=None)


def test_a_default_is_the_kernel_s_value_or_computed() -> None:
    code = """
a, (b, c) = 1, (2.5, "x")
d, e = f()
part = Path("r") / "qc"
start = -1
rest = (100
     % 7)
line = ("%s-%s"
    % ("a", "b"))
files = !ls
note = '''
%%bash
'''
grown = [1]
grown.append(2)
more = 1
more += 1
if True:
    other = 1
"""
    found = Schema.parse(code, "n.ipynb")
    assert found.defaults() == {"part": Path("r/qc"), "start": -1, "note": "\n%%bash\n"}
    assert {name for name, item in found.parameters.items() if item.default is COMPUTED} == {
        "a", "b", "c", "d", "e", "line", "rest", "files", "grown", "more",
    }  # fmt: skip
    assert (found.parameters["more"].kind, found.parameters["b"].kind) == ("int", "any")


def test_every_code_cell_with_the_tag_counts_and_no_other_cell() -> None:
    def cell(kind: str, source: str) -> dict[str, object]:
        return {"cell_type": kind, "source": source, "metadata": {"tags": ["parameters"]}}

    cells = [
        cell("markdown", "# Title: x = 1"),
        cell("code", "%%time\nx = 1"),
        cell("code", "y = 2"),
        cell("code", "%%bash\nls"),
    ]
    schema = Schema.of({"cells": cells}, "n.ipynb")
    assert schema.defaults() == {"x": 1, "y": 2}


def test_an_annotation_without_a_value_is_required() -> None:
    schema = Schema.parse("sample: str", "n.ipynb")
    assert "'sample' (str) has no default: give it a value" in problems(schema)
    assert schema.check({"sample": "NA12878"}) == {"sample": "NA12878"}
    assert schema.check({}, later={"sample"}) == {}


NO_SECRETS = """
    monkey keyboard author tokenizer bypass compass passport secretome_fasta secretory pad_token_id eos_token max_tokens
    token_length n_secreted min_password_length password_file secret_arn primary_key sort_key token_type_ids pass_rate
    patient pat_id authorized
"""


@pytest.mark.parametrize("name", re.findall(r"\w+", NO_SECRETS))
def test_a_name_that_only_resembles_a_secret_is_accepted(name: str) -> None:
    assert Schema.parse(f"{name} = 'a'", "n.ipynb").check({name: "b"}) == {name: "b"}


def test_a_parameter_that_looks_like_a_secret_can_be_declared_harmless() -> None:
    schema = Schema.parse("secret = 'a'  # of the sauce; not a secret\nneeds_token: bool = False", "n.ipynb")
    assert schema.check({"secret": "salt", "needs_token": True}) == {"secret": "salt", "needs_token": True}
    assert "'api_key' looks like a secret" in problems(Schema.parse("options = {}", "n"), options={"api_key": "x"})


SECRETS = """
    password API_KEY apikey aws_secret hub_token credentials passwd db_pwd passphrase access_key apiKey PGPASSWORD
    AWS_SECRET_ACCESS_KEY github_pat privateKey password2 clientSecret accessToken db_pass
"""


@pytest.mark.parametrize("name", re.findall(r"\w+", SECRETS))
def test_a_secret_is_refused_and_never_repeated(name: str) -> None:
    schema = Schema.parse(f"{name} = ''\nmax_tokens = 5\ntokenizer = 'a'", "n.ipynb")
    said = problems(schema, **{name: "hunter2"})
    assert "looks like a secret" in said
    assert "give it the value 'secret://NAME'" in said
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
    assert "No code cell tagged 'parameters'" in problems(schema, x=2)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "lenet.ipynb")
    with pytest.raises(NotFound, match=r"no notebook .*lenett.ipynb. Did you mean 'lenet.ipynb'"):
        parameters(tmp_path / "lenett.ipynb")
    with pytest.raises(NotFound, match="There is no notebook"):
        parameters(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"worksheets": []}', '{"cells": [1]}', "\ufeff{}", "null"])
def test_a_corrupt_notebook_is_named_with_the_next_step(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.ipynb"
    path.write_text(text)
    with pytest.raises(InvalidNotebook, match=r"broken.ipynb is not a notebook.*version control"):
        parameters(path)


@pytest.mark.parametrize(
    ("spec", "language", "said"),
    [
        ({"name": "ir", "language": "R"}, None, r"kernel 'ir' \(R\)"),
        ({"name": "ir"}, None, "is a notebook for the kernel 'ir'"),
        ({"name": "pysparkkernel", "language": "python"}, "pyspark", r"kernel 'pysparkkernel' \(pyspark, python\)"),
        ({"name": "pysparkkernel", "language": "python"}, None, r"kernel 'pysparkkernel' \(python\)"),
        ({"name": "julia-1"}, "julia", r"kernel 'julia-1' \(julia\)"),
    ],
)
def test_a_notebook_for_another_kernel_is_refused(
    tmp_path: Path, spec: dict[str, str], language: str | None, said: str
) -> None:
    metadata = {"kernelspec": {"display_name": "X", **spec}} | (
        {"language_info": {"name": language}} if language else {}
    )
    nbformat.write(nbformat.v4.new_notebook(metadata=metadata), tmp_path / "r.ipynb")
    with pytest.raises(InvalidNotebook, match=said):
        parameters(tmp_path / "r.ipynb")


def test_a_notebook_for_another_environment_s_python_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = {"display_name": "X", "name": "conda-env-x-py", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(metadata={"kernelspec": spec}), tmp_path / "x.ipynb")
    parameters(tmp_path / "x.ipynb")
    assert f"x.ipynb is for the kernel 'conda-env-x-py'; it runs with {sys.executable}" in caplog.text


def test_the_schema_shows_itself_as_a_table(schema: Schema) -> None:
    shown = schema._repr_html_()
    assert "passes over the data" in shown
    assert "Literal[&#x27;mxnet&#x27;, &#x27;torch&#x27;]" in shown
    hostile = Schema.parse("x = '<script>'  # <b>", "<i>.ipynb")
    assert "<script>" not in hostile._repr_html_()
    assert "<b>" not in hostile._repr_html_()


@pytest.mark.parametrize(
    ("comment", "unit", "words"),
    [
        ("[min] how long to wait", "min", "how long to wait"),
        ("[GiB]", "GiB", ""),
        ("[1/step]  of learning", "1/step", "of learning"),
        ("share of reads [%]", "", "share of reads [%]"),
        ("[0, 1] is allowed", "", "[0, 1] is allowed"),
        ("of learning", "", "of learning"),
    ],
)
def test_square_brackets_at_the_beginning_of_a_comment_state_the_unit(comment: str, unit: str, words: str) -> None:
    schema = Schema.parse(f"wait: float = 10  # {comment}", "n.ipynb")
    assert (schema.parameters["wait"].unit, schema.parameters["wait"].help) == (unit, words)
    assert not unit or f"<td>{unit}</td>" in schema._repr_html_()
    assert schema.json_schema()["properties"]["wait"].get("x-unit", "") == unit


def test_the_json_schema_states_types_defaults_help_and_what_is_required(schema: Schema) -> None:
    stated = Schema.parse(f"{CELL}\nsample: str  # id", "lenet.ipynb").json_schema()
    jsonschema.Draft202012Validator.check_schema(stated)
    assert stated["required"] == ["sample"]
    assert stated["additionalProperties"] is False
    assert json.loads(json.dumps(stated, allow_nan=False)) == stated
    found = stated["properties"]
    assert found["epochs"] == {"type": "integer", "default": 3, "description": "passes over the data"}
    assert found["engine"] == {"enum": ["mxnet", "torch"], "default": "mxnet"}
    assert found["start"] == {"type": "string", "format": "date", "default": "2020-01-02"}
    assert found["limit"] == {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}
    assert found["window"]["prefixItems"] == [{"type": "number"}] * 2
    assert found["sizes"] == {"type": "array", "items": {"type": "integer"}, "default": [1, 2]}
    assert found["out"] == {"type": "string", "default": "results", "description": "where"}
    assert found["today"] == {}


words = st.sampled_from(["int", "float", "str", "bool", "None", "Path", "date", "datetime", "timedelta", "bytes", "Any",
                         "list", "dict", "tuple", "set", "Literal['a', 1, None]"])  # fmt: skip
types = st.recursive(
    words,
    lambda inner: (
        st.builds("list[{}]".format, inner)
        | st.builds("set[{}]".format, st.sampled_from(["int", "str"]))
        | st.builds("dict[{}, {}]".format, st.sampled_from(["str", "int"]), inner)
        | st.builds("tuple[{}, {}]".format, inner, inner)
        | st.builds("tuple[{}, ...]".format, inner)
        | st.builds("{} | {}".format, inner, inner)
        | st.builds("Optional[{}]".format, inner)
    ),
    max_leaves=4,
)
# JSON does not distinguish 3.0 from 3, but Python does.
json_scalars = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda number: not number.is_integer()) | st.sampled_from(["", "a", "2026-01-02", "2026-01-02T03:04:05", "x/y"])
)  # fmt: skip
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=6,
)
FORMATS = jsonschema.FormatChecker(formats=())
FORMATS.checks("date", raises=ValueError)(lambda value: datetime.date.fromisoformat(str(value)))
FORMATS.checks("date-time", raises=ValueError)(lambda value: datetime.datetime.fromisoformat(str(value)))


@given(types, json_values)
def test_the_json_schema_accepts_what_the_check_accepts(kind: str, value: object) -> None:
    schema = Schema.parse(f"x: {kind}", "n.ipynb")
    stated = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(stated)
    accepts = jsonschema.Draft202012Validator(stated, format_checker=FORMATS).is_valid
    try:
        schema.check({"x": value})
        accepted = True
    except InvalidParameters:
        accepted = False
    assert accepts({"x": value}) == accepted
    assert not accepts({})
    assert not accepts({"x": value, "y": 1})


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


def test_nan_survives_as_strict_json() -> None:
    stored = json.dumps(values.to_json([math.nan, -math.inf]), allow_nan=False)
    nan, infinity = values.from_json(json.loads(stored))
    assert math.isnan(nan)
    assert infinity == -math.inf


def test_an_injected_date_leaves_the_notebooks_own_names_alone() -> None:
    namespace: dict[str, object] = {"datetime": datetime.datetime, "Path": Path}
    exec(values.assignments({"start": datetime.date(2020, 1, 2), "out": Path("x")}), namespace)
    assert namespace["datetime"] is datetime.datetime
    assert namespace["start"] == datetime.date(2020, 1, 2)
