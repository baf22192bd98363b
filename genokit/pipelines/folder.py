"""Run folders: one a run, with ``run.json`` (the truth), ``notebook.ipynb`` (as executed) and ``notebook.html``."""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, NotFound, did_you_mean
from genokit.files import write_atomic
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values

if TYPE_CHECKING:
    from pandas import DataFrame

STATES = ("RUNNING", "SUCCEEDED", "FAILED", "KERNEL_DIED", "TIMED_OUT", "EXITED_EARLY")
RECORD = "run.json"


@dataclass(frozen=True)
class Cell:
    """What one code cell did. ``number`` counts the code cells of the source notebook; 0 is the injected one."""

    number: int
    source: str
    state: str  # "completed" | "failed" | "running" (when it ended) | "pending" | "skipped"
    duration_s: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Run:
    """One run of a notebook, as its folder ``path`` keeps it.

    ``state`` is one of "RUNNING", "SUCCEEDED", "FAILED", "KERNEL_DIED", "TIMED_OUT" and "EXITED_EARLY"; ``outputs`` is
    what the notebook recorded; ``parameters`` are the given ones over the notebook's defaults; ``error`` says in a
    line why it did not succeed, and ``traceback`` has the cell's.
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
    failed_cell: int | None = None
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
        import pandas as pd

        rows = [(c.number, c.source, c.state, c.duration_s, c.error) for c in self.steps if c.number]
        return pd.DataFrame(rows, columns=["cell", "source", "state", "duration_s", "error"])

    @cached_property
    def figures(self) -> list[notebooks.Figure]:
        """The pictures in the executed notebook, each with the heading it stands under."""
        return list(notebooks.figures(notebooks.read(self.notebook)))

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run that a folder keeps; raises NotFound, or GenokitError where its record cannot be read.

        A run that says RUNNING although its process is gone comes back as KERNEL_DIED.
        """
        path = Path(folder).expanduser().absolute()
        try:
            stored = json.loads((path / RECORD).read_text(encoding="utf-8"))
            run = _from_json(path, stored)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} is not the folder of a run: it has no {RECORD}. {_nearby(path)}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise GenokitError(f"{path / RECORD} cannot be read: {error!r}. Run the notebook again.") from None
        if run.state == "RUNNING" and run.process is not None and not _alive(*run.process):
            gone = "the Python process that ran it is gone; run the notebook again"
            return Run(**{**_fields(run), "state": "KERNEL_DIED", "error": gone})
        return run

    def save(self) -> Run:
        """Write the run's record into its folder, whole or not at all; returns the run."""
        stored = _fields(self) | {
            "source": str(self.source),
            "started": self.started.isoformat(),
            "ended": self.ended and self.ended.isoformat(),
            "parameters": {name: values.to_json(value) for name, value in self.parameters.items()},
            "outputs": {name: values.to_json(value) for name, value in self.outputs.items()},
            "steps": [asdict(cell) for cell in self.steps],
        }
        del stored["path"]
        write_atomic(self.path / RECORD, json.dumps(stored, indent=1, allow_nan=False) + "\n")
        return self

    def __repr__(self) -> str:
        took = "" if self.duration_s is None else f" in {display.seconds(self.duration_s)}"
        return f"<Run {self.name} {self.state}{took}, {_done(self)} cells, {self.path}>"

    def _repr_html_(self) -> str:
        return card(self)


def card(run: Run, *, pictures: int = 3) -> display.Html:
    """The run as a card: state, time, outputs, its first pictures, and where everything is."""
    rows: list[tuple[str, object]] = [("Cells", _done(run))]
    if run.duration_s is not None:
        rows.append(("Time", display.seconds(run.duration_s)))
    if run.error:
        rows.append(("Error", run.error))
    rows += [(name, value) for name, value in run.outputs.items()]
    rows.append(("Notebook", display.link(run.notebook, run.notebook)))
    if run.html:
        rows.append(("HTML", display.link(run.html, run.html)))
    fold: dict[str, object] = {"Parameters": display.table(list(run.parameters.items()), columns=["name", "value"])}
    if run.traceback:
        fold["Traceback"] = display.log(run.traceback)
    fold["Cells"] = display.table([asdict(cell) for cell in run.steps if cell.number])
    shown = run.figures[:pictures] if pictures and run.notebook.is_file() else []
    images = [display.image(f.png, f.heading or run.name, caption=f.heading, scale=f.scale) for f in shown]
    return display.stack(display.card(f"Run {run.name}", rows, status=run.state, fold=fold), *images)


def _done(run: Run) -> str:
    code = [cell for cell in run.steps if cell.number]
    return f"{sum(cell.state in ('completed', 'skipped') for cell in code)} of {len(code)}"


def new_folder(runs: Path, name: str) -> Path:
    """A fresh folder for a run, its name sorting by time."""
    label = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "run"
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    while True:
        folder = runs / f"{stamp}-{label}-{secrets.token_hex(3)}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def runs(settings: Settings | None = None) -> DataFrame:
    """Every run in the runs folder, newest first: name, state, started, duration_s, path (those of pipelines too)."""
    import pandas as pd

    root = (settings or Settings.load()).runs
    found = []
    for record in [*root.glob(f"*/{RECORD}"), *root.glob(f"*/*/{RECORD}")]:
        try:
            found.append(Run.load(record.parent))
        except GenokitError:
            continue  # one broken record must not hide the others
    found.sort(key=lambda run: run.started, reverse=True)
    rows = [(run.name, run.state, run.started, run.duration_s, str(run.path)) for run in found]
    return pd.DataFrame(rows, columns=["name", "state", "started", "duration_s", "path"])


def _fields(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}


def _from_json(path: Path, stored: dict[str, Any]) -> Run:
    ended = stored["ended"]
    changed = {
        "source": Path(stored["source"]),
        "started": datetime.datetime.fromisoformat(stored["started"]),
        "ended": ended and datetime.datetime.fromisoformat(ended),
        "parameters": {name: values.from_json(value) for name, value in stored["parameters"].items()},
        "outputs": {name: values.from_json(value) for name, value in stored["outputs"].items()},
        "steps": tuple(Cell(**cell) for cell in stored["steps"]),
        "process": tuple(stored["process"]) if stored["process"] else None,
    }
    return Run(path=path, **(stored | changed))


def this_process() -> tuple[str, int, float]:
    """Machine, number and start time of this process: the number alone may come again."""
    import psutil  # type: ignore[import-untyped]  # ipykernel brings it

    return socket.gethostname(), os.getpid(), psutil.Process().create_time()


def _alive(machine: str, pid: int, created: float) -> bool:
    import psutil

    if machine != socket.gethostname():
        return True  # a shared file system: only that machine could tell
    try:
        return bool(abs(psutil.Process(pid).create_time() - created) < 1)
    except psutil.NoSuchProcess:
        return False


def _nearby(path: Path) -> str:
    folders = [record.parent.name for record in path.parent.glob(f"*/{RECORD}")] if path.parent.is_dir() else []
    return did_you_mean(path.name, folders) if folders else "pipelines.runs() lists the runs there are."
