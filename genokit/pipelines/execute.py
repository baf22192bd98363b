"""``run(notebook, parameters)``: check the parameters, start a kernel, watch it, and save the results in a run folder.

papermill executes in a separate thread; the calling thread watches the time limits and Ctrl-C, and kills the kernel
when either strikes. A run therefore ends the same way in a script, in a Jupyter kernel and beside other runs.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from genokit import backends, display
from genokit.config import Settings
from genokit.errors import GenokitError, NotebookFailed, NotFound
from genokit.files import NOTES, write_atomic
from genokit.pipelines import cache as caching
from genokit.pipelines import crate, folders, html, notebooks, recording, remote, values
from genokit.pipelines.folders import Run
from genokit.pipelines.plan import CheckedNotebook, NotebookTask, Queue, checked
from genokit.pipelines.secret_values import redacted, secret

if TYPE_CHECKING:
    from genokit.pipelines.engine import Execution
    from genokit.pipelines.template import KernelTemplate

Watch = Callable[[Run], None]
Log = tuple[IO[str] | None, IO[str] | None]  # files for a notebook's output and errors
CELLS = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # of a bar that counts cells


class SharedPlace(Protocol):
    """Where a run can be shared, such as a Workspace."""

    def publish(self, what: Run, /) -> object: ...


def run(
    notebook: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    name: str | None = None,
    settings: Settings | None = None,
    cell_timeout_s: float | None = None,
    timeout_s: float | None = None,
    progress: bool = True,
    cwd: str | Path | None = None,
    log_output: bool | Log = False,
    stop: threading.Event | None = None,
    cache: bool = False,
    fresh: bool = False,
    watch: Watch | None = None,
    queue: str | None = None,
    vcpus: float = 1,
    memory_gib: float = 2,
    gpus: int = 0,
    retry: int | str | None = None,
    workspace: SharedPlace | None = None,
) -> Run:
    """Run a notebook from top to bottom in a new kernel and save everything in a run folder.

    The kernel uses the same Python and settings as the caller. The source notebook is never changed.

    Parameters
    ----------
    notebook : str or Path
        The notebook to run.
    parameters : mapping of str to object, optional
        Values that replace the defaults in the notebook's cell tagged ``parameters``. They are checked against the
        types stated there before a kernel starts.
    name : str, optional
        Name of the run. Default: the notebook's name.
    settings : Settings, optional
        Settings to run with. Default: ``Settings.load()``.
    cell_timeout_s : float, optional
        Time limit for each cell, in seconds. Default, and for 0: none.
    timeout_s : float, optional
        Time limit for the whole run, in seconds. Default, and for 0: none.
    progress : bool, default True
        Show a progress bar.
    cwd : str or Path, optional
        Working folder of the kernel. Default: the notebook's folder.
    log_output : bool or tuple of file, default False
        Print what the cells print, as it arrives. A pair of open files gets the output and the errors instead.
    stop : threading.Event, optional
        Setting this event interrupts the run.
    cache : bool, default False
        If nothing that the results depend on has changed since an earlier run with the cache, restore that run's
        results and execute nothing. These are the code cells, the parameters and the content of files among them, the
        project's modules that the notebook imports, the installed packages, the settings and the fetched data sets.
    fresh : bool, default False
        With the cache, execute in any case.
    watch : callable, optional
        Called with the current state of the run when a cell starts or ends, and every second.
    queue : str, optional
        Run the notebook as a Batch job in this job queue, and wait for it. The job gets the project's code, and the
        results come back into the run folder. If this process ends, the job goes on; with the cache, the same call
        finds it again. Default: run it here.
    vcpus, memory_gib, gpus : float, float, int
        What the job gets: 1 vCPU, 2 GiB of memory and no GPU by default.
    retry : int or str, optional
        Number of attempts of the job, or "spot", as in :meth:`genokit.Batch.submit`. Default: one.
    workspace : Workspace, optional
        Share the run, if it succeeds, in this workspace. Default: none.

    Returns
    -------
    Run
        The successful run: its state, outputs, cells, figures and folder.

    Raises
    ------
    NotFound, InvalidNotebook, InvalidParameters
        The run cannot start; nothing was run or written.
    NotebookFailed
        The notebook did not run to the end. ``.run`` is the run, whose folder holds the notebook as far as it got.

    Examples
    --------
    >>> import nbformat, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> cells = [nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": ["parameters"]}),
    ...          nbformat.v4.new_code_cell("import genokit; genokit.record('twice', 2 * epochs)")]
    >>> nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "double.ipynb")
    >>> done = run(folder / "double.ipynb", {"epochs": 21}, settings=Settings(home=folder / "kit"), progress=False)
    >>> done.state, done.outputs
    ('SUCCEEDED', {'twice': 42})
    """
    path = Path(notebook).expanduser().absolute()
    cwd = Path(cwd or path.parent).expanduser().absolute()
    if not cwd.is_dir():
        raise NotFound(f"The working folder {cwd} does not exist.")
    on = Queue(queue, vcpus, memory_gib, gpus, retry) if queue else None
    task = NotebookTask(name or path.stem, path, cwd, parameters or {}, timeout_s, cell_timeout_s, on)
    ready, stop = checked(task, settings or Settings.load()), stop or threading.Event()
    done = perform(ready, stop, progress=progress, log_output=log_output, cache=cache, fresh=fresh, watch=watch)
    if workspace is not None:
        workspace.publish(done)
    return done


def perform(
    ready: CheckedNotebook,
    stop: threading.Event | None = None,
    *,
    progress: bool = False,
    log_output: bool | Log = False,
    cache: bool = False,
    fresh: bool = False,
    watch: Watch | None = None,
    template: KernelTemplate | None = None,
) -> Run:
    """Do what ``run`` promises, also for a notebook of a pipeline. The kernel is forked from the ``template``."""
    task, settings, begun, node = ready.task, ready.settings, ready.begun, ready.node()
    stop, reuse = stop or threading.Event(), cache and not fresh
    settings.made("runs")
    if task.on:
        (sent,) = remote.start([ready], backends.clients(settings), fresh=not reuse)
        return follow(sent, settings=settings, progress=progress, stop=stop, watch=watch)
    with contextlib.ExitStack() as alone:
        depends = functools.partial(caching.ingredients, ready) if cache else dict[str, str]
        begun = replace(begun, ingredients=depends())
        if reuse:
            alone.enter_context(caching.only_one(caching.key(begun), settings.runs, stop))
            stored, reason = caching.find(settings.runs, begun)
            if stored:
                return caching.restore(stored, begun, settings.runs)
            begun = replace(begun, reason=reason)
        for name in values.secrets(begun.parameters):
            secret(name, settings)  # known from now on, so that it is kept out of files
        if template:
            template.start()
        # Two seconds of imports, before there is anything that an interrupt could leave half done.
        from genokit.bars import Bar
        from genokit.pipelines.engine import Execution

        log = (sys.stdout, sys.stderr) if log_output is True else log_output or (None, None)
        execution, why = Execution(node, begun.notebook, template, log), "interrupted"
        begun = replace(begun, started=datetime.datetime.now(datetime.UTC))
        with ended_in_order():
            try:
                begun.save()
                write_atomic(begun.path / folders.SOURCE, redacted(task.path.read_bytes()), private=True)
                write_atomic(begun.path / crate.PACKAGES, crate.packages(), private=True)
                write_atomic(begun.path / NOTES, b"", private=True)
                execution.save()
                environ = {**os.environ, **settings.environ(), "GENOKIT_RUN": str(begun.path)}
                execution.start(cwd=task.cwd, environ=environ)
                html.exporter()  # takes half a second the first time, while the kernel starts
                with Bar(desc=begun.name, unit="cell", bar_format=CELLS, disable=not progress) as bar:
                    why = _watch(execution, begun, task, bar, stop, watch)
            except BaseException as error:
                error.add_note(f"Kept: {begun.notebook}")
                raise
            finally:  # above all on an interrupt: the kernel must not outlive us, and the record must be true
                execution.stop()
                seal = functools.partial(caching.sealed, settings=settings, depends=depends)
                ended = _finish(begun, execution, why, seal)
    if ended.state != "SUCCEEDED":
        raise _failure(ended)
    return ended


def follow(
    run: Run,
    *,
    settings: Settings | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
    watch: Watch | None = None,
) -> Run:
    """Wait for a run that is a Batch job, and fetch its results.

    Parameters
    ----------
    run : Run
        A run with ``queue=``, such as ``Run.load(folder)`` of one whose caller was interrupted.
    settings : Settings, optional
        The account of the job. Default: ``Settings.load()``.
    progress : bool, default True
        Show a progress bar.
    stop : threading.Event, optional
        Setting this event ends the waiting; the job goes on.
    watch : callable, optional
        Called with the run as it is, again and again.

    Returns
    -------
    Run
        The successful run.

    Raises
    ------
    NotebookFailed
        The notebook did not run to the end.
    GenokitError
        The run is not a Batch job, or ``stop`` was set.

    Examples
    --------
    >>> import nbformat, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> nbformat.write(nbformat.v4.new_notebook(), folder / "empty.ipynb")
    >>> settings = Settings(home=folder / "kit")
    >>> ended = run(folder / "empty.ipynb", queue="lowPriority", settings=settings, progress=False)
    >>> follow(ended, settings=settings).state
    'SUCCEEDED'
    """
    from genokit.bars import Bar

    if run.state == "RUNNING" and not run.job:
        raise GenokitError(f"The run {run.name} is not a Batch job, so there is nothing to wait for.")
    clients, stop = backends.clients(settings), stop or threading.Event()
    goes_on = f"Its Batch job {run.job} goes on. To stop it: genokit stop {run.path}"
    try:
        with Bar(desc=run.name, unit="cell", bar_format=CELLS, disable=not progress) as bar:
            while run.state == "RUNNING" and not stop.wait(clients.backend.poll_s):
                (run,) = remote.look([run], clients)
                show_cells(bar, run.steps)
                if watch:
                    watch(run)
    except KeyboardInterrupt as error:
        error.add_note(goes_on)
        raise
    if run.state == "RUNNING":
        raise GenokitError(f"Stopped waiting for {run.name}. {goes_on}")
    if run.state != "SUCCEEDED":
        raise _failure(run)
    return run


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Within this context SIGTERM and SIGHUP raise SystemExit, so that kernels are stopped and records written.

    Nothing changes where another handler is installed, or outside the main thread.
    """

    def leave(number: int, frame: object) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)  # a second signal must not cut the cleanup short
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if main and signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def show_cells(bar: Any, cells: Collection[notebooks.Cell]) -> None:
    """Show on a bar how many cells are done, and which one is running."""
    bar.total, bar.n = len(cells) or None, sum(cell.done for cell in cells)
    running = (values.shortened(cell.source, 40) for cell in cells if cell.state == "running")
    bar.set_postfix_str(next(running, ""))


