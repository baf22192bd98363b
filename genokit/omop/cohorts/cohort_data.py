"""What a cohort is to the studies of it: its periods, its attrition, and which counts its card shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from genokit import disclosure
from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort_periods import SUBJECT
from genokit.omop.connection import CdmConnection

QUERIES = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class AttritionStep:
    """A criterion, and the true counts of the persons and entries that met it."""

    reason: str
    persons: int
    entries: int
    on_another_card: bool = False  # it is the last step of a cohort that has a card of its own
    shown_elsewhere: tuple[int, ...] = ()  # counts of persons of other cohorts that contain these, or are part of them

    @classmethod
    def of(cls, reason: str, rows: DataFrame, person: str = SUBJECT) -> AttritionStep:
        """The step that left these rows."""
        return cls(reason, int(rows[person].nunique()), len(rows))


@dataclass(frozen=True, eq=False)
class CohortData:
    """The periods and the attrition of a cohort; ``Cohort`` describes each field, and has the studies."""

    name: str
    spans: DataFrame = field(repr=False)
    steps: tuple[AttritionStep, ...]
    settings: Mapping[str, Any]
    cdm: CdmConnection
    min_cell: int | None = None
    prior_records: DataFrame | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_cell", self.cdm.least(self.min_cell))

    @property
    def persons(self) -> int:
        """The true number of persons, not suppressed: for you only."""
        return int(self.spans[SUBJECT].nunique())

    @property
    def shown_counts(self) -> tuple[int, ...]:
        """Counts on its card and on the cards of cohorts that it is made of: no study may differ from one by few."""
        entries, few = len(self.spans), disclosure.threshold(self.min_cell)
        counts = {self.persons, entries if entries - self.persons >= few else 0}
        for step in self.steps:
            counts |= {*step.shown_elsewhere, *[step.persons, step.entries] * step.on_another_card}
        return tuple(sorted(n for n in counts if n >= few))

    @property
    def hides_persons(self) -> bool:
        """Whether its card hides how many persons it has; then no study may show it, nor parts that add up to it."""
        return not self._persons_text()[0].isdigit()

    def attrition(self) -> DataFrame:
        """A row for each criterion, in order: step, persons, left_out, entries.

        Counts that would reveal fewer than ``min_cell`` persons are <NA>.
        """
        # What the cards of other cohorts show is shown here, too.
        beside = list(accumulate(step.shown_elsewhere for step in self.steps))
        first = [position for position, step in enumerate(self.steps) if step.on_another_card]
        shown: dict[str, list[int | None]] = {}
        for name in ("persons", "entries"):
            counts = [getattr(step, name) for step in self.steps]
            shown[name] = disclosure.suppress_nested(counts, first=first, beside=beside, min_cell=self.min_cell)
            known = [n for n in shown[name] if n is not None]
            beside = [(*others, *known) for others in beside]
        frame = pd.DataFrame({name: pd.array(counts, dtype="Int64") for name, counts in shown.items()})
        frame["entries"] = frame["entries"].mask(frame["persons"].isna())
        frame.insert(0, "step", [step.reason for step in self.steps])
        frame.insert(2, "left_out", frame["persons"].shift() - frame["persons"])
        return frame

    def _persons_text(self) -> str:
        """How many persons it has; hidden if that is few, or differs by few from a cohort that it is made of."""
        alone, shown = disclosure.formatted_count(self.persons, self.min_cell), self.attrition()["persons"]
        return disclosure.HIDDEN if alone[0] != "<" and len(shown) and shown.isna().iloc[-1] else alone


def strictest(*cohorts: CohortData | None) -> int | None:
    """The largest ``min_cell`` of several cohorts, which holds for a study of them."""
    return max((one.min_cell for one in cohorts if one is not None and one.min_cell is not None), default=None)


def check_whole(name: str, number: object, *, at_least: int) -> None:
    """Raise InvalidParameters unless an option is a whole number, and large enough."""
    if isinstance(number, bool) or not isinstance(number, int) or number < at_least:
        raise InvalidParameters(f"'{name}' is {number!r}. Give a whole number, {at_least} or more.")


@cache
def read(name: str) -> str:
    """A query of this room."""
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
