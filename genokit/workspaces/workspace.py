"""Workspace: the place that a consortium shares, in a folder or on S3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from genokit.display import Html, card, table
from genokit.files import write_atomic
from genokit.frames import Frame
from genokit.stacks import templates
from genokit.storage import is_s3
from genokit.workspaces import access
from genokit.workspaces.log import now
from genokit.workspaces.releases import Releases
from genokit.workspaces.template import filled


class Workspace(Releases):
    """A consortium's workspace: members, terms, data sets, runs and algorithms, in plain files that they share.

    The workspace is a folder or a prefix on S3, without a server. Its state is computed from its log, to which members
    append; see ``audit``. What a member may do follows from the role: a *custodian* grants roles, publishes data and
    releases results, an *analyst* reads data whose terms it has accepted, a *modeller* sends algorithms to the data and
    never reads them, a *viewer* reads the log.

    On AWS the generated roles enforce this; see ``template``. On a shared folder the library refuses what the role does
    not allow, but that is advice to those who can open the files themselves.

    Parameters
    ----------
    address : str or path, optional
        A folder, or ``s3://bucket/prefix``. Default: the setting ``workspace``.
    member : str, optional
        Who you are. Default: the setting ``member``; else the login name, on AWS the session name of the role.
    settings : Settings, optional
        Default: ``Settings.load()``.
    clients : Clients, optional
        Whose S3. Default: those of the settings.

    Examples
    --------
    >>> import tempfile
    >>> ws = Workspace.create(f"{tempfile.mkdtemp()}/variants", member="anna")
    >>> ws.grant("ben", "modeller").members()[["member", "role"]].values.tolist()
    [['anna', 'custodian'], ['ben', 'modeller']]
    >>> Workspace(ws.address, member="ben").grant("carl", "viewer")
    Traceback (most recent call last):
    genokit.errors.AccessDenied: 'granted' needs the role custodian; 'ben' is modeller. A custodian (anna) can grant it.
    >>> ws.audit().intact
    True
    """

    # --- who may do what

    def access_report(self) -> pd.DataFrame:
        """Who may do what now, and why.

        Returns
        -------
        pandas.DataFrame
            A row for each member and action: ``member``, ``dataset`` (empty for actions on the workspace), ``action``
            (a kind of entry, or "read" for a data set), ``allowed`` and ``why`` (role, terms and expiry).
        """
        rows = [(*key, *answer) for key, answer in access.report(self.entries(), now()).items()]
        return Frame(rows, columns=["member", "dataset", "action", "allowed", "why"])

    def diff(self, kind: str, **fields: Any) -> pd.DataFrame:
        """What an entry would change in the access report. Nothing is written.

        Parameters
        ----------
        kind : str
            The kind of entry, such as "granted" or "revoked".
        **fields
            Its fields, such as ``who="ben", role="analyst"``.

        Returns
        -------
        pandas.DataFrame
            A row for each change: ``member``, ``dataset``, ``action``, ``before``, ``after`` and ``why`` (after it).

        Raises
        ------
        AccessDenied, InvalidParameters
            As if the entry were written.

        Examples
        --------
        >>> import tempfile
        >>> ws = Workspace.create(f"{tempfile.mkdtemp()}/lab", member="anna")
        >>> ws.diff("granted", who="ben", role="modeller").query("after")["action"].tolist()[:2]
        ['shared', 'reproduced']
        """
        self._may(kind, None, fields)
        entries, time = self.entries(), now()
        new = self._log.draft(self.member, kind, fields)[1]
        before, after = (access.report(some, time) for some in (entries, [*entries, new]))
        rows = [
            (*key, before.get(key, (False, ""))[0], *after.get(key, (False, "not a member")))
            for key in {**before, **after}
        ]
        changed = [row for row in rows if row[3] != row[4]]
        return Frame(changed, columns=["member", "dataset", "action", "before", "after", "why"])

    def template(self, path: str | os.PathLike[str] = "workspace.yaml") -> Path:
        """Write the CloudFormation template of this workspace: the kit's, with a role for each member.

        ``Stack(path).deploy()`` makes AWS enforce the rules, so deploy it after each change of members or terms. Each
        member acts in its own role, under its name alone. An analyst's role reads the data sets whose terms it has
        accepted until they expire; a modeller's and a viewer's reads no data.

        Parameters
        ----------
        path : path, default "workspace.yaml"
            The file to write.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InvalidRequest
            There are more members than CloudFormation takes in one template: 40 to 60.
        """
        return write_atomic(path, filled(templates.text("workspace"), self.entries(), now()))

    # --- display

    def __repr__(self) -> str:
        return f"<Workspace {self.address} as {self.member}>"

    def _repr_html_(self) -> Html:
        members = self.members()
        mine = members[members["member"] == self.member]["role"].tolist()
        rows: dict[str, object] = {
            "Address": self.address,
            "You": f"{self.member}, {mine[0] if mine else 'not a member'}",
            "Entries": len(self.entries()),
            "Rules": "enforced by the roles on AWS" if is_s3(self.address) and self.clients.backend.billed
            else "enforced by this library alone: the folder's own permissions decide who can open files",
        }  # fmt: skip
        return card(f"Workspace {self.name}", rows, fold={f"{len(members)} members": table(members)})
