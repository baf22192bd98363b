"""Open notebooks in JupyterLab: a run's, a copy to debug, or a pipeline's with its real inputs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from genokit import display
from genokit.batch.debug import DebugFolder, without_secrets
from genokit.config import Settings
from genokit.files import write_atomic
from genokit.pipelines import notebooks
from genokit.pipelines.schema import Schema


def link(path: Path, seen_from: Path | None = None) -> display.Html:
    """A link to a file of a run, relative to the page in the folder ``seen_from`` or to this kernel's notebook.

    Jupyter does not serve hidden files: their path is shown without a link.
    """
    notebook = os.environ.get("JPY_SESSION_NAME")
    # In a run, the card is read in the executed copy in the run folder.
    folder = seen_from or os.environ.get("GENOKIT_RUN") or (notebook and Path(notebook).parent)
    target = Path(os.path.relpath(path.resolve(), Path(folder).resolve())) if folder else path
    if folder and any(part.startswith(".") and part != ".." for part in target.parts):
        return display.Html(display.escape(path))
    return display.link(target, target if seen_from else path)


def opened(notebook: Path, page: Path | None = None) -> str:
    """Show a link in a notebook; elsewhere open the notebook in a running JupyterLab, or else its page in a browser.

    Without a page, this is the shell's command that opens the notebook.
    """
    if (shell := sys.modules.get("IPython")) and hasattr(shell.get_ipython(), "kernel"):
        return link(notebook)
    if not (found := _in_lab(notebook)) and page is None:
        return _command(notebook)
    address, token = found or (cast(Path, page).as_uri(), "")
    webbrowser.open(address + (f"?token={token}" if token else ""))
    return address


def _in_lab(notebook: Path) -> tuple[str, str] | None:
    """The notebook's address in a running JupyterLab, and the server's token."""
    with contextlib.suppress(ImportError):
        from jupyter_server.serverapp import list_running_servers

        for server in list_running_servers():
            with contextlib.suppress(ValueError):  # it serves another folder
                path = notebook.resolve().relative_to(Path(server["root_dir"]).resolve())
                if not any(part.startswith(".") for part in path.parts):  # Jupyter does not serve hidden files
                    return f"{server['url']}lab/tree/{quote(path.as_posix())}", server.get("token", "")
    return None


def debug(
    source: Path, target: Path, parameters: Mapping[str, Any], cwd: Path, said: str, settings: Settings
) -> DebugFolder:
    """Copy a notebook with these parameters; the copy begins with the text ``said`` and works in the folder ``cwd``."""
    content = notebooks.injected(notebooks.load(source), parameters)
    environ, left_out = without_secrets(settings.environ())
    setup = f"# As in the run\nimport os\nos.chdir({str(cwd)!r})\nos.environ.update({environ!r})"
    content["cells"] = [
        notebooks.new_cell(content, "markdown", said, notebooks.MARKER),
        notebooks.new_cell(content, "code", setup, notebooks.MARKER),
        *content["cells"],
    ]
    _write(content, target, private=True)
    return DebugFolder(target.parent, _command(target), left_out, link(target))


def _command(notebook: Path) -> str:
    """The shell's command that opens a notebook in a new JupyterLab."""
    words = [sys.executable, "-m", "jupyterlab", str(notebook), *(["--allow-root"] if os.geteuid() == 0 else [])]
    return shlex.join(words)


def edit(notebook: Path, parameters: Mapping[str, object]) -> str:
    """Put parameters into a notebook, in the cell that every run replaces, and open it."""
    content = notebooks.read(notebook)
    given = Schema.of(content, notebook.name).check(parameters)
    _write(notebooks.injected(content, given), notebook)
    return opened(notebook)


def _write(content: Mapping[str, Any], notebook: Path, *, private: bool = False) -> None:
    write_atomic(notebook, json.dumps(content, indent=1, ensure_ascii=False) + "\n", private=private)
