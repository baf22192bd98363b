"""papermill's own notebooks, and every case in which papermill alone says something else than what happened."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import papermill
import pytest

from genokit import Batch, Settings, backends, storage
from genokit.errors import GenokitError, InvalidNotebook, InvalidParameters, NotebookFailed
from genokit.pipelines import Run

NOTEBOOKS = Path(papermill.__file__).parent / "tests" / "notebooks"
MARKED = "papermill-error-cell-tag"
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
Write = Callable[..., Path]
slow = pytest.mark.slow


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a notebook; `#tags a b` in the first line of a cell tags it."""

    (tmp_path / "genokit.toml").touch()

    def notebook(*sources: str, **metadata: Any) -> Path:
        cells = []
        for source in sources:
            tags = source.partition("\n")[0].removeprefix("#tags ").split() if source.startswith("#tags ") else []
            cells.append(
                nbformat.v4.new_code_cell(source.partition("\n")[2] if tags else source, metadata={"tags": tags})
            )
        metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, **metadata}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")
        return tmp_path / "in.ipynb"

    return notebook


def execute(notebook: Any, out: Path | str | None, parameters: dict[str, Any] | None = None, **options: Any) -> Any:
    options = {"progress_bar": False, "engine_name": "genokit", **options}
    return papermill.execute_notebook(notebook, out, parameters, **options)


def cells(node: Any) -> list[tuple[int | None, str]]:
    """Execution count and papermill's status of every cell but papermill's own markers."""
    kept = [cell for cell in node.cells if MARKED not in cell.metadata.get("tags", [])]
    return [(cell.get("execution_count"), cell.metadata.papermill.status) for cell in kept]


DONE, LEFT = "completed", "pending"
ENDED = [(1, DONE), (2, "failed"), (None, LEFT)]
PAPERMILL_S: list[Any] = [
    ("simple_execute", {"msg": 'do\\ not\\ "crash"'}, None, [(1, DONE), (2, DONE), (3, DONE), (None, DONE)]),
    ("broken1", {}, "assert False", [(None, DONE), (1, DONE), *[(None, DONE)] * 2, (2, "failed"), (None, LEFT)]),
    pytest.param("line_magic_error", {}, "In \\[1\\]", [(1, "failed"), (None, LEFT)], marks=slow),
    pytest.param("no_parameters", {"msg": "Hello"}, None, [(1, DONE), (2, DONE), (3, DONE), (None, DONE)], marks=slow),
    pytest.param("broken2", {}, "In \\[2\\]", ENDED, marks=slow),
    pytest.param("nb_version_4.4", {"var": 7}, None, [(1, DONE), (2, DONE), (3, DONE)], marks=slow),
    pytest.param("blank-vscode", {"var": "It works"}, None, [(1, DONE), (None, DONE)], marks=slow),
    pytest.param("sysexit1", {}, "SystemExit: 1", ENDED, marks=slow),
    pytest.param("test_logging", {}, "ggplot", [(1, DONE), (2, DONE), (3, "failed"), (None, LEFT)], marks=slow),
    pytest.param("test_autosave", {}, None, [(1, DONE)], marks=slow),
    pytest.param("broken", {}, "SyntaxError", [(1, "failed"), (None, LEFT), (None, LEFT)], marks=slow),
]


