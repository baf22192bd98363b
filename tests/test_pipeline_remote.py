"""Notebooks as Batch jobs: alone, in a pipeline, and found again by whoever asks for the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from embedded import served, through

from genokit import Batch, Pipeline, Run, Settings, backends, run
from genokit.errors import ConfigError, GenokitError, InvalidParameters, NotebookFailed, PipelineFailed
from genokit.pipelines import folders, follow, plan, remote, runs

Write = Callable[..., Path]
CALLS = (
    "#parameters\nsample: str = 'a'\nseed = 1",
    "import lab.constants, genokit, pathlib\nprint('calls of', sample)",
    "genokit.record('total', seed * lab.constants.SCALE)",
    "pathlib.Path('calls.csv').write_text(f'{sample},{seed}')\ngenokit.record('table', pathlib.Path('calls.csv'))",
)
MERGE = (
    "#parameters\ntables: list = []\ntotals: list = []",
    "import genokit\ngenokit.record('lines', [table.read_text() for table in tables])",
    "genokit.record('sum', sum(totals))",
)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings.load(home=tmp_path / "home", runs=tmp_path / "runs")
    yield settings
    from genokit import backends

    backends.account(settings).stop()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a notebook, or with TOML a pipeline, into a project with a module of its own; gives its path."""
    project = tmp_path / "project"
    (project / "lab").mkdir(parents=True)
    (project / "genokit.toml").touch()
    (project / "lab" / "__init__.py").touch()
    (project / "lab" / "constants.py").write_text("SCALE = 10\n")

    def written(name: str, *sources: str, toml: str = "") -> Path:
        if toml:
            (project / f"{name}.toml").write_text(f'name = "{name}"\n{toml}')
            return project / f"{name}.toml"
        tagged = {"tags": ["parameters"]}
        cells = [nbformat.v4.new_code_cell(s, metadata=tagged if s.startswith("#par") else {}) for s in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), project / f"{name}.ipynb")
        return project / f"{name}.ipynb"

    return written


def jobs(settings: Settings) -> int:
    return len(Batch(settings=settings).jobs())


def test_a_notebook_runs_as_a_job_and_all_that_it_made_comes_back(write: Write, settings: Settings) -> None:
    ended = run(write("calls", *CALLS), {"seed": 4}, queue="lowPriority", settings=settings, progress=False)
    assert (ended.state, ended.outputs["total"]) == ("SUCCEEDED", 40)
    assert ended.outputs["table"] == ended.path / "files" / "calls.csv"
    assert ended.outputs["table"].read_text() == "a,4"
    assert [cell.state for cell in ended.steps] == ["completed"] * 4
    assert ended.source == write("calls", *CALLS)
    assert Run.load(ended.path) == ended
    assert nbformat.read(ended.notebook, 4).cells[1].source == "# Parameters\nsample = 'a'\nseed = 4"
    assert json.loads((ended.path / "ro-crate-metadata.json").read_text())
    assert follow(replace(ended, state="RUNNING"), settings=settings).outputs == ended.outputs
    job = Batch(settings=settings).job(ended.job)
    assert (job.queue, job.status) == ("lowPriority", "SUCCEEDED")
    assert "calls of a" in str(job.log())
    assert "Batch job" in ended._repr_html_()


@pytest.mark.slow
def test_with_the_cache_the_same_run_is_restored_and_a_changed_module_runs_it_again(
    write: Write, settings: Settings
) -> None:
    notebook = write("calls", *CALLS)
    first = run(notebook, queue="lowPriority", settings=settings, progress=False, cache=True)
    again = run(notebook, queue="lowPriority", settings=settings, progress=False, cache=True)
    assert (again.cached_from, again.outputs["total"], jobs(settings)) == (str(first.path), 10, 1)
    assert again.outputs["table"] == again.path / "files" / "calls.csv"
    # Without the folders of its runs, another person of the same account gets the results from S3.
    elsewhere = Settings(home=settings.home, runs=settings.home / "other")
    theirs = run(notebook, queue="lowPriority", settings=elsewhere, progress=False, cache=True)
    assert (theirs.cached_from, theirs.outputs["table"].read_text(), jobs(settings)) == (first.address, "a,1", 1)
    (notebook.parent / "lab" / "constants.py").write_text("SCALE = 100\n")
    changed = run(notebook, queue="lowPriority", settings=settings, progress=False, cache=True)
    assert (changed.outputs["total"], changed.reason) == (100, "module lab/constants.py changed")


