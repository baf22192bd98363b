"""Provenance: the folder of a run, and of a pipeline, is an RO-Crate that says how its files were made.

A run's crate conforms to Process Run Crate 0.5, a pipeline's to Provenance Run Crate 0.5, both on RO-Crate 1.1.
https://www.researchobject.org/ro-crate/specification/1.1/, https://www.researchobject.org/workflow-run-crate/profiles/0.5/
"""

from __future__ import annotations

import contextlib
import csv
import functools
import getpass
import io
import json
import mimetypes
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from genokit.config import Settings
from genokit.errors import GenokitError, NotFound
from genokit.files import sha256, write_atomic
from genokit.pipelines import recording, values
from genokit.pipelines.folders import RECORD, SOURCE, Run, working_folder
from genokit.pipelines.secret_values import redacted

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.pipelines.plan import Input

METADATA = "ro-crate-metadata.json"
PACKAGES = "environment.txt"
OUTPUTS, MANIFEST = "outputs.csv", "datapackage.json"
VERSION = "1.1"  # of RO-Crate
SPECIFICATION = "https://w3id.org/ro/crate/{}"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
PROFILE = "https://w3id.org/ro/wfrun/{}/0.5"
WORKFLOW_PROFILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PACKAGE = "pkg:pypi/{}@{}"  # https://github.com/package-url/purl-spec
TYPES = {".ipynb": "application/x-ipynb+json", ".toml": "application/toml"}
KINDS = {bool: "boolean", int: "integer", float: "float"}  # of recorded results; all others are text
Reference = dict[str, str]


class Crate:
    """The entities that describe a folder, by their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entities: dict[str, dict[str, Any]] = {}
        self.commit = functools.cache(_commit)  # git takes a while, and a pipeline's notebooks share a repository

    def add(self, identity: str, kind: str | list[str], **properties: Any) -> Reference:
        """Describe an entity, unless it is described already; returns a reference to it."""
        entity: dict[str, Any] = {"@id": identity, "@type": kind}
        for name, value in properties.items():
            if value not in (None, "", []):
                single = isinstance(value, list) and len(value) == 1
                entity[name] = value[0] if single else value.isoformat() if isinstance(value, datetime) else value
        self.entities.setdefault(identity, entity)
        return {"@id": identity}

    def file(self, path: Path, kind: str | list[str] = "File", **properties: Any) -> Reference:
        """Describe a file with its hash, or a folder: one in the crate by its relative path, any other by its URI."""
        inside = path.is_relative_to(self.folder)
        identity = quote(path.relative_to(self.folder).as_posix()) if inside else path.as_uri()
        if path.is_dir():
            return self.add(f"{identity}/", "Dataset", name=path.name)
        if identity not in self.entities:
            guessed = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
            about = {"name": path.name, "encodingFormat": guessed, **properties}
            if path.is_file():  # a job that was killed may have left nothing
                about |= {"contentSize": str(path.stat().st_size), "sha256": sha256(path)}
            self.add(identity, kind, **about)
        return {"@id": identity}

    def values(self, group: str, given: Mapping[str, Any], units: Mapping[str, str]) -> list[Reference]:
        """Describe parameters or recorded results."""
        found = []
        for name, value in given.items():
            about = {"name": name, "value": _text(value), "unitText": units.get(name)}
            found.append(self.add(f"#{group}-{quote(name)}", "PropertyValue", **about))
        return found

    def agent(self) -> Reference:
        """Describe who runs it: the person with the ORCID iD in GENOKIT_ORCID, or else this user."""
        orcid = os.environ.get("GENOKIT_ORCID")
        return self.add(f"https://orcid.org/{orcid}" if orcid else "#agent", "Person", name=getpass.getuser())

    def action(self, identity: str, error: str | None, **properties: Any) -> Reference:
        """Describe what was done, who did it, and how it ended."""
        status = f"http://schema.org/{'Failed' if error else 'Completed'}ActionStatus"
        return self.add(identity, "CreateAction", agent=self.agent(), actionStatus=status, error=error, **properties)

    def table(self, runs: Sequence[Run]) -> Reference:
        """Write and describe a table with a row for each recorded result; files with their hash and size in bytes."""
        rows: list[tuple[object, ...]] = [("notebook", "name", "kind", "value", "sha256", "bytes")]
        for run in runs:
            for name, value in run.outputs.items():
                kind, about = KINDS.get(type(value), "text"), dict[str, Any]()
                if isinstance(value, Path) and (path := working_folder(run) / value).is_file():
                    kind, about = "file", self.entities[self.file(path)["@id"]]
                rows.append((run.name, name, kind, _text(value), about.get("sha256"), about.get("contentSize")))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return self.file(write_atomic(self.folder / OUTPUTS, redacted(text.getvalue()), private=True))

    def save(self, runs: Sequence[Run], profiles: Sequence[str], name: str, description: str, **root: Any) -> None:
        """Write the table of results and the metadata; all files and folders are parts of the crate."""
        self.table(runs)
        files = [one["@id"] for one in self.entities.values() if one["@type"] == "Dataset" or "File" in one["@type"]]
        self.write(
            profiles,
            "As stated by the owners of the data and the notebooks",
            name=name,
            description=description,
            datePublished=max((run.ended for run in runs if run.ended), default=datetime.now(UTC)),
            author=self.agent(),
            hasPart=[{"@id": one} for one in files],
            **root,
        )

    def write(self, profiles: Sequence[str], terms: str, **root: Any) -> Path:
        """Write the metadata with the properties of the crate itself; returns the file."""
        kinds = ["CreativeWork", *(["Profile"] if VERSION > "1.1" else [])]  # a term that came later
        conformed = [self.add(one, kinds, name=one, version=one.rpartition("/")[2]) for one in profiles]
        rights = self.add("#terms", "CreativeWork", name=terms)
        self.add("./", "Dataset", conformsTo=conformed, license=rights, **root)
        specification = SPECIFICATION.format(VERSION)
        conforms = [specification, *({WORKFLOW_PROFILE} & {*profiles})]
        self.add(METADATA, "CreativeWork", about={"@id": "./"}, conformsTo=[{"@id": one} for one in conforms])
        content = {"@context": [f"{specification}/context", TERMS], "@graph": redacted([*self.entities.values()])}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        return write_atomic(self.folder / METADATA, text, private=True)


def write_run(run: Run) -> None:
    """Describe a run's folder."""
    crate = Crate(run.path)
    action = described(crate, run)
    about = f"One run of the notebook {run.source.name}: {run.state}."
    crate.save([run], [PROFILE.format("process")], f"Run {run.name}", about, mentions=action)


