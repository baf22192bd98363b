"""Provenance: the folder of a run, and of a pipeline, is an RO-Crate that says how its files were made.

A run's crate conforms to Process Run Crate 0.5, a pipeline's to Provenance Run Crate 0.5, both on RO-Crate 1.1.
https://www.researchobject.org/ro-crate/specification/1.1/, https://www.researchobject.org/workflow-run-crate/profiles/0.5/
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import functools
import getpass
import io
import json
import mimetypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from genokit import __version__
from genokit.config import Settings
from genokit.errors import GenokitError, NotFound
from genokit.files import sha256, write_atomic
from genokit.pipelines import values
from genokit.pipelines.folder import FILES, RECORD, SOURCE, Run
from genokit.pipelines.secret_values import redacted

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.pipelines.plan import Input
    from genokit.pipelines.report import PipelineRun

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
KINDS = {bool: "Boolean", int: "Integer", float: "Float"}  # of values, in schema.org's words; all others are text
Reference = dict[str, str]


class Crate:
    """The entities that describe a folder, by their ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entities: dict[str, dict[str, Any]] = {}

    def add(self, identity: str, kind: str | list[str], **properties: Any) -> Reference:
        """Describe an entity, unless it is described already; returns a reference to it."""
        given = {name: value for name, value in properties.items() if value not in (None, "", [])}
        self.entities.setdefault(identity, {"@id": identity, "@type": kind, **given})
        return {"@id": identity}

    def file(self, path: Path, kind: str | list[str] = "File", **properties: Any) -> Reference:
        """Describe a file with its hash: one of the folder by its relative path, any other by its URI."""
        inside = path.is_relative_to(self.folder)
        identity = quote(path.relative_to(self.folder).as_posix()) if inside else path.as_uri()
        guessed = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
        size = str(path.stat().st_size)
        described = {"name": path.name, "sha256": sha256(path), "contentSize": size, "encodingFormat": guessed}
        return self.add(identity, kind, **described | properties)

    def path(self, path: Path) -> Reference:
        """Describe a file with its hash, or a folder."""
        return self.file(path) if path.is_file() else self.add(f"{path.as_uri()}/", "Dataset", name=path.name)

    def value(self, group: str, name: str, value: object, **properties: Any) -> Reference:
        """Describe a parameter or a recorded result, as strict JSON, and what it is a value of."""
        kind = KINDS.get(type(value), "Text")
        form = self.add(f"#{group}-{quote(name)}-form", "FormalParameter", name=name, additionalType=kind)
        text = value if isinstance(value, str) else json.dumps(values.to_json(value), allow_nan=False)
        properties |= {"name": name, "value": text, "exampleOfWork": form}
        return self.add(f"#{group}-{quote(name)}", "PropertyValue", **properties)

    def forms(self, references: Sequence[Reference]) -> list[Reference]:
        """What values are values of."""
        return [self.entities[one["@id"]]["exampleOfWork"] for one in references]

    def save(self, profiles: Sequence[str], **root: Any) -> None:
        """Write the metadata. What is a file of the folder is one of its parts."""
        parts = [{"@id": one["@id"]} for one in self.entities.values() if "File" in one["@type"]]
        kinds = ["CreativeWork", *(["Profile"] if VERSION > "1.1" else [])]  # a term that came later
        conforms = [self.add(one, kinds, name=one, version=one.rpartition("/")[2]) for one in profiles]
        terms = self.add("#terms", "CreativeWork", name="As stated by the owners of the data and the notebooks")
        self.add("./", "Dataset", conformsTo=conforms, hasPart=parts, license=terms, author=_agent(self), **root)
        specification = SPECIFICATION.format(VERSION)
        specifications = [specification, *([WORKFLOW_PROFILE] if "mainEntity" in root else [])]
        about = {"about": {"@id": "./"}, "conformsTo": [{"@id": one} for one in specifications]}
        self.add(METADATA, "CreativeWork", **about)
        graph = [{key: _single(value) for key, value in one.items()} for one in self.entities.values()]
        graph = redacted(graph)
        content = json.dumps(
            {"@context": [f"{specification}/context", TERMS], "@graph": graph}, indent=1, allow_nan=False
        )
        write_atomic(self.folder / METADATA, content + "\n", private=True)


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def write_run(run: Run) -> None:
    """Describe a run's folder."""
    crate = Crate(run.path)
    _write_outputs(crate, [run])
    crate.save(
        [PROFILE.format("process")],
        name=f"Run {run.name}",
        description=f"One run of the notebook {run.source.name}: {run.state}.",
        datePublished=(run.ended or run.started).isoformat(),
        mentions=_action(crate, run),
    )


