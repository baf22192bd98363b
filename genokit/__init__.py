"""genokit: a Jupyter-first research kit; the same notebook on a laptop and on AWS.

The public names are below and load on first use, so that ``import genokit`` costs next to nothing.
"""

from __future__ import annotations

# Type checkers and editors treat this name as true; importing it from typing would cost more than everything else.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from genokit import genomics as genomics
    from genokit import omop as omop
    from genokit import train as train
    from genokit.batch import Batch as Batch
    from genokit.batch import Job as Job
    from genokit.batch import JobDefinition as JobDefinition
    from genokit.config import Settings as Settings
    from genokit.data import Dataset as Dataset
    from genokit.data import Manifest as Manifest
    from genokit.errors import GenokitError as GenokitError
    from genokit.omop.cdm import Cdm as Cdm
    from genokit.omop.concepts import Concept as Concept
    from genokit.omop.concepts import ConceptSet as ConceptSet
    from genokit.pipelines import Pipeline as Pipeline
    from genokit.pipelines import Run as Run
    from genokit.pipelines import record as record
    from genokit.pipelines import run as run
    from genokit.stacks import Image as Image
    from genokit.stacks import Stack as Stack
    from genokit.workspaces import Workspace as Workspace

__version__ = "0.1.0"

_HOMES = {
    "Batch": "genokit.batch",
    "Cdm": "genokit.omop.cdm",
    "Concept": "genokit.omop.concepts",
    "ConceptSet": "genokit.omop.concepts",
    "Dataset": "genokit.data",
    "GenokitError": "genokit.errors",
    "Image": "genokit.stacks",
    "Job": "genokit.batch",
    "JobDefinition": "genokit.batch",
    "Manifest": "genokit.data",
    "Pipeline": "genokit.pipelines",
    "Run": "genokit.pipelines",
    "Settings": "genokit.config",
    "Stack": "genokit.stacks",
    "Workspace": "genokit.workspaces",
    "load_ipython_extension": "genokit.omop.magic",  # for %load_ext genokit
    "record": "genokit.pipelines",
    "run": "genokit.pipelines",
}
__all__ = sorted({*_HOMES, "__version__", "genomics", "omop", "train"} - {"load_ipython_extension"})


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in ("genomics", "omop", "train"):
        return import_module(f"genokit.{name}")  # the import system binds the name here
    if name not in _HOMES:
        raise AttributeError(f"module 'genokit' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "annotations"})
