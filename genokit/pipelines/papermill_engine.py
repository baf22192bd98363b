"""``papermill --engine genokit in.ipynb out.ipynb -p epochs 3``: the kit's ``run`` by papermill's command and function.

papermill loads this module whenever it is imported itself, so nothing here imports papermill at once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

from genokit import storage
from genokit.config import Settings
from genokit.errors import InvalidParameters, NotebookFailed, NotFound
from genokit.pipelines import folder as folders
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values
from genokit.pipelines.execute import prepared, run
from genokit.pipelines.folder import SOURCE, Run
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

    on: tuple[str, ...] = ()  # which of papermill's parameters say where to run

    @staticmethod
    def nb_kernel_name(nb: Any, name: str | None = None) -> str:
        """The name of the kernel that papermill shows."""
        return name or nb.metadata.get("kernelspec", {}).get("name") or "python3"

    @staticmethod
    def nb_language(nb: Any, language: str | None = None) -> str:
        """The language in which papermill writes parameters."""
        return language or nb.metadata.get("language_info", {}).get("name") or "python"

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
            logger.warning(f"The kernel '{kernel_name}' is not used: the notebook runs with {sys.executable}.")
        hidden = all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in _code(nb))
        start = cls._prepared(nb, input_path, allow_errors)
        start = functools.partial(start, cell_timeout_s=execution_timeout, timeout_s=timeout_s)
        target, folder = str(nb.metadata.papermill.get("output_path")), start.keywords["folder"]
        logger.info(f"Run folder:      {folder}")
        if target.startswith("s3://"):  # this address only: papermill's other engines keep their own S3
            papermill_io.register(target, _ON_S3)
        manager = NotebookExecutionManager(nb, output_path, log_output, progress_bar, autosave_cell_every)
        log = sys.stderr if log_output else None  # not standard output, where papermill may write the notebook
        manager.files = (stdout_file or log, stderr_file or log)
        manager.save = functools.partial(_save, manager)
        manager.notebook_start()
        try:
            cls._run(start, manager)
        except NotebookFailed as error:
            if error.run.state != "FAILED" or not any(cell.state == "failed" for cell in error.run.steps):
                raise  # else papermill raises its own error
        finally:
            manager.nb.metadata["genokit"] = {"run": folder.name}
            for cell in _code(manager.nb):
                if hidden:  # papermill's report mode
                    cell.metadata["jupyter"] = {"source_hidden": True}
                if cell.metadata.papermill.status != manager.FAILED:
                    cell.outputs = [_harmless(output) for output in cell.outputs]
            manager.nb = redacted(manager.nb)
            manager.cleanup_pbar()
            manager.notebook_complete()
        return manager.nb

    @classmethod
    def _prepared(cls, nb: Any, input_path: Any, allow_errors: bool) -> functools.partial[Run]:
        """The run of a notebook that can run, of which papermill has written nothing yet."""
        name = Path(input_path).stem if isinstance(input_path, str) and input_path.endswith(".ipynb") else "notebook"
        # Without an injected cell, the parameters are left from an earlier execution.
        injected = any(notebooks.INJECTED in notebooks.tags(cell) for cell in nb.cells)
        try:
            given = values.from_json(values.plain(nb.metadata.papermill.get("parameters", {}) if injected else {}))
        except TypeError as error:
            raise InvalidParameters(f"The parameters cannot be written into the notebook: {error}.") from None
        nb.metadata.papermill["parameters"] = values.to_json(given)  # papermill could not write a date
        declared = Schema.of(nb, name).parameters
        on = {one: given[one] for one in cls.on if one in given}
        given = {one: value for one, value in given.items() if one not in on or one in declared}
        folder = folders.fresh(Settings.load().made("runs"), name)
        try:
            source, given = _source(nb, input_path, given, folder, allow_errors)
            nb.cells = prepared(source, given, name)[1]().cells
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return functools.partial(run, source, given, name=name, folder=folder, cwd=os.getcwd(), progress=False, **on)

    @staticmethod
    def _run(start: functools.partial[Run], manager: Any) -> None:
        start(manager=manager)


class GenokitBatchEngine(GenokitEngine):
    """papermill's engine ``genokit-batch``: the notebook is a Batch job, whose cells papermill shows as they end.

    The parameters ``queue`` (default highPriority), ``vcpus``, ``memory_gib``, ``gpus`` and ``retry`` are the job's, as
    in :func:`genokit.run`; the notebook gets those that it declares too.
    """

    on = ("queue", "vcpus", "memory_gib", "gpus", "retry")

    @staticmethod
    def _run(start: functools.partial[Run], manager: Any) -> None:
        follow = functools.partial(_follow, manager)
        try:
            follow(start(**{"queue": "highPriority", "watch": follow, **start.keywords}))
        except NotebookFailed as error:
            follow(error.run)
            raise
        finally:
            for cell in [cell for cell in _own(manager.nb) if cell.metadata.papermill.status != manager.COMPLETED][:1]:
                manager.cell_exception(cell)


def _save(manager: Any, **_: Any) -> None:
    """Save the notebook as papermill does, but without secrets."""
    nb, manager.nb = manager.nb, redacted(manager.nb)
    try:
        type(manager).save(manager)
    finally:
        manager.nb = nb


def _follow(manager: Any, run: Run) -> None:
    """Bring papermill's notebook to where a run is that goes on elsewhere."""
    import nbformat

    own = _own(manager.nb)
    with contextlib.suppress(NotFound):  # it has written nothing yet
        text = storage.read(storage.join(str(run.address), run.notebook.name)).decode()
        for cell, executed in zip(own, _own(nbformat.reads(text, as_version=4)), strict=False):
            cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    for cell, step in zip(own, run.steps, strict=False):
        status = cell.metadata.papermill.status
        if status == manager.PENDING and step.state != "pending":
            manager.cell_start(cell)
        if status != manager.COMPLETED and step.done:
            manager.cell_complete(cell)


def _code(nb: Any) -> list[Any]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def _own(nb: Any) -> list[Any]:
    """The code cells that the source notebook has too."""
    return [cell for cell in _code(nb) if notebooks.INJECTED not in notebooks.tags(cell)]


def _harmless(output: Any) -> Any:
    """An error that was allowed, as text: papermill takes every error among the outputs for a failure."""
    if output.output_type != "error":
        return output
    return type(output)(output_type="stream", name="stderr", text="\n".join(output.traceback) + "\n")


def _source(
    nb: Any, input_path: Any, given: dict[str, Any], folder: Path, allow_errors: bool
) -> tuple[Path, dict[str, Any]]:
    """The notebook to run and its parameters: the file that papermill has read, or a copy in the run folder."""
    from papermill.iorw import LocalHandler, papermill_io

    handler = papermill_io.get_handler(input_path)
    tagged = any(notebooks.sets_parameters(cell) for cell in nb.cells)
    if isinstance(handler, LocalHandler) and (tagged or not given) and not allow_errors:
        handler.cwd(base := handler.cwd(None))  # papermill's working folder may be another one now
        if (path := Path(base or "", input_path)).is_file():
            return path, given
    nb = copy.deepcopy(nb)
    del nb.metadata["papermill"]
    for cell in nb.cells:
        cell.metadata.pop("papermill", None)
        if allow_errors:
            cell.metadata.tags.append(notebooks.MAY_RAISE)
        if given and not tagged and notebooks.INJECTED in cell.metadata.tags:  # where papermill has put them
            cell.metadata.tags, cell.source = [notebooks.PARAMETERS], values.assignments(given)
    notebooks.write(nb, folder / SOURCE)
    return folder / SOURCE, given if tagged else {}
