"""Cohort: persons during a time, how they came to be in it, and what cohorts have in common.

As OHDSI has it, a cohort is a set of spans: who, from which day, to which day. So ``&``, ``|``, ``-`` are about days.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genokit import disclosure
from genokit.errors import InvalidParameters, NotFound
from genokit.files import private_folder, write_atomic
from genokit.omop.cohorts import cohort_periods
from genokit.omop.cohorts.cohort_entry import AGES, Concepts, Entry, Step
from genokit.omop.cohorts.cohort_periods import END, START, WHO
from genokit.omop.concepts import of
from genokit.omop.fields import fields

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.omop.cdm import Cdm
    from genokit.omop.cohorts.incidence import Rates
    from genokit.omop.cohorts.pathways import Pathways
    from genokit.omop.cohorts.survival import TimeToEvent
    from genokit.omop.cohorts.table_one import TableOne

Days = float | tuple[float | None, float | None] | None


@dataclass(frozen=True, eq=False)
class Cohort:
    """Persons during a time: ``spans`` has a row an entry, in the columns of the CDM's table ``cohort``.

    It never changes. ``a & b`` are the days in both, ``a | b`` in either, ``a - b`` in a and not in b; ``within``
    and ``outside`` choose entries by how near others are. ``steps`` are for you; what is shown of it, or drawn, tells
    no number of persons below ``min_cell``.

    >>> from genokit import Cdm
    >>> cdm = Cdm()
    >>> new_users = cdm.cohort(drug=1118084, first_only=True, name="celecoxib")
    >>> bleeding = cdm.cohort(condition=192671, first_only=True, name="bleeding")
    >>> new_users, bleeding.within((0, 365), of=new_users)
    (<Cohort celecoxib, 1,800 persons>, <Cohort bleeding within 0 to 365 days after celecoxib, 355 persons>)
    """

    name: str
    spans: DataFrame = field(repr=False)
    steps: tuple[Step, ...]
    settings: Mapping[str, Any]
    cdm: Cdm
    min_cell: int | None = None
    prior: DataFrame | None = field(default=None, repr=False)  # all records, those too that no entry was made of

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_cell", self.cdm.least(self.min_cell))

    @property
    def persons(self) -> int:
        """How many persons it has; a number for you, which is not suppressed."""
        return int(self.spans[WHO].nunique())

    @property
    def card(self) -> tuple[int, ...]:
        """How many persons and entries it has, and those it is made of: what studies tell is near none of them."""
        entries, few = len(self.spans), disclosure.smallest(self.min_cell)
        told = {self.persons, entries if entries - self.persons >= few else 0}
        for step in self.steps:
            told |= {*step.beside, *[step.persons, step.entries] * step.whole}
        return tuple(sorted(n for n in told if n >= few))

    @property
    def hidden(self) -> bool:
        """Whether its card does not tell how many persons it has: then no study tells it, nor parts that add up."""
        return not self._told()[0].isdigit()

    def __and__(self, other: Cohort) -> Cohort:
        found = self._joined_to(other, "and", cohort_periods.common(self.spans, other.spans))
        return found._beside(other)

    def __sub__(self, other: Cohort) -> Cohort:
        return self._joined_to(other, "without", cohort_periods.without(self.spans, other.spans))

    def __or__(self, other: Cohort) -> Cohort:
        import pandas as pd

        both = cohort_periods.joined(pd.concat([self.spans, other.spans]))
        found = self._joined_to(other, "or", both)
        prior = [one.spans if one.prior is None else one.prior for one in (self, other)]
        steps = (_step(f"{self.name} or {other.name}", both),)
        return replace(found, steps=steps, prior=pd.concat(prior))._beside(self, other)

    def within(self, days: Days, *, of: Cohort) -> Cohort:
        """The entries that begin at most so many days before or after an entry of ``of``.

        ``(0, 30)`` is from its day to 30 days after it, ``(-30, -1)`` the days before it; None in place of a bound,
        or of both, is any time.
        """
        low, high = _bounds(days)
        return self._chosen(of, "within", days, cohort_periods.near(self.spans, of.spans, low, high))._beside(of)

    def outside(self, days: Days, *, of: Cohort) -> Cohort:
        """The entries that ``within`` would not take; with None, those of persons who are never in ``of``."""
        low, high = _bounds(days)
        return self._chosen(of, "outside", days, ~cohort_periods.near(self.spans, of.spans, low, high))

    def named(self, name: str) -> Cohort:
        """The same, called otherwise."""
        return replace(self, name=name)

    def attrition(self) -> DataFrame:
        """What was asked step by step, who was left and who left: counts below ``min_cell`` are not told."""
        import pandas as pd

        # What another cohort's card tells is told here, too.
        beside = list(accumulate(step.beside for step in self.steps))
        first = [place for place, step in enumerate(self.steps) if step.whole]
        told: dict[str, list[int | None]] = {}
        for name in ("persons", "entries"):
            counts = [getattr(step, name) for step in self.steps]
            told[name] = disclosure.steps(counts, first=first, beside=beside, min_cell=self.min_cell)
            known = [n for n in told[name] if n is not None]
            beside = [(*others, *known) for others in beside]
        frame = pd.DataFrame({name: pd.array(counts, dtype="Int64") for name, counts in told.items()})
        frame["entries"] = frame["entries"].mask(frame["persons"].isna())
        frame.insert(0, "step", [step.reason for step in self.steps])
        frame.insert(2, "left_out", frame["persons"].shift() - frame["persons"])
        return frame

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """The attrition as a flow of boxes."""
        from genokit.plots import cohorts

        return cohorts.flow(self.attrition(), title=self.name, ax=ax)

    def incidence(
        self,
        *,
        of: Cohort | None = None,
        every: str = "year",
        age_groups: Sequence[tuple[int, int]] = AGES,
        between: tuple[object, object] | None = None,
        washout_days: int | None = None,
        prior_observation_days: int = 0,
    ) -> Rates:
        """How often persons newly enter, per person-years at risk, by calendar interval, age and sex.

        At risk is who is observed, or in the cohort ``of``; who has entered never is again, or with ``washout_days``
        is so many days after leaving. So is who has an earlier record of the cohort's concepts, though it was before
        the observation, or left out by what else the cohort asks. ``every`` is "year", "quarter", "month" or "decade".
        """
        from genokit.omop.cohorts import incidence

        return incidence.incidence(
            self, of=of, every=every, age_groups=age_groups, between=between, washout_days=washout_days,
            prior_observation_days=prior_observation_days,
        )  # fmt: skip

    def prevalence(
        self,
        *,
        of: Cohort | None = None,
        every: str = "year",
        age_groups: Sequence[tuple[int, int]] = AGES,
        between: tuple[object, object] | None = None,
        point: bool = False,
    ) -> Rates:
        """The share of the persons observed in an interval who are in the cohort then; ``point`` is its first day.

        Age is that on a person's first day observed in the interval.
        """
        from genokit.omop.cohorts import incidence

        return incidence.prevalence(self, of=of, every=every, age_groups=age_groups, between=between, point=point)

    def time_to(
        self,
        outcome: Cohort,
        *,
        by: str | None = None,
        most_days: int = 365,
        age_groups: Sequence[tuple[int, int]] = AGES,
    ) -> TimeToEvent:
        """How long from each person's first entry to the outcome's: Kaplan-Meier curves, by "sex" or "age_group".

        Persons leave it at the end of their entry. Who had the outcome before is left out.
        """
        from genokit.omop.cohorts import survival

        return survival.time_to(self, outcome, by=by, most_days=most_days, age_groups=age_groups)

    def table_one(
        self,
        *others: Cohort,
        prior_days: int = 365,
        most: int = 10,
        age_groups: Sequence[tuple[int, int]] = AGES,
    ) -> TableOne:
        """Who they are at their first entry, beside other cohorts: sex, age, and the ``most`` frequent conditions and
        drugs in the days before; of two cohorts also how far the shares differ."""
        from genokit.omop.cohorts import table_one

        return table_one.table_one([self, *others], prior_days=prior_days, most=most, age_groups=age_groups)

    def pathways(
        self,
        *events: Cohort,
        most_steps: int = 5,
        gap_days: int = 30,
        combination_days: int = 30,
        first_only: bool = False,
    ) -> Pathways:
        """In which order persons enter the event cohorts while in their first entry: as in ATLAS, treatment pathways.

        Entries of a cohort that begin at most ``gap_days`` after another's end are one era. Eras that overlap for
        ``combination_days``, or for all that one of them lasts, are a combination; of others the later one takes over.
        What is repeated at once is one step, and with ``first_only`` a step is none if it was there before.
        """
        from genokit.omop.cohorts import pathways

        return pathways.pathways(
            self, events, most_steps=most_steps, gap_days=gap_days, combination_days=combination_days,
            first_only=first_only,
        )  # fmt: skip

    def table(self, cohort_definition_id: int | None = None) -> DataFrame:
        """The rows of the CDM's table ``cohort``; the id is made of the settings, unless one is given."""
        number = self._id() if cohort_definition_id is None else cohort_definition_id
        rows = self.spans[[WHO, START, END]].copy()
        rows.insert(0, "cohort_definition_id", number)
        return rows.astype({"cohort_definition_id": "Int64"})

    def to_parquet(self, folder: str | os.PathLike[str], cohort_definition_id: int | None = None) -> int:
        """Store it in the CDM's tables ``cohort`` and ``cohort_definition`` in a folder, a file each; gives its id.

        A folder takes many cohorts; the same one again takes its own place. They are rows about persons: keep them
        where the CDM is kept. What is made here is for its owner alone, and marked as data, which git and shipping
        leave out.
        """
        import pandas as pd

        rows = self.table(cohort_definition_id)
        number = self._id() if cohort_definition_id is None else cohort_definition_id
        definition = {
            "cohort_definition_id": number,
            "cohort_definition_name": self.name[:255],
            "cohort_definition_description": "; ".join(step.reason for step in self.steps),
            "definition_type_concept_id": 0,
            "cohort_definition_syntax": self._syntax(),
            "subject_concept_id": 0,
            "cohort_initiation_date": None,
        }
        private_folder(folder, data=True)
        for table, frame in (("cohort", rows), ("cohort_definition", pd.DataFrame([definition]))):
            _write(private_folder(Path(folder) / table, data=True) / f"{number}.parquet", table, frame)
        return number

    def _joined_to(self, other: Cohort, how: str, found: DataFrame) -> Cohort:
        if not isinstance(other, Cohort):
            raise InvalidParameters(f"A cohort goes with a cohort, not with {type(other).__name__}.")
        return Cohort(
            f"{self.name} {how} {other.name}",
            found,
            (*self._whole(), _step(f"{how} {other.name}", found)),
            {how: [_about(self), _about(other)]},
            self.cdm,
            least(self, other),
        )

    def _chosen(self, of: Cohort, how: str, days: Days, keep: Any) -> Cohort:
        words = f"{how} {_days_text(days)} {of.name}"
        found = self.spans[keep].reset_index(drop=True)
        settings = {how: [_about(self), _about(of)], "days": list(days) if isinstance(days, tuple) else days}
        steps = (*self._whole(), _step(words, found))
        return Cohort(f"{self.name} {words}", found, steps, settings, self.cdm, least(self, of))

    def _syntax(self) -> str:
        return json.dumps(dict(self.settings), sort_keys=True, ensure_ascii=False, default=str)

    def _id(self) -> int:
        """31 bits, which every tool's integers hold."""
        return int(hashlib.sha256(self._syntax().encode()).hexdigest()[:8], 16) >> 1

    def _whole(self) -> tuple[Step, ...]:
        return (*self.steps[:-1], *(replace(step, whole=True) for step in self.steps[-1:]))

    def _beside(self, *others: Cohort) -> Cohort:
        """This cohort, that will not tell how few persons it has more or less than others."""
        counts = {n for one in others for n in one.card}
        if len(others) == 2:  # the persons of two together, less those of either, are those in both
            counts.add(sum(one.persons for one in others))
        return replace(self, steps=(*self.steps[:-1], replace(self.steps[-1], beside=tuple(sorted(counts)))))

    def _told(self) -> str:
        """How many persons; not where it is almost as many as another cohort has, which it is made of."""
        alone, shown = disclosure.told(self.persons, self.min_cell), self.attrition()["persons"]
        return disclosure.HIDDEN if alone[0] != "<" and len(shown) and shown.isna().iloc[-1] else alone

    def __repr__(self) -> str:
        return f"<Cohort {self.name}, {self._told()} persons>"

    def _repr_html_(self) -> str:
        from genokit import display

        about: dict[str, object] = {"persons": self._told()}
        if self.persons >= 20 * disclosure.smallest(self.min_cell):  # of fewer, a year might be a few persons'
            low, middle, high = self.spans[START].quantile([0.05, 0.5, 0.95])
            about["entered"] = f"{low:%Y} to {high:%Y} (of 90 %), half before {middle:%Y}"
        shown = disclosure.written(self.attrition(), ["persons", "left_out", "entries"], by=["step"])
        shown.loc[0, "left_out"] = ""  # nobody is, before the first step
        about["how"] = display.table(shown.rename(columns={"left_out": "left out"}))
        about["shown"] = disclosure.note(["step"], min_cell=self.min_cell)
        fold = {"Settings": display.log(json.dumps(dict(self.settings), indent=1, ensure_ascii=False, default=str))}
        return display.card(f"Cohort {self.name}", about, fold=fold)


