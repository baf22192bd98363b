"""How a run ended: decided from what was observed, never from what papermill wrote into the notebook."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

from genokit.errors import NotebookFailed
from genokit.pipelines import notebook as notebooks

if TYPE_CHECKING:
    from genokit.pipelines.engine import Execution
    from genokit.pipelines.folder import Run


def decide(execution: Execution, why: str) -> tuple[str, str | None]:
    """The final state of an execution and a line that explains it.

    ``why`` is what stopped it from outside ("" if nothing did).
    """
    unfinished = [index for index, cell in execution.cells.items() if not cell.done]
    if not unfinished:
        return "SUCCEEDED", None
    cell = execution.cells[unfinished[0]]
    where = f"code cell {cell.number} `{cell.source}`" if cell.number else "the injected parameters"
    left = f"{len(unfinished) - 1} cell{'' if len(unfinished) == 2 else 's'} after it did not run"
    if why == "interrupted":
        return "FAILED", f"interrupted in {where}"
    if why:
        return "TIMED_OUT", f"{where} was running when {why} was reached"
    if cell.state == "failed":
        if cell.error in ("SystemExit", "SystemExit: 0", "SystemExit: None"):
            return "EXITED_EARLY", f"{where} called sys.exit, {left}"
        line = _line(execution.traceback, execution.node.cells[unfinished[0]])
        return "FAILED", f"{f'code cell {cell.number}, {line}' if line else where}: {cell.error}"
    lines = execution.log.strip().splitlines()
    last = f" (its last output: {' / '.join(lines[-3:])[-300:]})" if lines else ""
    if execution.error is not None:
        return "FAILED", f"the executor stopped at {where}: {execution.error!r}{last}"
    if execution.exit_code == 0:
        return "EXITED_EARLY", f"{where} ended the kernel, {left}"
    return "KERNEL_DIED", f"in {where} the kernel {_death(execution.exit_code)}{last}"


def stamp(node: Any, run: Run) -> None:
    """Write the real outcome into the executed notebook, instead of papermill's, and as text for whoever opens it."""
    from nbformat import from_dict

    node.metadata["genokit"] = {"run": run.path.name, "state": run.state, "version": run.versions["genokit"]}
    for part in (node, *node.cells):
        part.metadata.pop("papermill", None)
    if run.error:
        told = notebooks.banner(run.state, run.error)
        node.cells.insert(0, from_dict(notebooks.new_cell(node, "markdown", told, notebooks.MARKER)))


def failure(run: Run) -> NotebookFailed:
    """The error for a run that did not reach its end: what happened, where, and what to do next."""
    words = f"{run.source.name} {run.state}: {run.error}\n  Kept: {run.notebook}\n"
    words += "  Next: fix it and run it again. error.run.debug() opens it with the values that it had."
    cell = next((cell.number for cell in run.steps if not cell.done), None)
    return NotebookFailed(words, run=run, cell=cell, path=run.notebook)


def _line(traceback: str, cell: notebooks.Json) -> str:
    """The line of the cell that failed; "" if the traceback does not say."""
    # The last frame may lie in a function of an earlier cell; the first is in this one.
    found = re.search(r"Cell In\[\d+\], line (\d+)", traceback)
    number = int(found[1]) if found else 0
    lines = notebooks.text(cell).splitlines()
    return f"line {number} `{lines[number - 1].strip()[:80]}`" if 0 < number <= len(lines) else ""


def _death(code: int | None) -> str:
    if code is None:
        return "did not start"
    if code > 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}{': out of memory?' if code == -9 else ''}"
