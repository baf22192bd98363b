"""What was looked at, what it means, and what to do: the values that preflight and explanations are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genokit.batch.resources import one_line
from genokit.display import Html, card, plain, stack, table

LEVELS = ("problem", "warning", "unknown", "ok")
SURENESS = ("certain", "likely", "possible")
Level = Literal["problem", "warning", "unknown", "ok"]
Sure = Literal["certain", "likely", "possible"]


@dataclass(frozen=True)
class Cause:
    """Why a job stands as it does: ``what`` is so, the ``evidence`` that was read, what to ``do``, how ``sure``."""

    what: str
    evidence: str
    do: str
    sure: Sure = "certain"

    def __str__(self) -> str:
        return plain(
            f"{self.what}\n   Seen ({self.sure}): {self.evidence}" + (f"\n   Do: {self.do}" if self.do else "")
        )


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``level`` is ok, warning, unknown or problem, ``about`` names the thing.

    ``cause`` is why a job that was submitted would wait for it.
    """

    level: Level
    about: str
    message: str
    cause: Cause | None = None

    def __repr__(self) -> str:
        return one_line(f"<Finding {self.level} {self.about}: {self.message}>")

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
        return min((one.level for one in self), key=LEVELS.index, default="ok")

    def __str__(self) -> str:
        return plain("\n".join(f"{one.level:8} {one.about}: {one.message}" for one in self))

    def __repr__(self) -> str:
        return f"<Findings {self._counted()}>"

    def _repr_html_(self) -> Html:
        rows = [(one.level, one.about, one.message) for one in self]
        head = card("Preflight", {"Found": self._counted()}, status=self.level)
        return stack(head, table(rows, columns=["status", "thing", "finding"]))

    def _counted(self) -> str:
        counts = {level: sum(one.level == level for one in self) for level in LEVELS}
        return ", ".join(f"{count} {level}" for level, count in counts.items() if count) or "nothing"
