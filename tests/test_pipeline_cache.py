"""Caching and resuming: what did not change is restored, what did is executed again, a killed pipeline continues."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest

from genokit import Manifest, Pipeline, Settings, run
from genokit.__main__ import main
from genokit.errors import GenokitError, InvalidParameters
from genokit.pipelines import PipelineRun, Run, clean, compare, runs

Write = Callable[..., Path]
# Each executed notebook leaves a line in a file beside it.
MARK = "open('work.log', 'a').write({name!r} + '\\n')"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a notebook into a project; markdown starts with `# `, a parameters cell with `#parameters`."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "genokit.toml").touch()

    def notebook(name: str, *sources: str) -> Path:
        cells = []
        for source in (*sources, MARK.format(name=name)):
            if source.startswith("# "):
                cells.append(nbformat.v4.new_markdown_cell(source))
                continue
            tags = {"tags": ["parameters"]} if source.startswith("#parameters") else {}
            cells.append(nbformat.v4.new_code_cell(source, metadata=tags))
        path = tmp_path / "project" / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return notebook


@pytest.fixture
def three(write: Write, tmp_path: Path) -> Path:
    """A pipeline of three notebooks: the first imports a module, the second takes its result, the third comes last."""
    package = tmp_path / "project" / "lab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text("def seed():\n    from .constants import SEED\n    return SEED\n")
    (package / "constants.py").write_text("SEED = 3\n")
    write("one", "# One", "from lab.numbers import seed\nimport genokit\ngenokit.record('seed', seed())")
    write("two", "#parameters\nseed: int = 1\ntimes = 2", "import genokit\ngenokit.record('product', seed * times)")
    write("three", "print('end')")
    path = tmp_path / "project" / "all.toml"
    path.write_text(
        'name = "all"\n[[notebook]]\nname = "one"\npath = "one.ipynb"\n'
        '[[notebook]]\nname = "two"\npath = "two.ipynb"\ninputs = { seed = "one.seed" }\n'
        '[[notebook]]\nname = "three"\npath = "three.ipynb"\nafter = ["two"]\n'
    )
    return path


def worked(folder: Path) -> list[str]:
    """The notebooks that were executed since this was last asked."""
    log = folder / "work.log"
    found = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def planned(pipeline: Pipeline, **restricted: object) -> dict[str, tuple[str, str]]:
    """What a dry run says, by notebook."""
    table = pipeline.run(dry_run=True, **restricted)
    return {name: (action, why) for name, action, why in table.itertuples(index=False)}


def test_an_unchanged_pipeline_is_restored_and_a_changed_part_executes_what_depends_on_it(
    three: Path, settings: Settings, write: Write
) -> None:
    pipeline, project = Pipeline(three, settings=settings), three.parent
    assert planned(pipeline) == {
        "one": ("run", "it has not run before"),
        "two": ("run", "one runs before it"),
        "three": ("run", "two runs before it"),
    }
    assert not settings.runs.exists()
    first = pipeline.run(progress=False)
    assert worked(project) == ["one", "two", "three"]
    assert first.runs["one"].reason == "it has not run before"

    again = pipeline.run(progress=False)
    assert worked(project) == []
    assert again.outputs == first.outputs == {"one": {"seed": 3}, "two": {"product": 6}, "three": {}}
    assert {Path(one.cached_from).parent for one in again.runs.values()} == {first.path}
    assert again.runs["one"].notebook.read_bytes() == first.runs["one"].notebook.read_bytes()
    assert Run.load(again.runs["two"].path) == again.runs["two"]
    card = again.runs["one"]._repr_html_()
    assert f"Restored from {again.runs['one'].cached_from}; nothing was executed" in card
    assert "restored" in again.report.read_text()

    # A changed markdown cell and outputs in the notebook change nothing.
    book = nbformat.read(project / "one.ipynb", as_version=4)
    book.cells[0].source = "# Another title"
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="old")]
    book.metadata["note"] = "x"
    nbformat.write(book, project / "one.ipynb")
    assert {action for action, _ in planned(pipeline).values()} == {"restore"}

    # A module that a function of another module imports: of the same size, so that only its time or content tells.
    (project / "lab" / "constants.py").write_text("SEED = 4\n")
    said = planned(pipeline)
    assert said["one"] == ("run", "module lab/constants.py changed")
    assert said["two"] == ("run", "one runs before it")
    assert pipeline.run(progress=False).outputs["two"] == {"product": 8}
    assert worked(project) == ["one", "two", "three"]

    # The same result of the first notebook: those that take only its results are restored.
    (project / "lab" / "constants.py").write_text("SEED = 2 + 2\n")
    ended = pipeline.run(progress=False)
    assert worked(project) == ["one"]
    assert ended.runs["two"].cached_from is not None

    assert planned(pipeline) == dict.fromkeys(("one", "two", "three"), ("restore", "nothing changed"))
    said = planned(pipeline, parameters={"two": {"times": 5}})
    assert said["two"] == ("run", "parameter 'times' changed")
    assert said["one"][0] == "restore"
    write("three", "print('the end')")
    assert planned(pipeline)["three"] == ("run", "code cell 1 changed")


@pytest.mark.slow
def test_a_part_of_a_pipeline_runs_with_the_results_of_the_last_runs(three: Path, settings: Settings) -> None:
    pipeline, project = Pipeline(three, settings=settings), three.parent
    with pytest.raises(GenokitError, match=r"'one' has no run that succeeded. .* up_to='one', in a shell --up-to one"):
        pipeline.run(only="two")
    assert list(pipeline.run(up_to="two", progress=False).runs) == ["one", "two"]
    assert worked(project) == ["one", "two"]
    assert pipeline.run(only="two", progress=False).outputs == {"two": {"product": 6}}
    assert worked(project) == ["two"]
    assert list(planned(pipeline, start_from="two")) == ["two", "three"]
    assert planned(pipeline, only="two") == {"two": ("run", "it was asked for")}
    assert list(pipeline.run(start_from="two", progress=False).runs) == ["two", "three"]
    assert worked(project) == ["three"]
    assert planned(pipeline) == dict.fromkeys(("one", "two", "three"), ("restore", "nothing changed"))
    pipeline.run(progress=False, fresh=True)
    assert worked(project) == ["one", "two", "three"]
    with pytest.raises(InvalidParameters, match="Did you mean 'two'"):
        pipeline.run(up_to="tow")
    with pytest.raises(InvalidParameters, match="'one' does not need 'two', so there is nothing to run"):
        pipeline.run(start_from="two", up_to="one")


def test_a_changed_file_and_folder_of_a_path_parameter_are_seen(write: Write, settings: Settings) -> None:
    notebook = write("reads", "#parameters\nfrom pathlib import Path\nreads = Path('reads.fq')\nmore: list[Path] = []")
    (notebook.parent / "reads.fq").write_text("ACGT")
    folder = notebook.parent / "more"
    folder.mkdir()
    (folder / "a").write_text("a")

    def reason() -> str:
        done = run(notebook, {"more": [folder]}, settings=settings, progress=False, cache=True)
        return "restored" if done.cached_from else done.reason

    assert [reason(), reason()] == ["it has not run before", "restored"]
    os.utime(notebook.parent / "reads.fq", (1, 1))
    assert reason() == "restored"
    (notebook.parent / "reads.fq").write_text("ACGA")
    assert reason() == "the data of parameter 'reads' changed"
    (folder / "b").write_text("b")
    assert [reason(), reason()] == ["the data of parameter 'more' changed", "restored"]


@pytest.mark.slow
def test_a_changed_manifest_and_a_changed_recorded_file_are_seen(
    write: Write, settings: Settings, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "reads.csv").write_text("id\n1\n")
    Manifest.freeze(data, "reads")
    notebook = write(
        "fetches",
        "from genokit import Manifest, record\nfrom pathlib import Path",
        f"Manifest({str(data)!r}).fetch(progress=False)",
        "Path('table.csv').write_text('a')\nrecord('table', Path('table.csv'))",
    )
    first = run(notebook, settings=settings, progress=False, cache=True)
    table = notebook.parent / "table.csv"
    assert set(first.data) == {str(data / "datapackage.json"), str(table)}
    assert not list(first.path.glob("*.jsonl"))
    assert run(notebook, settings=settings, progress=False, cache=True).cached_from == str(first.path)
    table.unlink()
    assert run(notebook, settings=settings, progress=False, cache=True).reason == f"{table} changed"
    (data / "reads.csv").write_text("id\n2\n")
    Manifest.freeze(data, "reads", replace=True)
    assert run(notebook, settings=settings, progress=False, cache=True).reason == f"{data / 'datapackage.json'} changed"
    assert run(notebook, settings=settings, progress=False, cache=True).cached_from


@pytest.mark.slow
def test_a_run_is_executed_unless_the_cache_is_asked_for(write: Write, settings: Settings) -> None:
    notebook = write("single", "#parameters\nn = 1", "import genokit\ngenokit.record('n', n)")
    for cache in (False, True, False, True):
        run(notebook, settings=settings, progress=False, cache=cache)
    assert worked(notebook.parent) == ["single"] * 3
    assert run(notebook, settings=settings, progress=False, cache=True, fresh=True).cached_from is None
    assert run(notebook, settings=settings, progress=False, cache=True).rerun(settings, n=5).outputs == {"n": 5}


@pytest.mark.slow
def test_a_deleted_or_damaged_run_is_executed_again(write: Write, settings: Settings) -> None:
    notebook = write("lost")
    for damage in (
        lambda path: (path / "run.json").write_text("{"),
        lambda path: (path / "run.json").unlink(),
        lambda path: (path / "notebook.ipynb").write_text("{"),
        lambda path: (path / "notebook.ipynb").unlink(),
        lambda path: (path / "source.ipynb").unlink(),
        lambda path: [entry.write_text("[") for entry in (settings.runs / ".cache").glob("*.json")],
        lambda path: [entry.unlink() for entry in (settings.runs / ".cache").iterdir()],
    ):
        done = run(notebook, settings=settings, progress=False, cache=True)
        assert worked(notebook.parent) == ["lost"]
        assert done.state == "SUCCEEDED"
        damage(done.path)


def test_a_failed_run_is_never_restored(write: Write, settings: Settings) -> None:
    notebook = write("fails", "import os\nassert os.path.exists('there')")
    with pytest.raises(GenokitError):
        run(notebook, settings=settings, progress=False, cache=True)
    (notebook.parent / "there").touch()
    assert run(notebook, settings=settings, progress=False, cache=True).cached_from is None


def test_a_notebook_that_changed_during_its_run_is_executed_again(write: Write, settings: Settings) -> None:
    notebook = write("changes", "#parameters\nfrom pathlib import Path\nout = Path('out')", "out.write_text('x')")
    done = [run(notebook, settings=settings, progress=False, cache=True) for _ in range(3)]
    assert [one.cached_from is None for one in done] == [True, True, False]


@pytest.mark.slow
def test_two_processes_at_once_do_the_work_once(write: Write, settings: Settings) -> None:
    notebook = write("slow", "import time\ntime.sleep(2)\nimport genokit\ngenokit.record('n', 1)")
    code = (
        "import sys\nfrom genokit import run, Settings\n"
        "done = run(sys.argv[1], settings=Settings(home=sys.argv[2]), progress=False, cache=True)\nprint(done.outputs)"
    )
    command = [sys.executable, "-c", code, str(notebook), str(settings.home)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate(timeout=240)[0].strip() for one in both] == ["{'n': 1}"] * 2
    assert worked(notebook.parent) == ["slow"]
    assert sorted(bool(Run.load(path).cached_from) for path in runs(settings)["path"]) == [False, True]


def test_the_cache_holds_neither_values_nor_paths(write: Write, settings: Settings) -> None:
    notebook = write("private", "#parameters\nfrom pathlib import Path\nwho = ''\nreads = Path('x')")
    data = notebook.parent / "patient-4711.fq"
    data.write_text("ACGT")
    os.utime(data, (1, 1))
    run(notebook, {"who": "Jane-Doe", "reads": data}, settings=settings, progress=False, cache=True)
    files = [file for file in (settings.runs / ".cache").iterdir() if file.is_file()]
    assert len(files) >= 3
    for file in files:
        assert file.stat().st_mode & 0o077 == 0 or file.stat().st_size == 0
        assert not any(word in file.read_text() for word in ("Jane", "4711", "ACGT"))


KILLED = "import sys\nfrom genokit import Pipeline, Settings\n" + (
    "Pipeline(sys.argv[1], settings=Settings(home=sys.argv[2])).run(progress=False)"
)


@pytest.mark.slow
def test_a_pipeline_killed_at_any_moment_continues(three: Path, settings: Settings, write: Write) -> None:
    table = "import genokit\ngenokit.record('lines', list(range(200_000)))"  # too large for the record: a file
    write("table", table)
    with three.open("a") as file:
        file.write('[[notebook]]\nname = "table"\npath = "table.ipynb"\nafter = ["one"]\n')
    mark = str(settings.home)
    other = Settings(home=settings.home.parent / "other")
    begun = time.monotonic()
    whole = contents(Pipeline(three, settings=other).run(progress=False))
    longest_s = time.monotonic() - begun
    dice, kills = random.Random(20), 0
    while kills < 20:
        command = [sys.executable, "-c", KILLED, str(three), mark]
        process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "GENOKIT_TEST": mark})
        try:
            assert process.wait(dice.uniform(0.2, longest_s)) == 0
        except subprocess.TimeoutExpired:
            if kills % 2:  # with all processes of its session, or alone
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            kills += 1
        deadline = time.monotonic() + 120
        while marked(mark):
            assert time.monotonic() < deadline, f"{marked(mark)} outlived the pipeline"
            time.sleep(0.05)
        done = [Run.load(path) for path in runs(settings)["path"] if (Path(path) / "run.json").is_file()]
        executed = [one.name for one in done if one.state == "SUCCEEDED" and not one.cached_from]
        assert len(executed) == len(set(executed)), "a notebook was executed after it had succeeded"
        for path in settings.runs.glob("**/*.json"):
            json.loads(path.read_text())
        for path in settings.runs.glob("**/*.ipynb"):
            nbformat.read(path, as_version=4)
        if process.returncode == 0:  # all is done, so that the next one would have nothing to do
            assert contents(Pipeline(three, settings=settings).run(progress=False)) == whole
            shutil.rmtree(settings.runs)
    ended = Pipeline(three, settings=settings).run(progress=False)
    assert contents(ended) == whole
    again = Pipeline(three, settings=settings).run(progress=False)
    assert all(one.cached_from for one in again.runs.values())


def contents(ended: PipelineRun) -> dict[str, object]:
    """What a pipeline recorded, with the content of files in their place."""
    return {
        f"{notebook}.{name}": value.read_text() if isinstance(value, Path) else value
        for notebook, outputs in ended.outputs.items()
        for name, value in outputs.items()
    }


def marked(mark: str) -> list[psutil.Process]:
    """The processes that were started with this mark: the pipeline, the template of its kernels, and the kernels."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE and one.environ().get("GENOKIT_TEST") == mark:
                found.append(one)
    return found


