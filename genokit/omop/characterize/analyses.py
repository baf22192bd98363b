"""Achilles' analyses that the kit makes, as analyses.csv lists them: numbers, names, strata."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genokit.errors import NotFound


@dataclass(frozen=True)
class Analysis:
    """One of Achilles' analyses.

    An analysis adds up over the strata after the first ``adds_up_after``, if each person or record is in one row only;
    None if it does not, because a person with one concept or month may have others.
    """

    analysis_id: int
    scan: str
    name: str
    strata: tuple[str, ...]
    is_distribution: bool
    adds_up_after: int | None


@cache
def analyses() -> dict[int, Analysis]:
    """All analyses by their number.

    >>> analyses()[404].name, analyses()[404].strata[:2]
    ('condition occurrence: persons by year, gender and decile of age', ('condition_concept_id', 'year'))
    """
    with Path(__file__).with_name("analyses.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            Analysis(
                int(row["analysis_id"]), row["scan"], row["name"], tuple(row["strata"].split()),
                row["distribution"] == "yes", int(row["adds_up_after"]) if row["adds_up_after"] else None,
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
    return {one.analysis_id: one for one in rows}


def find(analysis_id: int) -> Analysis:
    """One analysis by its number. Raises NotFound."""
    if analysis_id not in analyses():
        raise NotFound(f"There is no analysis {analysis_id} here. Characterization.analyses() lists them.")
    return analyses()[analysis_id]
