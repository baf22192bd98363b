"""``run(notebook)``: whatever happens in the notebook, the run says it truly and leaves nothing behind."""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest

from genokit import Settings, run
from genokit.bars import Bar
from genokit.errors import GenokitError, InvalidNotebook, InvalidParameters, NotebookFailed, NotFound
from genokit.pipelines import Run, engine, runs
from genokit.pipelines.engine import Execution
from genokit.pipelines.execute import CELLS, show_cells
from genokit.pipelines.notebooks import Cell, figures

PARAMETERS = "#tags parameters\nepochs: int = 3  # passes\nrate = 0.5\nstart = None\n"
Write = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a notebook: markdown starts with `# `, and `#tags a b` in the first line of a cell tags it."""

    def notebook(name: str, *sources: str) -> Path:
        cells = []
        for source in sources:
            if source.startswith("# "):
                cells.append(nbformat.v4.new_markdown_cell(source))
                continue
            first, _, rest = source.partition("\n")
            tags = first.split()[1:] if first.startswith("#tags ") else []
            code = rest if tags else source
            cells.append(nbformat.v4.new_code_cell(code, metadata={"tags": tags} if tags else {}))
        path = tmp_path / "a {folder} with" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return notebook


def failed(notebook: Path, settings: Settings, **limits: float) -> NotebookFailed:
    with pytest.raises(NotebookFailed) as raised:
        run(notebook, settings=settings, progress=False, **limits)
    error = raised.value
    assert error.path == error.run.notebook
    assert error.path.is_file()
    assert Run.load(error.run.path) == error.run
    # No traceback of papermill's or nbclient's under ours.
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


def states(ended: Run) -> list[str]:
    return list(ended.cells["state"])


def test_a_run_keeps_everything_in_its_folder(write: Write, settings: Settings) -> None:
    notebook = write(
        "good",
        PARAMETERS,
        "# A figure",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()",
        "from genokit import record, Settings\nimport os, sys\nrecord('product', epochs * rate)",
        "record('start', start); record('nan', float('nan'))\nrecord('home', Settings.load().home)",
        "record('cwd', os.getcwd()); record('folder', os.environ['GENOKIT_RUN']); record('python', sys.executable)",
        "#tags skip-execution\n1 / 0",
        "#tags raises-exception\n1 / 0",
        "from ipywidgets import IntProgress\nIntProgress()",
        "for i in range(3): print(i, flush=True)\nrecord('last', True)",
    )
    before = notebook.read_bytes()
    ended = run(notebook, {"epochs": 4, "start": datetime.date(2020, 1, 2)}, settings=settings, progress=False)

    assert ended.state == "SUCCEEDED"
    assert ended.error is None
    assert ended.outputs["product"] == 2.0
    assert ended.outputs["start"] == datetime.date(2020, 1, 2)
    assert ended.outputs["nan"] != ended.outputs["nan"]
    assert ended.outputs["home"] == settings.home
    assert ended.outputs["cwd"] == str(notebook.parent)
    assert ended.outputs["folder"] == str(ended.path)
    assert ended.outputs["python"] == sys.executable
    assert ended.outputs["last"] is True
    assert ended.parameters == {"epochs": 4, "rate": 0.5, "start": datetime.date(2020, 1, 2)}
    assert states(ended) == ["completed"] * 5 + ["skipped", "completed", "completed", "completed"]
    assert [figure.heading for figure in ended.figures] == ["A figure"]

    assert notebook.read_bytes() == before
    assert re.fullmatch(r"\d{8}-\d{6}-good-[0-9a-f]{6}", ended.path.name)
    kept = {"environment.txt", "notebook.html", "notebook.ipynb", "outputs.csv", "run.json", "source.ipynb"}
    kept.add("ro-crate-metadata.json")
    assert {path.name for path in ended.path.iterdir()} == kept
    assert (ended.path / "source.ipynb").read_bytes() == before
    json.loads((ended.path / "run.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    executed = nbformat.read(ended.notebook, as_version=4)
    assert "epochs = 4" in executed.cells[1].source
    assert executed.metadata.genokit.state == "SUCCEEDED"
    assert "papermill" not in executed.metadata
    assert [record["path"] for record in runs(settings).to_dict("records")] == [str(ended.path)]
    assert repr(ended).startswith("<Run good SUCCEEDED in ")
    assert "product" in ended._repr_html_()
    assert re.search(r"Started.*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC<", ended._repr_html_())

    page = ended.html.read_text() if ended.html else ""
    assert "product = 2.0" in page
    assert "IntProgress(" not in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert not re.search(r"url\(\s*[\"']?https?:|@import", page)


def test_a_failing_cell_is_named_and_the_notebook_kept(write: Write, settings: Settings) -> None:
    notebook = write("bad", PARAMETERS, "# Bad", "x = 1\nraise ValueError('<b>no</b> reads')", "x")
    error = failed(notebook, settings)
    said = str(error)
    assert said.startswith("bad.ipynb FAILED: code cell 2, line 2 `raise ValueError('<b>no</b> reads')`: ")
    assert "ValueError: <b>no</b> reads" in said
    assert f"Kept: {error.path}" in said
    assert "Next: " in said
    assert error.cell == 2
    assert error.run.state == "FAILED"
    assert "Traceback" in error.run.traceback
    assert states(error.run) == ["completed", "failed", "pending"]
    assert "<b>no" not in error.run._repr_html_()

    kept = nbformat.read(error.path, as_version=4)
    assert kept.metadata.genokit.state == "FAILED"
    assert not [cell for cell in kept.cells if "papermill" in cell.metadata]
    assert kept.cells[0].source.startswith("**FAILED**")

    # The kept notebook can be mended and run: what the first run put in is gone from the second.
    kept.cells[
        [cell.source for cell in kept.cells].index("x = 1\nraise ValueError('<b>no</b> reads')")
    ].source = "x = 1"
    nbformat.write(kept, notebook)
    again = run(notebook, {"epochs": 1}, settings=settings, progress=False)
    sources = [cell.source for cell in nbformat.read(again.notebook, as_version=4).cells]
    assert sources[1:] == ["# Parameters\nepochs = 1", "# Bad", "x = 1", "x"]


@pytest.mark.parametrize(
    ("code", "state", "said"),
    [
        ("import os\nos._exit(9)", "KERNEL_DIED", "KERNEL_DIED: in code cell 1 `import os` the kernel ended with"),
        ("import os\nos.kill(os.getpid(), 9)", "KERNEL_DIED", "was killed by SIGKILL: out of memory?"),
        (
            "import sys\nsys.exit(0)",
            "EXITED_EARLY",
            "code cell 1 `import sys` called sys.exit, 1 cell after it did not",
        ),
        ("exit()", "EXITED_EARLY", "code cell 1 `exit()` called sys.exit, 1 cell after it did not run"),
        ("import os\nos._exit(0)", "EXITED_EARLY", "ended the kernel, 1 cell after it did not run"),
        ("import sys\nsys.exit(3)", "FAILED", "SystemExit: 3"),
    ],
    ids=["exit code 9", "killed", "sys.exit", "exit", "exit code 0", "sys.exit 3"],
)
def test_a_kernel_that_exits_early_is_an_error(
    write: Write, settings: Settings, code: str, state: str, said: str
) -> None:
    error = failed(write("half", code, "2 + 2"), settings)
    assert error.run.state == state
    assert said in str(error)
    assert "Next: " in str(error)
    assert error.cell == 1
    assert states(error.run)[1] == "pending"
    assert states(error.run)[0] in ("running", "failed")


def test_a_cell_that_takes_too_long_is_stopped(write: Write, settings: Settings) -> None:
    error = failed(write("slow", "1", "import time\ntime.sleep(600)"), settings, cell_timeout_s=0.5)
    assert error.run.state == "TIMED_OUT"
    assert "code cell 2 `import time` was running when the cell's limit of 0.50 s was reached" in str(error)
    assert error.run.duration_s is not None
    assert error.run.duration_s < 60


def test_a_run_that_takes_too_long_is_stopped_even_while_its_kernel_starts(write: Write, settings: Settings) -> None:
    error = failed(write("slow", "import time\ntime.sleep(600)"), settings, timeout_s=0.01)
    assert error.run.state == "TIMED_OUT"
    assert "the run's limit of 0.01 s" in str(error)
    assert states(error.run) == ["pending"]


def test_processes_started_by_a_notebook_end_with_it(write: Write, settings: Settings) -> None:
    notebook = write(
        "children",
        "import subprocess, genokit\nchild = subprocess.Popen(['sleep', '1000'])\ngenokit.record('child', child.pid)",
        "import os\ngenokit.record('kernel', os.getpid())",
    )
    ended = run(notebook, settings=settings, progress=False)
    for name in ("child", "kernel"):
        assert not psutil.pid_exists(ended.outputs[name]) or (
            psutil.Process(ended.outputs[name]).status() == psutil.STATUS_ZOMBIE
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("run ")]


def test_nothing_is_written_when_nothing_was_run(write: Write, settings: Settings, tmp_path: Path) -> None:
    good = write("good", PARAMETERS)
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    invalid = tmp_path / "invalid.ipynb"
    invalid.write_text('{"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with pytest.raises(InvalidParameters, match="Did you mean 'epochs'"):
        run(good, {"epoch": 1}, settings=settings)
    with pytest.raises(InvalidParameters, match="timeout_s is -1: give a number of seconds, or 0 for no limit"):
        run(good, settings=settings, timeout_s=-1)
    with pytest.raises(NotFound, match=r"Did you mean 'good.ipynb'"):
        run(good.with_name("godo.ipynb"), settings=settings)
    with pytest.raises(InvalidNotebook, match=r"broken.ipynb is not a notebook"):
        run(broken, settings=settings)
    with pytest.raises(InvalidNotebook, match=r"invalid.ipynb is not a valid notebook"):
        run(invalid, settings=settings)
    assert not settings.runs.exists()


@pytest.mark.slow
def test_a_notebook_runs_notebooks(write: Write, settings: Settings) -> None:
    write("inner", PARAMETERS, "import genokit\ngenokit.record('twice', epochs * 2)")
    outer = write(
        "outer", "import genokit\nr = genokit.run('inner.ipynb', {'epochs': 21})\nr", "genokit.record('it', r.outputs)"
    )
    assert run(outer, settings=settings, progress=False).outputs["it"] == {"twice": 42}
    assert list(runs(settings)["name"]) == ["inner", "outer"]


def test_ctrl_c_stops_the_kernel_and_is_recorded(write: Write, settings: Settings) -> None:
    flag = settings.home / "started"
    settings.home.mkdir()
    notebook = write("long", f"import os, time\nopen({str(flag)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)", "1")
    code = f"from genokit import Settings, run\nrun({str(notebook)!r}, settings=Settings(home={str(settings.home)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: flag.is_file() and flag.read_text() != "")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=240)
    (stopped,) = (Run.load(path) for path in settings.runs.iterdir())
    assert said.strip().endswith(f"KeyboardInterrupt\nKept: {stopped.notebook}")
    assert stopped.state == "FAILED"
    assert stopped.error == "interrupted in code cell 1 `import os, time`"
    assert states(stopped) == ["running", "pending"]
    assert not psutil.pid_exists(int(flag.read_text()))


def test_a_run_whose_process_was_killed_is_not_shown_as_running(write: Write, settings: Settings) -> None:
    notebook = write("long", "import time\ntime.sleep(600)")
    code = f"from genokit import Settings, run\nrun({str(notebook)!r}, settings=Settings(home={str(settings.home)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_for(lambda: bool(list(settings.runs.glob("*/notebook.ipynb"))))
    (folder,) = settings.runs.iterdir()
    assert Run.load(folder).state == "RUNNING"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = Run.load(folder)
    assert left.state == "KERNEL_DIED"
    assert "process that ran it has ended" in (left.error or "")


def test_a_run_that_has_ended_is_not_stopped_in_the_process_that_has_its_number_now(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        process = (socket.gethostname(), other.pid, psutil.Process(other.pid).create_time() - 60)
        started = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        stale = Run(tmp_path, "long", "RUNNING", tmp_path / "long.ipynb", "5e", started, process=process)
        with pytest.raises(GenokitError, match="The run long runs no longer: its process has ended"):
            stale.stop()
        other.communicate(b"\n")
    assert other.returncode == 0


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a run folder"):
        Run.load(tmp_path / "nothing")
    (tmp_path / "run.json").write_text('{"name": 1}')
    with pytest.raises(GenokitError, match=r"run.json cannot be read"):
        Run.load(tmp_path)


def test_pictures_in_outputs_and_cards_are_found_with_their_size() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (200).to_bytes(4, "big") + (100).to_bytes(4, "big")
    encoded = base64.b64encode(png).decode()
    html = ["<div>", f'<img class="a" src="data:image/png;base64,{encoded}" alt="x" width="100" />', "</div>"]
    outputs = [
        {"data": {"image/png": encoded, "text/html": html}, "metadata": {"image/png": {"width": 50}}},
        {"data": {"text/html": html}},
        {"data": {"text/html": "<img src='far.png'>"}},
        {"output_type": "stream", "text": "x"},
    ]
    heading = {"cell_type": "markdown", "source": ["# One\n", "## *Two* ##\n", "words"]}
    found = list(figures({"cells": [heading, {"cell_type": "code", "source": "x", "outputs": outputs}]}))
    assert [(figure.png, figure.heading, figure.scale) for figure in found] == [
        (png, "Two", 1.0),
        (png, "Two", 0.5),
    ]


def test_jpeg_and_svg_pictures_are_used_if_there_is_no_png(tmp_path: Path) -> None:
    jpeg, svg = b"\xff\xd8\xff\xe0 jpeg", "<svg onload='alert(1)'></svg>"
    outputs = [{"data": {"image/jpeg": base64.b64encode(jpeg).decode()}}, {"data": {"image/svg+xml": ["\n", svg]}}]
    cell = {"cell_type": "code", "source": "x", "outputs": outputs}
    shown = Run(tmp_path, "x", "SUCCEEDED", tmp_path, "", datetime.datetime.now(datetime.UTC))
    shown.notebook.write_text(json.dumps({"cells": [cell]}))
    assert [(figure.png, figure.scale) for figure in shown.figures] == [(jpeg, 1.0), (svg.encode(), 1.0)]
    card = shown._repr_html_()
    assert f'src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" alt="x" />' in card
    assert 'src="data:image/jpeg;base64,' in card
    assert "onload" not in card


def test_a_damaged_picture_is_ignored() -> None:
    odd = ["%%%", "", "abc", "é", None, 5, base64.b64encode(b"GIF89a").decode(), ["iVBO", "Rw0K", "=x"]]
    outputs = [{"data": {"image/png": one}, "metadata": {"image/png": {"width": "50%"}}} for one in odd]
    outputs.append({"data": {"text/html": "<img " * 100_000 + '<img src="data:image/png;base64,%%">'}})
    assert list(figures({"cells": [{"cell_type": "code", "source": "x", "outputs": outputs}]})) == []


MUCH = {
    "print('ACGT' * 50_000)": "ACGT" * 50_000 + "\n",
    "for i in range(10_000): print(f'\\r{i:>39}', end='')": f"{9_999:>39}",
    "for i in range(2_000): print(i, flush=True)": "".join(f"{i}\n" for i in range(2_000)),
    "for i in range(20_000): print(f'\\x1b[3{i % 8}m{i}\\x1b[0m')": "".join(
        f"\x1b[3{i % 8}m{i}\x1b[0m\n" for i in range(20_000)
    ),
    "from IPython.display import clear_output as clear, display\nprint('a', flush=True); print('b', flush=True)\n"
    "shown = display(0, display_id=True)\nprint('c')": "a\nb\nc\n",
    "for i in range(300):\n  shown.update(i)\nfor i in range(300):\n  clear(wait=True); print(i, flush=True)": "299\n",
}


@pytest.mark.slow
def test_large_output_is_complete_and_in_order_and_takes_linear_time(write: Write, settings: Settings) -> None:
    ended = run(write("much", *MUCH), settings=settings, progress=False, timeout_s=120)
    cells = nbformat.read(ended.notebook, as_version=4).cells
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    assert said == list(MUCH.values())
    assert [output.output_type for output in cells[4].outputs] == ["stream", "display_data", "stream"]
    assert cells[4].outputs[1].data["text/plain"] == "299"


def test_a_thread_that_hangs_does_not_block_the_end_of_a_run(tmp_path: Path) -> None:
    execution = Execution(nbformat.v4.new_notebook(), tmp_path / "notebook.ipynb")
    execution.over.clear()
    execution.stop(grace_s=0.2)
    execution.save()  # as that thread would
    assert not execution.path.exists()


def test_a_record_survives_a_cleared_output(write: Write, settings: Settings) -> None:
    notebook = write(
        "lost",
        "from genokit import record\nfrom IPython.display import clear_output\nrecord('a', 1)\nclear_output()",
        "%%capture\nrecord('b', (1, 2))",
        "from ipywidgets import Output\nwith Output():\n  record('c', 3)",
        "import os\nos.environ.clear()\nrecord('a', 4)",
        "record('d', 5)\nos._exit(3)",
    )
    assert failed(notebook, settings).run.outputs == {"a": 4, "b": (1, 2), "c": 3, "d": 5}


@pytest.mark.slow
def test_output_widgets_never_keep_a_run_waiting(write: Write, settings: Settings) -> None:
    cells = (f"with Output():\n    print({number})" for number in range(60))
    notebook = write("widgets", "from ipywidgets import Output", *cells)
    assert run(notebook, settings=settings, progress=False, cell_timeout_s=60).state == "SUCCEEDED"


def test_records_are_readable_during_a_run_and_a_partial_line_is_ignored(tmp_path: Path) -> None:
    Run(tmp_path, "x", "RUNNING", tmp_path, "", datetime.datetime.now(datetime.UTC)).save()
    (tmp_path / "notes.jsonl").write_text('{"name": "a", "value": 1}\n{"name": "b", "va')
    assert Run.load(tmp_path).outputs == {"a": 1}


def test_a_notebook_fixed_after_a_papermill_error_loses_papermill_s_banner(write: Write, settings: Settings) -> None:
    notebook, out = write("mended", "1 / 0"), settings.home / "out.ipynb"
    settings.home.mkdir()
    with pytest.raises(papermill.PapermillExecutionError):
        papermill.execute_notebook(
            nbformat.read(notebook, as_version=4), str(out), kernel_name="python3", progress_bar=False
        )
    book = nbformat.read(out, as_version=4)
    assert "papermill-error-cell" in book.cells[0].source
    book.cells[2].source = "1"
    nbformat.write(book, notebook)
    ended = run(notebook, settings=settings, progress=False)
    assert [cell.source for cell in nbformat.read(ended.notebook, as_version=4).cells] == ["1"]


def test_parameters_are_injected_after_every_cell_with_defaults(write: Write, settings: Settings) -> None:
    notebook = write("two", PARAMETERS, "first = epochs", "#tags parameters\nepochs = 5\nseed = 1", "import genokit")
    book = nbformat.read(notebook, as_version=4)
    book.cells.insert(0, nbformat.v4.new_markdown_cell("# Tagged", metadata={"tags": ["parameters"]}))
    book.cells.append(nbformat.v4.new_code_cell("genokit.record('seen', (first, epochs, seed))"))
    nbformat.write(book, notebook)
    assert run(notebook, {"epochs": 9, "seed": 2}, settings=settings, progress=False).outputs["seen"] == (9, 9, 2)
    assert run(notebook, settings=settings, progress=False).outputs["seen"] == (3, 5, 1)


def test_sigterm_stops_the_kernel_and_is_recorded(write: Write, settings: Settings) -> None:
    flag = settings.home / "started"
    settings.home.mkdir()
    notebook = write(
        "long",
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '600'], process_group=0)\n"
        f"open({str(flag)!r}, 'w').write(str(child.pid))\ntime.sleep(600)",
    )
    code = f"from genokit import Settings, run\nrun({str(notebook)!r}, settings=Settings(home={str(settings.home)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_for(lambda: flag.is_file() and flag.read_text() != "")
    kernel = psutil.Process(int(flag.read_text())).parent()
    (room,) = {Path(word).parent for word in kernel.cmdline() if Path(word).parent.name.startswith("gk-")}
    assert room.is_dir()
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 143
    (stopped,) = (Run.load(path) for path in settings.runs.iterdir())
    assert (stopped.state, stopped.error) == ("FAILED", "interrupted in code cell 1 `import subprocess, time`")
    assert not room.exists()
    child = int(flag.read_text())
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.usefixtures("no_garbage")
def test_an_unreadable_run_is_listed_as_such_among_the_others(settings: Settings) -> None:
    started = datetime.datetime.now(datetime.UTC)
    good = Run(settings.runs / "good", "good", "SUCCEEDED", Path("/a.ipynb"), "", started, started).save()
    text = (good.path / "run.json").read_text()
    stored = json.loads(text)
    bad: list[object] = [
        "", "{", "[]", "null", "[" * 100_000, text[:-20], "\ud800", b"\xff\x00",
        {**stored, "started": "yesterday"}, {**stored, "started": "2026-01-01"}, {**stored, "steps": [{}]},
        {**stored, "outputs": {"a": {"$python": "open("}}}, {**stored, "ended": 3}, {**stored, "more": 1},
        {**stored, "state": "RUNNING", "process": [socket.gethostname(), "y", "z"]},
    ]  # fmt: skip
    for number, one in enumerate(bad):
        folder = settings.runs / f"bad-{number:02}"
        folder.mkdir()
        data = json.dumps(one) if isinstance(one, dict) else one
        (folder / "run.json").write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    (settings.runs / "bad-folder" / "run.json").mkdir(parents=True)
    (good.path / "run.json").write_text(json.dumps({**stored, "duration_s": 1.5}))  # as earlier versions wrote it
    found = runs(settings)
    assert list(found["state"]) == ["SUCCEEDED"] + ["UNREADABLE"] * (len(bad) + 1)
    assert found["name"][0] == "good"
    for path in found["path"][1:]:
        with pytest.raises(GenokitError, match=r"run.json cannot be read"):
            Run.load(path)


def test_the_links_of_a_card_work_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def links(folder: str) -> list[str]:
        one = Run(tmp_path / folder, "x", "SUCCEEDED", tmp_path, "", datetime.datetime.now(datetime.UTC))
        return re.findall(r'href="([^"]*)"', one._repr_html_())

    for name in ("JPY_SESSION_NAME", "GENOKIT_RUN"):
        monkeypatch.delenv(name, raising=False)
    assert links("r") == [f"{tmp_path}/r/notebook.ipynb"]
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "lab/study/a.ipynb"))
    assert links("lab/study/runs/a b") == ["runs/a%20b/notebook.ipynb"]
    assert links("lab/runs/r") == ["../runs/r/notebook.ipynb"]
    assert links("lab/.genokit/r") == []  # Jupyter does not serve hidden files
    monkeypatch.setenv("GENOKIT_RUN", str(tmp_path / "runs/outer"))
    assert links("runs/r") == ["../r/notebook.ipynb"]


def test_a_silent_cell_lets_the_notebook_be_read_as_far_as_it_got(
    write: Write, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "AUTOSAVE_S", 0.2)
    notebook = write(
        "silent",
        "print('early')",
        "import os, pathlib, time\nprint('la', end='', flush=True)\nprint('te')\n"
        "while 'late' not in pathlib.Path(os.environ['GENOKIT_RUN'], 'notebook.ipynb').read_text(): time.sleep(0.05)",
        "print('end')",
    )
    assert run(notebook, settings=settings, progress=False, timeout_s=60).state == "SUCCEEDED"


def test_a_bar_says_which_cell_runs(write: Write, settings: Settings) -> None:
    cells = [Cell(1, "load()", "completed"), Cell(2, "x" * 90, "running"), Cell(3, "end", "pending")]
    with Bar(desc="study", bar_format=CELLS) as bar:
        show_cells(bar, cells)
        assert re.fullmatch(r"study:  33%\|.*\| 1/3 \[00:0\d, x{10,40}.*\]", str(bar))
    path = write("named", "import time  # papermill_description=Align\ntime.sleep(1)")
    seen: list[str] = []
    run(path, settings=settings, progress=False, watch=lambda one: seen.extend(cell.source for cell in one.steps))
    assert set(seen) == {"Align"}


def wait_for(condition: Callable[[], bool], timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