@pytest.mark.slow
def test_two_runs_are_compared(write: Write, settings: Settings) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, n])\nplt.show()\nimport genokit\ngenokit.record('n', n)"
    notebook = write("drawn", "#parameters\nn = 1\nsame = '<b>'", draw)
    first, second = (run(notebook, {"n": n}, settings=settings, progress=False) for n in (1, 2))
    compared = compare(first, second)
    equal = dict(zip(compared.table["what"], compared.table["equal"], strict=True))
    assert equal == {
        "state": True,
        "parameter n": False,
        "parameter same": True,
        "output n": False,
        "code": True,
        "figure 1": False,
    }
    assert "parameter n, output n, figure 1" in compared._repr_html_()
    assert "<b>" not in compared._repr_html_()
    assert compare(first, first).table["equal"].all()


def test_old_and_large_runs_are_deleted_and_running_ones_stay(settings: Settings) -> None:
    def stored(name: str, age_days: float, state: str = "SUCCEEDED") -> Path:
        now = datetime.datetime.now(datetime.UTC)
        process = (socket.gethostname(), os.getpid(), psutil.Process().create_time())
        folder = settings.runs / name
        Run(folder / "step", name, state, Path("/a.ipynb"), "", now, process=process).save()
        (folder / "step" / "notebook.ipynb").write_text("x" * 1_000_000)
        os.utime(folder, (time.time() - age_days * 86400,) * 2)
        return folder

    old, running, middle, new = stored("a", 40), stored("b", 50, "RUNNING"), stored("c", 20), stored("d", 0)
    other = settings.runs / "notes"
    other.mkdir()
    os.utime(other, (1, 1))
    with pytest.raises(InvalidParameters, match="cannot be negative"):
        clean(settings, larger_than_gb=-1)
    assert clean(settings) == []
    assert clean(settings, older_than_days=30) == [old]
    assert clean(settings, larger_than_gb=0.0025) == [middle]
    assert [path.exists() for path in (old, running, middle, new, other)] == [False, True, False, True, True]


def test_the_command_line_plans_runs_compares_and_deletes(
    three: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENOKIT_HOME", str(settings.home))
    monkeypatch.setenv("GENOKIT_RUNS", str(settings.runs))
    assert main(["pipeline", str(three), "--dry-run", "--up-to", "two"]) == 0
    assert "it has not run before" in capsys.readouterr().out
    assert main(["pipeline", str(three), "--up-to", "one"]) == 0
    assert "one: executed because it has not run before" in capsys.readouterr().out
    assert main(["pipeline", str(three), "--up-to", "one"]) == 0
    assert "one: restored from " in capsys.readouterr().out
    assert main(["runs"]) == 0
    paths = runs(settings)["path"]
    assert all(path in capsys.readouterr().out for path in paths[:1])
    assert main(["diff", *paths]) == 0
    assert "output seed" in capsys.readouterr().out
    assert main(["clean", "--runs", "--larger-than", "0"]) == 0
    assert "2 deleted." in capsys.readouterr().out
    assert runs(settings).empty
