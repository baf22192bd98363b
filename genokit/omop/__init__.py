"""MIMIC-III to the OMOP CDM 5.4: the source as it is, and the rules that carry it over, in SQL."""
