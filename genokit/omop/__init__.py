"""MIMIC-III to the OMOP CDM 5.4, checked; and any CDM asked in SQL.

report = omop.etl(omop.synthetic("mimiciii", persons=100), "omop")
"""

from __future__ import annotations

from genokit.omop.athena import Athena
from genokit.omop.cdm import Cdm
from genokit.omop.duck import DuckDB
from genokit.omop.etl import etl
from genokit.omop.quality import Quality, quality
from genokit.omop.report import Report
from genokit.omop.source import Loaded, Source
from genokit.omop.spark import Spark
from genokit.omop.synthetic import synthetic
from genokit.omop.vocabulary import Vocabulary, vocabulary

__all__ = [
    "Athena",
    "Cdm",
    "DuckDB",
    "Loaded",
    "Quality",
    "Report",
    "Source",
    "Spark",
    "Vocabulary",
    "etl",
    "quality",
    "synthetic",
    "vocabulary",
]
