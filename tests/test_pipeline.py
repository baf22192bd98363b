"""``Pipeline``: notebooks in their order, side by side where they can, and one page about it."""

from __future__ import annotations

import datetime
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from genokit import Pipeline, Run, Settings
from genokit.errors import ConfigError, GenokitError, InvalidParameters, NotFound, PipelineFailed
from genokit.files import sha256
from genokit.pipelines import PipelineRun, runs
from genokit.pipelines.plan import Input

Files = Callable[..., Path]

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, seed])\nplt.show()"
WALK = (
    "#parameters\nseed: int = 1\nbase = 0.0",
    "# <Walks>",
    FIGURE,
    "import genokit\ngenokit.record('end', base + seed)",
)
BAD = ("#parameters\nx = 1", "raise ValueError('<i>no</i> reads')")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writes the notebooks and the pipeline's TOML beside them; gives the TOML's path."""

    def write(toml: str, **notebooks: tuple[str, ...]) -> Path:
        for name, sources in notebooks.items():
            cells = []
            for source in sources:
                if source.startswith("# "):
                    cells.append(nbformat.v4.new_markdown_cell(source))
                    continue
                tags = {"tags": ["parameters"]} if source.startswith("#parameters") else {}
                cells.append(nbformat.v4.new_code_cell(source, metadata=tags))
            nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        path = tmp_path / "tour.toml"
        path.write_text('name = "tour"\ntitle = "A <tour>"\n' + toml)
        return path

    return write


def notebook(name: str, file: str, more: str = "") -> str:
    return f'[[notebook]]\nname = "{name}"\npath = "{file}.ipynb"\n{more}\n'


class Page(HTMLParser):
    """The links, the images' texts and the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.links += [found["href"]] if tag == "a" and found.get("href") else []
        self.images += [found["alt"]] if tag == "img" and found.get("alt") else []


