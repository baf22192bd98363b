"""MIMIC-III to the OMOP CDM 5.4, checked; and any CDM asked in SQL.

report = omop.etl(omop.synthetic("mimiciii", persons=100), "omop")
"""

from __future__ import annotations

from genokit.omop.cdm import Cdm
from genokit.omop.etl.engines.athena import Athena
from genokit.omop.etl.engines.duck import DuckDB
from genokit.omop.etl.engines.spark import Spark
from genokit.omop.etl.etl import etl
from genokit.omop.etl.report import Report
from genokit.omop.etl.source import Source
from genokit.omop.etl.synthetic import synthetic
from genokit.omop.etl.vocabulary import Vocabulary, vocabulary
from genokit.omop.quality.quality import Quality, quality

__all__ = [
    "Athena",
    "Cdm",
    "DuckDB",
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
