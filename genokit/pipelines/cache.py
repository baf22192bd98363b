"""The cache of runs: what a result depends on, an index of finished runs, and why one cannot be reused.

A run depends on its code cells, its parameters with the content of the files that they name, the project's modules that
it imports, the installed packages, the settings, and the notebooks before it. Data sets that it fetched and files that
it recorded are known when it has ended; they must still be the same. The index holds only hashes and names of runs.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from genokit import __version__
from genokit.config import FILE, Settings
from genokit.errors import GenokitError, InvalidParameters
from genokit.files import private_folder, sha256, write_atomic
from genokit.pipelines import crate, folders, notebooks, recording, values
from genokit.pipelines.folders import Run
from genokit.pipelines.plan import CheckedNotebook

FOLDER = ".cache"  # in the runs folder
IMPORTS = (ast.Import, ast.ImportFrom)
Remembered = Callable[[Path, Callable[[Path], Any]], Any]


def ingredients(ready: CheckedNotebook) -> dict[str, str]:
    """A hash of each thing that a run depends on, by what it is called in a sentence."""
    task, settings, cwd = ready.task, ready.settings, ready.task.cwd
    cells = notebooks.executed(notebooks.load(task.path))
    found = {"the environment": _digest([platform.python_version(), __version__, crate.packages()])}
    for number, cell in enumerate(cells, 1):
        means = [notebooks.sets_parameters(cell), notebooks.MAY_RAISE in notebooks.tags(cell)]
        found[f"code cell {number}"] = _digest([notebooks.text(cell), *means])
    with _memory(settings.runs) as remembered:
        for name, value in ready.begun.parameters.items():
            named = values.mapped(value, functools.partial(_in_its_run, settings.runs))
            found[f"parameter '{name}'"] = _digest(values.source(named))
            if paths := list(values.paths(value)):
                contents = [_content(cwd / path, remembered) for path in paths]
                found[f"the data of parameter '{name}'"] = _digest(contents)
        found |= _modules([notebooks.text(cell) for cell in cells], cwd, remembered)
    if not task.on:  # a job has settings and a working folder of its own
        apart = ("runs", "cache", "mirrors", "timeout_s", "retention_days")
        found["the settings"] = _digest({name: str(value) for name, value in settings.items() if name not in apart})
        found["the working folder"] = _digest(str(cwd))
    found |= {f"input '{name}'": json.dumps([one.notebooks, one.output]) for name, one in ready.later.items()}
    # It takes none of the results of these, but may read their files.
    return found | {f"notebook '{name}' before it": identity(ready.known[name]) for name in task.after}


def key(run: Run) -> str:
    """The hash of all that was known of a run when it began."""
    return _digest(dict(run.ingredients))


def identity(run: Run) -> str:
    """A hash of everything a run depended on, for the runs that follow it. A job's leaves out the data that it used."""
    return key(run) if run.address else _digest([key(run), sorted(run.data.values())])


def sealed(run: Run, settings: Settings, depends: Callable[[], Mapping[str, str]]) -> Run:
    """Add the data that a run used, and index the run unless something has changed since it began. Returns the run."""
    with contextlib.suppress(GenokitError, OSError, ValueError):  # such as a notebook that was deleted meanwhile
        if run.state == "SUCCEEDED":
            run = replace(run, data=recording.noted(run.path)[1] | recorded(run, settings.runs))
            if run.ingredients and depends() == run.ingredients:
                enter(run, settings.runs)
    return run


def recorded(run: Run, runs: Path) -> dict[str, str]:
    """The files that a run recorded, each with a hash of its content."""
    with _memory(runs) as remembered:
        paths = [folders.working_folder(run) / path for path in values.paths(dict(run.outputs))]
        return {str(path): _content(path, remembered) for path in paths}


def find(runs: Path, begun: Run) -> tuple[Run | None, str]:
    """The finished run whose results can be restored for this one; else None and the reason in a sentence."""
    stored = _entry(runs, key(begun))
    if stored:
        with _memory(runs) as remembered:
            changed = [path for path, content in stored.data.items() if _content(Path(path), remembered) != content]
        if changed:
            return None, f"{changed[0]} changed"
        if all((stored.path / name).is_file() for name in (folders.SOURCE, crate.PACKAGES)):
            with contextlib.suppress(GenokitError):
                notebooks.load(stored.notebook)
                return stored, ""
    last = last_run(runs, begun.source, begun.name)
    if not last:
        return None, "it has not run before"
    if bool(last.address) != bool(begun.address):
        return None, f"its last run was {'' if last.address else 'not '}a Batch job"
    return None, _difference(last, begun)


