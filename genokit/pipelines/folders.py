"""Run folders, one per run: ``run.json`` (the record), ``notebook.ipynb`` (as executed) and ``notebook.html``."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, InvalidNotebook, NotFound
from genokit.files import write_atomic
from genokit.pipelines import lab, notebooks, processes, recording, values

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.batch.debug import DebugFolder
    from genokit.pipelines.form import Form

RECORD, SOURCE = "run.json", "source.ipynb"
_HERE = Path("$run")  # the run folder, in its record


@dataclass(frozen=True)
class Run:
    """One run of a notebook, as stored in its folder.

    Attributes
    ----------
    path : Path
        The run folder.
    name : str
        Name of the run.
    cwd : str
        Working folder of the kernel.
    state : str
        RUNNING, SUCCEEDED, FAILED, KERNEL_DIED, TIMED_OUT or EXITED_EARLY.
    source : Path
        The notebook that was run, and ``source_sha256``, the hash of its bytes.
    started, ended : datetime
        In UTC; ``ended`` is None while it runs.
    parameters : mapping
        The notebook's defaults, updated with the given values; ``units`` has the units of those that state one.
    outputs : mapping
        What the notebook recorded with ``genokit.record``, by name.
    steps : tuple of Cell
        What each code cell did; ``cells`` is the same as a table.
    error : str or None
        One line that says why the run did not succeed; ``traceback`` is the failed cell's.
    versions : mapping
        Versions of Python and genokit; ``environment.txt`` in its folder lists all packages.
    ingredients : mapping
        What else its results depend on, each with a hash, if it was run with the cache.
    data : mapping
        The data sets that it fetched and the files that it recorded, each with a hash, if it was run with the cache.
    cached_from : str or None
        The folder of the run whose results were restored; then nothing was executed.
    reason : str
        Why it was executed although the cache was used.
    process : tuple or None
        Machine, PID and start time of the process that ran it.
    job : str or None
        The id of the Batch job that runs it, if one does; ``address``, the folder on S3 for its results.
    settings : str
        The names of the settings that differ from their defaults.

    Examples
    --------
    >>> started = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    >>> ended = started + datetime.timedelta(seconds=90)
    >>> Run(Path("/runs/a"), "lenet", "SUCCEEDED", Path("/lenet.ipynb"), "5e", started, ended)
    <Run lenet SUCCEEDED in 1 min 30 s, 0 of 0 cells, /runs/a>
    """

    path: Path
    name: str
    state: str
    source: Path
    source_sha256: str
    started: datetime.datetime
    ended: datetime.datetime | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[notebooks.Cell, ...] = ()
    error: str | None = None
    traceback: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    process: tuple[Any, ...] | None = None
    ingredients: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    cached_from: str | None = None
    reason: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    job: str | None = None
    address: str | None = None
    cwd: str = ""
    settings: str = ""

    @property
    def duration_s(self) -> float | None:
        """Duration in seconds; None while it runs."""
        return round((self.ended - self.started).total_seconds(), 3) if self.ended else None

    @property
    def notebook(self) -> Path:
        """The executed notebook; during the run, the state so far."""
        return self.path / "notebook.ipynb"

    @property
    def html(self) -> Path | None:
        """The executed notebook as one HTML file, if it could be exported."""
        path = self.path / "notebook.html"
        return path if path.is_file() else None

    @property
    def cells(self) -> DataFrame:
        """One row per code cell: cell, source (its first line), state, duration_s, error."""
        from genokit.frames import Frame

        rows = [tuple(asdict(cell).values()) for cell in self.steps]
        return Frame(rows, columns=["cell", "source", "state", "duration_s", "error"])

    @property
    def figures(self) -> list[notebooks.Figure]:
        """The pictures in the executed notebook, each with the heading above it."""
        with contextlib.suppress(NotFound, InvalidNotebook):  # the card of a run with a damaged notebook still shows
            return list(notebooks.figures(notebooks.load(self.notebook)))
        return []

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Load the run stored in a folder.

        Parameters
        ----------
        folder : str or Path
            A run folder.

        Returns
        -------
        Run
            The run; KERNEL_DIED if its record says RUNNING but its process is gone.

        Raises
        ------
        NotFound
            The folder has no ``run.json``.
        GenokitError
            ``run.json`` cannot be read.

        Examples
        --------
        >>> import tempfile
        >>> started = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        >>> new = Run(Path(tempfile.mkdtemp()), "lenet", "FAILED", Path("/a.ipynb"), "5e", started)
        >>> Run.load(new.save().path) == new
        True
        """
        path = Path(folder).expanduser().absolute()
        try:
            run = parsed(json.loads((path / RECORD).read_text(encoding="utf-8")), path)
            if run.started.tzinfo is None:
                raise TypeError("started has no time zone")
            if run.state == "RUNNING" and not run.job:
                run = replace(run, outputs=recording.noted(path)[0])
                if run.process and processes.gone(*run.process):
                    gone = "the Python process that ran it has ended; run the notebook again"
                    run = replace(run, state="KERNEL_DIED", error=gone)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} is not a run folder: it has no {RECORD}. 'genokit runs' lists all runs.") from None
        except Exception as error:  # a damaged file can raise anything
            said = values.shortened(repr(error), 200)
            raise GenokitError(f"{path / RECORD} cannot be read: {said}. Run the notebook again.") from None
        return run

    def save(self) -> Run:
        """Write the record into the run folder atomically; returns the run."""
        write_atomic(self.path / RECORD, self.record(), private=True)
        return self

    def record(self) -> str:
        """The record as JSON."""
        stored = asdict(self) | {
            "source": str(self.source),
            "started": self.started.isoformat(),
            "ended": self.ended and self.ended.isoformat(),
            "parameters": values.to_json(dict(self.parameters)),
            "outputs": values.to_json(values.relocated(dict(self.outputs), self.path, _HERE)),
        }
        del stored["path"]
        return json.dumps(stored, indent=1, allow_nan=False) + "\n"

    def rerun(self, settings: Settings | None = None, /, **changes: object) -> Run:
        """Run the notebook again, as it is now, with the same parameters.

        Parameters
        ----------
        settings : Settings, optional
            Settings to run with. Default: ``Settings.load()``.
        **changes : object
            Parameters that have another value this time.

        Returns
        -------
        Run
            The new run.

        Raises
        ------
        NotFound, InvalidNotebook, InvalidParameters, NotebookFailed
            As :func:`genokit.run`.

        Examples
        --------
        >>> import nbformat, tempfile
        >>> from genokit import Settings, run
        >>> folder = Path(tempfile.mkdtemp())
        >>> cells = [nbformat.v4.new_code_cell("epochs: int = 1", metadata={"tags": ["parameters"]})]
        >>> nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "train.ipynb")
        >>> settings = Settings(home=folder / "kit")
        >>> short = run(folder / "train.ipynb", settings=settings, progress=False)
        >>> short.rerun(settings, epochs=20).parameters
        {'epochs': 20}
        """
        import genokit

        return genokit.run(self.source, {**self.parameters, **changes}, name=self.name, settings=settings)

    def form(self, settings: Settings | None = None) -> Form:
        """A form like that of ``parameters(notebook)``, filled in with the parameters of this run.

        Parameters
        ----------
        settings : Settings, optional
            Settings to run with. Default: ``Settings.load()``.

        Returns
        -------
        Form
            The form; its button runs the notebook as it is now.

        Raises
        ------
        NotFound, InvalidNotebook, InvalidParameters
            The notebook is gone, is none, or takes other parameters now.
        """
        from genokit.pipelines.schema import parameters

        schema = parameters(self.source)
        known = {name: value for name, value in self.parameters.items() if name in schema.parameters}
        return schema.form(known, settings=settings)

    def open(self) -> str:
        """Open the executed notebook.

        In a notebook this is a link. Elsewhere a running JupyterLab that serves its folder opens it; if there is none,
        the browser shows the run's HTML page.

        Returns
        -------
        str
            The link, or the address that was opened.
        """
        return lab.opened(self.notebook, self.html)

    def debug(self, settings: Settings | None = None) -> DebugFolder:
        """Copy the notebook into a new folder beside the run's, to run it cell by cell and see why it failed.

        The copy has the run's parameters, and works in the folder of the run with its settings. Settings that look like
        secrets are left out.

        Parameters
        ----------
        settings : Settings, optional
            Settings of the copy. Default: ``Settings.load()``.

        Returns
        -------
        DebugFolder
            Its ``path``, a link to the ``notebook``, and the shell line ``command`` that opens it.

        Raises
        ------
        NotFound, InvalidNotebook
            The run folder holds no notebook.
        """
        said, settings = notebooks.banner(self.state, self.error), settings or Settings.load()
        target = self.path.with_name(f"debug-{fresh(self.path, self.name).name}") / self.source.name
        return lab.debug(self.path / SOURCE, target, self.parameters, working_folder(self), said, settings)

    def stop(self, settings: Settings | None = None) -> None:
        """Stop a running notebook: terminate its Batch job, or interrupt its process.

        What it has done so far is kept. If the process runs a pipeline, all of its notebooks stop.

        Parameters
        ----------
        settings : Settings, optional
            The account of the job. Default: ``Settings.load()``.

        Raises
        ------
        GenokitError
            The run has ended, or it runs in this process or on another machine.

        Examples
        --------
        >>> started = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        >>> Run(Path("/runs/a"), "lenet", "SUCCEEDED", Path("/lenet.ipynb"), "5e", started).stop()
        Traceback (most recent call last):
        genokit.errors.GenokitError: The run lenet is SUCCEEDED, so there is nothing to stop.
        """
        if self.state != "RUNNING" or not (self.job or self.process):
            raise GenokitError(f"The run {self.name} is {self.state}, so there is nothing to stop.")
        if self.job:
            from genokit.batch import Batch

            Batch(settings=settings).job(self.job).terminate("Stopped by its user")
        elif error := processes.stop(*(self.process or ())):
            raise GenokitError(f"The run {self.name} runs {error}.")

    def __repr__(self) -> str:
        took = "" if self.duration_s is None else f" in {display.seconds(self.duration_s)}"
        return f"<Run {self.name} {self.state}{took}, {_done(self)} cells, {self.path}>"

    def _repr_html_(self) -> str:
        shown = [display.image(f.png, f.heading or self.name, caption=f.heading, scale=f.scale) for f in self.figures]
        return display.stack(card(self), *shown[:3])


