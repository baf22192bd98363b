"""How a job ended, and what that means."""

from __future__ import annotations

from dataclasses import dataclass

from genokit.display import Html, card, seconds


@dataclass(frozen=True)
class Result:
    """How the job ``name`` ended. ``meaning`` and ``advice`` are empty where there is nothing to say.

    ``attempts`` is their number; ``duration_s`` is None where the job never started.
    """

    name: str
    status: str
    exit_code: int | None
    reason: str
    meaning: str
    advice: str
    attempts: int
    duration_s: float | None

    def _repr_html_(self) -> Html:
        rows: dict[str, object] = {
            "Exit code": "none" if self.exit_code is None else self.exit_code,
            "Reason": self.reason or "none",
            "Meaning": self.meaning or "none known",
            "What to do": self.advice or "nothing",
            "Attempts": self.attempts,
            "Duration": seconds(self.duration_s) if self.duration_s is not None else "never started",
        }
        return card(f"Result of {self.name}", rows, status=self.status)
