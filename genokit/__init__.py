"""genokit: a Jupyter-first research kit; the same notebook on a laptop and on AWS.

The public names are below and load on first use, so that ``import genokit`` costs next to nothing.
"""

from __future__ import annotations

# Type checkers and editors take this name for true; importing it from typing would cost more than all the rest.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import genokit.omop as omop
    import genokit.train as train
    from genokit.batch import Batch, Job, JobDefinition
    from genokit.config import Settings
    from genokit.data import Dataset, Manifest
    from genokit.errors import GenokitError
    from genokit.omop.cdm import Cdm
    from genokit.omop.concepts import Concept, ConceptSet
    from genokit.pipelines import Pipeline, Run, record, run
    from genokit.stacks import Stack

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cdm",
    "Concept",
    "ConceptSet",
    "Dataset",
    "GenokitError",
    "Job",
    "JobDefinition",
    "Manifest",
    "Pipeline",
    "Run",
    "Settings",
    "Stack",
    "__version__",
    "omop",
    "record",
    "run",
    "train",
]

_HOMES = {
    "Batch": "genokit.batch",
    "Cdm": "genokit.omop.cdm",
    "Concept": "genokit.omop.concepts",
    "ConceptSet": "genokit.omop.concepts",
    "Dataset": "genokit.data",
    "GenokitError": "genokit.errors",
    "Job": "genokit.batch",
    "JobDefinition": "genokit.batch",
    "Manifest": "genokit.data",
    "Pipeline": "genokit.pipelines",
    "Run": "genokit.pipelines",
    "Settings": "genokit.config",
    "Stack": "genokit.stacks",
    "load_ipython_extension": "genokit.omop.magic",  # what %load_ext genokit asks for
    "record": "genokit.pipelines",
    "run": "genokit.pipelines",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in ("omop", "train"):
        return import_module(f"genokit.{name}")  # the import system binds the name here
    if name not in _HOMES:
        raise AttributeError(f"module 'genokit' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "annotations"})
