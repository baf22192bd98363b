"""A submission to a challenge, and the quota and the deadline that it must keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genokit.batch import Job
from genokit.display import Html, card
from genokit.errors import InvalidRequest
from genokit.workspaces.challenge import Challenge, found, last_day, utc
from genokit.workspaces.log import LogEntry


@dataclass(frozen=True)
class Submission:
    """A submission to a challenge, as of when it was looked up.

    Attributes
    ----------
    id, challenge, member : str
        Its id, the name of its challenge and who submitted it.
    entry, result : LogEntry
        The log's entries of the submission and of its evaluation; ``result`` is None until it is evaluated.
    job : Job, optional
        The job that evaluates it, where you have started it.
    """

    id: str
    challenge: str
    member: str
    entry: LogEntry
    result: LogEntry | None
    job: Job | None
    look: Callable[[], Submission]

    @property
    def state(self) -> str:
        """SUBMITTED, or as evaluated: SUCCEEDED, FAILED or REFUSED."""
        return str(self.result["state"]) if self.result else "SUBMITTED"

    @property
    def score(self) -> float | None:
        """The public score; None before the evaluation or without one."""
        return self.result["score"][0] if self.result else None

    def wait(self) -> Submission:
        """Wait for the job and return the submission as it is then. Raises JobFailed if the job failed."""
        if self.job is not None:
            self.job.wait().raise_for_status()
        return self.look()

    def __repr__(self) -> str:
        return f"<Submission {self.id} of {self.member} to {self.challenge}: {self.state}>"

    def _repr_html_(self) -> Html:
        result = self.result
        rows: dict[str, object] = {
            "Challenge": self.challenge,
            "Member": self.member,
            "Submitted": utc(self.entry.time),
        }
        if result:
            score, low, high = result["score"]
            rows |= {"Reason": result["reason"]} if result["reason"] else {}
            rows |= {
                "Score": score if low is None else f"{score} (95 % interval {low} to {high})",
                "Wall time": f"at most {result['seconds']} s",
                "Outputs held": ", ".join(result["outputs"]) or "none",
            }
        image, code = self.entry["image"], self.entry["code"]
        rows |= {"Command": " ".join(self.entry["command"])}
        rows |= {"Image": image} if image else {"Code": f"sha256 {code[:16]}"}
        return card(f"Submission {self.id}", rows, status=self.state)


def sent(entries: Sequence[LogEntry]) -> dict[str, LogEntry]:
    """The entries of submissions by id; of two with one id, the first holds."""
    return {one["submission"]: one for one in reversed(entries) if one.kind == "submitted"}


def results(entries: Sequence[LogEntry]) -> dict[str, LogEntry]:
    """The first evaluation of each submission."""
    return {one["submission"]: one for one in reversed(entries) if one.kind == "evaluated"}


def within_quota(entries: Sequence[LogEntry], new: LogEntry) -> None:
    """Raise InvalidRequest if a member submits too late or too often, by its own clock."""
    known = found(entries)[new["challenge"]]
    if known.deadline and new.time >= known.deadline:
        raise InvalidRequest(f"The challenge '{known.name}' ended on {utc(known.deadline)}.")
    since = last_day(new.time)
    mine = [
        one
        for one in sent(entries).values()
        if (one.member, one["challenge"]) == (new.member, known.name) and one.time > since
    ]
    _refuse_more(known, new.member, len(mine))


def in_time(submission: str, entries: Sequence[LogEntry], new: LogEntry) -> None:
    """Raise InvalidRequest if a submission is evaluated too often, or came too late, by the custodian's clock.

    A member's own clock may be wrong. A submission is not older than what the custodian wrote before it.
    """
    every, done = sent(entries), results(entries)
    one = every[submission]
    known, since = found(entries).get(one["challenge"]), last_day(new.time)
    if known is None:
        raise InvalidRequest(f"The submission '{submission}' is to a challenge that there is not.")
    if submission in done:
        raise InvalidRequest(f"The submission '{submission}' has been evaluated.")
    before = max((entry.time for entry in entries[: entries.index(one)] if entry.member == known.member), default="")
    if known.deadline and max(one.time, before) >= known.deadline:
        raise InvalidRequest(f"The submission '{submission}' came after the deadline, {utc(known.deadline)}.")
    mine = [
        result for number, result in done.items()
        if (every[number].member, every[number]["challenge"]) == (one.member, known.name) and result.time > since
    ]  # fmt: skip
    _refuse_more(known, one.member, len(mine))


def _refuse_more(known: Challenge, member: str, number: int) -> None:
    if number >= known.quota_per_day:
        raise InvalidRequest(
            f"'{member}' has made {number} submissions to '{known.name}' within 24 hours, and the quota is "
            f"{known.quota_per_day}. Submit again later; Workspace.rehearse has no quota."
        )
