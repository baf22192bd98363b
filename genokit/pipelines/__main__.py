"""What a Batch job does that runs a notebook: ``python -m genokit.pipelines s3://bucket/notebooks/KEY``.

The job starts in the folder of the project's code. While the notebook runs, the job uploads the record and the notebook
so far to the run's address, and at the end all files of the run folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from genokit import backends, storage
from genokit.backends import Clients
from genokit.config import Settings
from genokit.errors import GenokitError, NotebookFailed
from genokit.pipelines import recording, remote, values
from genokit.pipelines.execute import perform
from genokit.pipelines.folders import RECORD, Run
from genokit.pipelines.plan import Input, NotebookTask, checked


def main(address: str) -> int:
    """Run the notebook of a request; returns the job's exit code."""
    clients, project = backends.clients(), Path.cwd()
    request = json.loads(storage.read(storage.join(address, remote.REQUEST), clients=clients))
    with tempfile.TemporaryDirectory(prefix="run-") as place:
        folder = Path(place)
        try:
            task, known = _task(request, project, folder, clients)
            task.path.parent.mkdir(parents=True, exist_ok=True)
            task.path.write_text(request["source"], encoding="utf-8")
            watch = _Uploads(address, clients)
            ended = perform(checked(task, Settings.load(), known, folder / "run"), log_output=True, watch=watch)
            _keep_files(ended, task.cwd).save()
        except GenokitError as error:
            if not isinstance(error, NotebookFailed):
                storage.write(storage.join(address, remote.ERROR), str(error), clients=clients)
            sys.stderr.write(f"genokit: {error}\n")
            return 1
        finally:
            remote.upload(folder / "run", address, clients)
    return 0


def _task(
    request: Mapping[str, Any], project: Path, folder: Path, clients: Clients
) -> tuple[NotebookTask, dict[str, Run]]:
    """The task of a request with the files that were uploaded, and the runs whose outputs it takes by their address."""
    local: dict[Path, Path] = {}
    for number, (path, address) in enumerate(request["files"].items()):
        local[Path(path)] = storage.local(address, folder / "given" / str(number), clients=clients)
    stated = NotebookTask(**values.from_json(request["task"]))
    task = replace(
        stated,
        path=project / stated.path,
        cwd=project / stated.cwd,
        parameters=values.mapped(stated.parameters, lambda path: local.get(path, path)),
        inputs={name: Input(*source) for name, source in stated.inputs.items()},
    )
    known = dict[str, Run]()
    for address in task.needs:
        remote.fetch(address, fetched := folder / "before" / address.rpartition("/")[2], clients)
        known[address] = Run.load(fetched)
    return task, known


class _Uploads:
    """Writes a run's record and notebook to its address as cells end, every two seconds at most."""

    def __init__(self, address: str, clients: Clients) -> None:
        self.address, self.clients, self.next = address, clients, 0.0

    def __call__(self, run: Run) -> None:
        if time.monotonic() >= self.next:
            with contextlib.suppress(GenokitError, OSError):  # the next one may succeed, and the last must
                storage.write(storage.join(self.address, RECORD), run.record(), clients=self.clients)
                storage.upload(run.notebook, storage.join(self.address, run.notebook.name), clients=self.clients)
            self.next = time.monotonic() + 2.0


def _keep_files(ended: Run, cwd: Path) -> Run:
    """Copy the recorded files and folders into the run folder, because the job's own folder goes with the job."""

    def kept(path: Path) -> Path:
        whole = (cwd / path).absolute()
        if not whole.exists() or whole.is_relative_to(ended.path):
            return path
        target = ended.path / recording.FILES / whole.name
        while target.exists():
            target = target.with_name(f"{target.stem}-2{target.suffix}")
        if whole.is_dir():
            shutil.copytree(whole, target)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(whole, target)
        return target

    fetched = {name: content for name, content in ended.data.items() if not Path(name).is_absolute()}
    return replace(ended, outputs=values.mapped(dict(ended.outputs), kept), data=fetched)


if __name__ == "__main__":
    # jsonschema would load this for two seconds, to check a kind of address that notebooks do not have.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    sys.exit(main(*sys.argv[1:]))
