"""Notebooks as reproducible pipelines: ``run`` one, ``record`` its results, combine several in a ``Pipeline``."""

from genokit.pipelines.cache import clean
from genokit.pipelines.comparison import Comparison, compare, reproduce
from genokit.pipelines.crate import verify, why
from genokit.pipelines.execute import follow, run
from genokit.pipelines.folders import Run, runs
from genokit.pipelines.pipeline import Pipeline
from genokit.pipelines.recording import record
from genokit.pipelines.report import PipelineRun
from genokit.pipelines.schema import Parameter, Schema, parameters

__all__ = [
    "Comparison",
    "Parameter",
    "Pipeline",
    "PipelineRun",
    "Run",
    "Schema",
    "clean",
    "compare",
    "follow",
    "parameters",
    "record",
    "reproduce",
    "run",
    "runs",
    "verify",
    "why",
]
