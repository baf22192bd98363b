"""A notebook's file: what can be read from it without a heavy library, and the copy that a run executes."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genokit.errors import InvalidNotebook, NotFound, did_you_mean
from genokit.files import write_atomic
from genokit.pipelines import values

Json = Mapping[str, Any]
PARAMETERS = "parameters"
SKIP = "skip-execution"
MAY_RAISE = "raises-exception"
# The tags of what a run puts in: they are taken out again when an executed notebook is run.
INJECTED = "injected-parameters"
MARKER = "genokit-stopped"

# For the libraries underneath: what they would log, the run says itself, once and better.
quiet = logging.getLogger("genokit.pipelines.quiet")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False

_MEND = "Open it in Jupyter and save it again, or take it back from version control."


def read(path: Path) -> dict[str, Any]:
    """The notebook as JSON (nbformat 4, in Python); raises NotFound, or InvalidNotebook for what is not such a file."""
    if not path.is_file():
        what, folder = ("is a folder", path) if path.is_dir() else ("does not exist", path.parent)
        known = (other.name for other in folder.glob("*.ipynb"))
        raise NotFound(f"the notebook {path} {what}. {did_you_mean(path.name, known)}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InvalidNotebook(f"{path} is not a notebook: {error}. {_MEND}") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise InvalidNotebook(f"{path} is not a notebook of format 4: it has no list of cells. {_MEND}")
    metadata = content.get("metadata") or {}
    spec, info = metadata.get("kernelspec") or {}, metadata.get("language_info") or {}
    language = str(spec.get("language") or info.get("name") or "python")
    if language.lower() != "python":
        raise InvalidNotebook(f"{path} is a notebook in {language}; genokit runs notebooks in Python.")
    return content


def executable(path: Path, content: Json, given: Json) -> Any:
    """The notebook to execute: valid, without what an earlier run left, with the given parameters after their cell."""
    import nbformat

    try:
        node = nbformat.v4.upgrade(nbformat.reads(json.dumps(content), as_version=4))
        _, node = nbformat.validator.normalize(node)
        nbformat.validate(node)
    except Exception as error:  # nbformat raises many kinds for a notebook that is none
        reason = str(error).strip().partition("\n")[0]
        raise InvalidNotebook(f"{path} is not a valid notebook: {reason}. {_MEND}") from None
    node.cells = [cell for cell in node.cells if not {INJECTED, MARKER} & set(tags(cell))]
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if given:
        place = next(i for i, cell in enumerate(node.cells) if PARAMETERS in tags(cell)) + 1
        injected = nbformat.v4.new_code_cell(values.assignments(given), metadata={"tags": [INJECTED]})
        node.cells.insert(place, injected)
    return node


def write(node: Any, path: Path) -> None:
    """Write an executed notebook, whole or not at all."""
    import nbformat

    write_atomic(path, nbformat.writes(node) + "\n", private=True)


def tags(cell: Json) -> list[str]:
    """The cell's tags."""
    return list((cell.get("metadata") or {}).get("tags") or [])


def text(cell: Json) -> str:
    """The cell's source."""
    return _joined(cell.get("source", ""))


def without_magics(code: str) -> str:
    """The code with IPython's own lines, magics and shell commands, left empty."""
    return re.sub(r"^[ \t]*[%!].*$", "", code, flags=re.MULTILINE)


def first_line(cell: Json) -> str:
    """The first line of a cell that says something."""
    lines = (line.strip() for line in text(cell).splitlines())
    return values.shortened(next((line for line in lines if line and not line.startswith("#")), ""), 80)


def is_code(cell: Json) -> bool:
    """Whether a run executes this cell."""
    return cell.get("cell_type") == "code" and bool(text(cell).strip()) and SKIP not in tags(cell)


@dataclass(frozen=True)
class Figure:
    """A picture that a notebook shows: its PNG bytes, the heading it stands under, and its size on the page."""

    png: bytes = field(repr=False)
    heading: str
    cell: int
    scale: float = 1.0


def figures(content: Json) -> Iterator[Figure]:
    """The PNG pictures among the outputs, in order."""
    heading, code = "", 0
    for cell in content["cells"]:
        if cell.get("cell_type") == "markdown":
            found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text(cell), flags=re.MULTILINE)
            heading = re.sub(r"[*_`]", "", found[-1]) if found else heading
        if cell.get("cell_type") == "code":
            code += 1
            for output in cell.get("outputs") or []:
                for png, width in _pictures(output):
                    own = int.from_bytes(png[16:20], "big")  # the width in the PNG's header
                    yield Figure(png, heading, code, width / own if width and own else 1.0)


# A card may hold a picture, too.
_INLINE = re.compile(r'<img\b[^>]*?src="data:image/png;base64,([^"]+)"(?:[^>]*? width="(\d+)")?')


def _pictures(output: Json) -> Iterator[tuple[bytes, float]]:
    """Each picture of an output with the width it is shown at; 0 if that is its own."""
    data = output.get("data") or {}
    if "image/png" in data:
        shown = (output.get("metadata") or {}).get("image/png") or {}
        yield base64.b64decode(_joined(data["image/png"])), float(shown.get("width") or 0)
    else:
        for picture, width in _INLINE.findall(_joined(data.get("text/html", ""))):
            yield base64.b64decode(picture), float(width or 0)


def _joined(content: Any) -> str:
    """Text, whichever of the two ways the file keeps it."""
    return content if isinstance(content, str) else "".join(content)
