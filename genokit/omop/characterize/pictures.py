"""The pictures of a characterization: for each one its numbers, and the figure that draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame, Series

from genokit import display
from genokit.display import Html
from genokit.errors import NotFound, did_you_mean
from genokit.omop.characterize.achilles import DOMAINS, Domain
from genokit.omop.characterize.achilles_results import AchillesResults
from genokit.plots import omop as plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = {400: "condition", 600: "procedure", 700: "drug", 800: "observation", 1800: "measurement", 2100: "device"}
PERCENTILES = ["p10_value", "p25_value", "median_value", "p75_value", "p90_value"]


@dataclass(frozen=True)
class Picture:
    """A picture: its title, its caption, its numbers, and its figure."""

    title: str
    caption: str
    table: Callable[[AchillesResults], DataFrame]
    draw: Callable[..., Axes]


def _population(of: AchillesResults) -> DataFrame:
    frame = of.counts(10).astype({"year_of_birth": int, "gender_concept_id": int})
    frame["gender"] = of.gender_names(frame["gender_concept_id"])
    frame = frame.rename(columns={"count_value": "persons"})
    return _sorted(frame[["year_of_birth", "gender", "persons"]], "year_of_birth", "gender")


def _observed(of: AchillesResults) -> DataFrame:
    seen = of.counts(117).rename(columns={"count_value": "persons"})
    begun = of.counts(111).rename(columns={"count_value": "begin"})
    frame = seen.merge(begun, on="month", how="left")
    frame["month"] = _months(frame["month"])
    return _sorted(frame.astype({"begin": "Int64"}), "month")


def prevalence(of: AchillesResults, domain: Domain) -> DataFrame:
    """How many persons and records have each concept of a table, the most frequent first."""
    name = domain.concept
    persons = of.counts(domain.number).rename(columns={"count_value": "persons"})
    records = of.counts(domain.number + 1).rename(columns={"count_value": "records"})
    frame = persons.merge(records, on=name, how="left").astype({"records": "Int64"})
    frame = frame[frame[name] != "0"]
    frame.insert(1, "concept_name", of.concept_names(frame[name]))
    all_persons = of.counts(1)["count_value"]
    frame["share"] = frame["persons"] / (all_persons.iloc[0] if len(all_persons) else float("nan"))
    return frame.sort_values(["persons", name], ascending=[False, True], ignore_index=True)


def _density(of: AchillesResults) -> DataFrame:
    """Records per person-month of observation, by year; a month whose count is hidden adds nothing."""
    seen = _by_year(of.counts(117))
    parts = []
    for domain in DOMAINS:
        records = _by_year(of.counts(domain.number + 20))
        parts.append(pd.DataFrame({"domain": domain.word, "records": records, "person_months": seen}).dropna())
    whole = pd.concat(parts).rename_axis("year").reset_index()
    whole["per_month"] = whole["records"] / whole["person_months"]
    return whole.sort_values(["domain", "year"], ignore_index=True)


def _by_year(months: DataFrame) -> Series[Any]:
    return months["count_value"].groupby(months["month"].astype(int) // 100).sum()


def _completeness(of: AchillesResults) -> DataFrame:
    """The share of records with a concept, a type, a unit and a value; 0 and null are none."""
    rows = []
    for domain in DOMAINS:
        records = of.counts(domain.number + 1)
        row: dict[str, Any] = {"domain": domain.word, "records": int(records["count_value"].sum())}
        for column, kind in (("concept", 1), ("type", 5), ("unit", 7), ("value", 22)):
            if getattr(domain, column):
                frame = of.counts(domain.number + kind)
                said = ~frame.iloc[:, -2].fillna("0").isin(["0"])
                whole = frame["count_value"].sum()
                row[column] = frame["count_value"][said].sum() / whole if whole else float("nan")
        rows.append(row)
    frame = pd.DataFrame(rows, columns=["domain", "records", "concept", "type", "unit", "value"])
    return frame[frame["records"] > 0].reset_index(drop=True)


def _ages(of: AchillesResults) -> DataFrame:
    """Age at the first record of a condition, the most frequent conditions first."""
    frame = of.distribution(406)
    frame = frame[frame["condition_concept_id"] != "0"].reset_index(drop=True)
    frame.insert(0, "condition", of.concept_names(frame["condition_concept_id"]))
    frame.insert(1, "gender", of.gender_names(frame["gender_concept_id"]))
    whole = frame.groupby("condition")["count_value"].transform("sum")
    order = frame.assign(whole=whole).sort_values(["whole", "condition", "gender"], ascending=[False, True, True])
    return order.drop(columns="whole").reset_index(drop=True)


def _months(months: Series[Any]) -> Series[Any]:
    """201203 as March 2012, in any century."""
    numbers = months.astype(int)
    return pd.Series([pd.Period(year=n // 100, month=n % 100, freq="M") for n in numbers], index=months.index)


def _sorted(frame: DataFrame, *by: str) -> DataFrame:
    return frame.sort_values(list(by), ignore_index=True)


PICTURES: dict[str, Picture] = {
    "population": Picture(
        "Persons", "Persons by year of birth and gender.", _population, plots.pyramid
    ),
    "observed": Picture(
        "When persons are observed", "Persons with at least one day of observation in each month.", _observed,
        plots.observed,
    ),
    **{
        f"{word}_prevalence": Picture(
            f"{word.capitalize()}s", f"Persons with at least one record of each {word}; areas are persons.",
            partial(prevalence, domain=domain), partial(plots.treemap, what=word),
        )
        for domain in DOMAINS
        if (word := WORDS.get(domain.number))
    },
    "condition_age": Picture(
        "Ages", "Age at the first record of a condition: 25th to 75th percentile, and 10th to 90th.",
        _ages, plots.ages,
    ),
    "data_density": Picture(
        "How much is recorded", "Records per person-month of observation; hidden counts add nothing.",
        _density, plots.density,
    ),
    "completeness": Picture(
        "How complete records are", "Share of records with a standard concept, a type, a unit, a value.", _completeness,
        plots.completeness,
    ),
}  # fmt: skip


def find(name: str) -> Picture:
    """One picture by its name. Raises NotFound."""
    if name not in PICTURES:
        raise NotFound(f"There is no picture '{name}'. {did_you_mean(name, PICTURES)}")
    return PICTURES[name]


def drawn(of: AchillesResults, name: str) -> Html | None:
    """One picture as HTML, with its caption; None if there is nothing to show. Raises NotFound."""
    from matplotlib import pyplot as plt

    picture = find(name)
    frame = picture.table(of)
    if frame.empty:
        return None
    figure: Figure = picture.draw(frame).figure  # type: ignore[assignment]
    shown = display.figure(figure, picture.title, caption=picture.caption)
    plt.close(figure)
    return shown
