"""A notebook file: read without a heavy library, and the copy that a run executes."""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import logging
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genokit.errors import InvalidNotebook, NotFound, did_you_mean
from genokit.files import write_atomic
from genokit.pipelines import values
from genokit.pipelines.secret_values import redacted

Json = Mapping[str, Any]
PARAMETERS = "parameters"
SKIP = "skip-execution"
MAY_RAISE = "raises-exception"
# Tags of the cells that a run inserts; they are removed when an executed notebook is run again.
INJECTED = "injected-parameters"
MARKER = "genokit-stopped"
_INSERTED = {INJECTED, MARKER, "papermill-error-cell-tag"}

# For libraries that a run calls: the run itself reports what they would log.
quiet = logging.getLogger("genokit.pipelines.quiet")
quiet.disabled = True

_MEND = "Open it in Jupyter and save it again, or restore it from version control."


def read(path: Path) -> dict[str, Any]:
    """Read a Python notebook (nbformat 4) to run; raises NotFound, or InvalidNotebook for any other file.

    Warns if it names the kernel of another Python.
    """
    content = load(path)
    metadata = content.get("metadata") or {}
    spec, info = metadata.get("kernelspec") or {}, metadata.get("language_info") or {}
    kernel = str(spec.get("name") or "python3")
    languages = sorted({str(language) for language in (spec.get("language"), info.get("name")) if language})
    own = kernel in ("python", "python3")
    if "spark" in kernel.lower() or not (languages or own) or any(name.lower() != "python" for name in languages):
        raise InvalidNotebook(
            f"{path} is a notebook for the kernel '{kernel}' ({', '.join(languages) or 'no language'}); genokit runs "
            "Python notebooks. If it is one, open it in Jupyter, choose the kernel 'Python 3', and save it."
        )
    if not own:
        warned = "%s is for the kernel '%s'; it runs with %s."
        logging.getLogger(__name__).warning(warned, path, kernel, sys.executable)
    return content


def load(path: Path) -> dict[str, Any]:
    """Read a notebook in any language; raises NotFound or InvalidNotebook."""
    if not path.is_file():
        known = (other.name for other in (path if path.is_dir() else path.parent).glob("*.ipynb"))
        raise NotFound(f"There is no notebook {path}. {did_you_mean(path.name, known)}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InvalidNotebook(f"{path} is not a notebook: {error}. {_MEND}") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise InvalidNotebook(f"{path} is not a notebook of nbformat 4: it has no list of cells. {_MEND}")
    return content


def executable(path: Path, content: Json, given: Json) -> Any:
    """The notebook to execute: validated, without traces of an earlier run, with the given parameters injected."""
    import nbformat

    try:
        node = nbformat.v4.upgrade(nbformat.reads(json.dumps(injected(content, given)), as_version=4))
        _, node = nbformat.validator.normalize(node)
        nbformat.validate(node)
    except Exception as error:  # nbformat raises many kinds
        reason = str(error).strip().partition("\n")[0]
        raise InvalidNotebook(f"{path} is not a valid notebook: {reason}. {_MEND}") from None
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return node


def injected(content: Json, given: Json) -> dict[str, Any]:
    """The notebook with the values after each cell that sets parameters, and without the cells of an earlier run."""
    cells: list[Json] = []
    for cell in filter(_is_own, content["cells"]):
        cells.append(cell)
        if given and sets_parameters(cell):
            cells.append(new_cell(content, "code", values.assignments(given), INJECTED))
    return {**content, "cells": cells}


def new_cell(content: Json, kind: str, source: str, tag: str) -> dict[str, Any]:
    """A cell for this notebook."""
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {"tags": [tag]}, "source": source}
    if content.get("nbformat_minor", 0) >= 5:
        cell["id"] = secrets.token_hex(4)
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def banner(state: str, error: str | None) -> str:
    """How a run ended, in Markdown."""
    if not error:
        return f"**{state}**"
    # Four spaces make a code block: no part of the message is read as Markdown.
    quoted = "\n".join(f"    {line}" for line in error.splitlines())
    return f"**{state}**: this notebook did not run to the end.\n\n{quoted}"


def sets_parameters(cell: Json) -> bool:
    """Whether this is a code cell with parameter defaults; the given values are injected after each such cell."""
    return cell.get("cell_type") == "code" and PARAMETERS in tags(cell)


def executed(content: Json) -> list[Json]:
    """The cells that a run executes, without those that an earlier run inserted."""
    return [cell for cell in content["cells"] if is_code(cell) and _is_own(cell)]