def _watch(
    execution: Execution, run: Run, task: NotebookTask, bar: Any, stop: threading.Event, watch: Watch | None
) -> str:
    """Wait until the execution ends or must be stopped; returns the reason to stop it, or ""."""
    first, states, shown = time.monotonic(), None, 0.0
    while True:
        over, now = execution.over.wait(0.1), time.monotonic()
        changed = states != (states := [cell.state for cell in execution.cells.values()])
        if over or changed or now - shown > 1.0:
            show_cells(bar, execution.cells.values())
            shown = now
            if watch:
                watch(replace(run, steps=execution.steps))
        if over:
            return ""
        if stop.is_set():
            return "interrupted"
        if task.timeout_s and now - first > task.timeout_s:
            return "the run's limit of " + display.seconds(task.timeout_s)
        if task.cell_timeout_s and now - (execution.since or now) > task.cell_timeout_s:
            return "the cell's limit of " + display.seconds(task.cell_timeout_s)


def _finish(begun: Run, execution: Execution, why: str, seal: Callable[[Run], Run]) -> Run:
    """Decide how the run ended, and write the executed notebook, its HTML and, last, the record."""
    node = redacted(copy.deepcopy(execution.node))
    how, error = execution.outcome(why)
    ended = replace(
        begun,
        state=how,
        ended=datetime.datetime.now(datetime.UTC),
        outputs=redacted(recording.noted(begun.path)[0]),
        steps=execution.steps,
        error=error and redacted(error),
        traceback=execution.traceback,
    )
    _stamp(node, ended)
    notebooks.write(node, ended.notebook)
    if how == "KERNEL_DIED":
        write_atomic(begun.path / "kernel.log", execution.log, private=True)
    try:
        write_atomic(begun.path / "notebook.html", html.export(node, begun.name), private=True)
    except Exception:  # a failed HTML export must not fail the run
        logging.getLogger(__name__).warning("%s could not be exported to HTML", ended.notebook, exc_info=True)
    finally:  # also when an interrupt comes only now
        ended = seal(ended).save()
        (begun.path / NOTES).unlink(missing_ok=True)  # now stored in run.json
        crate.write_run(ended)
    return ended


def _stamp(node: Any, run: Run) -> None:
    """Write the real outcome into the executed notebook, instead of papermill's, and as text for whoever opens it."""
    from nbformat import from_dict

    node.metadata["genokit"] = {"run": run.path.name, "state": run.state, "version": run.versions["genokit"]}
    for part in (node, *node.cells):
        part.metadata.pop("papermill", None)
    if run.error:
        told = notebooks.banner(run.state, run.error)
        node.cells.insert(0, from_dict(notebooks.new_cell(node, "markdown", told, notebooks.MARKER)))


def _failure(run: Run) -> NotebookFailed:
    """The error for a run that did not reach its end: what happened, where, and what to do next."""
    words = f"{run.source.name} {run.state}: {run.error}\n  Kept: {run.notebook}\n"
    words += "  Next: fix it and run it again. To repeat it cell by cell with the values that it had: "
    words += f"genokit debug {run.path}, or in Python error.run.debug()."
    cell = next((cell.number for cell in run.steps if not cell.done), None)
    return NotebookFailed(words, run=run, cell=cell, path=run.notebook)
