"""Workspace: the place that a consortium shares, in a folder or on S3."""

from __future__ import annotations

from genokit.display import Html, card, table
from genokit.storage import is_s3
from genokit.workspaces.releases import Releases


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