def described(crate: Crate, run: Run, inputs: Mapping[str, Input] | None = None) -> Reference:
    """Describe what one run did: the notebook, its inputs by hash, its results, who ran it, and how it ended."""
    given = crate.values(f"{run.name}-parameter", run.parameters, run.units)
    results = crate.values(f"{run.name}-result", run.outputs, {})
    source = crate.file(
        run.path / SOURCE,
        ["File", "SoftwareSourceCode"],
        name=run.source.name,
        version=crate.commit(run.source.parent) or run.source_sha256,
        softwareRequirements=crate.file(run.path / PACKAGES),
    )
    passed = [f"#{name}-result-{quote(output)}" for names, output, _ in (inputs or {}).values() for name in names]
    place = working_folder(run)
    named, recorded = ([place / path for path in values.paths(dict(of))] for of in (run.parameters, run.outputs))
    used = [crate.file(path) for path in named if path.exists()]
    for path, content in run.data.items():
        if path.endswith(MANIFEST):  # of a data set that was fetched; with the hash that it had then
            about = {"name": MANIFEST, "description": f"Describes the data set {Path(path).parent.name}."}
            used.append(crate.add(Path(path).as_uri(), "File", **about, sha256=content))
    made = [run.notebook, run.html, *sorted((run.path / recording.FILES).rglob("*")), *recorded]
    where = f"as the Batch job {run.job}" if run.job else f"on {platform.platform()} with {os.cpu_count()} CPUs"
    how = f"Executed with Python {run.versions.get('python', '')} {where}."
    if run.cached_from:
        how = f"Restored from {run.cached_from}; nothing was executed."
    if run.settings:
        how += f" Settings that differ from their defaults: {run.settings}."
    return crate.action(
        f"#{run.path.name}",
        run.error,
        name=f"Run {run.source.name}",
        description=how,
        instrument=source,
        isBasedOn=crate.file(Path(run.cached_from)) if run.cached_from and os.path.isdir(run.cached_from) else None,
        startTime=run.started,
        endTime=run.ended,
        object=[*given, *({"@id": one} for one in passed if one in crate.entities), *used],
        result=[*(crate.file(path) for path in made if path and path.exists()), *results],
    )


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(values.to_json(value), allow_nan=False)