@pytest.mark.parametrize(
    ("name", "parameters", "fails", "ends"), PAPERMILL_S, ids=lambda one: one if isinstance(one, str) else ""
)
def test_papermill_s_own_notebooks_end_as_papermill_says(
    name: str, parameters: dict[str, Any], fails: str | None, ends: list[tuple[int | None, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out.ipynb"
    if fails:
        with pytest.raises(papermill.PapermillExecutionError, match=fails):
            execute(NOTEBOOKS / f"{name}.ipynb", out, parameters)
    else:
        execute(NOTEBOOKS / f"{name}.ipynb", out, parameters)
    node = nbformat.read(out, as_version=4)
    nbformat.validate(node)
    assert cells(node) == ends
    assert node.metadata.papermill.parameters == parameters
    assert node.metadata.papermill.exception is (True if fails else None)
    assert sum(MARKED in cell.metadata.get("tags", []) for cell in node.cells) == (2 if fails else 0)
    sources = [cell.source for cell in node.cells]
    assert all(f"# Parameters\n{parameter} = {value!r}" in sources for parameter, value in parameters.items())


TIMES_OUT = "import time\ntime.sleep(600)"
ENDINGS: list[Any] = [
    pytest.param("TIMED_OUT", TIMES_OUT, {"execution_timeout": 1}, "the cell's limit of 1.0 s", marks=slow),
    ("KERNEL_DIED", "import os\nos.kill(os.getpid(), 9)", {}, "killed by SIGKILL: out of memory"),
    pytest.param(
        "EXITED_EARLY", "import sys\nsys.exit(0)", {}, "called sys.exit, 1 cell after it did not run", marks=slow
    ),
    pytest.param("KERNEL_DIED", "import os\nos._exit(9)", {}, "exit code 9", marks=slow),
    pytest.param("TIMED_OUT", TIMES_OUT, {"timeout_s": 5}, "the run's limit of 5.0 s", marks=slow),
    pytest.param("EXITED_EARLY", "exit()", {}, "called sys.exit", marks=slow),
    pytest.param("FAILED", "import sys\nsys.exit(3)", {}, "SystemExit: 3", marks=slow),
]


@pytest.mark.parametrize(("state", "code", "options", "said"), ENDINGS, ids=[str(one[:2]) for one in ENDINGS])
def test_papermill_s_statuses_tell_how_a_notebook_really_ended(
    state: str, code: str, options: dict[str, Any], said: str, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(papermill.PapermillExecutionError if state == "FAILED" else NotebookFailed, match=said):
        execute(write(code, "2 + 2"), tmp_path / "out.ipynb", **options)
    node = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert node.metadata.papermill.exception is True
    assert [status for _, status in cells(node)][-2:] == ["failed", LEFT]
    assert Run.load(Settings.load().runs / node.metadata.genokit.run).state == state


@pytest.mark.parametrize("allow_errors", [False, pytest.param(True, marks=slow)])
def test_cells_that_may_fail_do_not_fail_the_notebook(allow_errors: bool, write: Write, tmp_path: Path) -> None:
    tag = "" if allow_errors else "#tags raises-exception\n"
    notebook = write(f"{tag}1 / 0", "#tags skip-execution\n1 / 0", "import genokit\ngenokit.record('end', True)")
    node = execute(notebook, tmp_path / "out.ipynb", allow_errors=allow_errors)
    assert cells(node) == [(1, DONE), (None, DONE), (2, DONE)]
    assert node.metadata.papermill.exception is None
    assert "ZeroDivisionError" in node.cells[0].outputs[0].text
    assert node == nbformat.read(tmp_path / "out.ipynb", as_version=4)


def test_a_run_by_papermill_has_typed_parameters_and_a_run_folder(write: Write, tmp_path: Path) -> None:
    given = {
        "day": datetime.date(2020, 1, 2), "count": np.int64(3), "flag": np.bool_(True), "pair": (1, 2), "names": {"a"},
        "raw": b"\x00", "table": {1: 2}, "lost": math.nan, "home": Path("a"), "rate": 1,
    }  # fmt: skip
    defaults = "day = None\ncount = None\nflag = None\npair: tuple = ()\nnames = None\nraw = None\ntable = None"
    notebook = write(
        f"#tags parameters\n{defaults}\nlost = None\nhome = None\nrate = 0.5",
        "import genokit\ngenokit.record('all', [day, count, flag, pair, names, raw, table, lost, home, rate])",
        "import atexit, ipykernel, json, threading, time\nhow = json.loads(ipykernel.get_connection_info())",
        "genokit.record('how', how['transport'])",
        "threading.Thread(target=time.sleep, args=[600]).start()\natexit.register(time.sleep, 600)",
        kernelspec={**KERNEL, "name": "conda-env-lab-py"},
    )
    node = execute(notebook, tmp_path / "out.ipynb", given)
    ran = Run.load(Settings.load().runs / node.metadata.genokit.run)
    *found, lost, home, rate = ran.outputs["all"]
    assert found == [datetime.date(2020, 1, 2), 3, True, (1, 2), {"a"}, b"\x00", {1: 2}]
    assert [type(one) for one in found] == [datetime.date, int, bool, tuple, set, bytes, dict]
    assert math.isnan(lost)
    assert (home, rate, type(rate)) == (Path("a"), 1.0, float)
    assert ran.outputs["how"] == "ipc"  # no port that another kernel could take
    assert ran.source == notebook
    assert {"notebook.html", "ro-crate-metadata.json", "run.json"} <= {path.name for path in ran.path.iterdir()}
    json.loads((tmp_path / "out.ipynb").read_text(), parse_constant=pytest.fail)  # no NaN in it


def test_what_cannot_run_is_refused_before_anything_is_written(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out.ipynb"
    notebook = write("#tags parameters\nepochs: int = 3")
    for given, said in [
        ({"epoch": 1}, "Did you mean 'epochs'"),
        ({"epochs": "many"}, "expected int"),
        ({"epochs": object()}, "a object cannot"),
    ]:
        with pytest.raises(InvalidParameters, match=said):
            execute(notebook, out, given)
    with pytest.raises(InvalidNotebook, match="runs Python notebooks"):
        execute(NOTEBOOKS / "notimplemented_translator.ipynb", out)
    assert not out.exists()
    assert not Settings.load().runs.is_dir() or not [
        one for one in Settings.load().runs.iterdir() if not list(one.glob("run.json"))
    ]


@slow
def test_papermill_s_command_saves_and_logs_every_cell_in_the_folder_it_was_told(write: Write, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "check.txt").write_text("exists")
    saved = [DONE, LEFT, DONE, "running"]
    write(
        "#tags parameters\nout = ''",
        "import json, os, sys\nassert os.path.isfile('check.txt')\nprint('seen'); print('trouble', file=sys.stderr)",
        "import time\nfor _ in range(600):\n    time.sleep(0.1)\n"
        "    done = [cell['metadata']['papermill']['status'] for cell in json.load(open(out))['cells']]\n"
        f"    if done == {saved}: break\nprint(done)",
    )
    command = [sys.executable, "-m", "papermill", "--engine", "genokit", "in.ipynb", "out.ipynb", "--cwd", "work"]
    options = ["-p", "out", str(tmp_path / "out.ipynb"), "--stdout-file", str(tmp_path / "said.txt"), "--log-output"]
    ended = subprocess.run(
        [*command, *options, "--report-mode"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "said.txt").read_text() == f"seen\n{saved}\n"
    assert "trouble" in ended.stderr
    assert "Run folder: " in ended.stderr
    node = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert all(cell.metadata.jupyter.source_hidden for cell in node.cells)


@pytest.mark.slow
def test_a_notebook_that_is_no_file_runs_from_a_copy_and_an_output_of_none_is_not_written(tmp_path: Path) -> None:
    node = execute(nbformat.read(NOTEBOOKS / "simple_execute.ipynb", as_version=4), None, {"msg": "Hello"})
    ran = Run.load(Settings.load().runs / node.metadata.genokit.run)
    assert ran.source == ran.path / "source.ipynb"
    again = ran.rerun(msg="again")
    assert again.parameters == {"msg": "again"}


@pytest.mark.slow
def test_no_secret_reaches_papermill_s_output_or_error(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "hunter2hunter2")
    token = "os.environ['LAB_TOKEN']"
    saved = f"assert {token} not in open('out.ipynb').read()"
    notebook = write(f"import os\nprint({token})", saved, f"raise ValueError({token})")
    with pytest.raises(papermill.PapermillExecutionError, match="ValueError: secret://LAB_TOKEN") as raised:
        execute(notebook, tmp_path / "out.ipynb", cwd=tmp_path)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in (tmp_path / "out.ipynb").read_text()


@pytest.mark.slow
def test_an_output_on_s3_goes_through_the_kit_s_own_clients(write: Write) -> None:
    address = f"s3://{backends.clients().bucket}/out.ipynb"
    execute(write("print(1)"), address)
    stored = nbformat.reads(storage.read(address).decode(), as_version=4)
    assert cells(stored) == [(1, DONE)]


@slow
@pytest.mark.parametrize("fails", [False, True])
def test_a_notebook_runs_as_a_job_whose_cells_come_back_as_they_end(fails: bool, write: Write, tmp_path: Path) -> None:
    first = "#tags parameters\nepochs: int = 1\nqueue = ''"
    notebook, out = write(first, "print(queue, 2 * epochs)", "1 / 0" if fails else "1", "2"), tmp_path / "out.ipynb"
    given = {"epochs": 3, "queue": "lowPriority", "vcpus": 1}
    if fails:
        with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
            execute(notebook, out, given, engine_name="genokit-batch", cwd=tmp_path)
    else:
        execute(notebook, out, given, engine_name="genokit-batch", cwd=tmp_path)
    node = nbformat.read(out, as_version=4)
    ran = Run.load(Settings.load().runs / node.metadata.genokit.run)
    assert Batch().job(str(ran.job)).queue == "lowPriority"
    found = [cell for cell in node.cells if cell.cell_type == "code"]
    assert found[1].source == "# Parameters\nepochs = 3\nqueue = 'lowPriority'"
    assert found[2].outputs[0].text == "lowPriority 6\n"
    ends = [status for _, status in cells(node)]
    assert ends == ([DONE, DONE, DONE, "failed", LEFT] if fails else [DONE] * 5)
    assert found[2].metadata.papermill.start_time


@pytest.mark.slow
def test_a_job_that_cannot_be_submitted_leaves_no_cell_marked_as_completed(write: Write, tmp_path: Path) -> None:
    with pytest.raises(GenokitError, match="nowhere"):
        execute(write("1"), tmp_path / "out.ipynb", {"queue": "nowhere"}, engine_name="genokit-batch", cwd=tmp_path)
    assert cells(nbformat.read(tmp_path / "out.ipynb", as_version=4)) == [(None, "failed")]
