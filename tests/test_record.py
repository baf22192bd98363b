"""``record``: what a notebook hands to whoever runs it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

import genokit
from genokit import Settings
from genokit.errors import InvalidParameters, NotebookFailed
from genokit.files import note
from genokit.pipelines import recording, values, verify


@pytest.mark.parametrize("name", ["", "test accuracy", "1st", "class", "a.b", 3, None])
def test_a_name_must_be_an_identifier(name: str) -> None:
    with pytest.raises(InvalidParameters, match="must be an identifier"):
        genokit.record(name, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("api_key", "x"), ("options", {"db": {"db_pwd": "x"}}), ("l", [{"jwt": "x"}])]
)
def test_a_secret_is_not_recorded_unless_declared_harmless(name: str, value: object) -> None:
    with pytest.raises(InvalidParameters, match=r"looks like a secret.*not_secret=True"):
        genokit.record(name, value)
    genokit.record(name, value, not_secret=True)
    genokit.record("n_secreted", 12)
    genokit.record("has_password", True)


class Colour(str, enum.Enum):  # noqa: UP042
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int = 1


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.longdouble("0.5"), 0.5),
        (np.array(3), 3),
        (np.datetime64("NaT", "ns"), None),
        (np.timedelta64(5_000, "ns"), datetime.timedelta(microseconds=5)),
        (pd.Timedelta("1h"), datetime.timedelta(hours=1)),
        (pd.Timestamp("2026-01-02T03:04:05.000000006"), datetime.datetime(2026, 1, 2, 3, 4, 5)),
        (pd.NA, None),
        (pd.NaT, None),
        (np.ma.masked, None),
        (Colour.RED, "red"),
        ({"a": [np.float32(0.5), {np.int8(1)}]}, {"a": [0.5, {1}]}),
    ],
)
def test_numpy_and_pandas_scalars_become_plain_python(value: object, expected: object) -> None:
    found = values.plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    [10**5_000, LOOP, "a\ud800", {"a": ["\udc80"]},
     np.complex64(1j), np.clongdouble(1), Point(), decimal.Decimal("0.1"), pd.Period("2026"), object(),
     pd.DatetimeIndex([]), pd.Interval(0, 1), types.SimpleNamespace(shape=(3, 2))],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_that_cannot_be_source_code_is_refused_with_a_way_out(value: object) -> None:
    with pytest.raises(InvalidParameters, match=r"^record\('x', \.\.\.\): .*(use|write it)"):
        genokit.record("x", value)


@pytest.mark.parametrize("value", [pd.Series([1]), np.zeros(3)])
def test_a_table_is_refused_and_the_error_says_to_record_a_file_s_path(value: object) -> None:
    with pytest.raises(InvalidParameters, match=r"write it to a file and use the file's path"):
        genokit.record("table", value)


BIG = """
import genokit, pandas as pd
genokit.record("reads", ["ACGT"] * 300_000)
genokit.record("table", pd.DataFrame({"gene": ["BRCA2", "TP53"], "n": [3, 5]}))
genokit.record("n", 1)
"""


def book(path: Path, *cells: str, parameters: str = "") -> Path:
    made = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    made += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


def test_large_values_and_tables_go_to_files_and_a_restored_run_has_its_own(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    notebook = book(tmp_path / "big.ipynb", BIG)
    first = genokit.run(notebook, settings=settings, progress=False, cache=True)
    second = genokit.run(notebook, settings=settings, progress=False, cache=True)
    third = genokit.run(notebook, settings=settings, progress=False, cache=True)
    assert (second.cached_from, third.cached_from) == (str(first.path), str(first.path))
    for done in (first, second, third):
        files = {"reads": done.path / "files" / "reads.json", "table": done.path / "files" / "table.parquet"}
        assert done.outputs == files | {"n": 1}
        assert json.loads(files["reads"].read_text()) == ["ACGT"] * 300_000
        assert list(pd.read_parquet(files["table"])["n"]) == [3, 5]
        assert set(verify(done.path)["state"]) == {"unchanged"}
        assert {"files/reads.json", "files/table.parquet"} <= set(verify(done.path)["path"])
    assert first.notebook.stat().st_size < 100_000
    shutil.rmtree(first.path)
    assert genokit.run(notebook, settings=settings, progress=False, cache=True).cached_from == str(first.path)


@pytest.mark.slow
def test_a_notebook_that_takes_a_recorded_file_is_restored_although_it_lies_in_another_run(tmp_path: Path) -> None:
    book(tmp_path / "big.ipynb", BIG)
    book(tmp_path / "rows.ipynb", "import genokit, pandas as pd\ngenokit.record('rows', len(pd.read_parquet(table)))",
         parameters="from pathlib import Path\ntable: Path")  # fmt: skip
    (tmp_path / "two.toml").write_text("""
    name = "two"
    notebook = [
        { name = "big", path = "big.ipynb" },
        { name = "rows", path = "rows.ipynb", inputs = { table = "big.table" } },
    ]""")
    pipeline = genokit.Pipeline(tmp_path / "two.toml", settings=Settings(home=tmp_path / "home"))
    first, second = pipeline.run(progress=False), pipeline.run(progress=False)
    assert second.outputs["rows"] == first.outputs["rows"] == {"rows": 2}
    assert [one.cached_from is not None for one in second.runs.values()] == [True, True]
    assert set(pipeline.run(dry_run=True)["action"]) == {"restore"}


@pytest.mark.slow
def test_what_a_cell_prints_above_a_megabyte_goes_to_a_file_and_its_end_stays(tmp_path: Path) -> None:
    code = "import sys\nfor n in range(150_000): print(f'line {n}')\nprint('short', file=sys.stderr)"
    ends = f"{code}\nraise ValueError('at the end')"
    notebook = book(tmp_path / "long.ipynb", "print('first')", code, ends)
    with pytest.raises(NotebookFailed) as raised:
        genokit.run(notebook, settings=Settings(home=tmp_path / "home"), progress=False)
    done = raised.value.run
    for cell in (2, 3):
        text = (done.path / "files" / f"cell-{cell}-stdout.txt").read_text()
        assert text == "".join(f"line {n}\n" for n in range(150_000))
        out = nbformat.read(done.notebook, as_version=4).cells[cell]  # a note stands before the first
        said = "".join(one.text for one in out.outputs if one.get("name") == "stdout")
        assert said.startswith(f"[All {len(text):,} characters are in files/cell-{cell}-stdout.txt; the end:]\n")
        assert said.endswith(text[-1000:])
        assert len(said) < 100_000
    assert sorted(path.name for path in (done.path / "files").iterdir()) == ["cell-2-stdout.txt", "cell-3-stdout.txt"]


def test_a_table_with_a_secret_or_without_a_parquet_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "hunter2-hunter2")
    with pytest.raises(InvalidParameters, match="the table contains a secret"):
        genokit.record("table", pd.DataFrame({"a": ["x hunter2-hunter2"]}))
    with pytest.raises(InvalidParameters, match=r"'api_key' looks like a secret"):
        genokit.record("api_key", pd.DataFrame({"a": [1]}))
    with pytest.raises(InvalidParameters, match=r"^record\('table', ...\): "):
        genokit.record("table", pd.DataFrame({"a": [object()]}))


def test_outside_a_notebook_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    genokit.record("accuracy", np.float32(0.5))
    assert capsys.readouterr() == ("", "")


def test_in_ipython_a_record_is_shown() -> None:
    code = "import genokit; genokit.record('accuracy', 0.98)"
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "--no-term-title", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "accuracy = 0.98" in ended.stdout


def test_the_last_record_of_a_name_wins(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").touch()
    for name, value in (("loss", 3), ("rate", 1), ("loss", 2)):
        note(tmp_path, name=name, value=value)
    note(tmp_path, manifest="/data/datapackage.json", sha256="5e")
    assert recording.noted(tmp_path) == ({"loss": 2, "rate": 1}, {"/data/datapackage.json": "5e"})
