"""Achilles' results of a CDM: its two tables, and the names of the concepts in them. No count in them is small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
from pandas import DataFrame, Series

from genokit import disclosure
from genokit.omop.characterize.analyses import find
from genokit.omop.characterize.result_file import STRATA

GENDERS = {8507: "men", 8532: "women"}
UNKNOWN_PERSONS = " Some persons of observation_period are not in person, so more are observed than there are persons."


@dataclass(frozen=True)
class AchillesResults:
    """The tables achilles_results and achilles_results_dist of a CDM, and what to call it."""

    title: str
    min_cell: int
    results: pa.Table = field(repr=False)
    distributions: pa.Table = field(repr=False)
    concepts: Mapping[int, str] = field(repr=False)

    def counts(self, analysis_id: int) -> DataFrame:
        """The counts of one of Achilles' analyses, with named strata.

        Parameters
        ----------
        analysis_id
            Achilles' number of the analysis, as ``analyses`` lists them.

        Returns
        -------
        DataFrame

        Raises
        ------
        NotFound
            If there is no such analysis.
        """
        return self._of(analysis_id, self._results)

    def distribution(self, analysis_id: int) -> DataFrame:
        """The distributions of one of Achilles' analyses, with named strata.

        Parameters
        ----------
        analysis_id
            Achilles' number of the analysis, as ``analyses`` lists them.

        Returns
        -------
        DataFrame

        Raises
        ------
        NotFound
            If there is no such analysis.
        """
        return self._of(analysis_id, self._distributions)

    def concept_names(self, concept_ids: Series[Any]) -> list[str]:
        """The names of concepts.

        Parameters
        ----------
        concept_ids
            Their ids, such as a column of strata.

        Returns
        -------
        list of str
        """
        return [self.concepts.get(int(one), f"concept {one}") for one in concept_ids]

    def gender_names(self, concept_ids: Series[Any]) -> list[str]:
        """The names of genders.

        Parameters
        ----------
        concept_ids
            Their ids, such as a column of strata.

        Returns
        -------
        list of str
        """
        return [GENDERS.get(int(one)) or self.concepts.get(int(one), str(one)) for one in concept_ids]

    @property
    def note(self) -> str:
        """The sentence to show beside the numbers."""
        note = disclosure.note(STRATA, min_cell=self.min_cell)
        observed, known = (self.distribution(number)["count_value"].sum() for number in (105, 103))
        return note + UNKNOWN_PERSONS * bool(observed > known > 0)

    @cached_property
    def _results(self) -> DataFrame:
        frame: DataFrame = self.results.to_pandas()
        return frame

    @cached_property
    def _distributions(self) -> DataFrame:
        frame: DataFrame = self.distributions.to_pandas()
        return frame

    def _of(self, analysis_id: int, frame: DataFrame) -> DataFrame:
        return with_strata(frame[frame["analysis_id"] == analysis_id], analysis_id)


def with_strata(rows: DataFrame, analysis_id: int) -> DataFrame:
    """The rows of an analysis, with its strata under their names."""
    strata = find(analysis_id).strata
    rows = rows.drop(columns=["analysis_id", *STRATA[len(strata) :]])
    return rows.rename(columns=dict(zip(STRATA, strata, strict=False))).reset_index(drop=True)