def cohort(cdm: Cdm, entry: Entry, *, name: str | None, censor: Cohort | None, min_cell: int | None) -> Cohort:
    """The cohort that an entry describes, from a CDM's records."""
    if censor is not None and not isinstance(censor, Cohort):
        raise InvalidParameters(f"'censor' is {type(censor).__name__}. Give a cohort: where it begins, this one ends.")
    entry = replace(entry, concepts={domain: _known(cdm, one) for domain, one in entry.concepts.items()})
    found, steps, prior = entry.found(cdm, None if censor is None else censor.spans)
    settings = entry.settings() | ({} if censor is None else {"censor": _about(censor)})
    return Cohort(name or steps[0].reason.removeprefix("records of "), found, steps, settings, cdm, min_cell, prior)


def stored(cdm: Cdm, cohort_definition_id: int, *, name: str | None, min_cell: int | None) -> Cohort:
    """A cohort that the CDM's own table ``cohort`` holds."""
    found = cdm.lookup(
        "select subject_id, cohort_start_date, cohort_end_date from cohort where cohort_definition_id = $id",
        {"id": cohort_definition_id},
    )
    if found.empty:
        raise NotFound(f"The table 'cohort' of this CDM has no cohort {cohort_definition_id}.")
    whole = cohort_periods.joined(found)
    called = name or f"cohort {cohort_definition_id}"
    return Cohort(called, whole, (_step("in the table cohort", whole),), {"cohort_definition_id": cohort_definition_id},
                  cdm, min_cell)  # fmt: skip