def parsed(stored: Mapping[str, Any], path: Path) -> Run:
    """Make a run from its stored record and its folder. Raises an error if the record is damaged."""
    ended, process = stored["ended"], stored["process"]
    read = {
        "path": path,
        "source": Path(stored["source"]),
        "started": datetime.datetime.fromisoformat(stored["started"]),
        "ended": ended and datetime.datetime.fromisoformat(ended),
        "parameters": values.from_json(stored["parameters"]),
        "outputs": values.relocated(values.from_json(stored["outputs"]), _HERE, path),
        "steps": tuple(notebooks.Cell(**cell) for cell in stored["steps"]),
        "process": process and tuple(process),
    }
    known = {name: value for name, value in stored.items() if name != "duration_s"}  # in records of earlier versions
    return Run(**{**known, **read})


def working_folder(run: Run) -> Path:
    """The working folder of a run's kernel, to which its paths may be relative."""
    return Path(run.cwd or run.source.parent)


def shown_outputs(run: Run, seen_from: Path | None = None) -> dict[str, object]:
    """The outputs as a card shows them: files of the run's folder as links."""
    ours = {name for name, value in run.outputs.items() if isinstance(value, Path) and value.is_relative_to(run.path)}
    return {name: lab.link(value, seen_from) if name in ours else value for name, value in run.outputs.items()}


