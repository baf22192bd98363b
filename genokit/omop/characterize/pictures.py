"""What there is to look at in a characterization: for each picture its numbers, and the figure that draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from genokit.omop.characterize.achilles import DOMAINS, Domain
from genokit.plots import omop as plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

    from genokit.omop.characterize.characterize import Characterization

GENDERS = {8507: "men", 8532: "women"}
WORDS = {400: "condition", 600: "procedure", 700: "drug", 800: "observation", 1800: "measurement", 2100: "device"}
PARTS = ["p10_value", "p25_value", "median_value", "p75_value", "p90_value"]


@dataclass(frozen=True)
class Picture:
    """A picture: its title, what stands under it, its numbers, and its figure."""

    title: str
    caption: str
    table: Callable[[Characterization], DataFrame]
    draw: Callable[..., Axes]


def _population(of: Characterization) -> DataFrame:
    frame = of.counts(10).astype({"year_of_birth": int, "gender_concept_id": int})
    frame["gender"] = [GENDERS.get(one, of.concepts.get(one, str(one))) for one in frame["gender_concept_id"]]
    frame = frame.rename(columns={"count_value": "persons"})
    return _sorted(frame[["year_of_birth", "gender", "persons"]], "year_of_birth", "gender")


def _observed(of: Characterization) -> DataFrame:
    seen = of.counts(117).rename(columns={"count_value": "persons"})
    begun = of.counts(111).rename(columns={"count_value": "begin"})
    frame = seen.merge(begun, on="month", how="left")
    frame["month"] = _months(frame["month"])
    return _sorted(frame.astype({"begin": "Int64"}), "month")


def _lengths(of: Characterization) -> DataFrame:
    frame = of.counts(108).astype({"length": int}).rename(columns={"count_value": "persons"})
    frame["days"] = frame.pop("length") * 30
    return _sorted(frame[["days", "persons"]], "days")


def prevalence(of: Characterization, domain: Domain) -> DataFrame:
    """The concepts of a table, the most persons first: how many persons and records have each."""
    name = domain.concept
    persons = of.counts(domain.number).rename(columns={"count_value": "persons"})
    records = of.counts(domain.number + 1).rename(columns={"count_value": "records"})
    frame = persons.merge(records, on=name, how="left").astype({"records": "Int64"})
    frame = frame[frame[name] != "0"]
    frame.insert(1, "concept_name", _named(of, frame[name]))
    all_persons = of.counts(1)["count_value"]
    frame["share"] = frame["persons"] / (all_persons.iloc[0] if len(all_persons) else float("nan"))
    return frame.sort_values(["persons", name], ascending=[False, True], ignore_index=True)


def _visits(of: Characterization) -> DataFrame:
    frame = prevalence(of, DOMAINS[0])
    days = of.distribution(213)[["visit_concept_id", *PARTS]]
    return frame.merge(days, on="visit_concept_id", how="left")


def _density(of: Characterization) -> DataFrame:
    """Records of a year for each month of each person observed in it; a month whose count is hidden adds none."""
    import pandas as pd

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


def _concepts_per_person(of: Characterization) -> DataFrame:
    import pandas as pd

    parts = []
    for domain in DOMAINS:
        if 3 in domain.kinds:
            frame = of.distribution(domain.number + 3)
            frame.insert(0, "domain", domain.word)
            parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _values(of: Characterization) -> DataFrame:
    frame = of.distribution(1815)
    frame.insert(0, "measurement", _named(of, frame["measurement_concept_id"]))
    frame.insert(
        1,
        "unit",
        [of.concepts.get(int(one), f"(unit {one})") if one != "0" else "" for one in frame["unit_concept_id"]],
    )
    return frame.sort_values("count_value", ascending=False, kind="stable", ignore_index=True)


def _completeness(of: Characterization) -> DataFrame:
    """The share of records that say what, of which type, in which unit, with which value: 0 and null say nothing."""
    import pandas as pd

    rows = []
    for domain in DOMAINS:
        records = of.counts(domain.number + 1)
        row: dict[str, Any] = {"domain": domain.word, "records": int(records["count_value"].sum())}
        for column, kind in (("concept", 1), ("type", 5), ("unit", 7), ("value", 22)):
            if kind in domain.kinds:
                frame = of.counts(domain.number + kind)
                said = ~frame.iloc[:, -2].fillna("0").isin(["0"])
                whole = frame["count_value"].sum()
                row[column] = frame["count_value"][said].sum() / whole if whole else float("nan")
        rows.append(row)
    frame = pd.DataFrame(rows, columns=["domain", "records", "concept", "type", "unit", "value"])
    return frame[frame["records"] > 0].reset_index(drop=True)


def _ages(of: Characterization) -> DataFrame:
    """The ages of persons when the commonest conditions are first recorded."""
    frame = of.distribution(406)
    frame = frame[frame["condition_concept_id"] != "0"].reset_index(drop=True)
    frame.insert(0, "condition", _named(of, frame["condition_concept_id"]))
    genders = frame["gender_concept_id"].astype(int)
    frame.insert(1, "gender", [GENDERS.get(one, of.concepts.get(one, str(one))) for one in genders])
    whole = frame.groupby("condition")["count_value"].transform("sum")
    order = frame.assign(whole=whole).sort_values(["whole", "condition", "gender"], ascending=[False, True, True])
    return order.drop(columns="whole").reset_index(drop=True)


def _months(months: Series[Any]) -> Series[Any]:
    """201203 as the month March 2012, in any century."""
    import pandas as pd

    numbers = months.astype(int)
    return pd.Series([pd.Period(year=n // 100, month=n % 100, freq="M") for n in numbers], index=months.index)


def _named(of: Characterization, ids: Series[Any]) -> list[str]:
    return [of.concepts.get(int(one), f"concept {one}") for one in ids]


def _sorted(frame: DataFrame, *by: str) -> DataFrame:
    return frame.sort_values(list(by), ignore_index=True)


PICTURES: dict[str, Picture] = {
    "population": Picture(
        "Who is in it", "Persons by year of birth and gender.", _population, plots.pyramid
    ),
    "observed": Picture(
        "When persons are observed", "Persons with at least one day of observation in each month.", _observed,
        plots.observed,
    ),
    "observation_length": Picture(
        "How long persons are observed", "Share of persons whose first period of observation lasts at least so long.",
        _lengths, plots.lengths,
    ),
    "visit_mix": Picture(
        "Visits", "Persons with a visit of a kind, its records, and how many days half of them last.", _visits,
        plots.visits,
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
        "Ages", "Age when a condition is first recorded: the middle half of persons, and the tenth to the ninetieth.",
        _ages, plots.ages,
    ),
    "measurement_values": Picture(
        "Values", "Each row has its own scale: the middle half of values, and the tenth to the ninetieth.", _values,
        plots.values,
    ),
    "data_density": Picture(
        "How much is recorded", "Records for each person and month of observation; what is hidden counts as none.",
        _density, plots.density,
    ),
    "concepts_per_person": Picture(
        "How various it is", "Different concepts of a person: the middle half of persons, and the tenth to the "
        "ninetieth.", _concepts_per_person, plots.concepts_per_person,
    ),
    "completeness": Picture(
        "How complete it is", "Share of records that name a standard concept, a type, a unit, a value.", _completeness,
        plots.completeness,
    ),
}  # fmt: skip
