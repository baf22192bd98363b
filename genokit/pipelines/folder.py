"""Run folders: one a run, with ``run.json`` (the truth), ``notebook.ipynb`` (as executed) and ``notebook.html``."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, InvalidNotebook, NotFound
from genokit.files import write_atomic
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import recording, values
from genokit.pipelines.state import Cell

if TYPE_CHECKING:
    from pandas import DataFrame

RECORD = "run.json"


@dataclass(frozen=True)
class Run:
    """One run of a notebook, as its folder ``path`` keeps it.

    ``state`` is RUNNING, SUCCEEDED, FAILED, KERNEL_DIED, TIMED_OUT or EXITED_EARLY; ``outputs`` is what the notebook
    recorded; ``parameters`` are the given ones over the notebook's defaults; ``error`` says in a line why it did not
    succeed, and ``traceback`` has the cell's. Times are in UTC.
    """

    path: Path
    name: str
    state: str
    source: Path
    source_sha256: str
    started: datetime.datetime
    ended: datetime.datetime | None = None
    duration_s: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Cell, ...] = ()
    error: str | None = None
    traceback: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    process: tuple[str, int, float] | None = None

    @property
    def notebook(self) -> Path:
        """The executed notebook; while it runs, a copy of how far it is."""
        return self.path / "notebook.ipynb"

    @property
    def html(self) -> Path | None:
        """The executed notebook as one HTML file, if it could be made."""
        path = self.path / "notebook.html"
        return path if path.is_file() else None

    @property
    def cells(self) -> DataFrame:
        """A row for every code cell: cell, source (its first line), state, duration_s, error."""
        from genokit.frames import Frame

        rows = [(cell.number, cell.source, cell.state, cell.duration_s, cell.error) for cell in self.steps]
        return Frame(rows, columns=["cell", "source", "state", "duration_s", "error"])

    @property
    def figures(self) -> list[notebooks.Figure]:
        """The pictures in the executed notebook, each with the heading it stands under."""
        with contextlib.suppress(NotFound, InvalidNotebook):  # a damaged copy must not cost the page about it
            return list(notebooks.figures(notebooks.load(self.notebook)))
        return []

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run that a folder keeps; raises NotFound, or GenokitError where its record cannot be read.

        A run that says RUNNING although its process is gone comes back as KERNEL_DIED.
        """
        path = Path(folder).expanduser().absolute()
        try:
            stored = json.loads((path / RECORD).read_text(encoding="utf-8"))
            ended, process = stored["ended"], stored["process"]
            stored |= {
                "path": path,
                "source": Path(stored["source"]),
                "started": datetime.datetime.fromisoformat(stored["started"]),
                "ended": ended and datetime.datetime.fromisoformat(ended),
                "parameters": values.from_json(stored["parameters"]),
                "outputs": values.from_json(stored["outputs"]),
                "steps": tuple(Cell(**cell) for cell in stored["steps"]),
                "process": process and tuple(process),
            }
            run = cls(**stored)
            _check(run)
            if run.state == "RUNNING":
                run = replace(run, outputs=recording.kept(path))
                if run.process and _gone(*run.process):
                    gone = "the Python process that ran it is gone; run the notebook again"
                    run = replace(run, state="KERNEL_DIED", error=gone)
        except (FileNotFoundError, NotADirectoryError):
            known = "genokit.pipelines.runs() lists the runs there are."
            raise NotFound(f"{path} is not the folder of a run: it has no {RECORD}. {known}") from None
        except Exception as error:  # a damaged file can raise anything
            said = values.shortened(repr(error), 200)
            raise GenokitError(f"{path / RECORD} cannot be read: {said}. Run the notebook again.") from None
        return run

    def save(self) -> Run:
        """Write the run's record into its folder, whole or not at all; returns the run."""
        stored = asdict(self) | {
            "source": str(self.source),
            "started": self.started.isoformat(),
            "ended": self.ended and self.ended.isoformat(),
            "parameters": values.to_json(dict(self.parameters)),
            "outputs": values.to_json(dict(self.outputs)),
        }
        del stored["path"]
        write_atomic(self.path / RECORD, json.dumps(stored, indent=1, allow_nan=False) + "\n", private=True)
        return self

    def __repr__(self) -> str:
        took = "" if self.duration_s is None else f" in {display.seconds(self.duration_s)}"
        return f"<Run {self.name} {self.state}{took}, {_done(self)} cells, {self.path}>"

    def _repr_html_(self) -> str:
        shown = [display.image(f.png, f.heading or self.name, caption=f.heading, scale=f.scale) for f in self.figures]
        return display.stack(card(self), *shown[:3])