@pytest.mark.slow
def test_a_failure_in_a_job_comes_back_with_its_notebook(write: Write, settings: Settings) -> None:
    notebook = write("bad", "x = 1", "raise ValueError('no reads')")
    with pytest.raises(NotebookFailed, match=r"code cell 2, line 1 .*: ValueError: no reads") as raised:
        run(notebook, queue="lowPriority", settings=settings, progress=False)
    failed = raised.value.run
    assert (failed.state, [cell.state for cell in failed.steps]) == ("FAILED", ["completed", "failed"])
    assert failed.notebook.is_file()
    assert Batch(settings=settings).job(failed.job).status == "FAILED"


@pytest.mark.slow
def test_a_killed_job_is_no_success(write: Write, settings: Settings) -> None:
    notebook = write("long", "import time\ntime.sleep(60)")
    raised: list[NotebookFailed] = []

    def wait() -> None:
        try:
            run(notebook, queue="lowPriority", settings=settings, progress=False)
        except NotebookFailed as error:
            raised.append(error)

    waits = threading.Thread(target=wait)
    waits.start()
    batch = Batch(settings=settings)
    while not (listed := batch.jobs(status="RUNNING")).size:
        time.sleep(0.1)
    assert runs(settings)["state"].tolist() == ["RUNNING"]
    gone = threading.Event()
    gone.set()
    with pytest.raises(GenokitError, match=r"Stopped waiting for long. Its Batch job .* goes on"):
        follow(Run.load(runs(settings)["path"][0]), settings=settings, stop=gone, progress=False)
    Run.load(runs(settings)["path"][0]).stop(settings)
    waits.join()
    assert (raised[0].run.state, batch.job(listed["job_id"][0]).status) == ("FAILED", "FAILED")
    assert re.search("interrupted in code cell 1|ended: Stopped by its user", str(raised[0]))


@pytest.mark.slow
def test_who_interrupts_the_wait_for_a_job_is_told_how_to_stop_it_and_the_stopped_run_is_no_longer_running(
    write: Write, settings: Settings
) -> None:
    notebook, environ = write("long", "import time\ntime.sleep(600)"), {**os.environ, **settings.environ()}
    command = [sys.executable, "-m", "genokit"]
    waits = subprocess.Popen(
        [*command, "run", str(notebook), "--queue", "lowPriority"], env=environ, stderr=subprocess.PIPE, text=True
    )
    assert waits.stderr
    assert waits.stderr.read(1)  # the bar
    while not Batch(settings=settings).jobs(status="RUNNING").size:
        assert waits.poll() is None
        time.sleep(0.1)
    waits.send_signal(signal.SIGINT)
    said = waits.communicate(timeout=60)[1]
    (folder,) = runs(settings)["path"]
    assert said.strip().endswith(f"goes on. To stop it: genokit stop {folder}")
    assert Run.load(folder).state == "RUNNING"
    stopped = subprocess.run([*command, "stop", folder], env=environ, capture_output=True, text=True, check=True)
    assert stopped.stdout == "Stopped: long\n"
    assert Run.load(folder).state == "FAILED"


