"""``record``: what a notebook hands to whoever runs it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import genokit
from genokit.errors import InvalidParameters
from genokit.pipelines import recording, values


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


@pytest.mark.parametrize("value", [pd.DataFrame({"a": [1]}), pd.Series([1]), np.zeros(3)])
def test_a_table_is_refused_and_the_error_says_to_record_a_file_s_path(value: object) -> None:
    with pytest.raises(InvalidParameters, match=r"write it to a file and use the file's path"):
        genokit.record("table", value)


def test_a_huge_value_is_refused() -> None:
    with pytest.raises(InvalidParameters, match="more than 1 MB"):
        genokit.record("text", "x" * 1_000_001)


def test_outside_a_notebook_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    genokit.record("accuracy", np.float32(0.5))
    assert capsys.readouterr() == ("", "")


def test_in_ipython_a_record_is_shown() -> None:
    code = "import genokit; genokit.record('accuracy', 0.98)"
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "--no-term-title", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "accuracy = 0.98" in ended.stdout


def test_the_last_record_of_a_name_wins(tmp_path: Path) -> None:
    for name, value in (("loss", 3), ("rate", 1), ("loss", 2)):
        recording._keep(tmp_path, {"name": name, "value": value})
    assert recording.kept(tmp_path) == {"loss": 2, "rate": 1}
