"""Treatment pathways: the order in which the persons of a target cohort enter event cohorts.

Target and event cohorts, eras, combinations and steps are OHDSI's terms, as in ATLAS and TreatmentPatterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame

from genokit import disclosure, display
from genokit.backends import database
from genokit.errors import InvalidParameters
from genokit.omop.cohorts.cohort_data import CohortData, check_whole, read, strictest
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT, day_numbers
from genokit.plots.pathways import NONE, OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EVENTS = 60  # a bit each, in 64


@dataclass(frozen=True, eq=False)
class Pathways:
    """Paths through event cohorts, and how many persons took each. Everything shown is suppressed, except ``frame``.

    Parameters
    ----------
    target
        The name of the target cohort.
    frame
        The true numbers, for you only. A row for each path: step_1, step_2, ... (missing after its end), persons and
        percent.
    treatments
        The label of each step, and the event cohorts that it combines.
    settings
        What was counted.
    min_cell
        The smallest count of persons to show.
    hides_persons
        Whether the target's card hides how many persons it has, which is the sum of the paths; then none is shown.
    """

    target: str
    frame: DataFrame = field(repr=False)
    treatments: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any]
    min_cell: int | None = None
    hides_persons: bool = False

    def table(self) -> DataFrame:
        """The paths that may be shown; each person is in one row.

        Rare paths that begin alike are pooled, and continue as "(other)" where they part. "(none)" are the persons who
        entered no event cohort.
        """
        paths = self.frame.head(0) if self.hides_persons else self.frame
        return _ordered(disclosure.pool_rare(paths, "persons", _steps(paths), other=OTHER, min_cell=self.min_cell))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the paths as a sunburst, with a ring for each step.

        Parameters
        ----------
        ax
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from genokit.plots.pathways import sunburst

        return sunburst(self.table(), treatments=self.treatments, title=f"From {self.target}", ax=ax)

    def __repr__(self) -> str:
        return f"<Pathways of {self.target} through {sum(len(one) == 1 for one in self.treatments.values())} cohorts>"

    def _repr_html_(self) -> str:
        from matplotlib import pyplot as plt

        shown = self.table()
        paths = shown.filter(like="step_").to_numpy()
        listed = disclosure.formatted(shown[["persons", "percent"]].round(1), ["persons"])
        listed.insert(0, "path", [" → ".join(step for step in path if isinstance(step, str)) for path in paths])
        ax = self.plot()
        picture = display.figure(ax.figure, f"Pathways of {self.target}; the table has the numbers.")  # type: ignore[arg-type]
        plt.close(ax.figure)  # type: ignore[arg-type]
        note = disclosure.note(["step"], min_cell=self.min_cell)
        about = {**self.settings, "small counts": note}
        fold = {"Numbers": display.table(listed, most=100)}
        return display.stack(display.card(f"Pathways of {self.target}", about, fold=fold), picture)


def pathways(
    target: CohortData, events: Sequence[CohortData], most_steps: int, gap_days: int, combination_days: int,
    first_only: bool,
) -> Pathways:  # fmt: skip
    """The event cohorts that persons enter during their first entry of the target, in order."""
    check_whole("most_steps", most_steps, at_least=1)
    check_whole("gap_days", gap_days, at_least=0)
    check_whole("combination_days", combination_days, at_least=0)
    names = _names(events)
    if target.spans.empty:
        raise InvalidParameters(
            f"The cohort '{target.name}' is empty. attrition() shows the criterion that excludes all."
        )
    first = _days(target.spans).sort_values([SUBJECT, "first_day"]).drop_duplicates(SUBJECT)
    entered = pd.concat([_days(one.spans).assign(treatment=i) for i, one in enumerate(events)], ignore_index=True)
    duck = database(":memory:")
    duck.con.register("target", first)  # type: ignore[union-attr]
    duck.con.register("event", entered)  # type: ignore[union-attr]
    parameters = {"most_steps": most_steps, "gap_days": gap_days, "combination_days": combination_days,
                  "first_only": first_only}  # fmt: skip
    found = duck.query(read("pathways"), parameters).table.to_pandas()
    duck.con.close()  # type: ignore[union-attr]
    treatments, steps = _named(found["steps"].tolist(), names)
    padded = [[*path, *[None] * (most_steps - len(path))] for path in steps]
    frame = pd.DataFrame(padded, columns=[f"step_{i}" for i in range(1, most_steps + 1)], dtype="object")
    frame["persons"] = found["persons"].astype("int64")
    without = len(first) - int(frame["persons"].sum())
    if without:
        frame.loc[len(frame)] = [NONE, *[None] * (most_steps - 1), without]
    settings = {
        "from": f"the first entry of {target.name}, to its end",
        "eras": f"entries with a gap of up to {gap_days:,} days are one era",
        "combination": f"an overlap of {combination_days:,} days or more, or of a whole era",
        "steps": f"the first {most_steps}" + (", each cohort or combination once" if first_only else ""),
    }
    return Pathways(
        target.name, _ordered(frame), treatments, settings, strictest(target, *events), target.hides_persons
    )


def _names(events: Sequence[CohortData]) -> list[str]:
    names = [getattr(one, "name", None) for one in events]
    if not names or len(names) > MOST_EVENTS or None in names:
        raise InvalidParameters(
            f"Give the event cohorts: 1 to {MOST_EVENTS}, as in target.pathways(aspirin, naproxen)."
        )
    if len(set(names)) < len(names) or {"", OTHER, NONE} & set(names):
        raise InvalidParameters(
            f"Event cohorts need distinct names; '{OTHER}' and '{NONE}' are reserved. Rename one: cohort.named(name)."
        )
    return [str(name) for name in names]


def _days(periods: DataFrame) -> DataFrame:
    """Periods with their days as numbers."""
    first, last = (day_numbers(periods[name]).astype("int32") for name in (START, END))
    return pd.DataFrame({SUBJECT: periods[SUBJECT].astype("int64"), "first_day": first, "last_day": last})


def _named(paths: Sequence[Sequence[int]], names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], list[list[str]]]:
    """The label of each step, single cohorts first and in the order given, and the paths in these labels.

    >>> _named([[1, 3], [3]], ["a", "b"])
    ({'a': ('a',), 'b': ('b',), 'a + b': ('a', 'b')}, [['a', 'a + b'], ['a + b']])
    """
    codes: dict[int, tuple[str, ...]] = {1 << i: (name,) for i, name in enumerate(names)}
    for code in sorted({int(step) for path in paths for step in path} - set(codes)):
        codes[code] = tuple(name for i, name in enumerate(names) if code >> i & 1)
    labels = {code: " + ".join(parts) for code, parts in codes.items()}
    if len(set(labels.values())) < len(labels):
        raise InvalidParameters("A cohort has the name of a combination of others. Rename it: cohort.named(name).")
    treatments = {labels[code]: parts for code, parts in codes.items()}
    return treatments, [[labels[int(step)] for step in path] for path in paths]


def _ordered(frame: DataFrame) -> DataFrame:
    """The most frequent paths first, each with its share of all persons."""
    steps = _steps(frame)
    rising = [False, *[True] * len(steps)]
    ordered = frame.sort_values(["persons", *steps], ascending=rising, na_position="first", ignore_index=True)
    return ordered.assign(percent=100 * ordered["persons"] / ordered["persons"].sum())


def _steps(frame: DataFrame) -> list[str]:
    return [name for name in frame.columns if name.startswith("step_")]
