"""Where cohorts come from: criteria over a CDM's records, and the CDM's own table ``cohort``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from genokit.errors import InvalidParameters, NotFound
from genokit.omop import concepts
from genokit.omop.cohorts import cohort_periods
from genokit.omop.cohorts.cohort import Cohort
from genokit.omop.cohorts.cohort_entry import AttritionStep, Concepts, Entry
from genokit.omop.connection import CdmConnection


def cohort(
    cdm: CdmConnection, entry: Entry, *, name: str | None, censor: Cohort | None, min_cell: int | None
) -> Cohort:
    """The cohort that an entry describes, from a CDM's records."""
    if censor is not None and not isinstance(censor, Cohort):
        raise InvalidParameters(f"'censor' is {type(censor).__name__}. Give a cohort; this one ends where it begins.")
    entry = replace(entry, concepts={domain: _with_name(cdm, one) for domain, one in entry.concepts.items()})
    periods, steps, records = entry.run(cdm, None if censor is None else censor.spans)
    settings = entry.settings() | ({} if censor is None else {"censor": censor.about()})
    return Cohort(name or steps[0].reason.removeprefix("records of "), periods, steps, settings, cdm, min_cell, records)


def stored(cdm: CdmConnection, cohort_definition_id: int, *, name: str | None, min_cell: int | None) -> Cohort:
    """A cohort from the CDM's own table ``cohort``."""
    rows = cdm.lookup(
        "select subject_id, cohort_start_date, cohort_end_date from cohort where cohort_definition_id = $id",
        {"id": cohort_definition_id},
    )
    if rows.empty:
        raise NotFound(f"The table 'cohort' of this CDM has no cohort {cohort_definition_id}.")
    periods = cohort_periods.merged(rows)
    steps = (AttritionStep.of("in the table cohort", periods),)
    settings = {"cohort_definition_id": cohort_definition_id}
    return Cohort(name or f"cohort {cohort_definition_id}", periods, steps, settings, cdm, min_cell)


def _with_name(cdm: CdmConnection, one: Concepts | Literal[True]) -> Concepts | Literal[True]:
    """A single id as its concept, which has a name, if the vocabulary has it."""
    if isinstance(one, int) and not isinstance(one, bool):
        try:
            return concepts.of(cdm, [one])[one]
        except NotFound:
            return one
    return one