def test_an_input_that_was_not_recorded_is_named_with_the_nearest(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    known = {"a": Run(tmp_path, "a", "SUCCEEDED", tmp_path / "a.ipynb", "", now, outputs={"end": 3})}
    assert (Input(("a",), "end").value(known), Input(("a",), "end", several=True).value(known)) == (3, [3])
    with pytest.raises(GenokitError, match=r"'a.ends' is needed, but a did not record it.*Did you mean 'end'"):
        Input(("a",), "ends").value(known)


def test_outputs_become_inputs_and_the_report_shows_figures_first(files: Files, settings: Settings) -> None:
    path = files(
        notebook("second", "walk", 'inputs = { base = "first.end" }')
        + notebook("first", "walk", "parameters = {seed=4}"),
        walk=WALK,
    )
    ended = Pipeline(path, settings=settings).run({"first": {"seed": 7}}, progress=False)
    assert ended.state == "SUCCEEDED"
    assert ended.outputs == {"first": {"end": 7.0}, "second": {"end": 8.0}}
    assert ended.runs["first"].ended <= ended.runs["second"].started
    assert ended.runs["second"].path == ended.path / "second"
    assert re.fullmatch(r"<PipelineRun tour SUCCEEDED, 2 of 2 notebooks, .*>", repr(ended))

    text = ended.report.read_text()
    page = Page(text)
    course = ["Which notebook needs which", "When each notebook waited (pale) and ran"]
    assert page.images == ["first: <Walks>", "second: <Walks>", *course]
    assert re.search(r"<th scope=.row.>Commit</th>", text)
    assert sha256(path.with_name("walk.ipynb")) in text, "every file that was used has its hash"
    assert f"genokit reproduce {ended.path}" in text
    assert text.index("<img") < text.index("second/notebook.html")
    for link in page.links:
        if not link.startswith("#"):
            assert (ended.path / unquote(link)).is_file(), link
    assert "script" not in page.tags
    assert "A &lt;tour&gt;" in text
    assert re.search(r"Started.*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC<", text)
    assert "first.end" in ended._repr_html_()


def test_a_failure_stops_dependent_notebooks_only(files: Files, settings: Settings) -> None:
    path = files(
        notebook("bad", "bad")
        + notebook("after", "walk", 'after = ["bad"]')
        + notebook("last", "walk", 'after = ["after"]')
        + notebook("walk", "walk")
        + notebook("wrong", "walk", 'inputs = { seed = "walk.end" }'),
        walk=WALK,
        bad=BAD,
    )
    with pytest.raises(PipelineFailed) as raised:
        Pipeline(path, settings=settings).run(progress=False)
    said = str(raised.value)
    assert (
        "- bad FAILED: code cell 2, line 1 `raise ValueError('<i>no</i> reads')`: ValueError: <i>no</i> reads" in said
    )
    assert "- after NOT_RUN: bad did not succeed" in said
    assert "- last NOT_RUN: after did not succeed" in said
    assert "- wrong FAILED: 1 problem with the parameters of walk.ipynb" in said
    assert "\n    - 'seed': expected int, got 1.0 (float)" in said
    assert [run.state for run in raised.value.runs] == ["FAILED", "SUCCEEDED"]
    (folder,) = (path for path in settings.runs.iterdir() if path.name != ".cache")
    assert f"Report: {folder / 'report.html'}" in said
    assert said.endswith(f"genokit debug {folder / 'bad'}")
    text = (folder / "report.html").read_text()
    assert "NOT_RUN" in text
    assert "<i>no" not in text
    kept = {"bad", "outputs.csv", "report.html", "ro-crate-metadata.json", "tour.toml", "walk"}
    assert {path.name for path in folder.iterdir()} == kept


def test_independent_notebooks_run_in_parallel(files: Files, settings: Settings) -> None:
    # Each waits for the other's file: one after the other they would never end.
    meet = "#parameters\nmine = ''\nother = ''"
    wait = "import pathlib, time\npathlib.Path(mine).touch()\nwhile not pathlib.Path(other).exists(): time.sleep(0.02)"
    path = files(
        notebook("one", "meet", "parameters = { mine = 'a', other = 'b' }\ntimeout_s = 60")
        + notebook("two", "meet", "parameters = { mine = 'b', other = 'a' }\ntimeout_s = 60"),
        meet=(meet, wait),
    )
    assert Pipeline(path, settings=settings).run(progress=False).state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("toml", "error", "said"),
    [
        ("[[notebook", ConfigError, "is not valid TOML"),
        ("", ConfigError, "the file lacks 'notebook'. It has: name"),
        ("notebook = []", ConfigError, r"\[\[notebook\]\] table"),
        ("retries = 3\n" + notebook("a", "walk"), ConfigError, "the file has no key 'retries'"),
        (notebook("a", "walk", "paramters = {}"), ConfigError, "'a' has no key 'paramters'. Did you mean 'parameters'"),
        (notebook("a", "walk", "after = 'b'"), ConfigError, "'a' after cannot be 'b'"),
        (notebook("a/b", "walk"), ConfigError, "letters, digits"),
        (notebook("a", "walk") * 2, ConfigError, "two notebooks are named 'a'"),
        (notebook("a", "wlak"), NotFound, r"no notebook .*wlak.ipynb. Did you mean 'walk.ipynb'"),
        (notebook("a", "walk", "after = ['c']"), ConfigError, "'a' waits for 'c', which does not exist"),
        (
            notebook("a", "walk", "after = ['b']") + notebook("b", "walk", "inputs = { seed = 'a.end' }"),
            ConfigError,
            "wait for one another: (a -> b -> a|b -> a -> b)",
        ),
        (
            notebook("a", "walk", "inputs = { seed = 'b' }"),
            ConfigError,
            'cannot be .b.. Expected: An input is "notebook.output"',
        ),
        (notebook("a", "walk", "parameters = { sed = 1 }"), InvalidParameters, "Did you mean 'seed'"),
        (
            notebook("a", "walk") + notebook("b", "walk", "inputs = { sed = 'a.end' }"),
            InvalidParameters,
            "Did you mean 'seed'",
        ),
        (
            notebook("a", "walk") + notebook("b", "walk", "parameters = {seed = 1}\ninputs = { seed = 'a.end' }"),
            InvalidParameters,
            "both a parameter and an input",
        ),
    ],
)
def test_an_invalid_pipeline_is_refused_before_anything_runs(
    files: Files, settings: Settings, toml: str, error: type[GenokitError], said: str
) -> None:
    path = files(toml, walk=WALK)
    with pytest.raises(error, match=said):
        Pipeline(path, settings=settings).run(progress=False)
    assert not settings.runs.exists()


def test_unknown_names_in_parameters_are_refused_before_anything_runs(files: Files, settings: Settings) -> None:
    pipeline = Pipeline(files(notebook("walk", "walk"), walk=WALK), settings=settings)
    with pytest.raises(InvalidParameters, match=r"has no notebook 'wlak'. Did you mean 'walk'"):
        pipeline.run({"wlak": {"seed": 1}})
    with pytest.raises(InvalidParameters, match="'seed': expected int, got 'x'"):
        pipeline.run({"walk": {"seed": "x"}})
    assert not settings.runs.exists()


def test_a_given_parameter_wins_over_an_input_and_keeps_the_order(files: Files) -> None:
    path = files(notebook("b", "walk", "inputs = { base = 'a.end' }") + notebook("a", "walk"), walk=WALK)
    plan = Pipeline(path).plan.with_parameters({"b": {"base": 2}})
    plan.check()
    assert plan["b"].needs == ["a"]
    assert (plan["b"].inputs, plan["b"].parameters) == ({}, {"base": 2})


