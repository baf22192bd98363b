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
import site
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from genokit import __version__, display
from genokit.config import Settings
from genokit.errors import InvalidParameters
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
) -> Run:
    """Run a notebook from top to bottom in a kernel of its own and keep everything in a run folder.

    ``parameters`` replace the defaults of the notebook's cell tagged ``parameters``; they are checked before a kernel
    starts. The kernel works in the notebook's folder, with the same Python and settings as here. ``name`` names the
    run (default: the notebook's name). ``cell_timeout_s`` and ``timeout_s`` bound one cell and the whole run.

    Raises NotFound, InvalidNotebook or InvalidParameters before anything is run or written, and NotebookFailed (with
    ``.run``) when the notebook did not get to its end; the notebook, as far as it came, is kept in the run folder.
    """
    for limit, value in {"cell_timeout_s": cell_timeout_s, "timeout_s": timeout_s}.items():
        if value is not None and not value > 0:
            raise InvalidParameters(f"{limit} must be more than 0 seconds, or None for no limit; got {value!r}.")
    settings = settings or Settings.load()
    path = Path(notebook).expanduser().absolute()
    name = name or path.stem
    ended = execute(
        path,
        parameters or {},
        folders.fresh(settings.runs, name),
        name=name,
        settings=settings,
        cell_timeout_s=cell_timeout_s,
        timeout_s=timeout_s,
        progress=progress,
    )
    if ended.state != "SUCCEEDED":
        raise state.failure(ended)
    return ended


def execute(
    notebook: Path,
    parameters: Mapping[str, object],
    folder: Path,
    *,
    name: str,
    settings: Settings,
    cell_timeout_s: float | None = None,
    timeout_s: float | None = None,
    stop: threading.Event | None = None,
    progress: bool = False,
) -> Run:
    """Check a notebook, run it in a new folder, and return how it ended; ``stop``, when set, ends it at once.

    Raises what the check finds, before anything is written; after that only what stopped this process itself.
    """
    content = notebooks.read(notebook)
    schema = Schema.of(content, notebook.name)
    given = schema.check(parameters)
    node = notebooks.executable(notebook, content, given)
    # Two seconds of imports, while there is nothing yet that an interrupt could leave half done.
    from genokit.pipelines.engine import Execution

    begun = Run(
        path=folder,
        name=name,
        state="RUNNING",
        source=notebook,
        source_sha256=sha256(notebook),
        started=_now(),
        parameters={**schema.defaults(), **given},
        versions=_versions(),
        process=folders.this_process(),
    )
    execution = Execution(node, begun.notebook)
    clock = time.monotonic()
    why = "interrupted"
    try:
        begun.save()
        execution.save()
        execution.start(cwd=notebook.parent, environ=_environment(settings, folder), log=folder / "kernel.log")
        why = _watch(execution, name, progress, cell_timeout_s or math.inf, timeout_s or math.inf, stop)
    finally:  # an interrupt above all: the kernel must not outlive us, and the record must be true
        execution.stop()
        ended = _finish(begun, execution, why, time.monotonic() - clock)
    return ended


def _watch(
    execution: Execution,
    name: str,
    progress: bool,
    cell_timeout_s: float,
    timeout_s: float,
    stop: threading.Event | None,
) -> str:
    """Wait for the end of the execution, or for a reason to stop it; returns that reason, or ""."""
    from tqdm.auto import tqdm

    begun = time.monotonic()
    with tqdm(total=execution.left, desc=name, unit="cell", disable=not progress) as bar:
        while not execution.over.wait(0.05):
            bar.update(bar.total - execution.left - bar.n)
            now = time.monotonic()
            if stop is not None and stop.is_set():
                return "interrupted"
            if now - begun > timeout_s:
                return "the run's limit of " + display.seconds(timeout_s)
            if now - (execution.since or now) > cell_timeout_s:
                return "the cell's limit of " + display.seconds(cell_timeout_s)
        bar.update(bar.total - execution.left - bar.n)
    return ""


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
        outputs=recording.outputs(node),
        steps=tuple(cell for cell in execution.cells.values() if cell.number),
        error=error,
        traceback=execution.traceback,
    )
    state.stamp(node, execution.cells, ended)
    notebooks.write(node, ended.notebook)
    if how != "KERNEL_DIED":
        log.unlink(missing_ok=True)
    try:
        write_atomic(begun.path / "notebook.html", html.export(node, begun.name))
    except Exception:  # a picture of the run must not cost the run
        logging.getLogger(__name__).warning("%s could not be made into HTML", ended.notebook, exc_info=True)
    return ended.save()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    environ = {**os.environ, **settings.environ(), "GENOKIT_RUN": str(folder)}
    root = str(Path(__file__).parents[2])
    if root not in site.getsitepackages():  # a checkout that is not installed: the notebook must find it, too
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [environ.get("PYTHONPATH"), root]))
    return environ


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "genokit": __version__}
    for package in ("papermill", "nbclient", "ipykernel", "numpy", "mxnet"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