def _is_own(cell: Json) -> bool:
    return not _INSERTED & set(tags(cell))


def write(node: Any, path: Path) -> None:
    """Write an executed notebook atomically, without secrets."""
    import nbformat

    write_atomic(path, (nbformat.writes(redacted(node)) + "\n").encode("utf-8", "replace"), private=True)


def tags(cell: Json) -> list[str]:
    """The cell's tags."""
    return list((cell.get("metadata") or {}).get("tags") or [])


def text(cell: Json) -> str:
    """The cell's source."""
    return _joined(cell.get("source", ""))


def on_screen(text: str) -> str:
    r"""A text as a terminal shows it, with carriage returns applied; colours stay.

    >>> on_screen("10%\r100%\n")
    '100%\n'
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def python(code: str) -> str:
    """A cell's code as plain Python, with IPython's syntax turned into calls; raises SyntaxError.

    >>> python("x = !ls")
    "x = get_ipython().getoutput('ls')\\n"
    """
    while found := re.match(r"\s*%%(?:time|capture)\b[^\n]*\n", code):  # these run the rest of the cell
        code = code[found.end() :]
    try:
        ast.parse(code)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        code = TransformerManager().transform_cell(code)
    return code


def first_line(cell: Json) -> str:
    """The name that a cell has for papermill (``# papermill_description=NAME``), or else its first line of code."""
    if named := re.search(r"papermill_description=(\S+)", text(cell)):
        return values.shortened(named[1], 80)
    lines = (line.strip() for line in text(cell).splitlines())
    return values.shortened(next((line for line in lines if line and not line.startswith("#")), ""), 80)


def is_code(cell: Json) -> bool:
    """Whether a run executes this cell."""
    return cell.get("cell_type") == "code" and bool(text(cell).strip()) and SKIP not in tags(cell)


@dataclass
class Cell:
    """A code cell and how it ended. ``number`` counts the code cells of the source notebook; the injected cell is 0."""

    number: int
    source: str
    state: str  # "pending" | "skipped" | "running" | "completed" | "failed"
    duration_s: float | None = None
    error: str = ""

    @property
    def done(self) -> bool:
        """Whether it completed or was skipped."""
        return self.state in ("completed", "skipped")


def code_cells(node: Any) -> dict[int, Cell]:
    """The code cells of a notebook by their index, before anything has run."""
    found: dict[int, Cell] = {}
    number = 0
    for index, cell in enumerate(node.cells):
        if cell.cell_type == "code":
            injected = INJECTED in tags(cell)
            number += not injected
            state = "pending" if is_code(cell) else "skipped"
            found[index] = Cell(0 if injected else number, redacted(first_line(cell)), state)
    return found


@dataclass(frozen=True)
class Figure:
    """A picture in a notebook: its bytes (PNG, JPEG or SVG), the heading above it, and its scale."""

    png: bytes = field(repr=False)
    heading: str
    scale: float = 1.0


def figures(content: Json) -> Iterator[Figure]:
    """The pictures among the outputs, in order."""
    heading = ""
    for cell in content["cells"]:
        if cell.get("cell_type") == "markdown":
            for line in re.findall(r"^#{1,6}\s+(\S.*)", text(cell), re.MULTILINE):
                heading = re.sub(r"[*_`]", "", line).strip("# \t")
        pictures = [picture for output in cell.get("outputs") or [] for picture in _pictures(output)]
        for picture, scale in pictures:
            data = picture.encode("utf-8", "replace")
            if not picture.startswith("<"):
                with contextlib.suppress(ValueError):
                    data = base64.b64decode(picture)
            if data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"<")):  # skip what is not a picture
                yield Figure(data, heading, scale)


# A picture in a card has twice as many pixels as it is shown with.
_INLINE = re.compile(r'<img\b[^<>]*?src="data:image/png;base64,([^"]+)"')


def _pictures(output: Json) -> list[tuple[str, float]]:
    """Each picture of an output, SVG or base64, with its scale."""
    data = output.get("data") or {}
    for kind in ("image/png", "image/jpeg", "image/svg+xml"):
        if kind in data:
            return [(_joined(data[kind]).strip(), 1.0)]
    return [(picture, 0.5) for picture in _INLINE.findall(_joined(data.get("text/html", "")))]


def _joined(content: Any) -> str:
    """Text that a notebook file stores as a string or as a list of lines."""
    return "".join(map(str, content)) if isinstance(content, list) else str(content)