@pytest.mark.parametrize("way", ["Ctrl-C", pytest.param("genokit stop", marks=pytest.mark.slow)])
def test_an_interrupt_stops_every_kernel_and_leaves_a_report(files: Files, settings: Settings, way: str) -> None:
    wait = "import os, time\nopen(f'{os.environ[\"GENOKIT_RUN\"]}/pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    more = "".join(notebook(f"n{n}", "wait", f"parameters = {{ n = {n} }}") for n in (1, 2, 3))
    more += notebook("last", "wait", "after = ['n1']")
    path = files(more, wait=("#parameters\nn = 0", wait))
    home, code = str(settings.home), "from genokit import Pipeline, Settings\nimport sys\n"
    code += "Pipeline(sys.argv[1], settings=Settings(home=sys.argv[2])).run(progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code, str(path), home], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(pids := [pid for file in settings.runs.glob("*/*/pid") if (pid := file.read_text())]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if way == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        (folder,) = settings.runs.glob("*-tour-*")
        subprocess.run([sys.executable, "-m", "genokit", "stop", str(folder)], check=True)
    _, said = process.communicate(timeout=240)
    assert ("KeyboardInterrupt" in said, process.returncode) == ((True, -2) if way == "Ctrl-C" else (False, 143))
    assert not [pid for pid in pids if psutil.pid_exists(int(pid))]
    (report,) = settings.runs.glob("*/report.html")
    assert f"Report: {report}" in said or way == "genokit stop"
    text = report.read_text()
    assert text.count("interrupted in code cell 2") >= 2
    assert "NOT_RUN" in text


def test_a_missing_file_is_reported_when_it_is_needed_not_before(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "none.toml")
    assert repr(pipeline) == f"<Pipeline {tmp_path / 'none.toml'}>"
    with pytest.raises(NotFound, match=r"There is no pipeline .*none.toml"):
        pipeline.run()


def test_a_pipeline_shows_its_notebooks(files: Files) -> None:
    shown = Pipeline(files(notebook("walk", "walk", "parameters = { seed = 4 }"), walk=WALK))._repr_html_()
    assert "walk.ipynb" in shown
    assert "seed = 4" in shown
    assert "A &lt;tour&gt;" in shown


@pytest.mark.slow
def test_the_graph_of_a_pipeline_shows_what_needs_what_and_after_a_run_how_each_notebook_ended(
    files: Files, settings: Settings
) -> None:
    order = {"bad": 'after = ["walk"]', "last": 'after = ["bad"]'}
    toml = notebook("walk", "walk") + notebook("bad", "bad", order["bad"]) + notebook("last", "walk", order["last"])
    path = files(toml, walk=WALK, bad=BAD)
    pipeline = Pipeline(path, settings=settings)
    assert {text.get_text() for text in pipeline.plot().texts} == {"walk", "walk.ipynb", "bad", "bad.ipynb", "last"}
    with pytest.raises(PipelineFailed):
        pipeline.run(progress=False)
    ran = [Run.load(path) for path in runs(settings).path[::-1]]
    ended = PipelineRun(path.parent, pipeline.plan, dict(zip(["walk", "bad"], ran, strict=True)))
    table = ended.notebooks.set_index("notebook")
    assert list(table.state) == ["SUCCEEDED", "FAILED", "NOT_RUN"]
    assert table.ready["bad"] == table.ended["walk"] <= table.started["bad"]
    words = [text.get_text().partition(",")[0] for text in ended.plot().texts]
    assert words == ["walk", "✓ SUCCEEDED", "bad", "✕ FAILED", "last", "○ NOT_RUN"]


@pytest.mark.slow
def test_in_a_live_notebook_the_graph_fills_in_while_the_pipeline_runs(files: Files, settings: Settings) -> None:
    waits = ("import time; time.sleep(1.2)",)
    path = files(notebook("a", "waits") + notebook("b", "waits", 'after = ["a"]'), waits=waits)
    code = f"import genokit; done = genokit.Pipeline({str(path)!r}).run()"
    shown: list[str] = []

    def note(message: dict[str, Any]) -> None:
        data = message["content"].get("data", {})
        if "img" in data.get("text/html", ""):
            shown.append(f"{message['msg_type']}: {data['text/plain']}")

    manager, client = start_new_kernel(env={**os.environ, **settings.environ()})
    try:
        for person in (False, True):  # nobody watches a notebook that papermill runs
            reply = client.execute_interactive(code, allow_stdin=person, output_hook=note, timeout=60)
            assert reply["content"]["status"] == "ok"
            assert bool(shown) == person
            code = code.replace("run()", "run(fresh=True)")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert shown[0] == "display_data: 0 of 2 notebooks succeeded"
    assert list(dict.fromkeys(shown[1:])) == [f"update_display_data: {n} of 2 notebooks succeeded" for n in (1, 2)]
