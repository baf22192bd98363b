"""A CDM characterized: its persons, when they are observed, what is recorded of them, and how completely."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
from pandas import DataFrame

from genokit import display
from genokit.display import Html
from genokit.files import write_atomic
from genokit.omop.characterize import pictures
from genokit.omop.characterize.achilles_results import AchillesResults
from genokit.omop.characterize.analyses import analyses
from genokit.omop.characterize.concept_summary import ConceptSummary, summary
from genokit.plots.paper import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genokit.omop.characterize.explorer import Explorer


@dataclass(frozen=True)
class Characterization(AchillesResults):
    """What a CDM holds, in counts. ``Cdm.characterize`` makes one.

    ``table(name)`` and ``plot(name)`` give the numbers and the picture for each of ``names``, ``page()`` all of
    them. No count below ``min_cell`` is in it, and none from which such a count could be calculated.

    Parameters
    ----------
    title
        What the CDM calls its source.
    min_cell
        The smallest count of persons in it.
    results, distributions
        Achilles' tables achilles_results and achilles_results_dist.
    concepts
        The names of the concepts in them.
    scans
        The tables that were read, with rows, seconds and, on Athena, bytes and cost.

    Examples
    --------
    >>> from genokit import Cdm
    >>> found = Cdm().characterize(progress=False)
    >>> found.table("population").head(2)
       year_of_birth gender  persons
    0           1914    men        5
    1           1914  women        5
    """

    scans: DataFrame = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The names of all pictures."""
        return list(pictures.PICTURES)

    def table(self, name: str) -> DataFrame:
        """The numbers of one picture.

        Parameters
        ----------
        name
            One of ``names``.

        Returns
        -------
        DataFrame

        Raises
        ------
        NotFound
            If there is no such picture.
        """
        return pictures.find(name).table(self)

    def plot(self, name: str, *, ax: Axes | None = None) -> Axes:
        """Draw one picture.

        Parameters
        ----------
        name
            One of ``names``.
        ax
            The axes to draw on; by default those of a new figure.

        Returns
        -------
        Axes

        Raises
        ------
        NotFound
            If there is no such picture.
        """
        picture, table = pictures.find(name), self.table(name)
        return blank(ax, f"{picture.title}: no records") if table.empty else picture.draw(table, ax=ax)

    def analyses(self) -> DataFrame:
        """Every analysis: analysis_id, analysis_name, strata, and its number of rows."""
        rows = {**self._results.groupby("analysis_id").size(), **self._distributions.groupby("analysis_id").size()}
        known = [(number, one.name, ", ".join(one.strata), rows.get(number, 0)) for number, one in analyses().items()]
        return pd.DataFrame(sorted(known), columns=["analysis_id", "analysis_name", "strata", "rows"])

    def concept(self, concept_id: int, table: str | None = None) -> ConceptSummary:
        """All results about one concept.

        Parameters
        ----------
        concept_id
            The concept.
        table
            A table of events; by default the one in which most persons have the concept.

        Returns
        -------
        ConceptSummary

        Raises
        ------
        NotFound
            If fewer than ``min_cell`` persons have the concept, or there is no such table.
        """
        return summary(self, concept_id, table)

    def explore(self) -> Explorer:
        """Browse tables, concepts and pictures; where no widget can live, a card with all pictures."""
        from genokit.omop.characterize.explorer import Explorer

        return Explorer(self)

    def page(self, path: str | os.PathLike[str] | None = None) -> Html:
        """All pictures as one self-contained HTML page.

        Parameters
        ----------
        path
            A file to write it to as well.

        Returns
        -------
        Html
        """
        drawn = [(picture.title, pictures.drawn(self, name)) for name, picture in pictures.PICTURES.items()]
        sections = [(title, shown) for title, shown in drawn if shown]
        page = display.page(f"{self.title}, characterized", sections, lead=self.note)
        if path is not None:
            write_atomic(path, page)
        return page

    def __repr__(self) -> str:
        return f"<Characterization of {self.title}: {self.results.num_rows + self.distributions.num_rows:,} rows>"

    def _repr_html_(self) -> str:
        persons = self.counts(1)["count_value"]
        observed = self.table("observed")["month"]
        about = {
            "persons": f"{persons.iloc[0]:,}" if len(persons) else f"<{self.min_cell}",
            "observed": f"{observed.iloc[0]} to {observed.iloc[-1]}" if len(observed) else None,
            "records": f"{self.table('completeness')['records'].sum():,}",
            "analyses": f"{len(self.analyses()):,}, in {display.seconds(self.scans['seconds'].sum())}",
            "small counts": self.note,
        }
        if "usd" in self.scans:
            size, usd = display.size(int(self.scans["bytes"].sum())), self.scans["usd"].sum()
            about["cost"] = f"about ${usd:.4f}, at Athena's list price, for {size} read"
        fold = {
            "Pictures": ", ".join(self.names),
            "Analyses": display.table(self.analyses(), most=200),
            "Scans": display.table(self.scans),
        }
        return display.card(f"{self.title}, characterized", about, fold=fold)
