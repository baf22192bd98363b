"""What was looked at, what it means, and what to do: the one value that preflights and explanations are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genokit.batch.resources import one_line
from genokit.display import Html, card, plain, stack, table

SURENESS = ("certain", "likely", "possible", "unknown", "ok")
LEVELS = {"certain": "problem", "likely": "warning", "possible": "warning"}
Sure = Literal["certain", "likely", "possible", "unknown", "ok"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``what`` is so, the ``evidence`` that was read, what to ``do``.

    ``sure`` says how sure it is that this keeps the job from running: certain, likely, possible; ok where it does not,
    unknown where it could not be looked up. ``about`` names the thing.
    """

    what: str
    evidence: str = ""
    do: str = ""
    sure: Sure = "certain"
    about: str = ""

    @property
    def level(self) -> str:
        """For a job that is not submitted yet: problem, warning, unknown or ok."""
        return LEVELS.get(self.sure, self.sure)

    @property
    def message(self) -> str:
        """All that there is to say."""
        seen = f"Seen: {self.evidence}." if self.evidence else ""
        return " ".join(part for part in (self.what, seen, self.do) if part)

    def __str__(self) -> str:
        return plain(f"{self.about}: {self.message}" if self.about else self.message)

    def __repr__(self) -> str:
        return one_line(f"<Finding {self.level} {self}>")

    def _repr_html_(self) -> Html:
        return card(self.about, {"Finding": self.message}, status=self.level)


class Findings(list[Finding]):
    """All that was looked at, as a list that shows itself."""

    @property
    def problems(self) -> list[Finding]:
        """What keeps the job from running."""
        return [one for one in self if one.level == "problem"]

    @property
    def level(self) -> str:
        """The worst level of all: problem, warning, unknown, ok."""
        worst = min((one.sure for one in self), key=SURENESS.index, default="ok")
        return LEVELS.get(worst, worst)

    def __str__(self) -> str:
        return "\n".join(f"{one.level:8} {one}" for one in self)

    def __repr__(self) -> str:
        return f"<Findings {len(self)}, {len(self.problems)} of them problems>"

    def _repr_html_(self) -> Html:
        rows = [(one.level, one.about, one.message) for one in self]
        head = card("Preflight", {"Found": f"{len(self.problems)} problems"}, status=self.level)
        return stack(head, table(rows, columns=["status", "thing", "finding"]))