def card(run: Run, *, seen_from: Path | None = None) -> display.Html:
    """The run as a card: state, times, outputs, files; its links are relative to the folder ``seen_from``."""
    cache = f"Restored from {run.cached_from}; nothing was executed" if run.cached_from else ""
    about = {
        "Cells": _done(run),
        "Started": run.started,
        "Cache": cache or (run.reason and f"Executed because {run.reason}"),
        "Batch job": run.job,
        "Time": None if run.duration_s is None else display.seconds(run.duration_s),
        "Error": run.error,
    }
    rows = [(name, value) for name, value in about.items() if value]
    rows += [*shown_outputs(run, seen_from).items(), ("Notebook", lab.link(run.notebook, seen_from))]
    if run.html:
        rows.append(("HTML", lab.link(run.html, seen_from)))
    given = [(name, value, run.units.get(name)) for name, value in run.parameters.items()]
    fold: dict[str, object] = {"Parameters": display.table(given, columns=["name", "value", "unit"])}
    if run.traceback:
        fold["Traceback"] = display.log(run.traceback)
    fold["Cells"] = display.table([asdict(cell) for cell in run.steps])
    return display.card(f"Run {run.name}", rows, status=run.state, fold=fold)


def fresh(runs: Path, name: str) -> Path:
    """The path for a new run folder; the names sort by time."""
    label = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "run"
    return runs / f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{label}-{secrets.token_hex(3)}"


def runs(settings: Settings | None = None) -> DataFrame:
    """List every run in the runs folder, those of pipelines included, newest first.

    Parameters
    ----------
    settings : Settings, optional
        Settings that name the runs folder. Default: ``Settings.load()``.

    Returns
    -------
    DataFrame
        Columns name, state, started (UTC), duration_s (seconds) and path. Folders whose record cannot be read come
        last, as UNREADABLE; ``Run.load(path)`` says why.
    """
    import pandas as pd

    root = (settings or Settings.load()).runs
    rows: list[tuple[object, ...]] = []
    for path in sorted(record.parent for level in ("*", "*/*") for record in root.glob(f"{level}/{RECORD}")):
        try:
            run = Run.load(path)
            rows.append((run.name, run.state, run.started, run.duration_s, str(path)))
        except GenokitError:
            rows.append((path.name, "UNREADABLE", None, None, str(path)))
    table = pd.DataFrame(rows, columns=["name", "state", "started", "duration_s", "path"])
    table = table.astype({"duration_s": float, "started": "datetime64[us, UTC]"})
    return table.sort_values("started", ascending=False, kind="stable", ignore_index=True)


def _done(run: Run) -> str:
    return f"{sum(cell.done for cell in run.steps)} of {len(run.steps)}"