def card(run: Run, *, seen_from: Path | None = None) -> display.Html:
    """The run as a card: state, times, outputs, and where everything is; ``seen_from`` makes its links relative."""

    rows: list[tuple[str, object]] = [("Cells", _done(run)), ("Started", run.started)]
    if run.duration_s is not None:
        rows.append(("Time", display.seconds(run.duration_s)))
    if run.error:
        rows.append(("Error", run.error))
    rows += [*run.outputs.items(), ("Notebook", link(run.notebook, seen_from))]
    if run.html:
        rows.append(("HTML", link(run.html, seen_from)))
    fold: dict[str, object] = {"Parameters": display.table(list(run.parameters.items()), columns=["name", "value"])}
    if run.traceback:
        fold["Traceback"] = display.log(run.traceback)
    fold["Cells"] = display.table([asdict(cell) for cell in run.steps])
    return display.card(f"Run {run.name}", rows, status=run.state, fold=fold)


def link(path: Path, seen_from: Path | None = None) -> display.Html:
    """A link to a file of a run, read in a page in the folder ``seen_from`` or in this kernel's notebook.

    Jupyter serves what lies in its root and is not hidden, by the way there from the notebook; other files are named.
    """
    if seen_from:
        return display.link(path.relative_to(seen_from), path.relative_to(seen_from))
    if folder := os.environ.get("GENOKIT_RUN"):  # of a run's card, the executed copy in the run's folder is the place
        return display.link(Path(os.path.relpath(path, folder)), path)
    if notebook := os.environ.get("JPY_SESSION_NAME"):
        here, there = Path(notebook).resolve().parent, path.resolve()
        root = _server_root() or here
        if not there.is_relative_to(root) or any(part.startswith(".") for part in there.relative_to(root).parts):
            return display.Html(display.escape(path))
        return display.link(Path(os.path.relpath(there, here)), path)
    return display.link(path, path)


def _server_root() -> Path | None:
    """The folder that the Jupyter server of this kernel serves, as the server itself has noted it."""
    from jupyter_core.paths import jupyter_runtime_dir

    note = Path(jupyter_runtime_dir()) / f"jpserver-{os.environ.get('JPY_PARENT_PID')}.json"
    try:
        return Path(json.loads(note.read_text(encoding="utf-8"))["root_dir"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fresh(runs: Path, name: str) -> Path:
    """The path of a new folder for a run; the names sort by time."""
    label = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "run"
    return runs / f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{label}-{secrets.token_hex(3)}"


def runs(settings: Settings | None = None) -> DataFrame:
    """Every run in the runs folder, newest first: name, state, started, duration_s, path (those of pipelines too).

    A folder whose record cannot be read is listed last, as UNREADABLE; ``Run.load`` of its path says why.
    """
    import pandas as pd

    root = (settings or Settings.load()).runs
    found: list[Run] = []
    unreadable: list[Path] = []
    for record in [*root.glob(f"*/{RECORD}"), *root.glob(f"*/*/{RECORD}")]:
        try:
            found.append(Run.load(record.parent))
        except GenokitError:
            unreadable.append(record.parent)
    found.sort(key=lambda run: run.started, reverse=True)
    rows: list[tuple[object, ...]] = []
    rows += [(run.name, run.state, run.started, run.duration_s, str(run.path)) for run in found]
    rows += [(path.name, "UNREADABLE", None, None, str(path)) for path in sorted(unreadable)]
    table = pd.DataFrame(rows, columns=["name", "state", "started", "duration_s", "path"])
    return table.astype({"duration_s": float, "started": "datetime64[us, UTC]"})


def _check(run: Run) -> None:
    """Raise TypeError for a record with a value of another type than it has."""
    kinds: dict[str, Any] = {"name": str, "state": str, "started": datetime.datetime, "parameters": dict}
    kinds |= {
        "outputs": dict,
        "versions": dict,
        "traceback": str,
        "error": str | None,
        "duration_s": int | float | None,
    }
    for name, kind in kinds.items():
        if not isinstance(getattr(run, name), kind):
            raise TypeError(f"{name} is {getattr(run, name)!r}")
    if run.started.tzinfo is None:
        raise TypeError("started has no time zone")


def _done(run: Run) -> str:
    return f"{sum(cell.done for cell in run.steps)} of {len(run.steps)}"


def this_process() -> tuple[str, int, float]:
    """Machine, number and start time of this process: the number alone may come again."""
    import psutil  # type: ignore[import-untyped]

    return socket.gethostname(), os.getpid(), psutil.Process().create_time()


def _gone(machine: str, pid: int, created: float) -> bool:
    import psutil

    if machine != socket.gethostname():
        return False  # a shared file system: only that machine could tell
    return not psutil.pid_exists(pid) or abs(psutil.Process(pid).create_time() - created) >= 1
