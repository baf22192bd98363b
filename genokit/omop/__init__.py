"""MIMIC-III to the OMOP CDM 5.4: the source as it is, and the rules that carry it over, in SQL."""

from __future__ import annotations

from genokit.omop.source import Loaded, Source
from genokit.omop.synthetic import synthetic
from genokit.omop.vocabulary import Vocabulary, vocabulary

__all__ = ["Loaded", "Source", "Vocabulary", "synthetic", "vocabulary"]
