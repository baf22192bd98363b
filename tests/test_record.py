"""``record``: what a notebook hands to whoever runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import genokit
from genokit.errors import InvalidParameters
from genokit.pipelines import recording


@pytest.mark.parametrize("name", ["", "test accuracy", "1st", "class", "a.b", 3, None])
def test_a_name_must_be_an_identifier(name: str) -> None:
    with pytest.raises(InvalidParameters, match="must be an identifier"):
        genokit.record(name, 1)


def test_a_secret_is_not_recorded() -> None:
    with pytest.raises(InvalidParameters, match="looks like a secret"):
        genokit.record("api_key", "hunter2")


@pytest.mark.parametrize("value", [pd.DataFrame({"a": [1]}), pd.Series([1]), np.zeros(3)])
def test_a_table_is_to_be_written_to_a_file_and_its_path_recorded(value: object) -> None:
    with pytest.raises(InvalidParameters, match=r"write it to a file .* and record that path"):
        genokit.record("table", value)


def test_a_huge_value_is_to_be_written_to_a_file() -> None:
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


def test_the_last_record_of_a_name_wins() -> None:
    def output(name: str, value: object) -> dict[str, object]:
        return {"output_type": "display_data", "data": {recording.RECORD: {"name": name, "value": value}}}

    cells = [{"outputs": [output("loss", 3), output("rate", 1), {"output_type": "stream"}]}, {}, {"outputs": None}]
    cells.append({"outputs": [output("loss", 2)]})
    content = json.loads(json.dumps({"cells": cells}))
    assert recording.outputs(content) == {"loss": 2, "rate": 1}
