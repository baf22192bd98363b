"""The states of a request to release results: a pure function of the log.

    PENDING -> SUBMITTED -> PARTIALLY_REVIEWED -> REVIEWED -> APPROVED -> RELEASED
    REVIEWED -> REJECTED        SUBMITTED, PARTIALLY_REVIEWED, REVIEWED -> RETURNED -> SUBMITTED
    PENDING, RETURNED -> WITHDRAWN

These are the states of OpenSAFELY's Airlock. The author's turns (PENDING, RETURNED) and the reviewers' never overlap.
Two custodians review, never the author. An entry that breaks a rule has no effect, whoever wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from genokit.workspaces.log import LogEntry
from genokit.workspaces.submission import results, sent

AUTHORS_TURN = ("PENDING", "RETURNED")
REVIEWERS_TURN = ("SUBMITTED", "PARTIALLY_REVIEWED", "REVIEWED")
CLOSED = ("RELEASED", "REJECTED", "WITHDRAWN")
REVIEWERS = 2
Evaluated = Mapping[str, tuple[str, LogEntry]]  # submissions by id: who sent it, and its evaluation
# The states to which an entry may move a request, and from which.
MOVES = {
    "SUBMITTED": AUTHORS_TURN,
    "WITHDRAWN": AUTHORS_TURN,
    "RETURNED": REVIEWERS_TURN,
    "REJECTED": ("REVIEWED",),
    "APPROVED": ("REVIEWED",),
    "RELEASED": ("APPROVED",),
}


@dataclass(frozen=True)
class ReleaseRequest:
    """A request to release outputs of a submission.

    ``votes`` maps each file to its reviewers' votes, ``manifest`` is the hash that fixes the files, ``pinned`` maps the
    approved files to their SHA-256, and ``folder`` is where the released ones are.
    """

    id: str
    author: str
    submission: str
    manifest: str
    context: str
    controls: str
    votes: Mapping[str, Mapping[str, str]]
    state: str = "PENDING"
    pinned: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    comments: Sequence[str] = ()

    @property
    def approved(self) -> bool:
        """Whether two reviewers have approved each file, and none has rejected one."""
        counts = [Counter(of.values()) for of in self.votes.values()]
        return all(of["approve"] >= REVIEWERS and not of["reject"] for of in counts)

    def reviewed(self) -> ReleaseRequest:
        """The request in the state that follows from its votes."""
        everyone = set.intersection(*(set(of) for of in self.votes.values()))
        state = ("SUBMITTED", "PARTIALLY_REVIEWED", "REVIEWED")[min(len(everyone), REVIEWERS)]
        return replace(self, state=state)


def requests(entries: Sequence[LogEntry]) -> dict[str, ReleaseRequest]:
    """The requests by id, from entries that have effect."""
    done = evaluated(entries)
    found: dict[str, ReleaseRequest] = {}
    for one in entries:
        if one.kind in STEPS and not refusal(found, done, one):
            found[one["request"]] = STEPS[one.kind](found.get(one["request"]), done, one)
    return found


def evaluated(entries: Sequence[LogEntry]) -> Evaluated:
    """Who sent each submission that has been evaluated, and its evaluation."""
    authors = sent(entries)
    return {name: (authors[name].member, result) for name, result in results(entries).items() if name in authors}


def refusal(found: Mapping[str, ReleaseRequest], done: Evaluated, entry: LogEntry) -> str:
    """Why an entry about a request is against the rules; "" if it is not."""
    known = found.get(entry["request"])
    if entry.kind == "requested":
        mine = [one.id for one in found.values() if one.author == entry.member and one.state not in CLOSED]
        if known or mine:
            return f"'{entry.member}' has the open request '{mine[0]}'" if mine else "there is a request with this id"
        return _files_refusal(done, entry)
    if known is None:
        return f"there is no request '{entry['request']}'"
    if entry.kind == "changed":
        if entry.member != known.author or known.state not in AUTHORS_TURN:
            return f"only the author changes a request, and not while it is {known.state}"
        return _files_refusal(done, entry)
    if entry.kind in ("decided", "voted") and entry.member == known.author:
        return "nobody reviews a request of their own"
    if entry.kind == "moved" and entry.member != known.author:
        return f"only the author, {known.author}, may do this"
    if entry.kind == "voted":
        return _vote_refusal(known, entry)
    if known.state not in MOVES[entry["to"]]:
        return f"a request that is {known.state} cannot become {entry['to']}"
    if entry["to"] == "APPROVED" and not (known.approved and set(entry["files"] or ()) == set(known.votes)):
        return "not every file has been approved by two reviewers"
    if entry["to"] == "RELEASED" and entry["files"] != known.pinned:
        return "the files are not those that were approved"
    return ""


def _files_refusal(done: Evaluated, entry: LogEntry) -> str:
    author, result = done.get(entry["submission"], ("", None))
    if result is None or not entry["files"] or not {*entry["files"]} <= {*result["outputs"]}:
        return f"the files must be outputs that submission '{entry['submission']}' has left"
    # Else a custodian could have another member ask for the custodian's own outputs, and review them.
    return "" if entry.member == author else f"only {author}, who sent the submission, asks for its outputs"


def _vote_refusal(known: ReleaseRequest, entry: LogEntry) -> str:
    if known.state not in REVIEWERS_TURN:
        return f"a request that is {known.state} is not reviewed"
    if entry["manifest"] != known.manifest:
        return "the files are not those that were reviewed"
    if set(entry["files"]) != set(known.votes) or not set(entry["files"].values()) <= {"approve", "reject"}:
        return f"each of the files needs 'approve' or 'reject': {', '.join(sorted(known.votes))}"
    return ""


# --- what an entry does to a request


def _requested(known: ReleaseRequest | None, done: Evaluated, entry: LogEntry) -> ReleaseRequest:
    submission, kept = entry["submission"], dict[str, Mapping[str, str]]()
    manifest = done[submission][1]["manifest"]
    if known is not None and known.submission == submission:
        kept = dict(known.votes)  # those of files that stay
    state, comments = (known.state, known.comments) if known else ("PENDING", ())
    return ReleaseRequest(
        entry["request"], entry.member, submission, manifest, entry["context"], entry["controls"],
        {name: kept.get(name, {}) for name in entry["files"]}, state, comments=comments,
    )  # fmt: skip


def _voted(known: ReleaseRequest | None, done: Evaluated, entry: LogEntry) -> ReleaseRequest:
    assert known is not None  # or the entry was refused
    votes = {name: {**known.votes[name], entry.member: vote} for name, vote in entry["files"].items()}
    return replace(_commented(known, entry), votes=votes).reviewed()


def _moved(known: ReleaseRequest | None, done: Evaluated, entry: LogEntry) -> ReleaseRequest:
    assert known is not None  # or the entry was refused
    moved = replace(_commented(known, entry), state=entry["to"])
    if entry["to"] == "SUBMITTED":
        return moved.reviewed()
    return replace(moved, pinned=entry["files"] or known.pinned, folder=entry["folder"] or known.folder)


def _commented(known: ReleaseRequest, entry: LogEntry) -> ReleaseRequest:
    said = [f"{entry.member}: {entry['comment']}"] if entry["comment"] else []
    return replace(known, comments=(*known.comments, *said))


STEPS = {"requested": _requested, "changed": _requested, "voted": _voted, "moved": _moved, "decided": _moved}