def write_pipeline(ended: PipelineRun) -> None:
    """Describe a pipeline's folder with its runs: the file as a workflow, each notebook as one of its steps."""
    crate, kit = Crate(ended.path), PACKAGE.format("genokit", __version__)
    actions, controls, steps, tools = [], [], [], []
    for position, (name, run) in enumerate(ended.runs.items(), 1):
        action = _action(crate, run, ended.plan[name].inputs)
        tool = crate.entities[action["@id"]]["instrument"]
        step = crate.add(f"#step-{name}", "HowToStep", name=name, position=str(position), workExample=tool)
        control = {"name": f"Start {name}", "instrument": step, "object": action}
        controls.append(crate.add(f"#control-{name}", "ControlAction", **control))
        actions.append(action)
        steps.append(step)
        tools.append(tool)
    _write_outputs(crate, list(ended.runs.values()))
    main = crate.file(
        ended.path / ended.plan.file.name,
        ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        name=ended.plan.title,
        version=_commit(ended.plan.file.parent) or sha256(ended.plan.file),
        programmingLanguage=crate.add("#pipeline-file", "ComputerLanguage", name="genokit pipeline", url=kit),
        hasPart=tools,
        step=steps,
    )
    bad = [f"{name} {state}: {why}" for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    started = min((run.started for run in ended.runs.values()), default=None)
    stopped = max((run.ended for run in ended.runs.values() if run.ended), default=None)
    times = {"startTime": started and started.isoformat(), "endTime": stopped and stopped.isoformat()}
    whole = crate.add(
        f"#{ended.path.name}",
        "CreateAction",
        name=f"Run of the pipeline {ended.plan.name}",
        description=f"{ended.done} notebooks succeeded.",
        instrument=main,
        agent=_agent(crate),
        result=[crate.file(ended.report)],
        **times,
        **_status("; ".join(bad)),
    )
    engine = crate.add(kit, "SoftwareApplication", name="genokit", version=__version__, url=kit)
    crate.add(
        "#engine", "OrganizeAction", name="Run notebooks", instrument=engine, object=controls, result=whole, **times
    )
    crate.save(
        [*(PROFILE.format(one) for one in ("process", "workflow", "provenance")), WORKFLOW_PROFILE],
        name=f"Pipeline {ended.plan.name}",
        description=f"One run of the pipeline {ended.plan.title}: {ended.done} notebooks succeeded.",
        datePublished=(stopped or datetime.datetime.now(datetime.UTC)).isoformat(),
        mainEntity=main,
        mentions=[whole, *actions],
    )


def _action(crate: Crate, run: Run, inputs: Mapping[str, Input] | None = None) -> Reference:
    """Describe what one run did: the notebook, its inputs by hash, its results, who ran it, and how it ended."""
    required = [
        crate.add(url := PACKAGE.format(name, number), "SoftwareApplication", name=name, version=number, url=url)
        for name, number in run.versions.items()
    ]
    given = [
        crate.value(f"{run.name}-parameter", name, value, unitText=run.units.get(name))
        for name, value in run.parameters.items()
    ]
    results = [crate.value(f"{run.name}-result", name, value) for name, value in run.outputs.items()]
    source = crate.file(
        run.path / SOURCE,
        ["File", "SoftwareSourceCode"],
        name=run.source.name,
        version=_commit(run.source.parent) or run.source_sha256,
        softwareRequirements=[*required, crate.file(run.path / PACKAGES)],
        input=crate.forms(given),
        output=crate.forms(results),
    )
    passed = [
        {"@id": identity}
        for names, output, _ in (inputs or {}).values()
        for identity in (f"#{name}-result-{quote(output)}" for name in names)
        if identity in crate.entities
    ]
    made = [run.notebook, run.html, *sorted((run.path / FILES).rglob("*")), *_paths(run, run.outputs)]
    files = [crate.path(path) for path in dict.fromkeys(made) if path and path.exists()]
    used = [crate.path(path) for path in _paths(run, run.parameters)]
    used += [_data_set(crate, Path(path), content) for path, content in run.data.items() if path.endswith(MANIFEST)]
    where = f"as the Batch job {run.job}" if run.job else f"on {platform.platform()} with {os.cpu_count()} CPUs"
    return crate.add(
        f"#{run.path.name}",
        "CreateAction",
        name=f"Run {run.source.name}",
        instrument=source,
        agent=_agent(crate),
        description=f"Restored from {run.cached_from}, nothing was executed."
        if run.cached_from
        else f"Executed by papermill in a new kernel {where}.",
        isBasedOn=_original(crate, run, source),
        startTime=run.started.isoformat(),
        endTime=run.ended and run.ended.isoformat(),
        object=[*given, *passed, *used],
        result=[*files, *results],
        **_status(run.error),
    )


def _paths(run: Run, named: Mapping[str, Any]) -> list[Path]:
    """The files and folders that values name, of which some may be relative to the notebook's folder."""
    places = (run.source.parent / path for path in values.paths(dict(named)))
    return [path for path in dict.fromkeys(places) if path.exists()]


def _data_set(crate: Crate, descriptor: Path, content: str) -> Reference:
    """A data set that a run fetched: its manifest with the hash that it had then, which has those of the files."""
    about = {"name": descriptor.name, "description": f"Describes the data set {descriptor.parent.name}."}
    return crate.add(descriptor.as_uri(), "File", **about, sha256=content, encodingFormat="application/json")


def _original(crate: Crate, run: Run, source: Reference) -> Reference | None:
    """The run whose results were restored."""
    with contextlib.suppress(GenokitError):  # deleted
        if run.cached_from:
            first = Run.load(run.cached_from)
            times = {"startTime": first.started.isoformat(), "endTime": first.ended and first.ended.isoformat()}
            about = {"name": f"Run {first.source.name}", "instrument": source, "agent": _agent(crate), **times}
            return crate.add(f"{first.path.as_uri()}/#{first.path.name}", "CreateAction", **about, **_status(None))
    return None


def _write_outputs(crate: Crate, runs: Sequence[Run]) -> None:
    """Write a table with a row for each recorded result; files with their hash and size in bytes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["notebook", "name", "kind", "value", "sha256", "bytes"])
    for run in runs:
        for name, value in run.outputs.items():
            path = run.source.parent / value if isinstance(value, Path) else None
            about = (sha256(path), path.stat().st_size) if path and path.is_file() else ("", "")
            kind = "file" if path and path.is_file() else "path" if path else KINDS.get(type(value), "Text").lower()
            shown = value if isinstance(value, str | Path) else json.dumps(values.to_json(value))
            table.writerow([run.name, name, kind, shown, *about])
    crate.file(write_atomic(crate.folder / OUTPUTS, redacted(text.getvalue()), private=True))


def _status(error: str | None) -> dict[str, Any]:
    state = "http://schema.org/FailedActionStatus" if error else "http://schema.org/CompletedActionStatus"
    return {"actionStatus": state, "error": error}


def _agent(crate: Crate) -> Reference:
    """Who ran it: the person with the ORCID iD in GENOKIT_ORCID, or else this user."""
    orcid = os.environ.get("GENOKIT_ORCID")
    return crate.add(f"https://orcid.org/{orcid}" if orcid else "#agent", "Person", name=getpass.getuser())


def _commit(folder: Path) -> str | None:
    """The commit of the folder's git repository, "-dirty" behind it where files differ; None without a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
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
        The folder is no crate.
    GenokitError
        Its metadata cannot be read.
    """
    import pandas as pd

    folder, rows = Path(folder).expanduser().absolute(), []
    for name, role, recorded in files(folder):
        path = Path(name.removeprefix("file://")) if name.startswith("file://") else folder / name
        state = "missing"
        if path.is_file() and (name.startswith("file://") or path.resolve().is_relative_to(folder.resolve())):
            state = "unchanged" if sha256(path) == recorded else "changed"
        rows.append((name, state, role, recorded))
    return pd.DataFrame(rows, columns=["path", "state", "role", "sha256"])


def files(folder: Path) -> list[tuple[str, str, str]]:
    """The files that a crate describes: path or URI, role ("made", "used" or "") and SHA-256."""
    entities = read(folder)
    roles = dict(sorted((pair for one in entities for pair in _roles(one)), key=lambda pair: pair[1], reverse=True))
    return [(unquote(one["@id"]), roles.get(one["@id"], ""), one["sha256"]) for one in entities if "sha256" in one]


def _roles(action: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The things that an action used and made."""
    if action.get("@type") == "CreateAction":
        for member, role in (("instrument", "used"), ("object", "used"), ("result", "made")):
            yield from ((one["@id"], role) for one in _several(action.get(member)))


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
    import pandas as pd

    path = Path(file).expanduser()
    if not path.is_file():
        raise NotFound(f"The file {path} does not exist.")
    wanted, rows = sha256(path), []
    for metadata in sorted((settings or Settings.load()).runs.glob(f"**/{RECORD}"), reverse=True):
        with contextlib.suppress(GenokitError):  # a damaged crate is no answer
            found = {entity["@id"]: entity for entity in read(metadata.parent)}
            action = found.get(f"#{metadata.parent.name}", {})
            for role in ("made", "used"):
                things = [found.get(one, {}) for one, has in _roles(action) if has == role]
                if any(one.get("sha256") == wanted or _has(one, wanted) for one in things):
                    notebook = found[action["instrument"]["@id"]]["name"]
                    rows.append((role, notebook, str(metadata.parent)))
    return pd.DataFrame(rows, columns=["role", "notebook", "path"])


def _has(entity: Mapping[str, Any], wanted: str) -> bool:
    """Whether an entity is the manifest of a data set, still there, with a file of this hash."""
    path = Path(unquote(entity.get("@id", "")).removeprefix("file://"))
    return path.name == MANIFEST and path.is_file() and wanted in path.read_text(encoding="utf-8", errors="replace")


def workflow(folder: Path) -> str:
    """The name of the pipeline's file in a pipeline's crate. Raises NotFound, GenokitError."""
    for entity in read(folder):
        if "mainEntity" in entity:
            return unquote(entity["mainEntity"]["@id"])
    raise GenokitError(f"{folder} is the crate of neither a run nor a pipeline.")


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


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
