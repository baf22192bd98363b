"""``papermill --engine genokit in.ipynb out.ipynb -p epochs 3``: the kit's ``run`` by papermill's command and function.

papermill imports this module whenever it is imported itself, so this module loads little.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from papermill.engines import Engine
from papermill.iorw import LocalHandler, papermill_io
from papermill.log import logger

from genokit import storage
from genokit.config import Settings
from genokit.errors import InvalidParameters, NotebookFailed
from genokit.pipelines import folder as folders
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values
from genokit.pipelines.crate import SOURCE
from genokit.pipelines.execute import prepared, run

_ON_S3 = types.SimpleNamespace(
    read=lambda path: storage.read(path).decode(),
    write=lambda text, path: storage.write(path, text),
    listdir=storage.files,
    pretty_path=str,
)


class GenokitEngine(Engine):  # type: ignore[misc]
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

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        *,
        input_path: Any = None,
        allow_errors: bool = False,
        **options: Any,
    ) -> Any:
        """Run a notebook that papermill has read. papermill calls this with its own options.

        Parameters
        ----------
        nb : NotebookNode
            The notebook, with the parameters in its metadata.
        kernel_name : str
            Ignored with a warning unless it is the notebook's: the kernel is this Python's.
        output_path : str, optional
            Where papermill saves the notebook after every cell.
        input_path : str or NotebookNode, optional
            Where papermill has read it.
        allow_errors : bool, default False
            Treat every cell as tagged ``raises-exception``.
        **options
            Those of papermill, and ``timeout_s``, the time limit for the whole run in seconds.

        Raises
        ------
        InvalidNotebook, InvalidParameters
            The run cannot start; nothing was run or written.
        NotebookFailed
            A time limit was reached, the kernel died, or the notebook ended itself.
        """
        if kernel_name not in (nb.metadata.get("kernelspec", {}).get("name"), "python3"):
            logger.warning(f"The kernel '{kernel_name}' is not used: the notebook runs with {sys.executable}.")
        about, name = nb.metadata.papermill, "notebook"
        # Without an injected cell, these are left from an earlier execution.
        injected = any(notebooks.INJECTED in notebooks.tags(cell) for cell in nb.cells)
        try:
            given = values.from_json(values.plain(about.get("parameters", {}) if injected else {}))
        except TypeError as error:
            raise InvalidParameters(f"The parameters cannot be written into the notebook: {error}.") from None
        about["parameters"] = values.to_json(given)  # papermill could not write a date
        if isinstance(input_path, str) and input_path.endswith(".ipynb"):
            name = Path(input_path).stem
        folder = folders.fresh(Settings.load().made("runs"), name)
        try:
            source, given = _source(nb, input_path, given, folder, allow_errors)
            prepared(source, given, name)[1]()  # here, because papermill has written nothing yet
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        target = str(about.get("output_path"))
        if target.startswith("s3://"):  # this address only: papermill's other engines keep their own S3
            papermill_io.register(target, _ON_S3)
        how = {"source": source, "given": given, "folder": folder, "name": name}
        return super().execute_notebook(nb, kernel_name, output_path, **how, **options)

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        source: Path,
        given: dict[str, Any],
        folder: Path,
        name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: float | None = None,
        execution_timeout: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Run the notebook, tell papermill of every cell, and raise NotebookFailed for what papermill would not see."""
        log = sys.stderr if log_output else None  # not standard output, where papermill may write the notebook
        nb_man.files = (stdout_file or log, stderr_file or log)
        hidden = all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in _code(nb_man.nb))
        logger.info(f"Run folder:      {folder}")
        try:
            run(
                source,
                given,
                name=name,
                cell_timeout_s=execution_timeout,
                timeout_s=timeout_s,
                progress=False,
                cwd=os.getcwd(),
                folder=folder,
                manager=nb_man,
            )
        except NotebookFailed as error:
            if error.run.state != "FAILED" or not any(cell.state == "failed" for cell in error.run.steps):
                raise  # else papermill raises its own error
        finally:
            nb_man.nb.metadata["genokit"] = {"run": folder.name}
            for cell in _code(nb_man.nb):
                if hidden:  # papermill's report mode
                    cell.metadata["jupyter"] = {"source_hidden": True}
                if cell.metadata.papermill.status != nb_man.FAILED:
                    cell.outputs = [_harmless(output) for output in cell.outputs]


def _code(nb: Any) -> list[Any]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def _harmless(output: Any) -> Any:
    """An error that was allowed, as text: papermill takes every error among the outputs for a failure."""
    if output.output_type != "error":
        return output
    return NotebookNode(output_type="stream", name="stderr", text="\n".join(output.traceback) + "\n")


def _source(
    nb: Any, input_path: Any, given: dict[str, Any], folder: Path, allow_errors: bool
) -> tuple[Path, dict[str, Any]]:
    """The notebook to run and its parameters: the file that papermill has read, or a copy in the run folder."""
    handler = papermill_io.get_handler(input_path)
    tagged = any(notebooks.sets_parameters(cell) for cell in nb.cells)
    injected = any(notebooks.INJECTED in notebooks.tags(cell) for cell in nb.cells)
    if isinstance(handler, LocalHandler) and (tagged or not injected) and not allow_errors:
        handler.cwd(base := handler.cwd(None))  # papermill's working folder may be another one now
        if (path := Path(base or "", input_path)).is_file():
            return path, given
    nb = copy.deepcopy(nb)
    del nb.metadata["papermill"]
    for cell in nb.cells:
        cell.metadata.pop("papermill", None)
        if allow_errors:
            cell.metadata.tags.append(notebooks.MAY_RAISE)
        if not tagged and notebooks.INJECTED in cell.metadata.tags:  # where papermill has put them, unchecked
            cell.metadata.tags = [notebooks.PARAMETERS]
            cell.source = values.assignments(given) if given else cell.source
    notebooks.write(nb, folder / SOURCE)
    return folder / SOURCE, given if tagged else {}
