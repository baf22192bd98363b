"""What is opened in JupyterLab: runs, failed runs to debug, notebooks of a pipeline to edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from genokit import Pipeline, Settings, run
from genokit.errors import GenokitError, NotebookFailed

Write = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", mirrors=("https://me:hunter2@mirror.org",))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, *sources: str) -> Path:
        tagged = {"tags": ["parameters"]}
        cells = [nbformat.v4.new_code_cell(s, metadata=tagged if s.startswith("#par") else {}) for s in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        return tmp_path / f"{name}.ipynb"

    return written


@pytest.fixture
def browser(tmp_path: Path) -> dict[str, str]:
    """An environment whose browser writes down the address that it is given."""
    (tmp_path / "browser.sh").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/address\n')
    (tmp_path / "browser.sh").chmod(0o700)
    places = {"GENOKIT_HOME": "home", "GENOKIT_RUNS": "home/runs", "JUPYTER_RUNTIME_DIR": "runtime"}
    kept = {name: value for name, value in os.environ.items() if name != "JPY_SESSION_NAME"}
    browser = {"BROWSER": f"{tmp_path}/browser.sh %s"}
    return kept | browser | {name: str(tmp_path / place) for name, place in places.items()}


def python(code: str, environ: dict[str, str]) -> str:
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout


def test_a_failed_run_can_be_repeated_cell_by_cell_where_it_ran(
    write: Write, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads.txt").write_text("ACGT")
    code = "import os, genokit\nprint(open('reads.txt').read() * times, genokit.Settings.load().home)"
    notebook = write("count", "#parameters\ntimes: int = 1", code, "raise ValueError(times)", "print('after')")
    with pytest.raises(NotebookFailed) as raised:
        run(notebook, {"times": 2}, settings=settings, progress=False)
    before = notebook.read_bytes()
    debug = raised.value.run.debug(settings)
    (copy,) = debug.path.iterdir()
    assert debug.path.name.startswith("debug-")
    assert debug.path.parent == settings.runs
    assert debug.left_out == ("GENOKIT_MIRRORS",)
    assert "hunter2" not in copy.read_text()
    assert f"-m jupyterlab {copy}" in debug.command
    assert "Set yourself" in debug._repr_html_()

    monkeypatch.chdir("/")
    node = nbformat.read(copy, as_version=4)
    nbformat.validate(node)
    NotebookClient(node, kernel_name="python3", allow_errors=True).execute()
    assert node.cells[0].source.startswith("**FAILED**: this notebook did not run to the end.")
    assert "ValueError: 2" in node.cells[0].source
    outputs = [cell.outputs[0] for cell in node.cells if cell.get("outputs")]
    assert outputs[0].text == f"ACGTACGT {settings.home}\n"
    assert (outputs[1].evalue, outputs[2].text) == ("2", "after\n")
    assert notebook.read_bytes() == before


@pytest.mark.slow
def test_a_run_opens_its_page_in_the_browser_and_shows_a_link_in_a_notebook(
    write: Write, settings: Settings, tmp_path: Path, browser: dict[str, str]
) -> None:
    ended = run(write("one", "1"), settings=settings, progress=False)
    opened = python(f"import genokit; print(genokit.Run.load({str(ended.path)!r}).open())", browser)
    assert opened.strip() == (tmp_path / "address").read_text().strip() == f"file://{ended.html}"
    code = f"import genokit\ngenokit.record('link', str(genokit.Run.load({str(ended.path)!r}).open()))"
    assert "notebook.ipynb</a>" in run(write("two", code), settings=settings, progress=False).outputs["link"]


@pytest.mark.slow
def test_a_run_opens_in_the_jupyterlab_that_serves_it_without_telling_the_token(
    write: Write, tmp_path: Path, browser: dict[str, str]
) -> None:
    ended = run(write("one", "1"), settings=Settings(home=tmp_path / "kit"), progress=False)
    words = ["jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={tmp_path}", "--ServerApp.port=0"]
    with subprocess.Popen([sys.executable, "-m", *words], env=browser, stderr=subprocess.DEVNULL) as server:
        while not list((tmp_path / "runtime").glob("jpserver-*.json")):
            assert server.poll() is None
            time.sleep(0.1)
        opened = python(f"import genokit; print(genokit.Run.load({str(ended.path)!r}).open())", browser).strip()
        server.terminate()
    assert opened.endswith(f"/lab/tree/kit/runs/{ended.path.name}/notebook.ipynb")
    assert (tmp_path / "address").read_text().startswith(f"{opened}?token=")


@pytest.mark.slow
def test_a_notebook_of_a_pipeline_is_edited_on_its_real_inputs(
    write: Write, tmp_path: Path, browser: dict[str, str]
) -> None:
    settings = Settings(home=tmp_path / "home")
    write("align", "import genokit\ngenokit.record('reads', (1, 2))")
    calls = write("calls", "#parameters\nreads: tuple = ()\nquality = 20", "print(reads)")
    tables = [
        "[[notebook]]\nname = 'align'\npath = 'align.ipynb'",
        "[[notebook]]\nname = 'calls'\npath = 'calls.ipynb'\ninputs = {reads = 'align.reads'}",
    ]
    (tmp_path / "study.toml").write_text("\n".join(["name = 'study'", *tables]))
    study = Pipeline(tmp_path / "study.toml", settings=settings)
    with pytest.raises(GenokitError, match="'align' has no run that succeeded"):
        study.run(edit="calls")
    study.run(progress=False)

    def sources() -> list[str]:
        return [str(cell.source) for cell in nbformat.read(calls, as_version=4).cells]

    command = [
        sys.executable,
        "-m",
        "genokit",
        "pipeline",
        str(study.path),
        "--edit",
        "calls",
        "-p",
        "calls.quality=30",
    ]
    for _ in range(2):
        said = subprocess.run(command, env=browser, capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"{sys.executable} -m jupyterlab {calls}")  # no JupyterLab runs here
        assert sources()[1:] == ["# Parameters\nreads = (1, 2)\nquality = 30", "print(reads)"]
        nbformat.validate(nbformat.read(calls, as_version=4))
    assert set(study.run(dry_run=True)["action"]) == {"restore"}  # that cell is no change
    assert json.loads(calls.read_text())["cells"][1]["metadata"]["tags"] == ["injected-parameters"]


def test_the_command_line_debugs_runs_and_jobs(settings: Settings, write: Write, browser: dict[str, str]) -> None:
    ended = run(write("one", "1"), settings=settings, progress=False)
    command = [sys.executable, "-m", "genokit", "debug"]
    said = subprocess.run([*command, str(ended.path)], env=browser, capture_output=True, text=True, check=True).stdout
    assert "-m jupyterlab" in said
    unknown = subprocess.run([*command, "no-job"], env=browser, capture_output=True, text=True)
    assert (unknown.returncode, "There is no job 'no-job'" in unknown.stderr) == (1, True)
