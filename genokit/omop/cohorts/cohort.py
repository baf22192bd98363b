"""A cohort: people and the periods during which they belong to it, and how cohorts combine.

As in OHDSI, a cohort is a set of periods: who, from which day, to which day. So ``&``, ``|`` and ``-`` work on days.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame

from genokit import disclosure, display
from genokit.errors import InvalidParameters
from genokit.omop.cohorts import cohort_periods, cohort_tables
from genokit.omop.cohorts.cohort_data import AttritionStep, CohortData, strictest
from genokit.omop.cohorts.cohort_periods import Dates, Days
from genokit.omop.cohorts.demographics import AGES, AgeGroups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genokit.omop.cohorts.incidence import Rates
    from genokit.omop.cohorts.pathways import Pathways
    from genokit.omop.cohorts.survival import TimeToEvent
    from genokit.omop.cohorts.table_one import TableOne


@dataclass(frozen=True, eq=False)
class Cohort(CohortData):
    """A cohort: people and the periods during which they belong to it. Make one with ``Cdm.cohort``.

    A cohort never changes. ``a & b`` has the days in both, ``a | b`` those in either, ``a - b`` those in a but not in
    b; ``within`` and ``outside`` select entries by their distance from another cohort's. ``spans`` and ``steps`` have
    the true numbers and are for you; whatever is shown or drawn has no count of persons below ``min_cell``.

    Parameters
    ----------
    name
        What to call it.
    spans
        A row for each entry, with the columns of the CDM's table ``cohort``: subject_id, cohort_start_date and
        cohort_end_date. No two of one person overlap.
    steps
        The attrition: each criterion with the persons and entries that met it.
    settings
        All criteria, in words and numbers.
    cdm
        The Cdm that it was made from.
    min_cell
        The smallest count of persons to show; never below the settings' ``min_cell``.
    prior_records
        The periods of all records that the entries were chosen from; None if unknown.

    Examples
    --------
    >>> from genokit import Cdm
    >>> cdm = Cdm()
    >>> new_users = cdm.cohort(drug=1118084, first_only=True, name="celecoxib")
    >>> bleeding = cdm.cohort(condition=192671, first_only=True, name="bleeding")
    >>> new_users, bleeding.within((0, 365), of=new_users)
    (<Cohort celecoxib, 1,800 persons>, <Cohort bleeding within 0 to 365 days after celecoxib, 355 persons>)
    """

    def __and__(self, other: Cohort) -> Cohort:
        found = self._combined(other, "and", cohort_periods.intersection(self.spans, other.spans))
        return found._shown_beside(other)

    def __sub__(self, other: Cohort) -> Cohort:
        return self._combined(other, "without", cohort_periods.difference(self.spans, other.spans))

    def __or__(self, other: Cohort) -> Cohort:
        both = cohort_periods.merged(pd.concat([self.spans, other.spans]))
        found = self._combined(other, "or", both)
        records = [one.spans if one.prior_records is None else one.prior_records for one in (self, other)]
        steps = (AttritionStep.of(found.name, both),)
        return replace(found, steps=steps, prior_records=pd.concat(records))._shown_beside(self, other)

    def within(self, days: Days, *, of: Cohort) -> Cohort:
        """Select the entries that begin near an entry of another cohort.

        Parameters
        ----------
        days
            At most so many days before or after; or two bounds: ``(0, 30)`` is from the other entry's day to 30 days
            after it, ``(-30, -1)`` the days before it. None, for a bound or for both, is any time.
        of
            The other cohort.

        Returns
        -------
        Cohort

        Raises
        ------
        InvalidParameters
            If ``days`` is neither a number of days nor two bounds.

        Examples
        --------
        >>> from genokit import Cdm
        >>> cdm = Cdm()
        >>> users, bleeding = cdm.cohort(drug=1118084, name="users"), cdm.cohort(condition=192671, name="bleeding")
        >>> bleeding.within((0, 30), of=users)
        <Cohort bleeding within 0 to 30 days after users, 113 persons>
        """
        low, high = cohort_periods.bounds(days)
        near = cohort_periods.starts_near(self.spans, of.spans, low, high)
        return self._selected(of, "within", days, near)._shown_beside(of)

    def outside(self, days: Days, *, of: Cohort) -> Cohort:
        """Select the entries that ``within`` would leave out.

        Parameters
        ----------
        days
            As in ``within``; with None, the entries of persons who are never in the other cohort.
        of
            The other cohort.

        Returns
        -------
        Cohort

        Raises
        ------
        InvalidParameters
            If ``days`` is neither a number of days nor two bounds.
        """
        low, high = cohort_periods.bounds(days)
        return self._selected(of, "outside", days, ~cohort_periods.starts_near(self.spans, of.spans, low, high))

    def named(self, name: str) -> Cohort:
        """The same cohort under another name.

        Parameters
        ----------
        name
            The new name.

        Returns
        -------
        Cohort
        """
        return replace(self, name=name)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the attrition as a flow chart.

        Parameters
        ----------
        ax
            The axes to draw on; by default those of a new figure.

        Returns
        -------
        Axes
        """
        from genokit.plots import cohorts

        return cohorts.flow(self.attrition(), title=self.name, ax=ax)

    def incidence(
        self,
        *,
        of: Cohort | None = None,
        every: str = "year",
        age_groups: AgeGroups = AGES,
        between: Dates | None = None,
        washout_days: int | None = None,
        prior_observation_days: int = 0,
    ) -> Rates:
        """Incidence rate: new entries per 100,000 person-years at risk, by calendar interval, age group and sex.

        Persons are at risk while observed, until they enter. A record of the cohort's concepts ends the risk even if
        no entry was made of it, because it lies before the observation or another criterion left it out.

        Parameters
        ----------
        of
            The population at risk; by default everyone who is observed.
        every
            The calendar interval: "year", "quarter", "month" or "decade".
        age_groups
            First and last completed year of life of each group.
        between
            First and last date of the study; by default all days observed. Either may be None.
        washout_days
            Days after the end of an entry until the person is at risk again; by default a person is no longer at risk
            after entry.
        prior_observation_days
            Days of observation before a person is at risk.

        Returns
        -------
        Rates

        Raises
        ------
        InvalidParameters
            If ``every`` is unknown, age groups overlap, or nobody is observed in the study period.

        Examples
        --------
        >>> from genokit import Cdm
        >>> Cdm().cohort(condition=192671, first_only=True, name="bleeding").incidence(every="decade")
        <Rates incidence of bleeding, 13 intervals>
        """
        from genokit.omop.cohorts.incidence import incidence

        return incidence(self, of, every, age_groups, between, washout_days, prior_observation_days)

    def prevalence(
        self,
        *,
        of: Cohort | None = None,
        every: str = "year",
        age_groups: AgeGroups = AGES,
        between: Dates | None = None,
        point: bool = False,
    ) -> Rates:
        """Prevalence: the share of the persons observed in an interval who are in the cohort then.

        Parameters
        ----------
        of
            The population; by default everyone who is observed.
        every
            The calendar interval: "year", "quarter", "month" or "decade".
        age_groups
            First and last completed year of life of each group, on a person's first day observed in the interval.
        between
            First and last date of the study; by default all days observed. Either may be None.
        point
            Point prevalence, on the first day of each interval.

        Returns
        -------
        Rates
            Raises InvalidParameters where ``incidence`` does.
        """
        from genokit.omop.cohorts.incidence import prevalence

        return prevalence(self, of, every, age_groups, between, point)

    def time_to(
        self, outcome: Cohort, *, by: str | None = None, most_days: int = 365, age_groups: AgeGroups = AGES
    ) -> TimeToEvent:
        """Time from each person's first entry to the first entry of an outcome: Kaplan-Meier curves.

        Persons are censored at the end of their entry. Persons who had the outcome before are left out.

        Parameters
        ----------
        outcome
            The cohort of the event.
        by
            A curve for each "sex" or each "age_group"; by default one curve.
        most_days
            Days of follow-up.
        age_groups
            First and last completed year of life of each group, at entry.

        Returns
        -------
        TimeToEvent

        Raises
        ------
        InvalidParameters
            If nobody is free of the outcome at entry, or an option is invalid.
        """
        from genokit.omop.cohorts.survival import time_to

        return time_to(self, outcome, by, most_days, age_groups)

    def table_one(
        self, *others: Cohort, prior_days: int = 365, most: int = 10, age_groups: AgeGroups = AGES
    ) -> TableOne:
        """Table 1: sex, age and the most frequent conditions and drugs before the first entry.

        Parameters
        ----------
        others
            Cohorts to compare; with one, the standardized difference of each share is added.
        prior_days
            Days before entry in which conditions and drugs count.
        most
            How many conditions, and how many drugs.
        age_groups
            First and last completed year of life of each group, at entry.

        Returns
        -------
        TableOne

        Raises
        ------
        InvalidParameters
            If a cohort is empty or two have the same name.
        """
        from genokit.omop.cohorts.table_one import table_one

        return table_one([self, *others], prior_days, most, age_groups)

    def pathways(
        self,
        *events: Cohort,
        most_steps: int = 5,
        gap_days: int = 30,
        combination_days: int = 30,
        first_only: bool = False,
    ) -> Pathways:
        """Treatment pathways: the order in which persons enter the event cohorts during their first entry.

        Parameters
        ----------
        events
            The event cohorts; their names must be distinct.
        most_steps
            Steps of a path.
        gap_days
            Entries of a cohort that begin at most so many days after another's end are one era.
        combination_days
            Eras that overlap for so many days, or for all that one of them lasts, are a combination; where the overlap
            is shorter, the later one takes over.
        first_only
            Count each cohort or combination once in a path. Immediate repetitions are always one step.

        Returns
        -------
        Pathways

        Raises
        ------
        InvalidParameters
            If the target is empty, names are not unique, or a number is too small.
        """
        from genokit.omop.cohorts.pathways import pathways

        return pathways(self, events, most_steps, gap_days, combination_days, first_only)

    def to_parquet(self, folder: str | os.PathLike[str], cohort_definition_id: int | None = None) -> int:
        """Store it in the CDM's tables ``cohort`` and ``cohort_definition``, as a file for each cohort.

        These are rows about persons: keep them where the CDM is kept. What is made here is readable for its owner only,
        and marked as data, so that git and shipping leave it out.

        Parameters
        ----------
        folder
            Where to write. A folder can hold many cohorts; storing one again replaces it.
        cohort_definition_id
            The id of the cohort; by default derived from its settings.

        Returns
        -------
        int
            The id.
        """
        number = self._id() if cohort_definition_id is None else cohort_definition_id
        words = "; ".join(step.reason for step in self.steps)
        cohort_tables.write(folder, self.spans, number, self.name, words, self._syntax())
        return number

    def _combined(
        self, other: Cohort, words: str, periods: DataFrame, settings: Mapping[str, Any] | None = None
    ) -> Cohort:
        """A cohort made of two; its attrition is that of this one, and a step for the combination."""
        if not isinstance(other, Cohort):
            raise InvalidParameters(f"A cohort combines with another cohort, not with {type(other).__name__}.")
        name = f"{words} {other.name}"
        last = [replace(step, on_another_card=True) for step in self.steps[-1:]]
        steps = (*self.steps[:-1], *last, AttritionStep.of(name, periods))
        settings = settings or {words: [self.about(), other.about()]}
        return Cohort(f"{self.name} {name}", periods, steps, settings, self.cdm, strictest(self, other))

    def _selected(self, of: Cohort, how: str, days: Days, keep: Any) -> Cohort:
        settings = {how: [self.about(), of.about()], "days": list(days) if isinstance(days, tuple) else days}
        return self._combined(
            of, f"{how} {cohort_periods.in_words(days)}", self.spans[keep].reset_index(drop=True), settings
        )

    def about(self) -> dict[str, Any]:
        """Its name and settings, as another cohort's settings refer to it."""
        return {"name": self.name, **self.settings}

    def _syntax(self) -> str:
        return json.dumps(dict(self.settings), sort_keys=True, ensure_ascii=False, default=str)

    def _id(self) -> int:
        """An id derived from the settings: 31 bits, which every tool's integers hold."""
        return int(hashlib.sha256(self._syntax().encode()).hexdigest()[:8], 16) >> 1

    def _shown_beside(self, *others: Cohort) -> Cohort:
        """This cohort, whose counts must not reveal that it has a few persons more or fewer than the others."""
        counts = {n for one in others for n in one.shown_counts}
        if len(others) == 2:  # the persons of two cohorts, less those in either, are those in both
            counts.add(sum(one.persons for one in others))
        *before, last = self.steps
        return replace(self, steps=(*before, replace(last, shown_elsewhere=tuple(sorted(counts)))))

    def __repr__(self) -> str:
        return f"<Cohort {self.name}, {self._persons_text()} persons>"

    def _repr_html_(self) -> str:
        about: dict[str, object] = {"persons": self._persons_text()}
        shown = disclosure.formatted(self.attrition(), ["persons", "left_out", "entries"], by=["step"])
        shown.loc[0, "left_out"] = ""  # nobody is left out before the first step
        about["attrition"] = display.table(shown.rename(columns={"left_out": "left out"}))
        about["small counts"] = disclosure.note(["step"], min_cell=self.min_cell)
        fold = {"Settings": display.log(json.dumps(dict(self.settings), indent=1, ensure_ascii=False, default=str))}
        return display.card(f"Cohort {self.name}", about, fold=fold)
