"""The command line: a thin skin whose errors are one message, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from embedded import wait_until

from genokit import Batch
from genokit.__main__ import main
from genokit.errors import NotFound

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENOKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENOKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("GENOKIT_DEBUG", raising=False)


@pytest.fixture
def notebook(tmp_path):
    """A notebook with a parameter that records what it was given."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    cell = nbformat.v4.new_code_cell
    book.cells = [
        cell("epochs = 1\nname = 'nobody'", metadata={"tags": ["parameters"]}),
        cell("from genokit import record\nrecord('doubled', epochs * 2)\nrecord('who', name)\nassert epochs < 5"),
    ]
    nbformat.write(book, tmp_path / "double.ipynb")
    return tmp_path / "double.ipynb"


def genokit(*arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "genokit", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


COMMANDS = [
    *("doctor", "fetch", "verify", "freeze", "run", "schema", "pipeline", "runs", "diff", "clean", "jobs"),
    *("stack", "image", "local"),
]


def test_the_command_alone_shows_an_example_of_each(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  genokit {command}" in shown


def test_every_command_explains_itself(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        assert f"usage: genokit {command}" in capsys.readouterr().out


def test_an_error_of_the_kit_is_one_message_and_exit_code_1(capsys):
    assert main(["fetch", "no-such-data"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("genokit: ")
    assert "no-such-data" in err
    assert "Traceback" not in err


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("GENOKIT_DEBUG", "1")
    with pytest.raises(NotFound, match="no-such-data"):
        main(["fetch", "no-such-data"])


def test_wrong_settings_are_one_message_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "genokit.toml").write_text("run = 1")
    monkeypatch.chdir(tmp_path)
    assert main(["jobs"]) == 1
    assert "Did you mean 'runs'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "a.ipynb", "-p", "epochs"],
        ["run", "a.ipynb", "-p", "=3"],
        ["pipeline", "a.toml", "-p", "epochs=3"],
        ["pipeline", "a.toml", "-p", ".epochs=3"],
        ["local", "restart"],
        ["run", "a.ipynb", "--timeout", "soon"],
        ["freeze", "folder"],
        ["dance"],
    ],
)
def test_a_command_that_makes_no_sense_is_usage_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: genokit" in capsys.readouterr().err


def test_a_frozen_folder_is_verified_until_a_byte_changes(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("x\n1\n")
    assert main(["freeze", str(tmp_path / "data"), "--name", "small"]) == 0
    descriptor = tmp_path / "data" / "datapackage.json"
    assert json.loads(descriptor.read_text())["name"] == "small"
    assert main(["fetch", str(descriptor)]) == 0
    assert str(tmp_path / "data" / "a.csv") in capsys.readouterr().out
    assert main(["verify", str(descriptor)]) == 0
    (tmp_path / "data" / "a.csv").write_text("x\n2\n")
    assert main(["verify", str(descriptor)]) == 1
    assert "wrong" in capsys.readouterr().out


def test_a_notebook_runs_with_its_parameters_and_shows_its_outputs(notebook, capsys):
    assert main(["run", str(notebook), "-p", "epochs=3", "-p", "name=a b"]) == 0
    out = capsys.readouterr().out
    assert "doubled = 6\nwho = a b\n" in out
    page = next(line.removeprefix("Page: ") for line in out.splitlines() if line.startswith("Page: "))
    assert Path(page).is_file()


def test_a_notebook_that_fails_is_a_message_with_the_way_to_it(notebook, capsys):
    assert main(["run", str(notebook), "-p", "epochs=9"]) == 1
    err = capsys.readouterr().err
    assert "genokit: double.ipynb FAILED: code cell 2" in err
    assert "----> 4 assert epochs < 5" in err


def test_run_explains_its_notebook_and_its_parameters(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "notebook the notebook; it stays as it is" in shown
    assert "--parameter NAME=VALUE a parameter of the cell tagged 'parameters'" in shown


def test_a_run_takes_a_folder_and_a_time_limit_and_prints_its_cells(notebook, tmp_path, capsys):
    (tmp_path / "work").mkdir()
    book = nbformat.read(notebook, as_version=4)
    book.cells[0].source = "epochs = 1\nname: str = 'nobody'\nrate = 0.5"
    book.cells[1].source += "\nimport os\nrecord('where', os.getcwd())\nrecord('rate', rate)\nprint('a line')"
    nbformat.write(book, notebook)
    words = ["run", str(notebook), "-p", "epochs=3", "-p", "name=2", "-p", "rate=.25"]
    assert main([*words, "--cwd", str(tmp_path / "work"), "--log-output", "--timeout", "500"]) == 0
    out, err = capsys.readouterr()
    assert "a line\n" in out
    assert f"doubled = 6\nwho = 2\nwhere = {tmp_path / 'work'}\nrate = 0.25\n" in out
    assert err.count("\r") < 9  # no progress bar is redrawn ten times a second where nobody sees it move


def test_a_pipeline_prints_its_outputs_and_where_the_report_is(notebook, tmp_path, capsys):
    (tmp_path / "tour.toml").write_text(
        'name = "tour"\ntitle = "Tour"\n'
        '[[notebook]]\nname = "first"\npath = "double.ipynb"\n'
        '[[notebook]]\nname = "second"\npath = "double.ipynb"\ninputs = { epochs = "first.doubled" }\n'
    )
    assert main(["pipeline", str(tmp_path / "tour.toml"), "-p", "first.epochs=2"]) == 0
    out = capsys.readouterr().out
    assert "second.doubled = 8" in out
    report = next(line.removeprefix("Report: ") for line in out.splitlines() if line.startswith("Report: "))
    assert Path(report).is_file()


def test_clean_stop_and_debug_say_what_to_give_them(notebook, capsys):
    assert main(["run", str(notebook)]) == 0
    run = next(line.removeprefix("Run: ") for line in capsys.readouterr().out.splitlines() if line.startswith("Run: "))
    for words, said in (
        (["clean", "--runs"], "Give --older-than DAYS, --larger-than GB, or both; nothing was deleted."),
        (["clean", "--runs", "--older-than", "-1"], "cannot be negative; nothing was deleted"),
        (["stop", run], "The run double is SUCCEEDED, so there is nothing to stop."),
        (["debug", f"{run}s"], "is not a run folder"),
        (["run", str(Path(run).parent)], "There is no notebook"),
        (["why", run], "There is no file"),
    ):
        assert main(words) == 1
        assert said in capsys.readouterr().err
    assert Path(run).is_dir()


def test_an_account_without_jobs_says_so_and_can_be_stopped_and_cleared(capsys):
    assert main(["jobs"]) == 0
    assert "No jobs." in capsys.readouterr().out
    for action in ("status", "stop", "clean"):
        assert main(["local", action]) == 0
        assert "supervisor   none" in capsys.readouterr().out


def test_a_store_that_cannot_be_read_is_one_message_and_clean_starts_afresh(tmp_path, capsys):
    store = tmp_path / "home" / "batch.sqlite"
    store.parent.mkdir()
    store.write_text("not a database, " * 100)
    for action in ("status", "stop"):
        assert main(["local", action]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"genokit: '{store}' is not a readable store")
        assert "genokit local clean" in err
    assert main(["local", "clean"]) == 0
    assert "jobs         none" in capsys.readouterr().out


def test_the_table_of_jobs_passes_no_escape_sequence_to_the_terminal(capsys):
    batch = Batch()
    job = batch.submit(batch.define("hostile", command=["sleep", "60"], memory_gib=0.1))
    job.terminate("a\x1b]52;c;eA==\x07b").wait(60)
    assert main(["jobs"]) == 0
    said = capsys.readouterr().out
    assert job.id in said
    assert "ab" in said
    assert "\x1b" not in said


def test_the_doctor_s_exit_code_says_whether_there_is_a_problem(tmp_path, monkeypatch, capsys):
    assert main(["doctor"]) == 0
    assert "✓ ok       Python" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENOKIT_HOME", str(tmp_path / "file" / "home"))
    assert main(["doctor"]) == 1


def test_an_interrupted_command_leaves_with_130_and_no_traceback(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 60\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with genokit("doctor") as process:
        wait_until((tmp_path / "started").exists)  # it waits five seconds for this program
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert err == "genokit: interrupted\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "genokit"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_schema_prints_the_json_schema_of_a_notebook_and_fails_for_anything_else(notebook, tmp_path, capsys):
    assert main(["schema", str(notebook)]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["epochs"] == {"type": "integer", "default": 1}
    (tmp_path / "bad.ipynb").write_text("{")
    for name, said in (("bad.ipynb", "is not a notebook"), ("none.ipynb", "There is no notebook")):
        assert main(["schema", str(tmp_path / name)]) == 1
        assert said in capsys.readouterr().err
