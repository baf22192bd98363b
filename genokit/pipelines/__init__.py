"""Notebooks as reproducible pipelines: ``run`` one, ``record`` in it, join several in a ``Pipeline``.

The names load on first use: this package costs nothing until a notebook runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genokit.pipelines.execute import run
    from genokit.pipelines.folder import Run, runs
    from genokit.pipelines.pipeline import Pipeline, PipelineRun
    from genokit.pipelines.recording import record
    from genokit.pipelines.schema import Parameter, Schema, parameters

__all__ = ["Parameter", "Pipeline", "PipelineRun", "Run", "Schema", "parameters", "record", "run", "runs"]

_HOMES = {
    "Parameter": "schema",
    "Pipeline": "pipeline",
    "PipelineRun": "pipeline",
    "Run": "folder",
    "Schema": "schema",
    "parameters": "schema",
    "record": "recording",
    "run": "execute",
    "runs": "folder",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'genokit.pipelines' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"genokit.pipelines.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