def last_run(runs: Path, source: Path, name: str) -> Run | None:
    """The last run of this name and notebook that succeeded."""
    return _entry(runs, _digest([str(source), name]))


def restore(stored: Run, begun: Run, runs: Path) -> Run:
    """Copy the results of a finished run into the folder of a new one; nothing is executed."""
    not_copied = shutil.ignore_patterns(folders.RECORD, crate.METADATA)
    shutil.copytree(stored.path, private_folder(begun.path), ignore=not_copied, dirs_exist_ok=True)
    moved = functools.partial(values.relocated, old=stored.path, new=begun.path)
    restored = replace(
        begun,
        state="SUCCEEDED",
        ended=begun.started,
        outputs=moved(dict(stored.outputs)),
        steps=stored.steps,
        data={str(moved(Path(name))): content for name, content in stored.data.items()},
        job=stored.job,
        address=stored.address,
        cached_from=stored.cached_from or str(stored.path),
    )
    enter(restored, runs)
    crate.write_run(restored.save())
    return restored


def enter(run: Run, runs: Path) -> None:
    """Add a run that succeeded to the index. Others find it as soon as it is saved."""
    for name in (key(run), _digest([str(run.source), run.name])):
        write_atomic(runs / FOLDER / f"{name}.json", json.dumps({"run": os.path.relpath(run.path, runs)}), private=True)


@contextlib.contextmanager
def only_one(name: str, runs: Path, stop: threading.Event) -> Iterator[None]:
    """Hold a lock so that identical runs execute only once. Setting ``stop`` ends the wait for it."""
    with open(private_folder(runs / FOLDER) / f"{name}.lock", "ab") as file:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if stop.wait(0.1):
                raise GenokitError("Interrupted while waiting for another run of the same notebook.")
        yield


def clean(
    settings: Settings | None = None, *, older_than_days: float = math.inf, larger_than_gb: float = math.inf
) -> list[Path]:
    """Delete the oldest runs; those that are still running stay.

    Parameters
    ----------
    settings : Settings, optional
        Settings that name the runs folder. Default: ``Settings.load()``.
    older_than_days : float, optional
        Delete runs that ended longer ago than this, in days.
    larger_than_gb : float, optional
        Delete runs until the others take at most this much space, in GB.

    Returns
    -------
    list of Path
        The folders that were deleted.

    Raises
    ------
    InvalidParameters
        A limit is negative; nothing was deleted.

    Examples
    --------
    >>> import tempfile
    >>> clean(Settings(home=tempfile.mkdtemp()), older_than_days=90)
    []
    """
    if not min(older_than_days, larger_than_gb) >= 0:
        raise InvalidParameters("A limit in days or GB cannot be negative; nothing was deleted.")
    settings = settings or Settings.load()
    table = folders.runs(settings)
    tops = table["path"].map(lambda path: settings.runs / Path(path).relative_to(settings.runs).parts[0])
    sizes = {one: sum(file.stat().st_size for file in one.rglob("*") if file.is_file()) for one in tops}
    ended = {*tops} - {*tops[table["state"] == "RUNNING"]}
    deleted = []
    for changed, one in sorted((one.stat().st_mtime, one) for one in ended):
        if time.time() - changed > older_than_days * 86400 or sum(sizes.values()) > larger_than_gb * 1e9:
            shutil.rmtree(one)
            deleted.append(one)
            del sizes[one]
    for entry in (settings.runs / FOLDER).glob("*.json"):  # what was read from files too, which is read again
        if not _entry(settings.runs, entry.stem):
            entry.unlink(missing_ok=True)
    return deleted


