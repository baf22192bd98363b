"""``run(notebook, parameters)``: check, start a kernel, watch it, and keep what happened in a run folder.

papermill executes in a thread of its own; the calling thread watches the clock and the keyboard, and kills the kernel
when the time is up. So a run ends as it should in a script, in a Jupyter kernel and beside other runs alike.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import os
import platform
import signal
import site
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import __version__, display
from genokit.config import Settings
from genokit.errors import InvalidParameters, NotFound
from genokit.files import sha256, write_atomic
from genokit.pipelines import folder as folders
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import recording, state
from genokit.pipelines.folder import Run
from genokit.pipelines.schema import Schema

if TYPE_CHECKING:
    from genokit.pipelines.engine import Execution


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
    log_output: bool = False,
    folder: Path | None = None,
    stop: threading.Event | None = None,
) -> Run:
    """Run a notebook from top to bottom in a kernel of its own and keep everything in a run folder.

    ``parameters`` replace the defaults of the notebook's cell tagged ``parameters``; they are checked before a kernel
    starts. The kernel works in the folder ``cwd`` (default: the notebook's), with the same Python and settings as here;
    with ``log_output`` what its cells print is printed here too, as it comes. ``name`` names the
    run (default: the notebook's name) and ``folder`` is where to keep it (default: a new one among ``settings.runs``).
    ``cell_timeout_s`` and ``timeout_s`` bound one cell and the whole run; ``stop``, when set, ends it at once.

    Raises NotFound, InvalidNotebook or InvalidParameters before anything is run or written, and NotebookFailed (with
    ``.run``) when the notebook did not get to its end; the notebook, as far as it came, is kept in the run folder.
    """
    for limit, value in {"cell_timeout_s": cell_timeout_s, "timeout_s": timeout_s}.items():
        if value is not None and not value > 0:
            raise InvalidParameters(f"{limit} must be more than 0 seconds, or None for no limit; got {value!r}.")
    settings = settings or Settings.load()
    if cwd is not None and not Path(cwd).expanduser().is_dir():
        raise NotFound(f"the folder {cwd}, in which the notebook is to run, does not exist.")
    path = Path(notebook).expanduser().absolute()
    content = notebooks.read(path)
    schema = Schema.of(content, path.name)
    given = schema.check(parameters or {})
    node = notebooks.executable(path, content, given)
    # Two seconds of imports, while there is nothing yet that an interrupt could leave half done.
    from genokit.bars import Bar
    from genokit.pipelines.engine import Execution

    begun = Run(
        path=folder.absolute() if folder else folders.fresh(settings.made("runs"), name or path.stem),
        name=name or path.stem,
        state="RUNNING",
        source=path,
        source_sha256=sha256(path),
        started=_now(),
        parameters={**schema.defaults(), **given},
        versions=_versions(),
        process=folders.this_process(),
    )
    cwd = path.parent if cwd is None else Path(cwd).expanduser().absolute()
    execution = Execution(node, begun.notebook, log_output=log_output)
    clock = time.monotonic()
    why = "interrupted"
    with ended_in_order():
        try:
            begun.save()
            execution.save()
            execution.start(cwd=cwd, environ=_environment(settings, begun.path), log=begun.path / "kernel.log")
            with Bar(total=execution.left, desc=begun.name, unit="cell", disable=not progress) as bar:
                limits = cell_timeout_s or math.inf, timeout_s or math.inf
                why = _watch(execution, bar, *limits, stop or threading.Event())
        finally:  # an interrupt above all: the kernel must not outlive us, and the record must be true
            execution.stop()
            ended = _finish(begun, execution, why, time.monotonic() - clock)
    if ended.state != "SUCCEEDED":
        raise state.failure(ended)
    return ended


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP do not end this process on the spot: they raise SystemExit, so that all is tidied up.

    Where somebody else listens to them, or in another than the main thread, nothing is changed.
    """

    def leave(number: int, frame: object) -> None:
        for one in ours:
            signal.signal(one, signal.SIG_IGN)  # tidying up has begun, and a second one must not cut it short
        raise SystemExit(128 + number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def _watch(execution: Execution, bar: Any, cell_timeout_s: float, timeout_s: float, stop: threading.Event) -> str:
    """Wait for the end of the execution, or for a reason to stop it; returns that reason, or ""."""
    begun = time.monotonic()
    while True:
        over = execution.over.wait(0.05)
        bar.update(bar.total - execution.left - bar.n)
        now = time.monotonic()
        if over:
            return ""
        if stop.is_set():
            return "interrupted"
        if now - begun > timeout_s:
            return "the run's limit of " + display.seconds(timeout_s)
        if now - (execution.since or now) > cell_timeout_s:
            return "the cell's limit of " + display.seconds(cell_timeout_s)


def _finish(begun: Run, execution: Execution, why: str, duration_s: float) -> Run:
    """Decide how it ended, and put the executed notebook, its HTML and the record in place, the record last."""
    from genokit.pipelines import html

    node, log = execution.node, begun.path / "kernel.log"
    how, error = state.decide(execution, why, log)
    ended = replace(
        begun,
        state=how,
        ended=_now(),
        duration_s=round(duration_s, 3),
        outputs=recording.kept(begun.path) | recording.outputs(node) | recording.kept(begun.path),
        steps=tuple(cell for cell in execution.cells.values() if cell.number),
        error=error,
        traceback=execution.traceback,
    )
    state.stamp(node, execution.cells, ended)
    notebooks.write(node, ended.notebook)
    if how != "KERNEL_DIED":
        log.unlink(missing_ok=True)
    try:
        write_atomic(begun.path / "notebook.html", html.export(node, begun.name), private=True)
    except Exception:  # a picture of the run must not cost the run
        logging.getLogger(__name__).warning("%s could not be made into HTML", ended.notebook, exc_info=True)
    finally:
        ended.save()
        (begun.path / recording.FILE).unlink(missing_ok=True)  # from here on they are in the record
    return ended


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    environ = {**os.environ, **settings.environ(), "GENOKIT_RUN": str(folder)}
    root = str(Path(__file__).parents[2])
    if root not in site.getsitepackages():  # a checkout that is not installed: the notebook must find it, too
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [environ.get("PYTHONPATH"), root]))
    return environ


def _versions() -> dict[str, str]:
    packages = ("papermill", "nbclient", "ipykernel", "numpy")
    return {"python": platform.python_version(), "genokit": __version__} | {name: version(name) for name in packages}
