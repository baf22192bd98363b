"""``papermill --engine genokit in.ipynb out.ipynb -p epochs 3``: the kit's ``run`` by papermill's command and function.

The engines call ``run`` and update papermill's notebook whenever a cell starts or ends, here or in a Batch job.
papermill imports this module when it is imported itself, so this module imports papermill only inside functions.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from genokit import storage
from genokit.config import Settings
from genokit.errors import InvalidParameters, NotebookFailed, NotFound
from genokit.pipelines import folders, notebooks, values
from genokit.pipelines.execute import perform
from genokit.pipelines.folders import SOURCE, Run
from genokit.pipelines.plan import CheckedNotebook, NotebookTask, Queue, checked
from genokit.pipelines.schema import Schema
from genokit.pipelines.secret_values import redacted

_ON_S3 = types.SimpleNamespace(
    read=lambda path: storage.read(path).decode(),
    write=lambda text, path: storage.write(path, text),
    listdir=storage.files,
    pretty_path=str,
)


class GenokitEngine:
    """papermill's engine ``genokit``: runs as :func:`genokit.run` does, with a run folder beside papermill's output.

    A failed cell raises papermill's PapermillExecutionError; any other end before the last cell raises NotebookFailed.

    Examples
    --------
    >>> import nbformat, papermill
    >>> cell = nbformat.v4.new_code_cell("rate: float = 0.5", metadata={"tags": ["parameters"]})
    >>> source, how = nbformat.v4.new_notebook(cells=[cell]), {"kernel_name": "python3", "language": "python"}
    >>> done = papermill.execute_notebook(source, None, {"rate": 1}, engine_name="genokit", progress_bar=False, **how)
    >>> done.cells[1].source
    '# Parameters\\nrate = 1.0'
    """

    on: ClassVar[Mapping[str, Any]] = {}  # parameters that say where to run, with their defaults

    @staticmethod
    def nb_kernel_name(nb: Any, name: str | None = None) -> str:
        """The name of the kernel that papermill shows."""
        return name or nb.metadata.get("kernelspec", {}).get("name") or "python3"

    @staticmethod
    def nb_language(nb: Any, language: str | None = None) -> str:
        """The language in which papermill writes parameters: always Python."""
        return "python"

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        *,
        input_path: Any = None,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: float | None = None,
        execution_timeout: float | None = None,
        timeout_s: float | None = None,
        allow_errors: bool = False,
    ) -> Any:
        """Run a notebook that papermill has read. papermill calls this, with its own arguments and two of the kit's.

        Parameters
        ----------
        nb, kernel_name, output_path, progress_bar, log_output, autosave_cell_every
        input_path, stdout_file, stderr_file, start_timeout, execution_timeout
            As in papermill. The kernel is always this Python's.
        timeout_s
            Time limit for the whole run, in seconds. Default: none.
        allow_errors
            Treat every cell as tagged ``raises-exception``. Default: False.

        Raises
        ------
        InvalidNotebook, InvalidParameters
            The run cannot start; nothing was run or written.
        NotebookFailed
            A time limit was reached, the kernel died, or the notebook ended itself.
        """
        from papermill.engines import NotebookExecutionManager
        from papermill.iorw import papermill_io
        from papermill.log import logger

        if kernel_name not in ("python3", nb.metadata.get("kernelspec", {}).get("name")):
            logger.warning(f"The kernel '{kernel_name}' is ignored: genokit runs the notebook with {sys.executable}.")
        ready = _prepared(nb, input_path, cls.on, allow_errors, (timeout_s, execution_timeout))
        logger.info(f"Run folder:      {ready.begun.path}")
        target = str(nb.metadata.papermill.get("output_path"))
        if target.startswith("s3://"):  # this address only: papermill's other engines keep their own S3
            papermill_io.register(target, _ON_S3)
        manager = NotebookExecutionManager(nb, output_path, log_output, progress_bar, autosave_cell_every)
        manager.notebook_start()
        follow = functools.partial(_follow, manager)
        log = sys.stderr if log_output else None  # not standard output, where papermill may write the notebook
        files = (stdout_file or log, stderr_file or log)
        try:
            follow(perform(ready, watch=follow, log_output=files))
        except NotebookFailed as error:
            follow(error.run)
            if error.run.state != "FAILED" or not any(cell.state == "failed" for cell in error.run.steps):
                raise  # else papermill raises its own error
        finally:
            own = [cell for cell in nb.cells if cell.cell_type == "code" and not _injected(cell)]
            for cell in [cell for cell in own if cell.metadata.papermill.status != manager.COMPLETED][:1]:
                manager.cell_exception(cell)
            manager.cleanup_pbar()
            manager.notebook_complete()
        return nb


class GenokitBatchEngine(GenokitEngine):
    """papermill's engine ``genokit-batch``: runs the notebook as a Batch job; papermill shows each cell when it ends.

    The parameters ``queue`` (default highPriority), ``vcpus``, ``memory_gib``, ``gpus`` and ``retry`` describe the job,
    as in :func:`genokit.run`. The notebook gets those that it declares too.
    """

    on = types.MappingProxyType({"queue": "highPriority", "vcpus": 1, "memory_gib": 2, "gpus": 0, "retry": None})


def _prepared(
    nb: Any, input_path: Any, on: Mapping[str, Any], allow_errors: bool, limits_s: tuple[float | None, float | None]
) -> CheckedNotebook:
    """Check the notebook before papermill writes anything."""
    from papermill.iorw import papermill_io

    file = input_path if isinstance(input_path, str) and input_path.endswith(".ipynb") else ""
    name = Path(file).stem or "notebook"
    settings = Settings.load()
    folder = folders.fresh(settings.made("runs"), name)
    injected = [cell for cell in nb.cells if _injected(cell)]
    try:
        # Without an injected cell, the parameters are left from an earlier execution.
        given = values.plain(nb.metadata.papermill.parameters if injected else {})
    except TypeError as error:
        raise InvalidParameters(f"The parameters cannot be written into the notebook: {error}.") from None
    nb.metadata.papermill["parameters"] = redacted(values.to_json(given))  # papermill could not write a date
    nb.metadata["genokit"] = {"run": folder.name}
    where = {option: given.get(option, default) for option, default in on.items()}
    job = Queue(**where) if where.get("queue") else None
    declared = Schema.of(nb, name).parameters
    given = {option: value for option, value in given.items() if option not in on or option in declared}
    tagged = any(notebooks.sets_parameters(cell) for cell in nb.cells)
    report = all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in _code(nb))
    local = papermill_io.get_handler("local")
    local.cwd(base := local.cwd(None))  # papermill's working folder may be another one now
    task = NotebookTask(name, Path(base, file), Path.cwd(), given, *limits_s, job)
    try:
        if allow_errors or (given and not tagged) or not task.path.is_file():  # run a copy in the run folder
            for cell in nb.cells if allow_errors else []:
                cell.metadata.tags.append(notebooks.MAY_RAISE)
            if given and not tagged:  # where papermill has put them
                injected[0].metadata.tags, injected[0].source = [notebooks.PARAMETERS], values.assignments(given)
                given = {}
            task = replace(task, path=folder / SOURCE)
            notebooks.write(nb, task.path)
        ready = checked(replace(task, parameters=given), settings, folder=folder)
        nb.cells = redacted(ready.node().cells)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for cell in _code(nb) if report else []:
        cell.metadata["jupyter"] = {"source_hidden": True}
    return ready


def _follow(manager: Any, run: Run) -> None:
    """Update papermill's notebook from a run when a cell has started or ended, and as often as papermill autosaves."""
    import nbformat

    cells = _code(manager.nb)
    done = len(list(itertools.takewhile(lambda step: step.done, run.steps)))
    begun = done + any(step.state in ("running", "failed") for step in run.steps)
    started = [cell for cell in cells[:begun] if cell.metadata.papermill.status == manager.PENDING]
    ended = [cell for cell in cells[:done] if cell.metadata.papermill.status != manager.COMPLETED]
    idle_s = (manager.now() - manager.last_save_time).total_seconds()
    if not (started or ended or run.ended or 0 < manager.autosave_cell_every <= idle_s):
        return
    with contextlib.suppress(NotFound):  # a job that has written nothing yet
        text = storage.read(storage.join(str(run.address or run.path), run.notebook.name)).decode()
        for cell, executed in zip(cells, _code(nbformat.v4.reads(text)), strict=False):
            cell.execution_count, cell.outputs = executed.execution_count, executed.outputs
            if notebooks.MAY_RAISE in notebooks.tags(cell):
                cell.outputs = [_harmless(output) for output in cell.outputs]
    for cell in started:
        manager.cell_start(cell)
    for cell in ended:
        manager.cell_complete(cell)
    manager.autosave_cell()


def _code(nb: Any) -> list[Any]:
    """The code cells: first those that the source notebook has too, then the injected ones."""
    return sorted([cell for cell in nb.cells if cell.cell_type == "code"], key=_injected)


def _injected(cell: Any) -> bool:
    return notebooks.INJECTED in notebooks.tags(cell)


def _harmless(output: Any) -> Any:
    """Turn an allowed error into text, because papermill counts every error among the outputs as a failure."""
    if output.output_type != "error":
        return output
    return type(output)(output_type="stream", name="stderr", text="\n".join(output.traceback) + "\n")