def _commit(folder: Path) -> str | None:
    """The commit of the folder's git repository, with "-dirty" if files differ from it; None without a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError):  # git is not installed
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return None


@functools.cache
def packages() -> str:
    """The installed distributions, a line each, as pip lists them; from the names of their folders, which is quick."""
    names = {Path(name) for place in filter(os.path.isdir, sys.path) for name in os.listdir(place)}
    found = {name.stem.replace("-", "==", 1) + "\n" for name in names if name.suffix == ".dist-info"}
    return "".join(sorted(found, key=str.casefold))


def verify(folder: str | Path) -> DataFrame:
    """Compare every file that a crate describes with its recorded hash.

    Parameters
    ----------
    folder : str or Path
        The folder of a run or of a pipeline.

    Returns
    -------
    DataFrame
        One row per file: path, state ("unchanged", "changed" or "missing"), role ("made", "used", or "" for any
        other) and sha256 (as recorded).

    Raises
    ------
    NotFound
        The folder is not an RO-Crate.
    GenokitError
        Its metadata cannot be read.
    """
    from genokit.frames import Frame

    folder, rows = Path(folder).expanduser().absolute(), []
    for name, role, recorded in files(read(folder)):
        path = Path(name.removeprefix("file://")) if name.startswith("file://") else folder / name
        state = "missing"
        if path.is_file() and (name.startswith("file://") or path.resolve().is_relative_to(folder.resolve())):
            state = "unchanged" if sha256(path) == recorded else "changed"
        rows.append((name, state, role, recorded))
    return Frame(rows, columns=["path", "state", "role", "sha256"])


def files(entities: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The files that a crate describes: path or URI, role ("made", "used" or "") and SHA-256."""
    roles = dict[str, str]()
    actions = [one for one in entities if one.get("@type") == "CreateAction"]
    for member, role in (("instrument", "used"), ("object", "used"), ("result", "made")):
        found = [action.get(member) or [] for action in actions]
        roles |= {one["@id"]: role for some in found for one in (some if isinstance(some, list) else [some])}
    return [(unquote(one["@id"]), roles.get(one["@id"], ""), one["sha256"]) for one in entities if "sha256" in one]


def why(file: str | Path, *, settings: Settings | None = None) -> DataFrame:
    """List the runs that made or used a file, whatever its name is now.

    Parameters
    ----------
    file : str or Path
        The file. It is found by the hash of its content; it may also be one of a data set that was fetched.
    settings : Settings, optional
        Settings that name the runs folder. Default: ``Settings.load()``.

    Returns
    -------
    DataFrame
        One row per run, newest first: role ("made" or "used"), notebook and path (the run's folder).

    Raises
    ------
    NotFound
        There is no such file.
    """
    from genokit.frames import Frame

    path = Path(file).expanduser()
    if not path.is_file():
        raise NotFound(f"There is no file {path}.")
    wanted, rows = sha256(path), dict[tuple[str, str, str], None]()
    for record in sorted((settings or Settings.load()).runs.glob(f"**/{RECORD}"), reverse=True):
        with contextlib.suppress(GenokitError):  # a damaged crate is no answer
            for name, role, recorded in sorted(files(read(record.parent)), key=lambda one: one[1]):
                if role and (recorded == wanted or _describes(name, wanted)):
                    rows[role, Run.load(record.parent).source.name, str(record.parent)] = None
    return Frame(list(rows), columns=["role", "notebook", "path"])


def _describes(name: str, wanted: str) -> bool:
    """Whether this is the manifest of a data set, still there, with a file of this hash."""
    path = Path(name.removeprefix("file://"))
    return path.name == MANIFEST and path.is_file() and wanted in path.read_text(encoding="utf-8", errors="replace")


def read(folder: Path) -> list[dict[str, Any]]:
    """The entities of a crate. Raises NotFound, GenokitError."""
    path = folder / METADATA
    try:
        graph: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["@graph"]
        return [dict(entity) for entity in graph if entity["@id"]]
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{folder} is not an RO-Crate: it has no {METADATA}.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise GenokitError(f"{path} cannot be read: {error!r}. Run the notebook again.") from None
