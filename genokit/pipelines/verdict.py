"""How a run ended: decided from what was watched, never from what papermill wrote."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genokit import display
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values
from genokit.pipelines.folder import Cell, Run

if TYPE_CHECKING:
    from genokit.pipelines.engine import Watch

HEADING = "Stopped here"


class Verdict(NamedTuple):
    """A state, the line that explains it, the index of its cell, and that cell's traceback."""

    state: str
    error: str | None = None
    cell_index: int | None = None
    traceback: str = ""


def decide(node: Any, watch: Watch, why: str, log: Path) -> Verdict:
    """The state of an execution that is over; ``why`` says what stopped it from outside, if anything did."""
    runnable = [i for i, cell in enumerate(node.cells) if notebooks.is_code(cell)]
    unfinished = [i for i in runnable if i not in watch.steps or watch.steps[i].state != "completed"]
    if not unfinished:
        return Verdict("SUCCEEDED")
    index = unfinished[0]
    step = watch.steps.get(index)
    where = place(node, index)
    if why == "interrupted":
        return Verdict("FAILED", f"interrupted in {where}", index)
    if why:
        return Verdict("TIMED_OUT", f"{where} was running when {why} was reached", index)
    if step is not None and step.state == "failed":
        if step.error_name == "SystemExit" and step.error in ("", "0", "None"):
            return Verdict("EXITED_EARLY", f"{where} called sys.exit, {_left(unfinished)}", index)
        where = place(node, index, _line(step.traceback))
        message = _cut(f"{step.error_name}: {step.error}" if step.error else step.error_name)
        return Verdict("FAILED", f"{where}: {message}", index, display.plain(step.traceback))
    if watch.error is not None:
        what = f"{type(watch.error).__name__}: {watch.error}"
        return Verdict("FAILED", f"the executor stopped at {where}: {what}{_last_words(log)}", index)
    if watch.exit_code == 0:
        return Verdict("EXITED_EARLY", f"{where} ended the kernel, {_left(unfinished)}", index)
    return Verdict("KERNEL_DIED", f"in {where} the kernel {_death(watch.exit_code)}{_last_words(log)}", index)


def place(node: Any, index: int, line: int | None = None) -> str:
    """A cell in words: its number among the code cells, and the line where it stopped or else its first one."""
    number, cell = numbers(node)[index], node.cells[index]
    if not number:
        return "the injected parameters"
    lines = notebooks.text(cell).splitlines()
    if line is None or not 0 < line <= len(lines):
        return f"code cell {number} `{notebooks.first_line(cell)}`"
    return f"code cell {number}, line {line} `{lines[line - 1].strip()[:80]}`"


def numbers(node: Any) -> dict[int, int]:
    """For each code cell's index its number as in the source notebook; the injected cell is 0."""
    found, count = {}, 0
    for index, cell in enumerate(node.cells):
        if cell.cell_type == "code":
            injected = notebooks.INJECTED in notebooks.tags(cell)
            count += not injected
            found[index] = 0 if injected else count
    return found


def cells(node: Any, watch: Watch) -> tuple[Cell, ...]:
    """What every code cell did."""
    found = []
    for index, number in numbers(node).items():
        cell, step = node.cells[index], watch.steps.get(index)
        source = notebooks.first_line(cell)
        if step is not None:
            error = ": ".join(filter(None, [step.error_name, step.error]))
            found.append(Cell(number, source, step.state, step.duration_s, error))
        else:
            found.append(Cell(number, source, "pending" if notebooks.is_code(cell) else "skipped"))
    return tuple(found)


def stamp(node: Any, watch: Watch, run: Run) -> None:
    """Put the truth where papermill's readers look for it; its own marks stand for what it believed."""
    node.metadata["papermill"] = {
        "version": run.versions.get("papermill", ""),
        "input_path": str(run.source),
        "output_path": str(run.notebook),
        "parameters": {name: values.to_json(value) for name, value in run.parameters.items()},
        "start_time": run.started.isoformat(),
        "end_time": run.ended and run.ended.isoformat(),
        "duration": run.duration_s,
        "exception": run.state != "SUCCEEDED",
    }
    node.metadata["genokit"] = {"run": run.path.name, "state": run.state, "version": run.versions["genokit"]}
    for index, cell in enumerate(node.cells):
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            step = watch.steps.get(index)
            state = step.state if step else "pending" if notebooks.is_code(cell) else "skipped"
            duration = step.duration_s if step else None
            cell.metadata["papermill"] = {"status": state, "duration": duration, "exception": state == "failed"}


def mark(node: Any, verdict: Verdict) -> None:
    """Say in the notebook itself that it did not get to its end, and where; plain markdown, no HTML."""
    if verdict.error is None:
        return
    import nbformat

    # Four spaces: a code block, in which nothing of the message is markdown.
    quoted = "\n".join(f"    {line}" for line in verdict.error.splitlines())
    tagged = {"tags": [notebooks.MARKER]}
    top = f"**{verdict.state}**: this notebook did not run to its end. [Go there](#{HEADING.replace(' ', '-')})."
    if verdict.cell_index is not None:
        node.cells.insert(
            verdict.cell_index, nbformat.v4.new_markdown_cell(f"### {HEADING}\n\n{quoted}", metadata=tagged)
        )
    node.cells.insert(0, nbformat.v4.new_markdown_cell(top, metadata=tagged))


def _cut(message: str) -> str:
    # A file that does not parse, or a query, may be quoted whole; the traceback keeps all of it.
    message = display.plain(message).strip()
    return message if len(message) <= 600 else message[:599] + "…"


def _left(unfinished: list[int]) -> str:
    after = len(unfinished) - 1
    return f"{after} cell{'' if after == 1 else 's'} after it did not run" if after else "in the last cell"


def _line(traceback: str) -> int | None:
    # The last frame in a cell may be in an earlier cell's function; the first is in this one.
    found = re.search(r"Cell In\[\d+\], line (\d+)", display.plain(traceback))
    return int(found[1]) if found else None


def _death(code: int | None) -> str:
    if code is None:
        return "did not start"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = {"SIGKILL": ": out of memory?", "SIGSEGV": ": a crash in a compiled library"}.get(name, "")
        return f"was killed by {name}{hint}"
    return f"ended with exit code {code}"


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f" (it said: {' / '.join(lines[-3:])[-300:]})" if lines else ""
