"""The members of a workspace, and the log in which everything that they do is an entry."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import pandas as pd

from genokit import backends
from genokit.backends import Clients
from genokit.config import Settings
from genokit.errors import AccessDenied, ConfigError, InvalidParameters, InvalidRequest
from genokit.frames import Frame
from genokit.storage import absolute
from genokit.workspaces import access
from genokit.workspaces.audit import Audit
from genokit.workspaces.kinds import CUSTODIAN, TYPES, problem
from genokit.workspaces.log import LogEntry, WorkspaceLog, now

Check = Callable[[Sequence[LogEntry], LogEntry], None]


class Members:
    """A workspace's log and its members; the base of ``Workspace``, whose parameters it has."""

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        member: str | None = None,
        *,
        settings: Settings | None = None,
        clients: Clients | None = None,
    ) -> None:
        self._address, self._member, self._settings, self._clients = address, member, settings, clients

    @classmethod
    def create(
        cls,
        address: str | os.PathLike[str] | None = None,
        member: str | None = None,
        *,
        name: str | None = None,
        settings: Settings | None = None,
        clients: Clients | None = None,
    ) -> Self:
        """Create a workspace; the one who creates it is its first custodian.

        Parameters
        ----------
        address, member, settings, clients
            As for ``Workspace``.
        name : str, optional
            The workspace's name: lower-case letters, digits and ``. _ -``. Default: the last part of the address.

        Raises
        ------
        InvalidRequest
            There is a workspace at this address.
        InvalidParameters
            The name is not possible.
        """
        made = cls(address, member, settings=settings, clients=clients)
        fields = {"name": name or made.address.rstrip("/").rpartition("/")[2].lower()}
        valid, words = TYPES["name"]
        if not valid(fields["name"]):
            raise InvalidParameters(f"'{fields['name']}' cannot be a workspace's name, which has {words}. Pass name=.")
        if not made._log.begin(made.member, "created", fields):
            raise InvalidRequest(f"There is a workspace at '{made.address}' already. Open it with Workspace(address).")
        return made

    # --- what it stands on

    @cached_property
    def clients(self) -> Clients:
        """The clients of the account that the workspace is in."""
        return self._clients or backends.clients(self._settings)

    @cached_property
    def address(self) -> str:
        """The folder's absolute path, or the address on S3. Raises ConfigError if none is given or set."""
        address = self._address or self.clients.settings.workspace
        if address is None:
            raise ConfigError(
                'No workspace is chosen. Name its folder or s3:// address: Workspace(address), workspace = "..." in '
                "genokit.toml, or GENOKIT_WORKSPACE."
            )
        return absolute(address).rstrip("/")

    @cached_property
    def member(self) -> str:
        """Who you are in this workspace. Raises InvalidParameters if the name is not possible."""
        name = self._member or self.clients.settings.member or self.clients.caller.lower()
        valid, words = TYPES["member"]
        if not valid(name):
            raise InvalidParameters(f"'{name}' is not {words}. Pass member=, or set member in genokit.toml.")
        return name

    @property
    def name(self) -> str:
        """The workspace's name."""
        return str(self.entries("created")[0]["name"])

    @cached_property
    def _log(self) -> WorkspaceLog:
        return WorkspaceLog(self.address, self.clients)

    def entries(self, kind: str | None = None) -> list[LogEntry]:
        """The entries of the log that have effect, in their order.

        Parameters
        ----------
        kind : str, optional
            Only entries of this kind, such as "granted".

        Raises
        ------
        NotFound
            There is no workspace at the address.
        LogDamaged
            An entry was changed, removed, inserted or reordered; the message says which.
        """
        return [one for one, refused in access.judged(self._log.read()) if not refused and kind in (None, one.kind)]

    def audit(self) -> Audit:
        """Verify the whole log anew, and show who did what when.

        A changed, removed, inserted or reordered entry is found by number, and so is an entry that its member did not
        sign. Entries missing at the log's end, and a second log with other entries, are found by comparison with the
        last entry that you have seen on this machine; the first look at a workspace cannot find them.

        Raises
        ------
        AccessDenied, ConfigError, ServiceError
            The log cannot be read.
        """
        return Audit(self.address, *self._log.verify())

    def _append(self, kind: str, check: Check | None = None, /, **fields: Any) -> LogEntry:
        """Append an entry, if its fields are right and the member may.

        Parameters
        ----------
        kind : str
            A key of ``kinds.KINDS``.
        check : callable, optional
            Called with the entries that have effect and the new entry, before each attempt to write it; raises to
            refuse it. What it has checked holds when the entry is written.
        **fields
            The fields of the kind.

        Raises
        ------
        AccessDenied
            The member's role does not allow it.
        InvalidParameters
            A field is missing or wrong.
        """
        return self._log.append(self.member, kind, fields, self._checks(kind, check, fields))

    def _may(self, kind: str, check: Check | None, fields: Mapping[str, Any]) -> None:
        """Raise what ``_append`` would raise now; nothing is written. For use before a long upload."""
        self._checks(kind, check, fields)(*self._log.draft(self.member, kind, fields))

    def _checks(self, kind: str, check: Check | None, fields: Mapping[str, Any]) -> Check:
        if wrong := problem(kind, fields):
            raise InvalidParameters(f"The workspace '{self.address}' does not take this: {wrong}.")

        def checked(before: Sequence[LogEntry], entry: LogEntry) -> None:
            *judged, (_, reason) = access.judged([*before, entry])
            effective = [one for one, refused in judged if not refused]
            if reason:
                members = access.members(effective).items()
                custodians = ", ".join(name for name, one in members if one.role == CUSTODIAN)
                hint = f" A custodian ({custodians}) can grant it." if reason.startswith(f"'{kind}' needs") else ""
                raise AccessDenied(f"{reason}.{hint}", action=kind, resource=self.address)
            if check:
                check(effective, entry)

        return checked

    def _reads(self, author: str | None, roles: Sequence[str], what: str, action: str, resource: str) -> None:
        """Raise AccessDenied unless you have one of the roles now, or are a member and the author."""
        me = access.members(self.entries()).get(self.member)
        if me is None or not me.holds(now()) or (me.role not in roles and author != self.member):
            message = f"'{self.member}' may not read {what}: it needs the role {' or '.join(roles)}."
            raise AccessDenied(message, action=action, resource=resource)

    # --- members

    def members(self) -> pd.DataFrame:
        """The members.

        Returns
        -------
        pandas.DataFrame
            A row for each: ``member``, ``role``, ``since`` and ``expires`` (UTC; NaT for never), ``granted_by``, and
            ``principal``, the ARN of who may act as the member on AWS.
        """
        columns = ["member", "role", "since", "expires", "granted_by", "principal"]
        found = access.members(self.entries()).values()
        frame = Frame([[getattr(one, name) for name in columns] for one in found], columns=columns)
        times = {name: pd.to_datetime(frame[name], utc=True) for name in ("since", "expires")}
        return frame.assign(**times)

    def grant(
        self,
        member: str,
        role: str,
        *,
        expires: datetime.datetime | datetime.date | None = None,
        principal: str | None = None,
    ) -> Self:
        """Make someone a member, or change a member's role.

        Parameters
        ----------
        member : str
            The member's name: lower-case letters, digits and ``. _ @ -``.
        role : {"custodian", "analyst", "modeller", "viewer"}
            The role, which replaces an earlier one.
        expires : datetime or date, optional
            When the membership ends; a date ends as it begins, in UTC. Default: never.
        principal : str, optional
            The ARN of the AWS user or role that may act as this member. Default: a user of the workspace's own
            account with the member's name.

        Returns
        -------
        Workspace
            This workspace.

        Raises
        ------
        AccessDenied
            You are not a custodian.
        InvalidParameters
            The name or the role is not possible.
        """
        self._append("granted", who=member, role=role, expires=expiry(expires), principal=principal)
        return self

    def revoke(self, member: str) -> Self:
        """End someone's membership.

        Parameters
        ----------
        member : str
            The member's name.

        Returns
        -------
        Workspace
            This workspace.

        Raises
        ------
        AccessDenied
            You are not a custodian, there is no such member, or it is the last custodian.
        """
        self._append("revoked", who=member)
        return self


def expiry(at: datetime.datetime | datetime.date | None) -> str | None:
    """The time at which something ends, as an entry holds it. Raises InvalidParameters.

    >>> expiry(datetime.date(2027, 1, 1)), expiry(None)
    ('2027-01-01T00:00:00.000000Z', None)
    """
    if at is None:
        return None
    if not isinstance(at, datetime.date):
        raise InvalidParameters(f"An end needs a date or a datetime, such as datetime.date(2027, 1, 31); got {at!r}.")
    if not isinstance(at, datetime.datetime):
        at = datetime.datetime(at.year, at.month, at.day, tzinfo=datetime.UTC)
    return now(at)
