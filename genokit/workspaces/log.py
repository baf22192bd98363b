"""The log of a workspace: numbered entries that only grow, each with the SHA-256 of the one before.

``log/00000001.json`` is the first entry. A new entry is written if its number is free, so of several writers at the
same time exactly one gets a number; the others read its entry and take the next. A writer that is killed leaves a
whole entry or none.

Before it writes an entry, a member puts an empty file with the entry's hash as name into its own folder,
``signed/<member>/``. On AWS only this member's role may write there, so that nobody can write an entry in another
member's name. On a shared folder this holds as far as the folder's permissions do.

Anyone who can rewrite every file can make a new chain, and a log whose last entries are removed is still a chain. Both
are found by comparing it with the last entry that this user has seen, which is kept in ``settings.home``.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genokit import storage
from genokit.backends import Clients
from genokit.errors import AccessDenied, InvalidParameters, LogDamaged, NotFound, ServiceError
from genokit.files import write_atomic

START = "0" * 64  # the hash before the first entry
ENVELOPE = {"number": int, "previous": str, "time": str, "member": str, "kind": str, "id": str}
MOST_BYTES = 1 << 20  # of an entry: large things are files beside the log
ATTEMPTS = 1000
AT_ONCE = 16
NAME = re.compile(r"(?!0{8})[0-9]{8}\.json")
MEMBER = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class LogEntry:
    """An entry of the log: its number, the previous entry's hash, the time by the writer's clock, its author, its kind.

    ``entry["field"]`` is a field of its kind, None if it has none of this name; ``sha256`` is the entry's own hash.
    """

    number: int
    previous: str
    time: str
    member: str
    kind: str
    id: str
    fields: Mapping[str, Any]
    sha256: str

    def __getitem__(self, field: str) -> Any:
        return self.fields.get(field)


@dataclass(frozen=True)
class Damage:
    """What is wrong with the log, and at which entry."""

    number: int
    problem: str


def now(at: datetime | None = None) -> str:
    """A time in UTC as entries hold it, by default the present. Such texts compare as the times do.

    >>> now(datetime(2026, 11, 30, 8, tzinfo=UTC))
    '2026-11-30T08:00:00.000000Z'
    """
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def encoded(number: int, previous: str, member: str, kind: str, fields: Mapping[str, Any]) -> bytes:
    """The bytes of a new entry."""
    envelope = {"number": number, "previous": previous, "time": now(), "member": member, "kind": kind}
    content = {**envelope, "id": secrets.token_hex(8), **fields}
    return (json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()


def parsed(data: bytes, number: int) -> LogEntry | str:
    """The entry in these bytes, which should have this number; or what is wrong with them.

    >>> parsed(encoded(1, START, "anna", "created", {"name": "lab"}), 2)
    'says that it is entry 1: entries were reordered'
    """
    try:
        content = json.loads(data) if len(data) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or any(type(content.get(key)) is not kind for key, kind in ENVELOPE.items()):
        return "is not an entry of a log"
    if content["number"] != number:
        return f"says that it is entry {content['number']}: entries were reordered"
    if not MEMBER.fullmatch(content["member"]):
        return "has a member with an impossible name"
    envelope = {key: content.pop(key) for key in ENVELOPE}
    return LogEntry(**envelope, fields=content, sha256=hashlib.sha256(data).hexdigest())


def chained(
    files: Mapping[int, tuple[bytes, bool]], number: int = 0, previous: str = START
) -> Iterator[LogEntry | Damage]:
    """The entries of a log in their order, and each damage where it is.

    Parameters
    ----------
    files : mapping of int to tuple of bytes and bool
        The bytes of each entry after ``number``, and whether their member has signed them.
    number, previous : int and str
        The last entry before, and its hash.
    """
    for one in sorted(files):
        if one != number + 1:
            missing = f"entry {number + 1} is" if one == number + 2 else f"entries {number + 1} to {one - 1} are"
            yield Damage(number + 1, f"{missing} missing")
        data, signed = files[one]
        entry = parsed(data, one)
        if isinstance(entry, str):
            yield Damage(one, entry)
        elif not signed:
            yield Damage(one, f"was changed, or not written by '{entry.member}': '{entry.member}' did not sign it")
        elif one == number + 1 and entry.previous != previous:
            yield Damage(one, f"does not follow entry {number}: one of the two was changed, inserted or removed")
        else:
            yield entry
        number, previous = one, hashlib.sha256(data).hexdigest()


class WorkspaceLog:
    """The log of the workspace at an address. Entries that were read are kept, because they never change.

    Parameters
    ----------
    address : str
        The workspace's folder, or its ``s3://bucket/prefix``.
    clients : Clients
        Whose S3, and whose home keeps the last entry that was seen.
    """

    def __init__(self, address: str, clients: Clients) -> None:
        self.address, self.clients = address, clients
        self._entries: list[LogEntry] = []
        self._reading = threading.Lock()  # a view may look from a thread of its own

    def read(self) -> list[LogEntry]:
        """All entries. Raises LogDamaged with the number of the first that is wrong, and NotFound without a log."""
        with self._reading:
            known, seen = self._entries, self._seen()  # before the files: another process may see more meanwhile
            for one in chained(self._files(len(known)), len(known), known[-1].sha256 if known else START):
                if isinstance(one, Damage):
                    raise self._damaged(one)
                known.append(one)
            if lost := _lost(known, seen):
                raise self._damaged(lost)
            if not known:
                raise self._absent()
            self._remember(known[-1])
            return list(known)

    def verify(self) -> tuple[list[LogEntry], list[Damage]]:
        """Read the whole log anew: its entries, and all that is wrong with it."""
        seen = self._seen()
        found = list(chained(self._files(0)))
        if not found and not seen[0]:
            raise self._absent()
        entries = [one for one in found if isinstance(one, LogEntry)]
        damage = [one for one in found if isinstance(one, Damage)]
        lost = _lost(entries, seen) if not damage else None
        names = [address.rpartition("/")[2] for address in storage.files(self._folder, clients=self.clients)]
        strange = [Damage(0, f"'{one}' is no entry") for one in names if not NAME.fullmatch(one) and one[0] != "."]
        return entries, [*damage, *([lost] if lost else []), *strange]

    def append(
        self,
        member: str,
        kind: str,
        fields: Mapping[str, Any],
        check: Callable[[Sequence[LogEntry], LogEntry], None] = lambda entries, entry: None,
    ) -> LogEntry:
        """Append an entry and return it; once this returns, the entry is in the log for good.

        Parameters
        ----------
        member, kind, fields
            What the entry says.
        check : callable
            Called with the entries before and the new entry, for each number that is tried; raises to refuse it.

        Raises
        ------
        LogDamaged, NotFound
            As ``read``.
        ServiceError
            Other writers took every number that was tried.
        """
        for _ in range(ATTEMPTS):
            entries = self.read()
            if entry := self._put(_next(entries, member, kind, fields), entries, check):
                return entry
            time.sleep(random.random() / 50)
        raise ServiceError(f"Other members wrote to '{self.address}' {ATTEMPTS:,} times in between. Try again.")

    def draft(self, member: str, kind: str, fields: Mapping[str, Any]) -> tuple[list[LogEntry], LogEntry]:
        """All entries, and the one that would be appended now. Raises as ``read``."""
        entries = self.read()
        return entries, _whole(_next(entries, member, kind, fields), len(entries) + 1)

    def begin(self, member: str, kind: str, fields: Mapping[str, Any]) -> bool:
        """Write the first entry of a new log; False if there is one."""
        return self._put(_next([], member, kind, fields), [], lambda entries, entry: None) is not None

    # --- behind it

    @property
    def _folder(self) -> str:
        return storage.join(self.address, "log")

    def _put(
        self, data: bytes, entries: list[LogEntry], check: Callable[[Sequence[LogEntry], LogEntry], None]
    ) -> LogEntry | None:
        """Write an entry after these; None if another writer was first."""
        number = len(entries) + 1
        entry = _whole(data, number)
        check(entries, entry)
        target = storage.join(self._folder, f"{number:08}.json")
        storage.write(self._signature(entry.member, entry.sha256), b"", clients=self.clients)
        written = storage.write_if_absent(target, data, clients=self.clients)
        # botocore repeats a request whose answer was lost, and the repetition finds our own entry.
        if not written and storage.read(target, at_most=MOST_BYTES + 1, clients=self.clients) != data:
            return None
        self._remember(entry)
        return entry

    def _signature(self, member: str, sha256: str) -> str:
        return storage.join(self.address, "signed", member, sha256)

    def _files(self, after: int) -> dict[int, tuple[bytes, bool]]:
        addresses = storage.files(self._folder, clients=self.clients)
        names = [name for address in addresses if NAME.fullmatch(name := address[len(self._folder) + 1 :])]
        numbers = [number for name in names if (number := int(name[:8])) > after]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(numbers, pool.map(self._file, numbers), strict=True))

    def _file(self, number: int) -> tuple[bytes, bool]:
        """The bytes of an entry, and whether its member has signed them."""
        address = storage.join(self._folder, f"{number:08}.json")
        data = storage.read(address, at_most=MOST_BYTES + 1, clients=self.clients)
        entry = parsed(data, number)
        if isinstance(entry, str):
            return data, False
        try:
            storage.read(self._signature(entry.member, entry.sha256), at_most=0, clients=self.clients)
        except (NotFound, AccessDenied):  # S3's answer for an absent file to those who may not list the folder
            return data, False
        return data, True

    @property
    def _head(self) -> Path:
        name = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        return self.clients.settings.home / "workspaces" / f"{name}.json"

    def _seen(self) -> tuple[int, str]:
        """Number and hash of the last entry that was seen here; 0 if none was."""
        try:
            seen = json.loads(self._head.read_text())
        except FileNotFoundError:
            return 0, START
        return seen["number"], seen["sha256"]

    def _remember(self, entry: LogEntry) -> None:
        if entry.number > self._seen()[0]:
            self.clients.settings.made("home")
            content = {"address": self.address, "number": entry.number, "sha256": entry.sha256}
            write_atomic(self._head, json.dumps(content), private=True)

    def _absent(self) -> NotFound:
        return NotFound(f"There is no workspace at '{self.address}'. Workspace.create(address) makes one.")

    def _damaged(self, damage: Damage) -> LogDamaged:
        return LogDamaged(
            f"The log of the workspace '{self.address}' is damaged: entry {damage.number} {damage.problem}. "
            "Nothing in it is used until a custodian has restored it; Workspace.audit() shows all of the damage.",
            number=damage.number,
        )


def _next(entries: Sequence[LogEntry], member: str, kind: str, fields: Mapping[str, Any]) -> bytes:
    return encoded(len(entries) + 1, entries[-1].sha256 if entries else START, member, kind, fields)


def _whole(data: bytes, number: int) -> LogEntry:
    entry = parsed(data, number)
    if isinstance(entry, str):
        raise InvalidParameters(f"This cannot be an entry of the log: it {entry}. An entry has at most 1 MiB.")
    return entry


def _lost(entries: Sequence[LogEntry], seen: tuple[int, str]) -> Damage | None:
    """What is missing of the last entry that was seen here before."""
    number, sha256 = seen
    if number > len(entries):
        return Damage(len(entries) + 1, f"is missing: entry {number} has been seen here before")
    if number and entries[number - 1].sha256 != sha256:
        return Damage(number, "is not the one that has been seen here before: the log has two forks")
    return None
