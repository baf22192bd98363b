"""``run(notebook, parameters)``: check, start a kernel, watch it, and keep what happened in a run folder.

papermill executes in a thread of its own; the calling thread watches the clock and the keyboard, and kills the kernel
when the time is up. So a run ends as it should in a script, in a Jupyter kernel and beside other runs alike.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import os
import platform
import site
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, InvalidParameters, NotebookFailed
from genokit.files import write_atomic
from genokit.pipelines import folder as folders
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import schema, values, verdict
from genokit.pipelines.folder import Run

if TYPE_CHECKING:
    from genokit.pipelines.engine import Watch


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

    Raises NotFound, InvalidParameters or GenokitError before anything is run or written, and NotebookFailed (with
    ``.run``) when the notebook did not get to its end; the notebook, as far as it came, is kept in the run folder.
    """
    settings = settings or Settings.load()
    ready = prepare(notebook, parameters)
    limits = Limits(cell_timeout_s, timeout_s)
    label = name or ready.path.stem
    ended = supervise(ready, folders.new_folder(settings.runs, label), label, settings, limits, progress=progress)
    if ended.state != "SUCCEEDED":
        raise failure(ended) from None
    return ended


@dataclass(frozen=True)
class Limits:
    """How long a cell and a whole run may take, in seconds (None: no limit); ``stop``, when set, ends it at once."""

    cell_timeout_s: float | None = None
    timeout_s: float | None = None
    stop: threading.Event | None = None

    def __post_init__(self) -> None:
        for name in ("cell_timeout_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidParameters(f"{name} must be more than 0 seconds, or None for no limit; got {value!r}.")


@dataclass(frozen=True)
class Ready:
    """A notebook that is known to be one, with checked parameters."""

    path: Path
    sha256: str
    parameters: dict[str, Any]
    node: Any


def prepare(notebook: str | Path, parameters: Mapping[str, object] | None = None) -> Ready:
    """Read and check; starts and writes nothing."""
    path = Path(notebook).expanduser().absolute()
    content = notebooks.read(path)
    known = schema.of(content, path.name)
    given = known.check(dict(parameters or {}))
    node = _node(path, content, given)
    # Two seconds of imports, while there is nothing yet that an interrupt could leave half done.
    import genokit.pipelines.engine  # noqa: F401

    return Ready(path, _digest(path), {**known.defaults(), **given}, node)


def supervise(
    ready: Ready, folder: Path, name: str, settings: Settings, limits: Limits, *, progress: bool = False
) -> Run:
    """Run a checked notebook in its folder and return how it ended; raises only what stopped this process itself."""
    from genokit.pipelines import engine

    begun = Run(
        path=folder,
        name=name,
        state="RUNNING",
        source=ready.path,
        source_sha256=ready.sha256,
        started=datetime.datetime.now(datetime.UTC),
        parameters=ready.parameters,
        versions=_versions(),
        process=folders.this_process(),
    )
    watch = engine.Watch(save=_saver(begun), node=ready.node)
    clock = time.monotonic()
    environ = _environment(settings, folder)
    try:
        begun.save()
        watch.save(watch.node)
        engine.start(watch, cwd=ready.path.parent, environ=environ, log=folder / "kernel.log")
        why = _wait(watch, limits, _bar(name, ready.node, progress))
    except BaseException:  # KeyboardInterrupt above all: the kernel must not outlive us, and the record must be true
        _wait(watch, Limits(timeout_s=1e-9), _bar("", None, False))
        _finish(begun, watch, "interrupted", time.monotonic() - clock)
        raise
    return _finish(begun, watch, why, time.monotonic() - clock)


def failure(ended: Run) -> NotebookFailed:
    """The error of a run that did not get to its end: what, where, and what to do next."""
    said = f"{ended.source.name} {_VERBS[ended.state]}: {ended.error}"
    words = f"{said}\n  Kept: {ended.notebook}\n  Next: {_NEXT[ended.state]}"
    return NotebookFailed(words, run=ended, cell=ended.failed_cell, path=ended.notebook)


_VERBS = {
    "FAILED": "failed",
    "KERNEL_DIED": "lost its kernel",
    "TIMED_OUT": "ran out of time",
    "EXITED_EARLY": "left before its end",
}
_NEXT = {
    "FAILED": "look at the kept notebook, mend the cell, and run it again.",
    "KERNEL_DIED": "free memory or use less of it, or look for a crash in a compiled library; then run it again.",
    "TIMED_OUT": "give it more time (timeout_s, cell_timeout_s) or less to do, and run it again.",
    "EXITED_EARLY": "let it run to its end: take the exit out, or tag the cells after it 'skip-execution'.",
}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _node(path: Path, content: dict[str, Any], given: dict[str, Any]) -> Any:
    """The notebook to execute: valid, without what an earlier run left, with the given parameters after their cell."""
    import nbformat

    try:
        node = nbformat.reads(json.dumps(content), as_version=4)
        node = nbformat.v4.upgrade(node)
        _, node = nbformat.validator.normalize(node)
        nbformat.validate(node)
    except Exception as error:  # nbformat raises many kinds for a notebook that is none
        reason = str(error).strip().partition("\n")[0]
        raise GenokitError(
            f"{path} is not a valid notebook: {reason}. Open it in Jupyter and save it again, or take it back "
            "from version control."
        ) from None
    node.cells = [cell for cell in node.cells if not {notebooks.INJECTED, notebooks.MARKER} & set(notebooks.tags(cell))]
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if given:
        place = next(i for i, cell in enumerate(node.cells) if "parameters" in notebooks.tags(cell)) + 1
        code = values.assignments(given)
        node.cells.insert(place, nbformat.v4.new_code_cell(code, metadata={"tags": [notebooks.INJECTED]}))
    return node


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    environ = {**os.environ, **settings.environ(), "GENOKIT_RUN": str(folder)}
    root = str(Path(__file__).parents[2])
    if root not in site.getsitepackages():  # a checkout that is not installed: the notebook must find it, too
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [environ.get("PYTHONPATH"), root]))
    return environ


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from genokit import __version__

    found = {"python": platform.python_version(), "genokit": __version__}
    for package in ("papermill", "nbclient", "ipykernel", "numpy", "mxnet"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _saver(begun: Run) -> Any:
    """Saves the notebook while it runs: whole or not at all, and for at most a tenth of the time."""
    next_save = 0.0

    def save(node: Any) -> None:
        nonlocal next_save
        before = time.monotonic()
        if before >= next_save:
            _write(node, begun)
            next_save = time.monotonic() + max(1.0, 10 * (time.monotonic() - before))

    return save


def _write(node: Any, run: Run) -> None:
    import nbformat

    write_atomic(run.notebook, nbformat.writes(node) + "\n")


@contextlib.contextmanager
def _bar(name: str, node: Any, shown: bool) -> Iterator[Any]:
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=sum(notebooks.is_code(cell) for cell in node.cells), desc=name, unit="cell") as bar:
        yield bar


