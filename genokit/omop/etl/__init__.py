"""MIMIC-III to the OMOP CDM: sources, vocabularies, the plan of steps, the engines that run it."""
