"""Model to data: custodians set challenges, modellers submit code, the data set stays where it is."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from genokit import storage
from genokit.batch import Batch, resources
from genokit.batch.shipping import archive
from genokit.errors import AccessDenied, InvalidParameters, InvalidRequest
from genokit.frames import Frame
from genokit.pipelines import Comparison
from genokit.workspaces import challenge as challenges
from genokit.workspaces import container, datasets
from genokit.workspaces.challenge import Challenge
from genokit.workspaces.custody import SCORES, Custody, files_of
from genokit.workspaces.evaluation import NONE, Outcome, Score
from genokit.workspaces.log import LogEntry, now
from genokit.workspaces.membership import expiry
from genokit.workspaces.sandbox import Limits, command_words
from genokit.workspaces.scorers import SCORERS
from genokit.workspaces.submission import Submission, results, sent, within_quota

WAITING = ("SUBMITTED", None, None, None, None, None)


class Challenges(Custody):
    """Challenges of a workspace, and the submissions to them; the base of ``Workspace``."""

    # --- challenges

    def challenge(
        self,
        name: str,
        dataset: str | None = None,
        *,
        outputs: Mapping[str, Mapping[str, Any]] | None = None,
        metric: str | None = None,
        truth: pd.DataFrame | str | os.PathLike[str] | None = None,
        limits: Limits | None = None,
        quota_per_day: int = 5,
        private_fraction: float = 0.5,
        deadline: datetime.datetime | datetime.date | None = None,
    ) -> Challenge:
        """Set a challenge, or look at one.

        Parameters
        ----------
        name : str
            Its name. Without further arguments the challenge of this name is returned.
        dataset : str, optional
            The published data set that submissions read, in ``/data``. It must not hold the truth.
        outputs : mapping, optional
            The files that a submission writes to ``/out``; see ``gate.declare``.
        metric : str, optional
            By which predictions are scored: a key of ``scorers.SCORERS``. Default: nothing is scored.
        truth : DataFrame or path, optional
            The held-out rows, or a CSV with them: the column ``id`` and one more. Submissions never see them.
        limits : Limits, optional
            What a submission may use. Default: ``Limits()``.
        quota_per_day : int, default 5
            Submissions that are evaluated for each member within 24 hours.
        private_fraction : float, default 0.5
            The share of the held-out rows whose scores are private until ``reveal``.
        deadline : datetime or date, optional
            When submissions end. Default: never.

        Returns
        -------
        Challenge
            The challenge; its card says how many bits of the data scores can leak.

        Raises
        ------
        AccessDenied
            You are not a custodian.
        InvalidRequest
            There is a challenge with this name.
        InvalidParameters
            Outputs, metric and truth do not belong together.
        NotFound
            There is no such data set or challenge.
        """
        if dataset is None:
            return self._challenge(name)
        labels = challenges.checked(outputs or {}, metric, quota_per_day, private_fraction)
        if not outputs or (metric is None) != (truth is None):
            raise InvalidParameters(f"The challenge '{name}' needs outputs, and a truth where there is a metric.")
        fields: dict[str, Any] = {
            "name": name, "dataset": self._dataset(dataset)[0], "metric": metric, "outputs": dict(outputs),
            "limits": asdict(limits or Limits()), "quota_per_day": quota_per_day, "private_fraction": private_fraction,
            "deadline": expiry(deadline), "folder": None, "truth": None,
        }  # fmt: skip

        def check(entries: Sequence[LogEntry], new: LogEntry) -> None:
            if name in challenges.found(entries):
                raise InvalidRequest(f"There is a challenge '{name}' already. Choose another name.")

        self._may("challenged", check, fields)
        if truth is not None:
            frame = (
                truth if isinstance(truth, pd.DataFrame) else pd.read_csv(truth, dtype=str if labels else {"id": str})
            )
            rows = challenges.split(frame, labels, private_fraction)
            data = rows.assign(salt=secrets.token_hex(16)).to_csv(index=False).encode()  # or its hash could be guessed
            fields |= {"folder": f"truth/{name}/{secrets.token_hex(8)}", "truth": datasets.sha256_of(data)}
            storage.write(
                storage.join(self.address, fields["folder"], "truth.csv"), data, private=True, clients=self.clients
            )
        self._append("challenged", check, **fields)
        return self._challenge(name)

    def challenges(self) -> pd.DataFrame:
        """The challenges: a row for each, with ``challenge``, ``dataset``, ``metric``, ``quota_per_day``, ``deadline``,
        ``by``, and ``submissions``, their number."""
        entries = self.entries()
        to = [one["challenge"] for one in sent(entries).values()]
        rows = [
            (one.name, one.dataset, one.metric, one.quota_per_day, one.deadline, one.member, to.count(one.name))
            for one in challenges.found(entries).values()
        ]
        return Frame(rows, columns=["challenge", "dataset", "metric", "quota_per_day", "deadline", "by", "submissions"])

    # --- submissions

    def rehearse(
        self,
        challenge: str,
        code: str | os.PathLike[str] | None = None,
        command: Sequence[str] = (),
        *,
        image: str | None = None,
    ) -> Outcome:
        """Run a submission at home, in the same sandbox and through the same gate, on the practice data.

        Parameters
        ----------
        challenge : str
            The name of the challenge.
        code : path, optional
            The folder with the code.
        command : sequence of str
            The command, which starts in this folder; ``["python", "predict.py"]``. It reads ``/data`` and writes to
            ``/out``.
        image : str, optional
            Instead of the folder, a container image: ``"repository@sha256:..."``. The command replaces its entrypoint
            and starts in its own working folder. A tag is replaced by the digest that it has on this machine.

        Returns
        -------
        Outcome
            How it ended, with its log and outputs. Nothing is scored.

        Raises
        ------
        NotFound
            There is no such challenge, or its data set has no practice data.
        InvalidParameters
            There is neither a folder nor an image, or both.
        MissingDependency
            This machine has no sandbox, or for an image no container engine.
        """
        pinned = _pinned(code, image)
        known = self._challenge(challenge)
        data = self.practice(known.dataset, progress=False)
        with tempfile.TemporaryDirectory() as scratch:
            shipped = "" if code is None else archive.ship(self.clients, code, scratch)
            return self._run(known, shipped, command, data, Path(scratch), image=pinned, scored=False)

    def submit(
        self,
        challenge: str,
        code: str | os.PathLike[str] | None = None,
        command: Sequence[str] = (),
        *,
        image: str | None = None,
        queue: str = "highPriority",
        batch: Batch | None = None,
        start: bool = True,
    ) -> Submission:
        """Submit code to a challenge; a job evaluates it where the data are.

        Parameters
        ----------
        challenge, code, command, image
            As for ``rehearse``. The code is uploaded as one archive; its hash, or the image by its digest, is in the
            log.
        queue : str, default "highPriority"
            The job queue.
        batch : Batch, optional
            Where the job runs. Default: the account of the workspace.
        start : bool, default True
            Whether to start the job. If not, a custodian does so with ``evaluate``.

        Returns
        -------
        Submission
            Which ``.wait()`` waits for.

        Raises
        ------
        AccessDenied
            Your role does not submit.
        NotFound
            There is no such challenge or job queue.
        InvalidRequest
            The quota is used up, or the deadline has passed.
        InvalidProject
            The folder cannot be shipped.
        InvalidParameters
            There is neither a folder nor an image, or both.
        """
        batch = batch or Batch(self.clients)
        with contextlib.suppress(AccessDenied):  # who may submit and not look submits
            if start:
                resources.queue(batch.clients, queue)  # before the log has a submission that cannot start
        fields: dict[str, Any] = {"submission": secrets.token_hex(8), "challenge": self._challenge(challenge).name,
                                  "command": command_words(command), "image": _pinned(code, image)}  # fmt: skip
        self._may("submitted", within_quota, fields)
        if code is not None:
            shipped = archive.ship(self.clients, code, storage.join(self.address, "code", self.member))
            fields["code"] = shipped.rpartition("/")[2].partition(".")[0]
        self._append("submitted", within_quota, **fields)
        if not start:
            return self.submission(fields["submission"])
        return self.evaluate(fields["submission"], queue=queue, batch=batch)

    def evaluate(
        self, submission: str, *, queue: str = "highPriority", batch: Batch | None = None, stack: str | None = None
    ) -> Submission:
        """Start the job that evaluates a submission, unless there is one.

        The job acts for the custodian who set the challenge: it needs access to the data. ``submit`` starts it; on a
        shared folder whose data the modeller cannot read, a custodian starts it by this method.

        Parameters
        ----------
        submission : str
            The id of the submission.
        queue, batch
            As for ``submit``.
        stack : str, optional
            The name of a deployed stack of the template ``challenge``, for AWS, where containers have no sandbox. Three
            jobs stage, run and check the submission, and this method waits for the second. Default: one job.

        Raises
        ------
        NotFound
            There is no such submission.
        InvalidRequest
            With ``stack``, the submission is an image.
        JobFailed
            With ``stack``, the submission could not be staged; the reason is in the job's log.
        """
        one = self.submission(submission)
        known = self._challenge(one.challenge)
        batch = batch or Batch(self.clients)
        parameters = {"address": self.address, "submission": submission, "member": known.member}
        if stack is not None and one.entry["image"]:
            raise InvalidRequest(f"The submission '{submission}' is an image. On AWS only folders of code are run.")
        if stack is not None:
            batch.submit(f"{stack}-stage", queue=f"{stack}-custody", parameters=parameters).wait().raise_for_status()
            command = ["sh", "-c", 'cd "$CODE" && exec "$@"', "sh", *one.entry["command"]]
            minutes = max(1, known.limits.wall_s / 60)  # Batch times out no sooner
            ran = batch.submit(
                f"{stack}-run", queue=f"{stack}-submissions", command=command, timeout_min=minutes
            ).wait()  # fmt: skip
            job = batch.submit(f"{stack}-gate", queue=f"{stack}-custody", parameters={**parameters, "job": ran.id})
            return replace(one, job=job)
        definition = batch.define(
            "genokit-submission",
            command=[
                "python",
                "-m",
                "genokit.workspaces",
                "evaluate",
                "Ref::address",
                "Ref::submission",
                "Ref::member",
            ],
            memory_gib=1 + known.limits.memory_mib / 1024,
            timeout_min=5 + known.limits.wall_s / 60,
        )
        job = batch.submit(definition, queue=queue, name=f"submission-{submission}", parameters=parameters)
        return replace(one, job=job)

    def submissions(self, challenge: str | None = None) -> pd.DataFrame:
        """The submissions, newest first.

        Parameters
        ----------
        challenge : str, optional
            Those to this challenge. Default: all.

        Returns
        -------
        pandas.DataFrame
            A row for each: ``submission``, ``challenge``, ``member``, ``submitted`` (UTC), ``state``, ``reason``,
            ``score``, ``low``, ``high`` (of the 95 % interval), ``seconds`` and ``code`` (SHA-256, or the image).
        """
        entries, rows = self.entries(), []
        done = results(entries)
        for one in sent(entries).values():
            if challenge in (None, one["challenge"]):
                result = done.get(one["submission"])
                known = (result["state"], result["reason"], *result["score"], result["seconds"]) if result else WAITING
                rows.append(
                    (one["submission"], one["challenge"], one.member, one.time, *known, one["code"] or one["image"])
                )
        columns_of_result = ["state", "reason", "score", "low", "high", "seconds"]
        columns = ["submission", "challenge", "member", "submitted", *columns_of_result, "code"]
        return Frame(rows, columns=columns).astype({"submitted": "datetime64[us, UTC]"})

    def leaderboard(self, challenge: str, split: str = "public") -> pd.DataFrame:
        """The submissions to a challenge that succeeded, best first.

        Parameters
        ----------
        challenge : str
            The name of the challenge.
        split : {"public", "private"}
            Which held-out rows. Private scores can be read by custodians, and by all after ``reveal``.

        Returns
        -------
        pandas.DataFrame
            ``rank`` (equal scores, with four digits, share one), ``member``, ``score``, ``low`` and ``high`` (of the
            95 % interval), ``submission`` and ``submitted`` (UTC).

        Raises
        ------
        AccessDenied
            Private scores have not been revealed.
        """
        if split not in ("public", "private"):
            raise InvalidParameters(f"'{split}' is not a split. Use 'public' or 'private'.")
        known, frame = self._challenge(challenge), self.submissions(challenge)
        frame = frame[frame["state"] == "SUCCEEDED"].copy()
        if split == "private":
            scores = self._private(challenge)
            frame[["score", "low", "high"]] = [scores.get(one, NONE) for one in frame["submission"]]
        frame = frame[frame["score"].notna()].astype({"score": float, "low": float, "high": float})
        better = SCORERS[known.metric].greater_is_better if known.metric else True
        frame = frame.assign(rank=frame["score"].rank(method="min", ascending=not better).astype(int))
        columns = ["rank", "member", "score", "low", "high", "submission", "submitted"]
        return frame.sort_values(["rank", "submitted"])[columns].reset_index(drop=True)

    def reveal(self, challenge: str) -> pd.DataFrame:
        """Show the private scores to all members, after the deadline; returns the leaderboard.

        Parameters
        ----------
        challenge : str
            The name of the challenge.

        Raises
        ------
        AccessDenied
            You are not a custodian.
        InvalidRequest
            The deadline has not passed, or there is none.
        """
        deadline = self._challenge(challenge).deadline
        if not deadline or now() < deadline:
            when = f"on {challenges.utc(deadline)}" if deadline else "never, because it was set without a deadline"
            raise InvalidRequest(
                f"Private scores of '{challenge}' can be revealed after its deadline, which is {when}. Earlier, "
                "members could fit them."
            )
        self._append("revealed", challenge=challenge, scores=self._private(challenge))
        return self.leaderboard(challenge, "private")

    def reproduce(self, run: str) -> Comparison:
        """Run a shared run or, as a custodian, a submission again, and compare. That it was reproduced is an entry.

        Parameters
        ----------
        run : str
            The id of the run or of the submission. See ``SharedData.reproduce`` for runs.

        Returns
        -------
        Comparison
            For a submission: the scores and the outputs' hashes, first and again.

        Raises
        ------
        NotFound, AccessDenied, HashMismatch
            There is no such run or submission, or it may not be read, or it was changed.
        """
        if run not in sent(self.entries()):
            return super().reproduce(run)
        one = self.submission(run)
        first = {"scores": self._private_file(one, SCORES), **self._held(one)[1]["outputs"]}
        again, outputs = files_of(self._evaluation(one))
        pairs = [(what, first[what], {"scores": again, **outputs}.get(what)) for what in first]
        rows = [(one.challenge, what, a, b, a == b, None, None) for what, a, b in pairs]
        columns = ["notebook", "what", "a", "b", "equal", "absolute", "relative"]
        compared = Comparison([], pd.DataFrame(rows, columns=columns))
        self._append("reproduced", run=run, equal=compared.equal)
        return compared

    def _private(self, challenge: str) -> dict[str, Score]:
        """The private scores of a challenge by submission: revealed ones, or read as a custodian."""
        entries = self.entries()
        for one in entries:
            if one.kind == "revealed" and one["challenge"] == challenge:
                return dict(one["scores"])
        ids = [name for name, one in sent(entries).items() if one["challenge"] == challenge]
        done = [self.submission(one) for one in ids if one in results(entries)]
        return {one.id: json.loads(self._private_file(one, SCORES)).get("private", NONE) for one in done}


def _pinned(code: object, image: str | None) -> str | None:
    """The image of a submission by its digest; None if it is a folder of code."""
    if (code is None) == (image is None):
        raise InvalidParameters("A submission is a folder of code or an image. Pass code= or image=, not both.")
    return image and container.pinned(image)
