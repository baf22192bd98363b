"""``job.debug()``: a failed job can be repeated here, from a folder without secrets."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from embedded import PLACES

from genokit import Batch, Settings
from genokit.errors import InvalidRequest

FIT = """import os, sys
import helper
print(sys.argv[1:], os.environ["LEVEL"], os.environ["AWS_BATCH_JOB_ARRAY_INDEX"], helper.NAME, os.environ["API_KEY"])
sys.exit(sys.argv[1] == "b'\\n$HOME")
"""


@pytest.fixture(params=PLACES)
def batch(request: pytest.FixtureRequest, account: Settings) -> Batch:
    return Batch(PLACES[request.param](account))


def test_the_failed_child_of_an_array_fails_in_the_same_way_here(batch: Batch, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "fit.py").write_text(FIT)
    (project / "helper.py").write_text("NAME = 'helped'\n")
    task = batch.define(
        "fit",
        command=["python", "fit.py", "Ref::sample", "Ref::password", "Ref::out"],
        memory_gib=0.1,
        environment={"LEVEL": 'it\'s "5"', "API_KEY": "hunter2"},
    )
    each = [{"sample": sample, "password": "hunter3"} for sample in ("a", "b'\n$HOME")]
    job = batch.submit(task, each=each, parameters={"out": "x y"}, code=project).wait(60)
    debug = job.debug(tmp_path / "debug")

    written = [path.read_text() for path in debug.path.rglob("*") if path.is_file()]
    assert not [text for text in written if "hunter" in text]
    assert debug.left_out == ("API_KEY", "PASSWORD")
    assert "API_KEY, PASSWORD" in debug._repr_html_()
    refused = subprocess.run(debug.command, shell=True, capture_output=True, text=True)
    assert "API_KEY: looks like a secret and was not saved. Export it" in refused.stderr
    environ = {**os.environ, "API_KEY": "hunter2", "PASSWORD": "hunter3"}
    again = subprocess.run(debug.command, shell=True, capture_output=True, text=True, env=environ)
    assert (again.returncode, again.stdout.strip(), again.stderr) == (1, str(job.child(1).log()), "")

    (debug.path / "code" / "helper.py").write_text("NAME = 'it is mended'\n")
    assert "mended" in subprocess.run(debug.command, shell=True, capture_output=True, text=True, env=environ).stdout
    with pytest.raises(InvalidRequest, match="is not empty"):
        job.debug(debug.path)
