"""The doctor sees what is there, says what to do about the rest, and never falls ill itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from genokit.batch import Batch
from genokit.config import Settings
from genokit.doctor import HealthCheck, HealthReport, doctor

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return doctor(Settings(home=tmp_path_factory.mktemp("doctor") / "home"))


def row(report, name) -> HealthCheck:
    return next(row for row in report.rows if row.check == name)


def test_every_check_answers_and_what_is_wrong_comes_with_a_step(report):
    assert len({row.check for row in report.rows}) == len(report.rows) >= 9
    for found in report.rows:
        assert found.state in ("ok", "warning", "problem")
        assert found.detail
        assert found.state == "ok" or found.todo


def test_versions_and_the_embedded_account_are_told(report):
    assert sys.version.split()[0] in row(report, "Python").detail
    assert "numpy 2" in row(report, "packages").detail
    assert "at rest" in row(report, "embedded account").detail


def test_looking_makes_nothing(report):
    assert not report.settings.home.exists()


def test_a_home_that_cannot_be_written_is_a_problem_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = doctor(Settings(home=tmp_path / "file" / "home"), only=["home"])
    assert found.state == "problem"
    assert row(found, "home").state == "problem"
    assert "GENOKIT_HOME" in row(found, "home").todo
    assert "problem: " in repr(found)


def test_settings_that_cannot_be_read_are_a_row_and_the_rest_is_still_looked_at(tmp_path, monkeypatch):
    (tmp_path / "genokit.toml").write_text('run = "x"')
    monkeypatch.chdir(tmp_path)
    found = doctor(only=["Python", "home"])
    assert row(found, "settings").state == "problem"
    assert "Did you mean 'runs'?" in row(found, "settings").detail
    assert row(found, "Python").state == "ok"
    assert found.settings is None
    assert "settings" in str(found)
    ElementTree.fromstring(f"<root>{found._repr_html_()}</root>")


def test_a_variable_that_is_no_setting_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENOKIT_FLAVOUR", "x")
    assert "GENOKIT_FLAVOUR" in row(doctor(only=[]), "settings").detail


def test_aws_without_credentials_is_two_problems_and_no_traceback(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    aws = ["AWS identity", "AWS Batch"]
    found = doctor(Settings(backend="aws", home=tmp_path, region="eu-central-1"), only=aws)
    assert "credentials" in row(found, "AWS identity").detail
    assert "sign in" in row(found, "AWS identity").todo.lower()
    assert row(found, "AWS Batch").state == "problem"
    nowhere = doctor(Settings(backend="aws", home=tmp_path), only=aws)
    assert "You must specify a region" in row(nowhere, "AWS Batch").detail


@pytest.mark.parametrize(
    ("program", "script", "check", "state", "said"),
    [
        ("nvidia-smi", "echo 'NVIDIA A10G, 23028 MiB, 580.1'", "GPU", "ok", "NVIDIA A10G, 23028 MiB, 580.1"),
        ("nvidia-smi", "echo 'driver mismatch' >&2; exit 18", "GPU", "warning", "driver mismatch"),
        ("podman", "echo '{}'", "containers", "ok", "podman answers"),
        ("docker", "exit 1", "containers", "warning", "docker installed but not answering"),
    ],
)
def test_programs_of_the_machine_are_asked_and_their_failure_is_a_row(
    tmp_path, monkeypatch, program, script, check, state, said
):
    (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = row(doctor(Settings(home=tmp_path), only=[check]), check)
    assert (found.state, said in found.detail) == (state, True), found


def test_a_machine_with_nothing_but_python_gets_rows_and_no_traceback(tmp_path):
    # -S leaves out site-packages: no package of the environment can be found.
    code = "from genokit.doctor import doctor; r = doctor(); print(r); print(repr(r))"
    environ = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "numpy" in done.stdout
    assert "make setup" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_report_reads_well_as_text_and_as_html(report):
    text = str(report)
    assert "Settings" in text
    assert f"home           {report.settings.home}   (keyword)" in text
    assert "retention_days 30.0   (default)" in text
    tree = ElementTree.fromstring(f"<root>{report._repr_html_()}</root>")
    assert len(tree.findall(".//table")) == 2


def test_the_state_is_the_worst_of_all():
    ok, warning, problem = (HealthCheck("x", state, "d") for state in ("ok", "warning", "problem"))
    assert HealthReport((ok,), None).state == "ok"
    assert HealthReport((ok, warning), None).state == "warning"
    assert HealthReport((problem, ok, warning), None).state == "problem"


def test_a_job_that_can_never_start_is_told_with_its_reason(account: Settings) -> None:
    batch = Batch(settings=account)
    batch.submit(batch.define("large", command=["true"], vcpus=999), check=False)
    batch.submit(batch.define("small", command=["true"], memory_gib=0.1)).wait(30)
    check = row(doctor(account), "embedded account")
    assert check.state == "warning"
    assert "can never start: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT" in check.detail
    assert "999 vCPU" in check.detail
