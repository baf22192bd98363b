"""What members share: data sets, by their terms, and runs of notebooks."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from genokit import storage
from genokit.data import Dataset
from genokit.errors import AccessDenied, InvalidParameters, InvalidRequest, NotFound, did_you_mean
from genokit.files import sha256, write_atomic
from genokit.frames import Frame
from genokit.pipelines import Comparison, Run, reproduce
from genokit.pipelines.crate import METADATA
from genokit.workspaces import access, datasets
from genokit.workspaces.kinds import POLICIES, READERS, ROLES, ReleasePolicy, duo
from genokit.workspaces.log import LogEntry, now
from genokit.workspaces.membership import Members, expiry

YEAR = datetime.timedelta(days=365)
HASHES = "hashes.json"  # in the folder of a shared run


class SharedData(Members):
    """What members share in a workspace; the base of ``Workspace``."""

    # --- data sets

    def publish(
        self,
        what: Dataset | Run | str | os.PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        title: str | None = None,
        licence: str | None = None,
        terms: str | Sequence[str] = (),
        conditions: str | None = None,
        policy: str = "default",
        practice: str | os.PathLike[str] | pd.DataFrame | None = None,
    ) -> str:
        """Publish a data set, or share a run of a notebook. What was published never changes.

        Files are uploaded first, then an entry makes them visible. It has the hash of the manifest, which has the hash
        of every file.

        Parameters
        ----------
        what : Dataset, Run or path
            A fetched data set, a folder of files, or a run. A run needs no further arguments.
        name, version, title : str, optional
            Default: the data set's own; for a folder its name and "1.0.0".
        licence : str, optional
            SPDX identifier, such as "CC-BY-4.0". Default: the data set's own.
        terms : str or sequence of str
            What the data may be used for: terms of the Data Use Ontology, such as "GRU" or ["HMB", "IRB"].
        conditions : str, optional
            Further terms in words.
        policy : {"default", "opensafely", "datashield"}
            The thresholds for released counts: 10; 8, then rounded to 5; 3.
        practice : path or DataFrame, optional
            A folder of invented data with the same files, or the rows of its only table. All members can read it, so
            that they can try an algorithm at home. It must not have any real row.

        Returns
        -------
        str
            By which it is found: ``name@version``, or the id of a run.

        Raises
        ------
        AccessDenied
            You are not a custodian (for a run: custodian, analyst or modeller).
        InvalidRequest
            This version has been published, or the run has not ended.
        InvalidParameters, InvalidManifest
            An argument or a file is not possible.
        """
        if isinstance(what, Run):
            return self._share(what)
        data = what if isinstance(what, Dataset) else Path(what)
        name, version = name or data.name, version or str(getattr(data, "version", "1.0.0"))
        content, files = datasets.description(data, name, title, licence, version)
        licences = [one.get("name") or one.get("title") for one in content.get("licenses", [])]
        fields = {
            "name": name,
            "version": version,
            "title": content["title"],
            "licence": "; ".join(licences) or None,
            "citation": content.get("x-citation") or None,
            "duo": [terms] if isinstance(terms, str) else list(terms),
            "conditions": conditions,
            "policy": policy,
            "files": len(files),
            "bytes": sum(one["bytes"] for one in content["resources"]),
            **dict(zip(("folder", "manifest"), datasets.place("data", content), strict=True)),
        }

        def check(entries: Sequence[LogEntry], entry: LogEntry) -> None:
            if f"{name}@{version}" in access.published(entries):
                raise InvalidRequest(f"'{name}@{version}' has been published already. Publish a new version.")

        self._may("published", check, fields)
        with tempfile.TemporaryDirectory() as scratch:
            if practice is not None:
                rows = hasattr(practice, "to_csv")
                mock = datasets.like(practice, files, Path(scratch, "rows")) if rows else Path(practice)  # type: ignore[arg-type]
                about, mocked = datasets.description(mock, name, f"practice data for {content['title']}", None, version)
                if about["resources"] == content["resources"]:
                    raise InvalidParameters(f"The practice data of '{name}' are the data themselves, file by file.")
                fields |= zip(("practice", "practice_manifest"), datasets.place("practice", about), strict=True)
                datasets.put(about, mocked, storage.join(self.address, str(fields["practice"])), self.clients)
        datasets.put(content, files, storage.join(self.address, str(fields["folder"])), self.clients)
        self._append("published", check, **fields)
        return f"{name}@{version}"

    def datasets(self) -> pd.DataFrame:
        """The published data sets.

        Returns
        -------
        pandas.DataFrame
            A row for each version: ``dataset`` (its reference), ``title``, ``files``, ``bytes``, ``licence``,
            ``conditions``, ``policy``, ``terms``, ``practice`` (whether there are practice data), ``published`` (UTC),
            ``by``, ``readable`` (whether you may fetch it now) and ``why``.
        """
        entries, columns = self.entries(), ["title", "files", "bytes", "licence", "conditions", "policy"]
        rows = [
            {"dataset": ref, **{name: one[name] for name in columns}, "terms": ", ".join(one["duo"]),
             "practice": one["practice"] is not None, "published": one.time, "by": one.member,
             **dict(zip(("readable", "why"), access.reading(entries, self.member, ref, now()), strict=True))}
            for ref, one in access.published(entries).items()
        ]  # fmt: skip
        names = ["dataset", *columns, "terms", "practice", "published", "by", "readable", "why"]
        return Frame(rows, columns=names).astype({"published": "datetime64[us, UTC]"})

    def accept(self, dataset: str, *, expires: datetime.datetime | datetime.date | None = None) -> str:
        """Accept the terms of a data set.

        Parameters
        ----------
        dataset : str
            ``name@version``, or the name for the version published last.
        expires : datetime or date, optional
            Until when. Default: for a year.

        Returns
        -------
        str
            The terms that you have accepted.

        Raises
        ------
        NotFound
            There is no such data set.
        AccessDenied
            Your role reads no data.
        """
        ref, entry = self._dataset(dataset)
        until = expiry(expires or datetime.datetime.now(datetime.UTC) + YEAR)
        self._append("accepted", dataset=ref, expires=until)
        terms = [f"{one} ({duo()[one]})" for one in entry["duo"]]
        return "; ".join([*terms, *([entry["conditions"]] if entry["conditions"] else []), f"until {str(until)[:10]}"])

    def fetch(self, dataset: str, *, progress: bool = True) -> Dataset:
        """Fetch a data set into the cache, verified. The fetch is an entry of the log.

        Parameters
        ----------
        dataset : str
            ``name@version``, or the name for the version published last.
        progress : bool, default True
            Show a progress bar per file.

        Returns
        -------
        Dataset
            The files.

        Raises
        ------
        NotFound
            There is no such data set.
        AccessDenied
            You are neither a custodian nor an analyst who has accepted the terms.
        HashMismatch
            The manifest or a file was changed after it was published.
        """
        ref, entry = self._dataset(dataset)

        def check(entries: Sequence[LogEntry], new: LogEntry) -> None:
            allowed, why = access.reading(entries, new.member, ref, new.time)
            if not allowed:
                message = f"'{new.member}' may not read '{ref}': {why}. Workspace.accept('{ref}') accepts its terms."
                raise AccessDenied(message, action="fetched", resource=ref)

        self._append("fetched", check, dataset=ref)
        where = entry["folder"], entry["manifest"]
        return datasets.get(self.address, *where, self.clients, progress=progress)

    def practice(self, dataset: str, *, progress: bool = True) -> Dataset:
        """Fetch the practice data of a data set, which every member may read.

        Parameters
        ----------
        dataset : str
            ``name@version``, or the name for the version published last.
        progress : bool, default True
            Show a progress bar per file.

        Returns
        -------
        Dataset
            The files; none of their rows is real.

        Raises
        ------
        NotFound
            There is no such data set, or it was published without practice data.
        AccessDenied
            You are not a member.
        HashMismatch
            The manifest or a file was changed after it was published.
        """
        ref, entry = self._dataset(dataset)
        self._reads(None, ROLES, f"the practice data of '{ref}'", "practice", ref)
        if entry["practice"] is None:
            raise NotFound(f"'{ref}' was published without practice data. Ask {entry.member} to publish a new version.")
        where = entry["practice"], entry["practice_manifest"]
        return datasets.get(self.address, *where, self.clients, progress=progress)

    def policy(self, dataset: str) -> ReleasePolicy:
        """The thresholds for counts that leave a data set.

        Parameters
        ----------
        dataset : str
            ``name@version``, or the name for the version published last.

        Raises
        ------
        NotFound
            There is no such data set.
        """
        return POLICIES[self._dataset(dataset)[1]["policy"]]

    def _dataset(self, name: str) -> tuple[str, LogEntry]:
        """The reference and the entry of a data set, of the version published last if none is named."""
        known = access.published(self.entries())
        found = [ref for ref in known if name in (ref, ref.partition("@")[0])]
        if not found:
            raise NotFound(f"The workspace '{self.address}' has no data set '{name}'. {did_you_mean(name, known)}")
        return found[-1], known[found[-1]]

    # --- runs

    def runs(self, search: str | None = None) -> pd.DataFrame:
        """The runs that members have shared, newest first.

        Parameters
        ----------
        search : str, optional
            Only runs with this text in the name, the notebook, the member or the names of the outputs.

        Returns
        -------
        pandas.DataFrame
            A row for each: ``run`` (its id), ``name``, ``notebook``, ``state``, ``outputs`` (their names; values are
            not in the log), ``member``, ``shared`` (UTC) and ``reproduced`` (by whom, with equal results).
        """
        entries = self.entries()
        again = [(one["run"], one.member) for one in entries if one.kind == "reproduced" and one["equal"]]
        rows = [
            (one["run"], one["name"], one["notebook"], one["state"], ", ".join(one["outputs"]), one.member, one.time,
             ", ".join(dict.fromkeys(member for run, member in again if run == one["run"])))
            for one in _shared(entries).values()
        ]  # fmt: skip
        kept = [row for row in rows if search is None or search.casefold() in " ".join(row[1:6]).casefold()]
        columns = ["run", "name", "notebook", "state", "outputs", "member", "shared", "reproduced"]
        return Frame(kept, columns=columns).astype({"shared": "datetime64[us, UTC]"})

    def run(self, run: str) -> Run:
        """Fetch a shared run with its crate; each file must have the hash that the log states. The log says who did.

        Parameters
        ----------
        run : str
            The id of the run.

        Returns
        -------
        Run
            The run, in a folder in ``settings.home``.

        Raises
        ------
        NotFound
            There is no such run.
        AccessDenied
            You are neither a custodian, nor an analyst, nor the one who shared it.
        HashMismatch
            A file was changed after it was shared.
        """
        shared = _shared(self.entries())
        if run not in shared:
            raise NotFound(f"The workspace '{self.address}' has no run '{run}'. Workspace.runs() lists them.")
        entry = shared[run]
        self._reads(entry.member, READERS, f"the run '{run}'", "run", run)
        self._append("opened", run=run)
        folder = self.clients.settings.made("home") / "workspaces" / "runs" / run
        theirs = storage.join(self.address, entry["folder"])
        manifest = datasets.pinned(storage.join(theirs, HASHES), entry["manifest"], self.clients)
        for name, expected in json.loads(manifest)["files"].items():
            data = datasets.pinned(storage.join(theirs, name), expected, self.clients)
            write_atomic(storage.join(folder, name), data, private=True)
        return Run.load(folder)

    def reproduce(self, run: str) -> Comparison:
        """Run a shared run again, from its crate, and compare the results. That it was reproduced is an entry.

        The notebook is another member's code, and runs as you, with your access. Read it first: ``run(id).notebook``.

        Parameters
        ----------
        run : str
            The id of the run.

        Returns
        -------
        Comparison
            The shared run (a) and yours (b); ``.equal`` says whether the results are equal.

        Raises
        ------
        NotFound, AccessDenied, HashMismatch
            As ``run``; and as ``fetch`` for the data sets of the workspace that it used.
        GenokitError
            An input file that is not in the workspace is not here.
        """
        folder = self.run(run).path
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        manifests = {one["manifest"]: ref for ref, one in access.published(self.entries()).items()}
        moved = {}
        for one in metadata["@graph"]:
            if one.get("sha256") in manifests and one["@id"].startswith("file:"):
                mine = Path(self.fetch(manifests[one["sha256"]], progress=False).ref).as_uri()
                moved[one["@id"]] = mine
        text = json.dumps(metadata, indent=1)
        for theirs, mine in moved.items():
            text = text.replace(json.dumps(theirs), json.dumps(mine))
        write_atomic(folder / METADATA, text, private=True)
        compared = reproduce(folder, self.clients.settings)
        self._append("reproduced", run=run, equal=compared.equal)
        return compared

    def _share(self, run: Run) -> str:
        """Upload a run's folder, then say so."""
        if run.state == "RUNNING":
            raise InvalidRequest(f"The run '{run.name}' is still running. Share it when it has ended.")
        files = {one.relative_to(run.path).as_posix(): one for one in run.path.rglob("*") if one.is_file()}
        number = secrets.token_hex(8)
        folder = f"runs/{self.member}/{number}"
        pinned = {"salt": secrets.token_hex(16), "files": {name: sha256(path) for name, path in sorted(files.items())}}
        manifest = json.dumps(pinned).encode()
        fields = {
            "run": number,
            "name": run.name,
            "notebook": run.source.name,
            "state": run.state,
            "outputs": list(run.outputs),
            "folder": folder,
            "manifest": datasets.sha256_of(manifest),
        }
        self._may("shared", None, fields)
        for name, path in files.items():
            storage.upload(path, storage.join(self.address, folder, name), clients=self.clients)
        storage.write(storage.join(self.address, folder, HASHES), manifest, clients=self.clients)
        self._append("shared", **fields)
        return number

    # --- citation

    def cite(self, name: str, style: str = "text") -> str:
        """How to cite a data set or a run.

        Parameters
        ----------
        name : str
            The reference of a data set, or the id of a run.
        style : {"text", "csl"}
            A sentence, or an item of the Citation Style Language in JSON, as reference managers import it.

        Raises
        ------
        NotFound
            There is neither such a data set nor such a run.
        """
        if style not in ("text", "csl"):
            raise InvalidParameters(f"'{style}' is not a style of citations. Use 'text' or 'csl'.")
        run = _shared(self.entries()).get(name)
        ref, entry = (name, run) if run else self._dataset(name)
        title, version = (f"{run['name']} ({run['notebook']})", name) if run else (entry["title"], entry["version"])
        where = f"genokit workspace {self.name}, {ref}, sha256 {entry['manifest']}"
        if style == "text":
            known = f" {entry['citation']}" if entry["citation"] else ""
            return f"{entry.member} ({entry.time[:4]}). {title}, version {version}. {where}.{known}"
        item = {
            "id": ref, "type": "software" if run else "dataset", "title": title, "version": version,
            "author": [{"literal": entry.member}], "publisher": f"genokit workspace {self.name}",
            "issued": {"date-parts": [[int(part) for part in entry.time[:10].split("-")]]},
            "note": f"sha256 {entry['manifest']}",
        }  # fmt: skip
        return json.dumps(item, indent=1, ensure_ascii=False)


def _shared(entries: Sequence[LogEntry]) -> dict[str, LogEntry]:
    """The entries of shared runs by id, newest first; of two with one id, the first written holds."""
    return {one["run"]: one for one in reversed(entries) if one.kind == "shared"}
