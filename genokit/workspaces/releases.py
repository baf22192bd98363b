"""Release of results: a request of their author, reviewed by two custodians, and what they must see."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from genokit import storage
from genokit.disclosure import differs_by_few
from genokit.display import Html, card, image, table
from genokit.errors import InvalidRequest, NotFound
from genokit.files import write_atomic
from genokit.frames import Frame
from genokit.workspaces import datasets, five_safes, review
from genokit.workspaces.custody import EVIDENCE
from genokit.workspaces.datasets import sha256_of
from genokit.workspaces.gate import Output
from genokit.workspaces.kinds import READERS
from genokit.workspaces.log import LogEntry
from genokit.workspaces.review import ReleaseRequest
from genokit.workspaces.submissions import Challenges


@dataclass(frozen=True)
class Review:
    """What a reviewer sees of a request.

    Attributes
    ----------
    request : ReleaseRequest
        The request with its state and votes.
    files : mapping of str to bytes
        The content of each file, exactly as it would be released.
    evidence : dict
        What the gate has checked, in the form of ACRO's results.json.
    differences : list of str
        Counts that differ by few persons from those of another table of the request or of an earlier release, or that
        one of the two hides.
    """

    request: ReleaseRequest
    files: Mapping[str, bytes]
    evidence: Mapping[str, Any]
    differences: Sequence[str]

    def __repr__(self) -> str:
        return f"<Review of {self.request.id}: {self.request.state}, {len(self.files)} files>"

    def _repr_html_(self) -> Html:
        one = self.request
        rows: dict[str, object] = {
            "Author": one.author, "Submission": one.submission, "Context": one.context, "Controls": one.controls
        }  # fmt: skip
        rows |= {f"Votes on {name}": of for name, of in one.votes.items()}
        rows["Differences from other tables"] = "; ".join(self.differences) or "none found"
        checks = [
            {"file": of["files"][0]["name"], "outcome": of["summary"]} for of in self.evidence["results"].values()
        ]
        shown = {name: _shown(name, data) for name, data in self.files.items()}
        comments = {"Comments": "\n".join(one.comments)} if one.comments else {}
        return card(f"Request {one.id}", rows, status=one.state, fold={"Checks": table(checks), **shown, **comments})


class Releases(Challenges):
    """Requests to release results; a base of ``Workspace``."""

    def request(
        self, submission: str, files: str | Sequence[str], *, context: str, controls: str, request: str | None = None
    ) -> str:
        """Ask for the release of outputs of a submission, or change such a request while it is yours.

        Parameters
        ----------
        submission : str
            The id of the submission.
        files : str or sequence of str
            Names of its outputs.
        context : str
            What the reviewers need to know: variables, population and its size, relation to other tables. It is in the
            log, which all members read.
        controls : str
            What was done against disclosure. It is in the log, too.
        request : str, optional
            The id of a request that is PENDING or RETURNED, to change it. A file that changes loses its votes. Default:
            a new request, which is submitted at once.

        Returns
        -------
        str
            The id of the request.

        Raises
        ------
        InvalidRequest
            There are no such outputs, the submission is not yours, you have another open request, or it is the
            reviewers' turn.
        AccessDenied
            Your role makes no requests.
        """
        names = [files] if isinstance(files, str) else list(files)
        fields = {"submission": submission, "files": names, "context": context, "controls": controls}
        kind, number = ("changed", request) if request else ("requested", secrets.token_hex(8))
        self._append(kind, _by_the_rules, request=number, **fields)
        self._append("moved", _by_the_rules, request=number, to="SUBMITTED")
        return number

    def withdraw(self, request: str) -> None:
        """Withdraw a request that is PENDING or RETURNED.

        Parameters
        ----------
        request : str
            The id of the request.

        Raises
        ------
        InvalidRequest
            It is not yours, or it is the reviewers' turn.
        """
        self._append("moved", _by_the_rules, request=request, to="WITHDRAWN")

    def requests(self) -> pd.DataFrame:
        """The requests to release results.

        Returns
        -------
        pandas.DataFrame
            A row for each: ``request``, ``submission``, ``author``, ``state``, ``files`` and ``reviewers``.
        """
        rows = [
            (one.id, one.submission, one.author, one.state, ", ".join(one.votes),
             ", ".join(sorted({name for of in one.votes.values() for name in of})))
            for one in review.requests(self.entries()).values()
        ]  # fmt: skip
        return Frame(rows, columns=["request", "submission", "author", "state", "files", "reviewers"])

    def review(self, request: str) -> Review:
        """Look at what a request would release, as a custodian. That you looked is an entry of the log.

        Parameters
        ----------
        request : str
            The id of the request.

        Returns
        -------
        Review
            Its files, the evidence, and differences from other tables.

        Raises
        ------
        AccessDenied
            You are not a custodian.
        NotFound
            There is no such request.
        HashMismatch
            A file was changed after the gate had passed it.
        """
        one = self._request(request)
        submission = self.submission(one.submission)
        checks = json.loads(self._private_file(submission, EVIDENCE))
        files = self._outputs(one)
        self._append("opened", request=request)
        return Review(one, files, checks, self._differences(one, files))

    def vote(self, request: str, votes: Mapping[str, str], comment: str | None = None) -> ReleaseRequest:
        """Vote on each file of a request of another member, as a custodian.

        Parameters
        ----------
        request : str
            The id of the request.
        votes : mapping
            "approve" or "reject" for each file.
        comment : str, optional
            For the author and the other reviewers.

        Returns
        -------
        ReleaseRequest
            The request as it is then.

        Raises
        ------
        InvalidRequest
            A file has no vote, the request is yours, or it is not the reviewers' turn.
        AccessDenied
            You are not a custodian.
        """
        manifest = self._request(request).manifest
        self._append("voted", _by_the_rules, request=request, files=dict(votes), manifest=manifest, comment=comment)
        return self._request(request)

    def decide(self, request: str, to: str, comment: str | None = None) -> ReleaseRequest:
        """Return, reject, approve or release a request of another member, as a custodian.

        Parameters
        ----------
        request : str
            The id of the request.
        to : {"RETURNED", "REJECTED", "APPROVED", "RELEASED"}
            APPROVED needs two reviewers' approval of every file and fixes the files by their hash. RELEASED copies
            exactly these to where the author can read them.
        comment : str, optional
            For the author and the other reviewers.

        Returns
        -------
        ReleaseRequest
            The request as it is then.

        Raises
        ------
        InvalidRequest
            The request is yours, or not in a state that allows it; or counts differ by few from those of another table
            of the request or of an earlier release, or one of the two hides them.
        HashMismatch
            A file is not the one that was reviewed or approved.
        AccessDenied
            You are not a custodian.
        """
        one = self._request(request)
        files = self._outputs(one) if to in ("APPROVED", "RELEASED") else {}
        fields: dict[str, Any] = {"request": request, "to": to, "comment": comment}
        if files:
            fields["files"] = {name: sha256_of(data) for name, data in files.items()}

        def check(entries: Sequence[LogEntry], new: LogEntry) -> None:  # another release may come in between
            _by_the_rules(entries, new)
            if found := self._differences(one, files):
                raise InvalidRequest(
                    f"The request '{request}' cannot become {to}: {'; '.join(found)}. Whoever has both tables learns "
                    "the difference. Return it to its author."
                )

        self._may("decided", check, fields)
        if to == "RELEASED":
            fields["folder"] = f"released/{request}/{secrets.token_hex(8)}"
            for name, data in files.items():
                storage.write(storage.join(self.address, fields["folder"], name), data, clients=self.clients)
        self._append("decided", check, **fields)
        return self._request(request)

    def released(self, request: str) -> Path:
        """Fetch the files of a released request; each must have the hash that was approved. The log says who did.

        Parameters
        ----------
        request : str
            The id of the request.

        Returns
        -------
        Path
            A folder in ``settings.home`` with the files.

        Raises
        ------
        NotFound
            There is no such request, or it has not been released.
        AccessDenied
            You are neither its author, nor a custodian or analyst.
        HashMismatch
            A file is not the one that was approved.
        """
        one = self._request(request)
        self._reads(one.author, READERS, f"the release '{request}' of '{one.author}'", "released", request)
        if one.state != "RELEASED":
            raise NotFound(f"The request '{request}' is {one.state}. Its files can be fetched once it is RELEASED.")
        self._append("opened", request=request)
        folder = self.clients.settings.made("home") / "workspaces" / "released" / request
        for name, data in self._released_files(one).items():
            write_atomic(folder / name, data, private=True)
        return folder

    def crate(self, submission: str, folder: str | os.PathLike[str]) -> Path:
        """Write the provenance of a submission as an RO-Crate, in the phases of the Five Safes profile.

        Parameters
        ----------
        submission : str
            The id of the submission.
        folder : path
            Where ``ro-crate-metadata.json`` is written. It holds no output and no log.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        NotFound
            There is no such submission.
        """
        one, entries = self.submission(submission), self.entries()
        about = [request for request in review.requests(entries).values() if request.submission == submission]
        return five_safes.write(one, self._challenge(one.challenge), entries, about, Path(folder))

    # --- behind them

    def _request(self, request: str) -> ReleaseRequest:
        known = review.requests(self.entries())
        if request not in known:
            raise NotFound(f"There is no request '{request}'. Workspace.requests() lists them.")
        return known[request]

    def _outputs(self, one: ReleaseRequest) -> dict[str, bytes]:
        """The files of a request, each with the hash that the gate has stated."""
        folder, hashes = self._held(self.submission(one.submission))
        return {
            name: datasets.pinned(storage.join(folder, "outputs", name), hashes["outputs"][name], self.clients)
            for name in one.votes
        }

    def _released_files(self, one: ReleaseRequest) -> dict[str, bytes]:
        folder = storage.join(self.address, one.folder)
        pinned = one.pinned.items()
        return {name: datasets.pinned(storage.join(folder, name), sha256, self.clients) for name, sha256 in pinned}

    def _tables(self, one: ReleaseRequest, files: Mapping[str, bytes]) -> tuple[str, dict[str, tuple[Output, bytes]]]:
        """The name of a request's data set, without its version, and the request's tables of counts."""
        known = self._challenge(self.submission(one.submission).challenge)
        declared = {output.name: output for output in known.outputs if output.type == "aggregate"}
        tables = {name: (declared[name], data) for name, data in sorted(files.items()) if name in declared}
        return known.dataset.partition("@")[0], tables

    def _differences(self, one: ReleaseRequest, files: Mapping[str, bytes]) -> list[str]:
        """Counts that tell a small number by their difference from those of another table with the same rows.

        Other tables are those of the same request, and those released earlier of any version of the data set.
        """
        dataset, mine = self._tables(one, files)
        policy = self._challenge(self.submission(one.submission).challenge).policy
        if policy.round_to > 1:
            return []  # a difference of rounded counts tells less than the policy allows
        others = []
        for other in review.requests(self.entries()).values():
            if other.state == "RELEASED" and other.id != one.id:
                of, theirs = self._tables(other, self._released_files(other))
                others += [(f"release {other.id}", *table) for table in theirs.values() if of == dataset]
        found = []
        for name, (output, data) in mine.items():
            found += [
                f"{count} of '{name}' {how.format(where)} in {number} {'row' if number == 1 else 'rows'}"
                for where, theirs, released in others
                for count, how, number in _telling(output, data, theirs, released, policy.min_cell)
            ]
            others.append((f"'{name}'", output, data))
        return found


def _telling(one: Output, data: bytes, other: Output, released: bytes, min_cell: int) -> list[tuple[str, str, int]]:
    """The counts of two tables with the same rows that tell a small number: how, and in how many rows."""
    common = sorted(set(one.counts) & set(other.counts))
    if sorted(one.labels) != sorted(other.labels) or not common:
        return []
    a, b = (_read(table, one.labels).assign(all_=1) for table in (data, released))
    both = a.merge(b, on=one.labels or ["all_"], suffixes=("", " before"))
    found = []
    for name in common:
        mine, theirs = both[name], both[f"{name} before"]
        few = differs_by_few(mine - theirs, min_cell=min_cell)
        found.append((name, "differs by few from {}", int(few.sum())))
        found.append((name, "is hidden here or in {}, but not in both,", int((mine.isna() != theirs.isna()).sum())))
    return [one for one in found if one[2]]


def _read(table: bytes, labels: Sequence[str] = ()) -> pd.DataFrame:
    """A table that the gate has written; a label may be a number, or "NA"."""
    texts = dict.fromkeys(labels, str)
    return pd.read_csv(io.BytesIO(table), dtype=texts, keep_default_na=False, na_values=[""])


def _shown(name: str, data: bytes) -> Html:
    if name.endswith(".csv"):
        return table(_read(data))
    if name.endswith(".json"):
        return table([{"key": key, "value": value} for key, value in json.loads(data).items()])
    return image(data, f"The figure {name}") if name.endswith(".png") else table([{"bytes": len(data)}])


def _by_the_rules(entries: Sequence[LogEntry], new: LogEntry) -> None:
    """Raise InvalidRequest if an entry about a request is against the rules."""
    if reason := review.refusal(review.requests(entries), review.evaluated(entries), new):
        what = "This cannot be requested" if new.kind == "requested" else f"The request '{new['request']}' is unchanged"
        raise InvalidRequest(f"{what}: {reason}.")
