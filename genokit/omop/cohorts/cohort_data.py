"""What a study needs of a cohort; ``Cohort`` has it, so that no study has to import the class."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Protocol

from pandas import DataFrame

from genokit.omop.connection import CdmConnection

QUERIES = Path(__file__).parent / "sql"


class CohortData(Protocol):
    """A cohort as studies read it: its periods, and which counts of persons are known from its card."""

    @property
    def name(self) -> str: ...

    @property
    def spans(self) -> DataFrame: ...

    @property
    def prior_records(self) -> DataFrame | None: ...

    @property
    def cdm(self) -> CdmConnection: ...

    @property
    def min_cell(self) -> int | None: ...

    @property
    def shown_counts(self) -> tuple[int, ...]: ...

    @property
    def hides_persons(self) -> bool: ...


def strictest(*cohorts: CohortData | None) -> int | None:
    """The largest ``min_cell`` of several cohorts, which holds for a study of them."""
    return max((one.min_cell for one in cohorts if one is not None and one.min_cell is not None), default=None)


@cache
def read(name: str) -> str:
    """A query of this room."""
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
