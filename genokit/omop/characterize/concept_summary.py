"""The results about one concept: how many persons and records, when, at which age, with which values."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas import DataFrame

from genokit import display, live
from genokit.display import Html
from genokit.errors import NotFound, did_you_mean
from genokit.omop.characterize.achilles import DOMAINS, Domain
from genokit.omop.characterize.achilles_results import GENDERS, AchillesResults, with_strata
from genokit.omop.characterize.analyses import analyses, find
from genokit.omop.characterize.pictures import PERCENTILES

MOST = 10  # bars of one panel


@dataclass(frozen=True)
class ConceptSummary:
    """The results about a concept in a table of events; ``table()`` has all its numbers."""

    of: AchillesResults = field(repr=False)
    domain: Domain
    concept_id: int
    parts: dict[int, DataFrame] = field(repr=False)  # by analysis, with named strata

    @property
    def name(self) -> str:
        """The name of the concept."""
        return self.of.concepts.get(self.concept_id, f"concept {self.concept_id}")

    def table(self) -> DataFrame:
        """A row for each number, with its analysis."""
        whole = pd.concat(self.parts, names=["analysis_id"]).reset_index(level=0).reset_index(drop=True)
        whole.insert(1, "analysis_name", [find(number).name for number in whole["analysis_id"]])
        whole.insert(2, self.domain.concept, self.concept_id)
        whole.insert(3, "concept_name", self.name)
        return whole

    def _repr_html_(self) -> Html:
        return live.group(live.style(), live.view(self.html()))

    def __repr__(self) -> str:
        return f"<ConceptSummary {self.name} in {self.domain.table}: {len(self.table()):,} numbers>"

    def html(self) -> Html:
        """Its card and its pictures, without ``live.style``, which a page needs once."""
        about, panels = self._about(), []
        for number, frame in self.parts.items():
            analysis = find(number)
            title = analysis.name.partition(": ")[2] or analysis.name
            if not len(frame) or list(frame.columns) == ["count_value"]:
                continue
            strata = [column for column in frame.columns if column in analysis.strata]
            if analysis.is_distribution:
                if len(frame) == 1 and frame["min_value"].iloc[0] == frame["max_value"].iloc[0]:
                    about[title] = f"always {frame['min_value'].iloc[0]:g}"
                else:
                    panels.append(live.panel(title, *self._spread(frame, strata)))
            elif strata == ["month"]:
                panels.append(live.panel(title, _months(frame)))
            elif strata[-1] == "age_decile":
                note = live.quiet("Hidden counts are left out, year by year.")
                panels.append(live.panel("persons by age and gender, once a year", self._by_age(frame), note))
            elif len(frame) == 1:
                about[title] = f"{self._words(frame, strata)[0]} ({frame['count_value'].iloc[0]:,})"
            else:
                panels.append(live.panel(title, *self._bars(frame, strata)))
        return live.group(display.card(self.name, about), live.panels(*panels))

    def _about(self) -> dict[str, object]:
        counts = [self.parts.get(self.domain.number + kind) for kind in (0, 1)]
        persons, records = (
            int(frame["count_value"].iloc[0]) if frame is not None and len(frame) else None for frame in counts
        )
        about: dict[str, object] = {"concept_id": self.concept_id, "table": self.domain.table}
        about["persons"], about["records"] = (None if n is None else f"{n:,}" for n in (persons, records))
        everyone = self.of.counts(1)["count_value"]
        if persons and len(everyone):
            about["persons"] = f"{persons:,}, {100 * persons / everyone.iloc[0]:.3g} % of all"
        if persons and records:
            about["records per person"] = f"{records / persons:.3g}"
        return about

    def _words(self, frame: DataFrame, strata: list[str]) -> list[str]:
        """The strata of each row, in words."""
        columns = [[self._word(column, value) for value in frame[column]] for column in strata]
        return [", ".join(words) for words in zip(*columns, strict=True)] if columns else [""] * len(frame)

    def _word(self, column: str, value: str | None) -> str:
        if value is None or value != value:
            return "none"
        if not column.endswith("concept_id"):
            return value
        number = int(value)
        return "none" if number == 0 else GENDERS.get(number) or self.of.concepts.get(number, f"concept {number}")

    def _bars(self, frame: DataFrame, strata: list[str]) -> list[Html]:
        numbered = strata == ["records"]
        order = frame.sort_values("count_value", ascending=False, kind="stable")
        if numbered:
            order = frame.assign(records=frame["records"].astype(int)).sort_values("records").astype({"records": str})
        shown = order.head(MOST)
        rows = [(word, [n]) for word, n in zip(self._words(shown, strata), shown["count_value"].tolist(), strict=True)]
        more = f"The {'first' if numbered else 'most frequent'} {MOST} of {len(frame):,}."
        return [live.bars(rows), *([live.quiet(more)] if len(frame) > MOST else [])]

    def _by_age(self, frame: DataFrame) -> Html:
        sums = frame.groupby([frame["age_decile"].astype(int), "gender_concept_id"])["count_value"].sum().unstack()
        genders = sorted(sums.columns, key=int)
        rows = [(f"{10 * int(age)} to {10 * int(age) + 9}", sums.loc[age, genders].tolist()) for age in sums.index]
        return live.bars(rows, [self._word("gender_concept_id", gender) for gender in genders])

    def _spread(self, frame: DataFrame, strata: list[str]) -> list[Html]:
        shown = frame.sort_values("count_value", ascending=False, kind="stable").head(MOST)
        rows = [
            (word or "all", *(f"{row[part]:.4g}" for part in PERCENTILES), f"{int(row['count_value']):,}")
            for word, (_, row) in zip(self._words(shown, strata), shown.iterrows(), strict=True)
        ]
        more = [live.quiet(f"The most frequent {MOST} of {len(frame):,}.")] if len(frame) > MOST else []
        return [live.grid(["percentile", "10th", "25th", "50th", "75th", "90th", "count"], rows), *more]


def summary(of: AchillesResults, concept_id: int, table: str | None = None) -> ConceptSummary:
    """The results about a concept, by default in the table in which most persons have it. Raises NotFound."""
    if table is not None and table not in (known := [domain.table for domain in DOMAINS]):
        raise NotFound(f"There is no table '{table}' of events. {did_you_mean(table, known)}")
    domains = {domain.number: domain for domain in DOMAINS if table in (None, domain.table)}
    persons = _rows(of.results, list(domains), concept_id)
    if not len(persons):
        where = table or "any table of events"
        raise NotFound(f"Fewer than {of.min_cell} persons have concept {concept_id} in {where}.")
    # Of a drug exposure and its era with the same persons, the exposure.
    most = persons.sort_values(["count_value", "analysis_id"], ascending=[False, True])["analysis_id"].iloc[0]
    domain = domains[most]
    wanted = [one for one in analyses().values() if one.scan == domain.table and domain.concept in one.strata[:1]]
    ids = [one.analysis_id for one in wanted]
    frames = [_rows(table, ids, concept_id) for table in (of.results, of.distributions)]
    parts = {}
    for number, one in zip(ids, wanted, strict=True):
        frame = frames[one.is_distribution]
        frame = with_strata(frame[frame["analysis_id"] == number], number)
        parts[number] = frame.drop(columns=[domain.concept])
    return ConceptSummary(of, domain, concept_id, parts)


def _rows(table: pa.Table, analyses: list[int], concept_id: int) -> DataFrame:
    """The rows of these analyses about one concept."""
    table = table.filter(pc.equal(table["stratum_1"], str(concept_id)))
    frame: DataFrame = table.filter(pc.is_in(table["analysis_id"], pa.array(analyses))).to_pandas()
    return frame


def _months(frame: DataFrame) -> Html:
    """Counts by month, a thin bar for each."""
    months = [int(month) // 100 * 12 + int(month) % 100 - 1 for month in frame["month"]]
    counts = dict(zip(months, frame["count_value"].tolist(), strict=True))
    first, last = min(months) // 12 * 12, max(months) // 12 * 12 + 12
    heights = [counts.get(month, 0) for month in range(first, last)]
    years = (last - first) // 12
    step = max(1, -(-years // 6))
    shown = range(0, years - step // 2, step) or [0]  # no tick so near the end that its label would stick out
    ticks = [(12 * year / (last - first), f"{first // 12 + year}") for year in shown]
    return live.columns(heights, ticks, "by month; hidden counts are left out")