@pytest.mark.slow
def test_a_pipeline_fans_out_on_a_queue_and_gathers(write: Write, settings: Settings) -> None:
    write("calls", *CALLS)
    write("merge", *MERGE)
    toml = """
        [[notebook]]
        name = "calls"
        path = "calls.ipynb"
        matrix = { sample = ["a", "b"], seed = [1, 2] }
        [[notebook]]
        name = "merge"
        path = "merge.ipynb"
        inputs = { tables = "calls.table", totals = "calls.total" }
        [[notebook]]
        name = "look"
        path = "merge.ipynb"
        on = "here"
        inputs = { totals = "calls.total" }
    """
    pipeline = Pipeline(write("study", toml=toml), settings=settings)
    ended = pipeline.run(queue="lowPriority", progress=False)
    assert ended.outputs["merge"] == {"lines": ["a,1", "a,2", "b,1", "b,2"], "sum": 60}
    assert ended.outputs["look"] == {"lines": [], "sum": 60}
    assert [name for name, one in ended.runs.items() if one.job is None] == ["look"]
    children = {ended.runs[f"calls-{sample}-{seed}"].job for sample in "ab" for seed in (1, 2)}
    assert {child.partition(":")[2] for child in children} == {"0", "1", "2", "3"}  # one array
    assert jobs(settings) == 2

    planned = pipeline.run(queue="lowPriority", dry_run=True)
    assert set(planned["action"]) == {"restore"}
    again = pipeline.run(queue="lowPriority", progress=False)
    assert all(one.cached_from for one in again.runs.values())
    assert again.outputs["merge"] == ended.outputs["merge"]
    # Only the combinations that changed run again, and what follows them.
    changed = pipeline.run({"calls-b-2": {"seed": 3}}, queue="lowPriority", progress=False)
    assert {name for name, one in changed.runs.items() if not one.cached_from} == {"calls-b-2", "merge", "look"}
    assert changed.outputs["merge"]["lines"] == ["a,1", "a,2", "b,1", "b,3"]


@pytest.mark.slow
def test_a_failed_job_stops_the_jobs_after_it(write: Write, settings: Settings) -> None:
    write("bad", "raise ValueError('no reads')")
    write("merge", *MERGE)
    toml = '[[notebook]]\nname = "bad"\npath = "bad.ipynb"\n[[notebook]]\nname = "merge"\npath = "merge.ipynb"\n'
    pipeline = Pipeline(write("study", toml=toml + 'after = ["bad"]'), settings=settings)
    with pytest.raises(PipelineFailed) as raised:
        pipeline.run(queue="lowPriority", progress=False)
    assert "- bad FAILED: code cell 1" in str(raised.value)
    assert "- merge NOT_RUN: bad did not succeed" in str(raised.value)


@pytest.mark.slow
def test_jobs_go_on_without_the_process_that_started_them(write: Write, settings: Settings) -> None:
    write("calls", "import time\ntime.sleep(3)", *CALLS)
    write("merge", *MERGE)
    toml = """
        [[notebook]]
        name = "calls"
        path = "calls.ipynb"
        [[notebook]]
        name = "merge"
        path = "merge.ipynb"
        matrix = { totals = [[1], [2]] }
        after = ["calls"]
    """
    path = write("study", toml=toml)
    script = f"from genokit import Pipeline\nPipeline({str(path)!r}).run(queue='lowPriority', progress=False)"
    started = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, **settings.environ()})
    while jobs(settings) < 2:
        assert started.poll() is None
        time.sleep(0.1)
    started.kill()
    started.wait()
    ended = Pipeline(path, settings=settings).run(queue="lowPriority", progress=False)
    assert ended.state == "SUCCEEDED"
    assert jobs(settings) == 2  # the same ones


@pytest.mark.slow
def test_a_job_gets_the_resources_of_its_notebook(write: Write, settings: Settings) -> None:
    write("calls", *CALLS)
    on = 'on = { queue = "highPriority", vcpus = 1, memory_gib = 0.5, retry = 2, timeout_min = 5 }'
    toml = f'[[notebook]]\nname = "calls"\npath = "calls.ipynb"\n{on}'
    ended = Pipeline(write("study", toml=toml), settings=settings).run(progress=False)
    detail = Batch(settings=settings).job(ended.runs["calls"].job).detail
    needs = {one["type"]: one["value"] for one in detail["container"]["resourceRequirements"]}
    assert (needs["MEMORY"], detail["timeout"], detail["retryStrategy"]["attempts"]) == (
        "512",
        {"attemptDurationSeconds": 300},
        2,
    )


@pytest.mark.slow
def test_a_parameter_that_names_a_file_reaches_the_job(write: Write, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "reads.fq").write_text("ACGT")
    notebook = write(
        "reads",
        "#parameters\nfrom pathlib import Path\nreads: Path = Path('none')",
        "import genokit\ngenokit.record('n', len(reads.read_text()))",
    )
    given = {"reads": tmp_path / "reads.fq"}
    assert run(notebook, given, queue="lowPriority", settings=settings, progress=False).outputs == {"n": 4}


