"""What needs the custodian's access: the job that evaluates a submission, and the results that only custodians see."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from genokit import __version__, storage
from genokit.batch import Batch
from genokit.batch.shipping import bootstrap
from genokit.data import Dataset
from genokit.display import Log
from genokit.errors import HashMismatch, InvalidRequest, NotFound, did_you_mean
from genokit.workspaces import challenge as challenges
from genokit.workspaces import container, datasets, gate
from genokit.workspaces.challenge import Challenge
from genokit.workspaces.datasets import sha256_of
from genokit.workspaces.evaluation import NONE, Outcome, evaluated, evidence, judged, readable, staged
from genokit.workspaces.log import LogEntry, now
from genokit.workspaces.sharing import HASHES, SharedData
from genokit.workspaces.submission import Submission, in_time, results, sent

SCORES, EVIDENCE, PRINTED = "scores.json", "results.json", "log.txt"


class Custody(SharedData):
    """What is done with a custodian's access; a base of ``Workspace``."""

    def _challenge(self, name: str) -> Challenge:
        known = challenges.found(self.entries())
        if name not in known:
            raise NotFound(f"There is no challenge '{name}'. {did_you_mean(name, known)}")
        return known[name]

    def submission(self, submission: str) -> Submission:
        """A submission.

        Parameters
        ----------
        submission : str
            Its id.

        Raises
        ------
        NotFound
            There is no such submission.
        """
        entries = self.entries()
        known = sent(entries)
        if submission not in known:
            raise NotFound(f"There is no submission '{submission}'. Workspace.submissions() lists them.")
        entry, result = known[submission], results(entries).get(submission)
        look = functools.partial(self.submission, submission)
        return Submission(submission, entry["challenge"], entry.member, entry, result, None, look)

    # --- what the job does, as the custodian who set the challenge

    def _evaluate(self, submission: str, how: Callable[[Submission], Outcome] | None = None) -> LogEntry:
        """Evaluate a submission and log how it ended; one that has been evaluated is not evaluated again.

        ``how`` does it; by default the sandbox on this machine.
        """
        one = self.submission(submission)
        if one.result is not None:
            return one.result
        check = functools.partial(in_time, submission)
        folder = f"results/{one.challenge}/{secrets.token_hex(8)}"
        fields: dict[str, Any] = {
            "submission": submission, "state": "FAILED", "reason": None, "seconds": 0, "score": list(NONE),
            "outputs": [], "folder": folder, "manifest": "0" * 64, "genokit": __version__,
        }  # fmt: skip
        self._may("evaluated", check, fields)
        done, known = (how or self._evaluation)(one), self._challenge(one.challenge)
        scores, hashes = files_of(done)
        about = json.dumps(evidence(submission, done, known, now()), indent=1)
        files = {SCORES: scores.encode(), EVIDENCE: about.encode(), PRINTED: done.log}
        pinned = {
            "salt": secrets.token_hex(16),
            "outputs": hashes,
            "files": {name: sha256_of(data) for name, data in files.items()},
        }
        manifest = json.dumps(pinned).encode()
        kept = {f"outputs/{output.name}": output.content for output in done.outputs if output.content}
        for name, data in {**files, **kept, HASHES: manifest}.items():
            storage.write(storage.join(self.address, folder, name), data, private=True, clients=self.clients)
        score = list(done.scores.get("public", NONE))
        fields |= {"state": done.state, "reason": done.reason or None, "seconds": done.seconds, "score": score,
                   "outputs": sorted(hashes), "manifest": sha256_of(manifest)}  # fmt: skip
        return self._append("evaluated", check, **fields)

    def _evaluation(self, one: Submission) -> Outcome:
        """Run a submission in the sandbox of this machine, on the data set."""
        known = self._challenge(one.challenge)
        with tempfile.TemporaryDirectory() as scratch:
            source, command = self._shipped(one), one.entry["command"]
            return self._run(known, source, command, self._data(known), Path(scratch), image=one.entry["image"])

    def _run(
        self,
        known: Challenge,
        shipped: str,
        command: Sequence[str],
        data: Dataset,
        scratch: Path,
        *,
        image: str | None = None,
        scored: bool = True,
    ) -> Outcome:
        try:
            code = container.pulled(image) if image else self._unpacked(shipped, scratch)
            rows = staged(data, scratch / "data")
        except (InvalidRequest, HashMismatch, NotFound):
            what = "The image cannot be pulled." if image else "The code is not an archive that was submitted."
            return Outcome("REFUSED", what, 0, (), {}, b"")
        return evaluated(known, command, code, rows, self._truth(known) if scored else None)

    def _stage(self, submission: str, folder: Path) -> None:
        """The first of three jobs: code and data in a folder whose parts the second mounts. Raises InvalidRequest."""
        one = self.submission(submission)
        check = functools.partial(in_time, submission)
        check(entries := self.entries(), entries[-1])
        try:
            (folder / "out").mkdir(parents=True)
        except FileExistsError as error:
            raise InvalidRequest(f"Another submission is in '{folder}'. Evaluate one after another.") from error
        with contextlib.ExitStack() as failed:  # or no other submission could be staged
            failed.callback(_remove, folder)
            (folder / "out").chmod(0o777)
            staged(self._data(self._challenge(one.challenge)), folder / "data")
            with contextlib.suppress(InvalidRequest, HashMismatch, NotFound):  # without its code the command fails
                self._unpacked(self._shipped(one), folder)
            failed.pop_all()

    def _gate(self, submission: str, folder: Path, job: str) -> LogEntry:
        """The third of three jobs: what the second has left in the folder is checked, scored and logged."""
        ran = Batch(self.clients).job(job)

        def outcome(one: Submission) -> Outcome:
            known = self._challenge(one.challenge)
            ended = None if ran.status == "SUCCEEDED" else "The command ended with an error."
            with gate.opened(folder / "out") as out:
                return judged(known, out, folder / "data", ran.duration_s or 0, ended, b"", self._truth(known))

        entry = self._evaluate(submission, outcome)
        _remove(folder)
        return entry

    def _unpacked(self, shipped: str, folder: Path) -> Path:
        (code := folder / "code").mkdir()
        return readable(bootstrap.unpack(self.clients, shipped, code))

    def _shipped(self, one: Submission) -> str:
        return storage.join(self.address, "code", one.member, f"{one.entry['code']}.tar.gz")

    def _data(self, known: Challenge) -> Dataset:
        entry = self._dataset(known.dataset)[1]
        return datasets.get(self.address, entry["folder"], entry["manifest"], self.clients, progress=False)

    def _truth(self, known: Challenge) -> pd.DataFrame | None:
        if not known.folder or not known.truth:
            return None
        source = storage.join(self.address, known.folder, "truth.csv")
        labels = any(output.predicts_labels for output in known.outputs)
        kinds = {"id": str, "split": str, **({"truth": str} if labels else {})}
        data = io.BytesIO(datasets.pinned(source, known.truth, self.clients))
        return pd.read_csv(data, dtype=kinds, keep_default_na=False)  # "NA" may be a label

    # --- results that custodians alone can read

    def _held(self, one: Submission) -> tuple[str, dict[str, Any]]:
        """The folder of a submission's results, and their hashes, which the log pins. Raises HashMismatch, NotFound."""
        if one.result is None:
            raise NotFound(f"The submission '{one.id}' has no result yet. Call Submission.wait() first.")
        folder = storage.join(self.address, one.result["folder"])
        pinned = datasets.pinned(storage.join(folder, HASHES), one.result["manifest"], self.clients)
        return folder, json.loads(pinned)

    def _private_file(self, one: Submission, name: str) -> str:
        """A result that only custodians read: the scores, the evidence or the log. Raises AccessDenied."""
        self._reads(None, ["custodian"], f"{name} of the submission '{one.id}'", "read", f"{one.id}/{name}")
        folder, hashes = self._held(one)
        data = datasets.pinned(storage.join(folder, name), hashes["files"][name], self.clients)
        return data.decode(errors="replace")

    def log(self, submission: str) -> Log:
        """What a submission printed. Only custodians read it; that one did is an entry of the log.

        Parameters
        ----------
        submission : str
            The id of the submission.

        Raises
        ------
        AccessDenied
            You are not a custodian.
        NotFound
            There is no such submission, or it has not been evaluated.
        """
        printed = self._private_file(self.submission(submission), PRINTED)
        self._append("opened", submission=submission)
        return Log(printed)


def _remove(folder: Path) -> None:
    """Remove what was staged; Python cannot remove a folder of a thousand folders in folders."""
    subprocess.run(["rm", "-rf", "--", *(folder / name for name in ("code", "data", "out"))], check=True)


def files_of(done: Outcome) -> tuple[str, dict[str, str]]:
    """The scores as text, and the hashes of the outputs that are held."""
    hashes = {one.name: sha256_of(one.content) for one in done.outputs if one.content}
    return json.dumps(done.scores, sort_keys=True), hashes