def _wait(watch: Watch, limits: Limits, progress: Any) -> str:
    """Wait for the end of the execution; returns why it was stopped, or ""."""
    begun, why = time.monotonic(), ""
    with progress as bar:
        while not watch.over.wait(0.05):
            step = watch.steps.get(watch.running) if watch.running is not None else None
            now = time.monotonic()
            if limits.stop is not None and limits.stop.is_set():
                why = why or "interrupted"
            elif limits.timeout_s is not None and now - begun > limits.timeout_s:
                why = why or "the run's limit of " + display.seconds(limits.timeout_s)
            elif limits.cell_timeout_s is not None and step is not None and now - step.started > limits.cell_timeout_s:
                why = why or "the cell's limit of " + display.seconds(limits.cell_timeout_s)
            if why:
                watch.kill()
            if bar is not None:
                _advance(bar, watch)
        if bar is not None:
            _advance(bar, watch)
    return why


def _advance(bar: Any, watch: Watch) -> None:
    done = sum(step.duration_s is not None for step in list(watch.steps.values()))
    if done != bar.n:
        bar.update(done - bar.n)


def _finish(begun: Run, watch: Watch, why: str, duration_s: float) -> Run:
    """Decide how it ended, and put the executed notebook, its HTML and the record in place, the record last."""
    from genokit.pipelines import html

    node = watch.node
    log = begun.path / "kernel.log"
    found = verdict.decide(node, watch, why, log)
    steps = verdict.cells(node, watch)
    recorded = {name: values.from_json(value) for name, value in notebooks.outputs(node).items()}
    ended = replace(
        begun,
        state=found.state,
        ended=datetime.datetime.now(datetime.UTC),
        duration_s=round(duration_s, 3),
        outputs=recorded,
        steps=steps,
        error=found.error,
        failed_cell=None if found.cell_index is None else verdict.numbers(node)[found.cell_index],
        traceback=found.traceback,
    )
    verdict.stamp(node, watch, ended)
    verdict.mark(node, found)
    _write(node, ended)
    if ended.state != "KERNEL_DIED" or not log.stat().st_size:
        log.unlink(missing_ok=True)
    try:
        write_atomic(begun.path / "notebook.html", html.export(node, begun.name))
    except Exception:  # a picture of the run must not cost the run
        logging.getLogger(__name__).warning("%s could not be made into HTML", ended.notebook, exc_info=True)
    return ended.save()
