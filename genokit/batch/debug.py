"""Debug a failed step: a new folder with its code, environment and command, where it can be changed and repeated."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genokit import display
from genokit.backends import Clients
from genokit.batch.shipping import job_command, rows
from genokit.batch.shipping.bootstrap import unpack
from genokit.errors import InvalidRequest
from genokit.files import private_folder, write_atomic
from genokit.secret_kinds import secret_name, secret_text

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch


@dataclass(frozen=True)
class DebugFolder:
    """A copy of a failed step.

    Attributes
    ----------
    path : Path
        The folder.
    command : str
        The shell line that repeats the step, or opens its notebook.
    left_out : tuple of str
        Names of the values that look like secrets; they were not saved.
    notebook : Html or None
        A link to the notebook to debug.

    Examples
    --------
    >>> import subprocess, tempfile
    >>> from genokit import Batch
    >>> batch = Batch()
    >>> failing = batch.define("failing", command=["sh", "-c", "echo $0; exit 3", "Ref::name"], memory_gib=0.1)
    >>> job = batch.submit(failing, parameters={"name": "it's"}).wait()
    >>> debug = job.debug(tempfile.mkdtemp())
    >>> subprocess.run(debug.command, shell=True, capture_output=True, text=True).stdout
    "it's\\n"
    """

    path: Path
    command: str
    left_out: tuple[str, ...] = ()
    notebook: display.Html | None = field(default=None, repr=False)

    def _repr_html_(self) -> display.Html:
        rows = {"Notebook": self.notebook, "Folder": self.path, "In a terminal": self.command}
        shown = {name: value for name, value in rows.items() if value}
        return display.card("Debug", shown | ({"Set yourself": ", ".join(self.left_out)} if self.left_out else {}))


def without_secrets(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables that may be saved, and the names of those that look like secrets.

    >>> without_secrets({"RATE": "0.1", "API_KEY": "x", "MIRROR": "https://me:x@mirror.org"})
    ({'RATE': '0.1'}, ('API_KEY', 'MIRROR'))
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not (secret_name(name) or secret_text(value.encode()) or re.search(r"//[^/\s]*:[^/\s]*@", value))
    }
    return kept, tuple(sorted(environ.keys() - kept.keys()))


def debug(clients: Clients, job: Mapping[str, Any], folder: Path) -> DebugFolder:
    """Save a job's code and a script that repeats the job on this machine in a new folder. Raises InvalidRequest."""
    if folder.exists() and os.listdir(folder):
        raise InvalidRequest(f"The folder '{folder}' is not empty. Name a new one.")
    container, index = job.get("container", {}), str(job.get("arrayProperties", {}).get("index", 0))
    code, table, words = None, None, list(container.get("command", []))
    if not words:
        raise InvalidRequest(f"Job '{job['jobName']}' has no command to repeat: its image or its nodes define it.")
    if tuple(words[: len(job_command.BEGIN)]) == job_command.BEGIN:
        code, table, words = job_command.parsed(words[len(job_command.BEGIN) :])
    place, given = private_folder(folder, data=True), dict(job.get("parameters", {}))
    if code:
        place = unpack(clients, code, folder / "code")
    if table:
        row = rows.load(clients, table)[int(index)]
        given, index = given | row, str(rows.number(row, int(index)))
    environ = {one["name"]: one["value"] for one in container.get("environment", [])} | clients.settings.environ()
    environ |= {"AWS_BATCH_JOB_ID": job["jobId"], "AWS_BATCH_JOB_ARRAY_INDEX": index}
    kept, left_out = without_secrets(environ)
    secret = [*left_out, *(one["name"] for one in container.get("secrets", []))]
    command = [_word(word, given, secret) for word in words]
    about = f"Job {job['jobName']} ({job['jobId']}) {job['status']}: {job.get('statusReason', 'no reason given')}"
    lines = [
        f"#!/bin/sh\n# {' '.join(display.plain(about).split())}\nset -eu\ncd {shlex.quote(str(place))}",
        *(f"export {name}={shlex.quote(value)}" for name, value in kept.items() if _VARIABLE(name)),
        *(f': "${{{name}:?looks like a secret and was not saved. Export it}}"' for name in filter(_VARIABLE, secret)),
        f'export PATH={shlex.quote(os.path.dirname(sys.executable))}:"$PATH" PYTHONPATH="$PWD:${{PYTHONPATH:-}}"',
        f"exec {' '.join(command)}\n",
    ]
    script = write_atomic(folder / "run.sh", "\n".join(lines), private=True)
    script.chmod(0o700)
    return DebugFolder(folder, shlex.quote(str(script)), tuple(secret))


def _word(word: str, given: Mapping[str, str], secret: list[str]) -> str:
    """A word of the command, quoted for a shell; a secret becomes a variable, whose name is added to ``secret``."""
    stands_for = word.startswith((job_command.REFERENCE, job_command.FIELD))
    name = word.partition("::")[2] if stands_for else ""
    value = given.get(name, word)
    if without_secrets({name: value})[0]:
        return shlex.quote(value)
    secret.append(re.sub(r"\W", "_", name, flags=re.ASCII).upper() or "SECRET")
    return f'"${{{secret[-1]}}}"'
