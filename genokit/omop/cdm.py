"""Cdm: a database of patients in the OMOP CDM, to query in SQL: in DuckDB here, or in Athena on AWS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas import DataFrame

from genokit import disclosure, display
from genokit.errors import GenokitError, NotFound, did_you_mean
from genokit.omop import concept_search, concepts
from genokit.omop.cdm_table import CdmTable, described
from genokit.omop.concepts import Concept, ConceptSet
from genokit.omop.connection import CdmConnection
from genokit.omop.fields import tables

if TYPE_CHECKING:
    from genokit.omop.characterize.characterization import Characterization
    from genokit.omop.cohorts.cohort import Cohort
    from genokit.omop.cohorts.cohort_entry import Concepts

Source = str | os.PathLike[str] | Mapping[str, Any]


class Cdm(CdmConnection):
    """A database in the OMOP CDM. ``Cdm()`` is a sample of synthetic patients.

    Nothing is opened before the first query, and files are only read. On this machine every table of the CDM 5.4
    exists with all its fields, in the CDM's types: missing tables are empty, missing columns are null.

    Parameters
    ----------
    place
        A DuckDB file, a folder of Parquet files, the folder of an ETL, or ``athena://workgroup/database``; by default
        the sample.
    database
        An open DuckDB connection, in place of ``place``.
    schema
        The schema of the tables, if a file has several CDMs.
    clients
        The account for Athena; by default the one in the settings.
    external_access
        Let queries read any file and address that you can read, as ``read_csv`` does: only for SQL and files that you
        trust. By default they read the CDM's own files only.

    Examples
    --------
    >>> from genokit import Cdm
    >>> cdm = Cdm()
    >>> cdm.query("select count(*) as n from person where year_of_birth > $year", year=1980)
        n
    0  86
    """

    def concept(self, concept_id: int) -> Concept:
        """Look up a concept of the vocabulary.

        Parameters
        ----------
        concept_id
            Its id.

        Returns
        -------
        Concept

        Raises
        ------
        NotFound
            If the vocabulary has no such concept.

        Examples
        --------
        >>> Cdm().concept(192671)
        <Concept 192671 Gastrointestinal hemorrhage, Condition, SNOMED>
        """
        return concepts.of(self, [concept_id])[concept_id]

    def concepts(
        self,
        words: str,
        *,
        domain: str | None = None,
        vocabulary: str | None = None,
        standard: bool | None = None,
        most: int = 50,
    ) -> DataFrame:
        """Search the vocabulary by name, synonym or code; without a match, by similar words.

        Parameters
        ----------
        words
            All of them must occur.
        domain, vocabulary
            Only concepts of this domain ("Drug", "Condition", ...) or vocabulary ("SNOMED", ...).
        standard
            Only standard concepts (True) or only others (False).
        most
            Rows at most.

        Returns
        -------
        DataFrame
            The concepts, the best match first.

        Raises
        ------
        InvalidParameters
            If there are no words.
        NotFound
            If the vocabulary has no such domain or vocabulary.
        """
        return concept_search.search(self, words, domain=domain, vocabulary=vocabulary, standard=standard, most=most)

    def concept_set(self, name: str | None = None, source: Source | None = None) -> ConceptSet:
        """An empty set of concepts, or one from ATLAS.

        Parameters
        ----------
        name
            What to call it; of a source with several sets, which one to take.
        source
            A JSON file of ATLAS, its text, or its content.

        Returns
        -------
        ConceptSet
            Raises InvalidParameters if the source is not a concept set, NotFound if it does not exist.
        """
        if source is None:
            return ConceptSet(name or "concept set", (), self)
        return concepts.read(source, self, name)

    def cohort(
        self,
        *,
        name: str | None = None,
        condition: Concepts | None = None,
        drug: Concepts | None = None,
        measurement: Concepts | None = None,
        procedure: Concepts | None = None,
        observation: Concepts | None = None,
        device: Concepts | None = None,
        visit: Concepts | None = None,
        death: Concepts | bool = False,
        value: tuple[float | None, float | None] | None = None,
        first_only: bool = False,
        washout_days: int | None = None,
        prior_observation_days: int = 0,
        age_at_entry: tuple[int | None, int | None] | None = None,
        sex: str | int | None = None,
        entered: tuple[object, object] | None = None,
        end: str | int = "observation",
        censor: Cohort | None = None,
        min_cell: int | None = None,
    ) -> Cohort:
        """Persons with a record of any of these concepts, from its day on; without concepts, everyone observed.

        Parameters
        ----------
        name
            What to call the cohort.
        condition, drug, measurement, procedure, observation, device, visit
            An id, ids, a Concept or a ConceptSet. ``visit`` also finds parts of visits in visit_detail, such as stays
            in intensive care (32037).
        death
            True for any death, or concepts of its cause.
        value
            Lower and upper bound of a measurement's number. As in all bounds, None is unlimited.
        first_only
            Only the first record ever.
        washout_days
            Only records without another one in so many days before.
        prior_observation_days
            Only entries after so many days of observation.
        age_at_entry
            Lower and upper bound in completed years.
        sex
            "male", "female" or a concept_id.
        entered
            First and last date of entry.
        end
            When an entry ends: with the "observation", with the "record", or so many days after it began.
        censor
            A cohort at whose beginning this one ends.
        min_cell
            The smallest count of persons to show; never below the settings' ``min_cell``.

        Returns
        -------
        Cohort

        Raises
        ------
        InvalidParameters
        """
        from genokit.omop.cohorts import cohort_entry

        given = {"condition": condition, "drug": drug, "measurement": measurement, "procedure": procedure,
                 "observation": observation, "device": device, "visit": visit,
                 "death": None if death is False else death}  # fmt: skip
        entry = cohort_entry.Entry(
            {domain: one for domain, one in given.items() if one is not None}, value, first_only, washout_days,
            prior_observation_days, age_at_entry, sex, entered, end,
        )  # fmt: skip
        return cohort_entry.cohort(self, entry, name=name, censor=censor, min_cell=min_cell)

    def stored_cohort(
        self, cohort_definition_id: int, *, name: str | None = None, min_cell: int | None = None
    ) -> Cohort:
        """A cohort from the CDM's own table ``cohort``.

        Parameters
        ----------
        cohort_definition_id
            Its id in that table.
        name
            What to call the cohort; by default "cohort" and its id.
        min_cell
            The smallest count of persons to show; never below the settings' ``min_cell``.

        Returns
        -------
        Cohort

        Raises
        ------
        NotFound
            If the table has no such cohort.
        """
        from genokit.omop.cohorts import cohort_entry

        return cohort_entry.stored(self, cohort_definition_id, name=name, min_cell=min_cell)

    def atlas_cohort(self, source: Source, *, name: str | None = None, min_cell: int | None = None) -> Cohort:
        """The cohort of a definition made in ATLAS; its attrition has a step for each inclusion rule.

        duckcdm runs it as ATLAS would: ``pip install 'genokit[atlas]'``.

        Parameters
        ----------
        source
            A JSON file, its text, or its content.
        name
            What to call the cohort; by default as ATLAS does.
        min_cell
            The smallest count of persons to show; never below the settings' ``min_cell``.

        Returns
        -------
        Cohort

        Raises
        ------
        InvalidParameters, NotFound
            If the source is not a cohort definition, or does not exist.
        InvalidSource
            If this CDM is not on this machine.
        MissingDependency
            Without duckcdm.
        """
        from genokit.omop.cohorts import circe

        return circe.cohort(self, source, name=name, min_cell=min_cell)

    def characterize(
        self,
        results: str | os.PathLike[str] | None = None,
        *,
        min_cell: int | None = None,
        progress: bool = True,
    ) -> Characterization:
        """Count what the CDM holds, as Achilles does.

        Parameters
        ----------
        results
            A DuckDB file to keep Achilles' tables in, which ATLAS can read.
        min_cell
            The smallest count of persons in the results; never below the settings' ``min_cell``.
        progress
            Show a progress bar.

        Returns
        -------
        Characterization

        Raises
        ------
        NotFound
            Without a table ``person``.
        InvalidSource
            If ``results`` cannot be opened.
        """
        from genokit.omop.characterize.characterize import characterize

        return characterize(self, results, min_cell=self.least(min_cell), progress=progress)

    def table(self, name: str) -> CdmTable:
        """A table to look at: its columns, its length, its first rows.

        Parameters
        ----------
        name
            The table's name in the CDM.

        Returns
        -------
        CdmTable

        Raises
        ------
        NotFound
            If the CDM has no such table.
        """
        if name not in self._columns:
            raise NotFound(f"{self._title} has no table '{name}'. {did_you_mean(name, self._columns)}")
        return CdmTable(self, name)

    def __getitem__(self, name: str) -> CdmTable:
        return self.table(name)

    def _ipython_key_completions_(self) -> list[str]:
        return self.tables()

    def tables(self) -> list[str]:
        """The names of all tables, the CDM's first."""
        known = [name for name in tables() if name in self._columns]
        return known + [name for name in self._columns if name not in known]

    def schema(self) -> DataFrame:
        """Every column: table, column, type, whether the CDM requires it, and the table that it points at."""
        rows = [(table, *column) for table in self.tables() for column in described(table, self._columns[table])]
        return pd.DataFrame(rows, columns=["table", "column", "type", "required", "points_at"])

    @property
    def _title(self) -> str:
        if self.place is not None:
            return f"'{self.place}'"
        return "The CDM" if self._given is not None else "The sample"

    def __repr__(self) -> str:
        if self.place is None and self._given is not None:
            return "<Cdm of an open database>"
        return f"<Cdm {' '.join((self.place or 'sample: GiBleed, synthetic patients').split())}>"

    def _repr_html_(self) -> str:
        place = self.place or ("an open database" if self._given is not None else "sample")
        about: dict[str, object] = {"place": place}
        try:
            if self.place is None and self._given is None:
                about |= {"data": self._sample.title, "licence": "; ".join(self._sample.licences)}
            if self.database.free:
                about |= self._numbers()
            shown = [{"table": table, "columns": len(self._columns[table])} for table in self.tables()]
        except GenokitError as error:
            return display.card("CDM", about | {"problem": str(error)}, status="problem")
        return display.card("CDM", about, fold={f"Tables ({len(shown)})": display.table(shown)})

    def _numbers(self) -> dict[str, object]:
        source = self.database.query("select cdm_source_name, cdm_version, vocabulary_version from cdm_source")
        known = source.table.to_pylist()[:1] or [{}]
        [counts] = self.database.query(
            "select (select count(*) from person) as persons, min(observation_period_start_date) as first,"
            " max(observation_period_end_date) as last from observation_period"
        ).table.to_pylist()
        return {
            "source": known[0].get("cdm_source_name"),
            "CDM": known[0].get("cdm_version"),
            "vocabulary": known[0].get("vocabulary_version"),
            "persons": disclosure.formatted_count(counts["persons"], self.least()),
            "observed": f"{counts['first']} to {counts['last']}" if counts["first"] else None,
        }