def test_over_the_wire_a_file_is_uploaded_and_a_folder_is_refused(write: Write, settings: Settings) -> None:
    """As on AWS, where jobs share no folder with this machine, with boto3's own clients."""
    notebook = write(
        "reads",
        "#parameters\nfrom pathlib import Path\nreads: Path = Path('none')",
        "import genokit, os\ngenokit.record('got', [os.environ['GENOKIT_BACKEND'], reads.read_text()])",
    )
    reads = settings.home.parent / "reads.fq"
    reads.write_text("ACGT")
    aws = Settings(backend="aws", region="eu-central-1", home=settings.home.parent / "aws", runs=settings.runs)
    roles = dict.fromkeys(("JobRole", "ExecutionRole"), "arn:aws:iam::123456789012:role/job")
    with served(settings) as door, through(door) as wire:
        clients = backends.Clients(aws, batch=wire.batch, s3=wire.s3, logs=wire.logs)
        clients.stack_outputs[aws.stack] = {"Bucket": "genokit", "ImageCpu": "genokit", "LogGroup": "/jobs", **roles}

        def sent(path: Path) -> Run:
            on = plan.Queue("lowPriority")
            reads = plan.NotebookTask("reads", notebook, notebook.parent, {"reads": path}, on=on)
            ready = plan.checked(reads, aws, folder=folders.fresh(settings.made("runs"), "reads"))
            (begun,) = remote.start([ready], clients, fresh=False)
            return begun

        one = sent(reads)
        while one.state == "RUNNING":
            time.sleep(0.2)
            (one,) = remote.look([one], clients)
        assert (one.outputs, one.parameters) == ({"got": ["aws", "ACGT"]}, {"reads": reads})
        with pytest.raises(InvalidParameters, match="cannot see the folder"):
            sent(reads.parent)


@pytest.mark.slow
def test_combinations_whose_results_exist_are_restored_although_the_others_cannot_be_submitted(
    write: Write, settings: Settings
) -> None:
    write("calls", *CALLS)
    toml = '[[notebook]]\nname = "calls"\npath = "calls.ipynb"\nmatrix = {{ seed = {} }}'
    first = Pipeline(write("small", toml=toml.format([1])), settings=settings).run(queue="lowPriority", progress=False)
    with pytest.raises(PipelineFailed, match=r"calls-2 FAILED: .*nowhere") as raised:
        Pipeline(write("small", toml=toml.format([1, 2])), settings=settings).run(queue="nowhere", progress=False)
    assert [(one.name, one.state) for one in raised.value.runs] == [("calls-1", "SUCCEEDED")]
    assert raised.value.runs[0].cached_from == str(first.runs["calls-1"].path)


def test_what_cannot_run_is_refused_before_a_job_is_submitted(write: Write, settings: Settings) -> None:
    with pytest.raises(InvalidParameters, match="Did you mean 'seed'"):
        run(write("calls", *CALLS), {"sed": 1}, queue="lowPriority", settings=settings)
    with pytest.raises(Exception, match="lowprio"):
        run(write("calls", *CALLS), queue="lowprio", settings=settings, progress=False)
    assert jobs(settings) == 0


def test_a_combination_takes_the_outputs_of_the_same_values(write: Write) -> None:
    write("calls", *CALLS)
    toml = """
        [[notebook]]
        name = "calls"
        path = "calls.ipynb"
        matrix = { sample = ["a", "b"] }
        [[notebook]]
        name = "check"
        path = "calls.ipynb"
        matrix = { sample = ["a", "b"], seed = [1, 2.5] }
        inputs = { n = "calls.total" }
        [[notebook]]
        name = "all"
        path = "calls.ipynb"
        inputs = { n = "check.total" }
    """
    planned = plan.read(write("study", toml=toml))
    assert [step.name for step in planned.steps] == [
        "calls-a",
        "calls-b",
        *(f"check-{number}" for number in range(1, 5)),
        "all",
    ]
    assert planned["check-3"].inputs["n"] == plan.Input(("calls-b",), "total", several=False)
    assert planned["all"].inputs["n"].several
    assert planned.named("calls") == ["calls-a", "calls-b"]
    with pytest.raises(ConfigError, match="no combination of its matrix has the same values"):
        plan.read(write("study", toml=toml.replace('["a", "b"], seed', '["c"], seed')))