def _entry(runs: Path, name: str) -> Run | None:
    """The run that an entry of the index names, if it succeeded."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, GenokitError):  # deleted or damaged
        run = Run.load(runs / json.loads((runs / FOLDER / f"{name}.json").read_text())["run"])
        return run if run.state == "SUCCEEDED" else None
    return None


def _difference(last: Run, now: Run) -> str:
    """Why two runs differ, such as "code cell 1 changed"."""
    before, after, found = last.ingredients, now.ingredients, []
    for what in {**after, **before}:
        if before.get(what) != after.get(what):
            how = "was added" if what not in before else "was removed" if what not in after else "changed"
            found.append(f"{what} {how}")
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more or "the stored run is gone or damaged"


@contextlib.contextmanager
def _memory(runs: Path) -> Iterator[Remembered]:
    """Yield a function that reads a file only if its path, size or modification time is new."""
    stored, known = runs / FOLDER / "files.json", dict[str, Any]()
    with contextlib.suppress(OSError, ValueError, TypeError):
        known.update(json.loads(stored.read_text()))
    before = len(known)

    def remembered(path: Path, read: Callable[[Path], Any]) -> Any:
        stat = path.stat()
        name = _digest([read.__name__, str(path), stat.st_size, stat.st_mtime_ns])
        if name in known:
            return known[name]
        found = read(path)
        # A file that changed a moment ago may change again within a tick of the clock.
        if time.time_ns() - stat.st_mtime_ns > 2e9:
            known[name] = found
        return found

    yield remembered
    if len(known) > before and runs.exists():
        write_atomic(stored, json.dumps(known), private=True)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _in_its_run(runs: Path, path: Path) -> Path:
    """The path of a recorded file without its run folder: what counts is its content, not which run wrote it."""
    parts = path.relative_to(runs).parts if path.is_relative_to(runs) else ()
    return Path(*parts[parts.index(recording.FILES) :]) if recording.FILES in parts else path


def _content(path: Path, remembered: Remembered) -> str:
    """A hash of a file's or folder's content. If it cannot be read, the hash is a new one each time."""
    try:
        if not path.is_dir():
            return str(remembered(path, sha256)) if path.is_file() else "missing"
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if len(files) > 10_000:  # their content would take too long
            return _digest([[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
        return _digest([[str(file.relative_to(path)), remembered(file, sha256)] for file in files])
    except OSError:
        return secrets.token_hex()


def _modules(cells: list[str], cwd: Path, remembered: Remembered) -> dict[str, str]:
    """The project's modules that cells import, directly or not, each with its hash."""
    project = project_of(cwd)
    places = [place for place in {cwd, project, *map(Path, filter(None, sys.path))} if _in_project(place, project)]
    todo = [(name, cwd) for cell in cells for name in _imported(cell)]
    seen, found = set[Any](), dict[str, str]()
    names = functools.cache(lambda folder: frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset())
    while todo:
        name, folder = todo.pop()
        rest = name.lstrip(".")
        dots = len(name) - len(rest)
        for place in [folder, *folder.parents][dots - 1 : dots] if dots else places:
            parts, inside = [] if (place, rest) in seen else rest.split("."), str(place)
            seen.add((place, rest))
            for part in parts:  # the packages that a module is in count too
                files = [f"{inside}/{part}.py"] if f"{part}.py" in names(inside) else []
                inside = f"{inside}/{part}"
                files += [f"{inside}/__init__.py"] if "__init__.py" in names(inside) else []
                for file in map(Path, files):
                    if file not in seen and _in_project(file, project):
                        seen.add(file)
                        found[f"module {file.relative_to(project)}"], imports = remembered(file, _module)
                        todo += [(other, file.parent) for other in imports]
    return found


def project_of(folder: Path) -> Path:
    """The folder of the nearest ``genokit.toml`` or git repository above a folder, or else itself."""
    ours = (one for one in (folder, *folder.parents) if (one / FILE).exists() or (one / ".git").exists())
    return next(ours, folder)


def _in_project(path: Path, project: Path) -> bool:
    """Whether a file is one of the project's; installed packages count by their version."""
    return path.is_relative_to(project) and not {"site-packages", ".venv"} & set(path.relative_to(project).parts)


def _module(path: Path) -> tuple[str, list[str]]:
    """A hash of a module, and what it imports."""
    return sha256(path), _imported(path.read_text(encoding="utf-8", errors="replace"))


def _imported(code: str) -> list[str]:
    """The modules that code imports, including those imported inside functions."""
    found = set[str]()
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        for node in ast.walk(ast.parse(notebooks.python(code))):
            if isinstance(node, IMPORTS):
                dots, package = "." * getattr(node, "level", 0), getattr(node, "module", None)
                found |= {dots + ".".join(filter(None, (package, alias.name))) for alias in node.names}
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in ("import_module", "__import__"):  # such as importlib.import_module("lab.reads")
                    found.add(str(node.args[0].value))
    return sorted(found)