def _known(cdm: Cdm, concepts: Concepts | Literal[True]) -> Concepts | Literal[True]:
    """A single id as its concept, which has a name, where the vocabulary knows it."""
    if isinstance(concepts, int) and not isinstance(concepts, bool):
        try:
            return of(cdm, [concepts])[concepts]
        except NotFound:
            return concepts
    return concepts


def _step(reason: str, found: DataFrame) -> Step:
    return Step(reason, int(found[WHO].nunique()), len(found))


def _about(one: Cohort) -> dict[str, Any]:
    return {"name": one.name, **one.settings}


def least(*cohorts: Cohort | None) -> int | None:
    """The ``min_cell`` of what is told of several cohorts: the largest that one of them asks for."""
    return max((one.min_cell for one in cohorts if one is not None and one.min_cell is not None), default=None)


def _bounds(days: Days) -> tuple[float | None, float | None]:
    """From which to which day: a number is as many days before as after.

    >>> _bounds(30), _bounds((0, None)), _bounds(None)
    ((-30, 30), (0, None), (None, None))
    """
    low, high = days if isinstance(days, tuple) and len(days) == 2 else (days, days)
    for one in (low, high):
        if one is not None and (isinstance(one, bool) or not isinstance(one, (int, float))):
            raise InvalidParameters(f"'days' is {days!r}. Give a number, or the least and the most, as in (0, 30).")
    if not isinstance(days, tuple):
        if low is not None and low < 0:
            raise InvalidParameters(f"'days' is {days!r}. For the days before, give both bounds, as in (-30, -1).")
        low = None if low is None else -low
    return low, high


def _days_text(days: Days) -> str:
    if days is None:
        return "any time of"
    if not isinstance(days, tuple):
        return f"{days:g} days of"
    low, high = days
    if low is not None and high is not None and high < 0:
        return f"{-high:g} to {-low:g} days before"
    words = [" any time" if one is None else f"{one:g}" for one in (low, high)]
    return f"{words[0]} to {words[1]} days after".strip()


def _write(file: Path, table: str, frame: DataFrame) -> None:
    """One table of the CDM as Parquet, in its types, written whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "VARCHAR": pa.string(), "DATE": pa.date32()}
    schema = pa.schema([(one.name, kinds[one.type]) for one in fields(table)])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), buffer)
    write_atomic(file, buffer.getvalue(), private=True)
