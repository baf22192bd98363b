"""What can be read from a notebook's file without running it or importing a heavy library."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.errors import GenokitError, NotFound, did_you_mean

RECORD = "application/vnd.genokit.record+json"
SKIP = "skip-execution"
MAY_RAISE = "raises-exception"
# For the libraries underneath: what they would log, the run says itself, once and better.
quiet = logging.getLogger("genokit.pipelines.quiet")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False

# The tags of what a run puts in: they are taken out again when an executed notebook is run.
INJECTED = "injected-parameters"
MARKER = "genokit-stopped"

Json = Mapping[str, Any]


def read(path: Path) -> dict[str, Any]:
    """The notebook as JSON (nbformat 4, a Python one); raises NotFound, or GenokitError for what is not such a file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        folder = path if path.is_dir() else path.parent
        known = [other.name for other in folder.glob("*.ipynb")] if folder.is_dir() else []
        hint = did_you_mean(path.name, known) if known else f"There are no notebooks in {folder}."
        raise NotFound(f"the notebook {path} {what}. {hint}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise GenokitError(f"{path} is not a notebook: {error}. {_MEND}") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise GenokitError(f"{path} is not a notebook of format 4: it has no list of cells. {_MEND}")
    metadata = content.get("metadata") or {}
    spec, info = metadata.get("kernelspec") or {}, metadata.get("language_info") or {}
    language = str(spec.get("language") or info.get("name") or "python")
    if language.lower() != "python":
        raise GenokitError(f"{path} is a notebook in {language}; genokit runs notebooks in Python.")
    return content


_MEND = "Open it in Jupyter and save it again, or take it back from version control."


def tags(cell: Json) -> list[str]:
    """The cell's tags."""
    return list((cell.get("metadata") or {}).get("tags") or [])


def text(cell: Json) -> str:
    """The cell's source, whichever of the two ways the file keeps it."""
    return _joined(cell.get("source", ""))


def first_line(cell: Json) -> str:
    """The first line of a cell that says something, at most 80 characters of it."""
    lines = (line.strip() for line in text(cell).splitlines())
    line = next((line for line in lines if line and not line.startswith("#")), "")
    return line if len(line) <= 80 else line[:79] + "…"


def is_code(cell: Json) -> bool:
    """Whether a run executes this cell."""
    return cell.get("cell_type") == "code" and bool(text(cell).strip()) and SKIP not in tags(cell)


def outputs(content: Json) -> dict[str, Any]:
    """What the notebook's cells recorded, by name, as JSON values; the last record of a name wins."""
    found: dict[str, Any] = {}
    for cell in content.get("cells", []):
        for output in cell.get("outputs") or []:
            record = (output.get("data") or {}).get(RECORD)
            if isinstance(record, dict) and "name" in record:
                found[record["name"]] = record.get("value")
    return found


@dataclass(frozen=True)
class Figure:
    """A picture that a notebook shows: its PNG bytes, the heading it stands under, and its size on the page."""

    png: bytes
    heading: str
    cell: int
    scale: float = 1.0

    def __repr__(self) -> str:
        return f"<Figure under '{self.heading}', code cell {self.cell}, {len(self.png)} bytes>"


def figures(content: Json) -> Iterator[Figure]:
    """The PNG pictures among the outputs, in order."""
    heading, code = "", 0
    for cell in content.get("cells", []):
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
_INLINE = re.compile(r'<img\b[^>]*?src="data:image/png;base64,([^"]+)"([^>]*)')


def _pictures(output: Json) -> Iterator[tuple[bytes, float]]:
    """Each picture of an output with the width it is shown at; 0 if that is its own."""
    data = output.get("data") or {}
    shown = (output.get("metadata") or {}).get("image/png") or {}
    if "image/png" in data:
        yield base64.b64decode(_joined(data["image/png"])), float(shown.get("width") or 0)
    elif "text/html" in data:
        for picture, rest in _INLINE.findall(_joined(data["text/html"])):
            width = re.search(r'width="(\d+)"', rest)
            yield base64.b64decode(picture), float(width[1]) if width else 0.0


def _joined(content: Any) -> str:
    return content if isinstance(content, str) else "".join(content)
