"""Who may do what: pure functions of the log.

A member has one role at a time. Entries by somebody who had no right to write them stay in the log, and have no
effect: every reader leaves them out, and an audit shows them with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from genokit.workspaces.kinds import ANALYST, CUSTODIAN, KINDS, READERS, problem
from genokit.workspaces.log import LogEntry


@dataclass(frozen=True)
class Membership:
    """A member's role, who granted it and when, when it expires, and the AWS principal that may act as the member.

    Times are texts as in entries; ``expires`` and ``principal`` are None if there is none.
    """

    member: str
    role: str
    since: str
    granted_by: str
    expires: str | None = None
    principal: str | None = None

    def holds(self, time: str) -> bool:
        """Whether the membership is valid at the given time."""
        return self.expires is None or time < self.expires


def judged(entries: Iterable[LogEntry]) -> Iterator[tuple[LogEntry, str]]:
    """Each entry, and why it has no effect; "" if it has.

    A member's own clock may be wrong. An entry is not older than what custodians wrote before it.
    """
    members: dict[str, Membership] = {}
    before = ""
    for entry in entries:
        reason = problem(entry.kind, entry.fields) or refusal(members, entry, max(before, entry.time))
        if not reason:
            _apply(members, entry)
            if (me := members.get(entry.member)) and me.role == CUSTODIAN:
                before = max(before, entry.time)
        yield entry, reason


def members(entries: Iterable[LogEntry]) -> dict[str, Membership]:
    """The members by name, from entries that have effect; the expired ones too."""
    found: dict[str, Membership] = {}
    for entry in entries:
        _apply(found, entry)
    return found


def refusal(members: Mapping[str, Membership], entry: LogEntry, time: str) -> str:
    """Why a member may not write this entry at a time; "" if it may.

    The one rule beyond the table of rights: a workspace always has a custodian whose membership does not expire.
    """
    if entry.kind == "created":
        return "" if entry.number == 1 else "a workspace is created once, by its first entry"
    me, roles = members.get(entry.member), KINDS[entry.kind].roles
    needed = f"'{entry.kind}' needs the role {' or '.join(roles)}"
    if me is None:
        return f"{needed}; '{entry.member}' is not a member"
    if not me.holds(time):
        return f"{needed}; the membership of '{entry.member}' expired on {str(me.expires)[:10]}"
    if me.role not in roles:
        return f"{needed}; '{entry.member}' is {me.role}"
    if entry.kind in ("granted", "revoked"):
        after = dict(members)
        _apply(after, entry)
        if not any(one.role == CUSTODIAN and one.expires is None for one in after.values()):
            return "a workspace needs a custodian whose membership does not expire"
        if entry.kind == "revoked" and entry["who"] not in members:
            return f"'{entry['who']}' is not a member"
    return ""


def reading(entries: Sequence[LogEntry], member: str, ref: str, time: str) -> tuple[bool, str]:
    """Whether a member may read a data set at a time, and why: custodians may, analysts who have accepted its terms."""
    me = members(entries).get(member)
    if me is None or not me.holds(time):
        return False, f"'{member}' is not a member" if me is None else f"membership expired on {str(me.expires)[:10]}"
    if me.role != ANALYST:
        return me.role in READERS, f"{me.role}"
    until = accepted_until(entries, member, ref)
    if until is None:
        return False, "analyst, terms not accepted"
    return time < until, f"analyst, terms accepted until {until[:10]}"


def accepted_until(entries: Iterable[LogEntry], member: str, ref: str) -> str | None:
    """Until when a member's last acceptance of a data set's terms holds; None without one."""
    until = [one["expires"] for one in entries if (one.kind, one.member, one["dataset"]) == ("accepted", member, ref)]
    return str(until[-1]) if until else None


def published(entries: Iterable[LogEntry]) -> dict[str, LogEntry]:
    """The entries of data sets by their reference; of two for one version, the first holds."""
    found: dict[str, LogEntry] = {}
    for one in entries:
        if one.kind == "published":
            found.setdefault(f"{one['name']}@{one['version']}", one)
    return found


def report(entries: Sequence[LogEntry], time: str) -> dict[tuple[str, str, str], tuple[bool, str]]:
    """Whether each member may do each thing at a time, and why, by member, data set ("" for none) and action."""
    found = {}
    for name, one in members(entries).items():
        until = f" until {one.expires[:10]}" if one.expires else ""
        for kind, (_, roles) in KINDS.items():
            if kind not in ("created", "fetched"):
                found[name, "", kind] = (one.role in roles and one.holds(time), f"{one.role}{until}")
        for ref in published(entries):
            found[name, ref, "read"] = reading(entries, name, ref, time)
    return found


def _apply(members: dict[str, Membership], entry: LogEntry) -> None:
    by = entry.member
    if entry.kind == "created":
        members[by] = Membership(by, CUSTODIAN, entry.time, by)
    elif entry.kind == "granted":
        who = entry["who"]
        members[who] = Membership(who, entry["role"], entry.time, by, entry["expires"], entry["principal"])
    elif entry.kind == "revoked":
        members.pop(entry["who"], None)
