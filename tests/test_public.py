"""The front door: which names it has, and what it costs to come in."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import jedi
import pytest

import genokit
from genokit import (
    Cdm,
    Concept,
    ConceptSet,
    Dataset,
    Image,
    Job,
    JobDefinition,
    Manifest,
    Pipeline,
    Run,
    Settings,
    Stack,
    Workspace,
    genomics,
    omop,
    storage,
    train,
)
from genokit.backends import Clients
from genokit.batch import ComputeEnvironment, JobQueue, LogStream
from genokit.omop.characterize.characterization import Characterization
from genokit.omop.cohorts.cohort import Cohort

ROOT = Path(__file__).parents[1]

# A change here is a change for every user: say so in CHANGELOG.md.
PUBLIC = [
    "Batch",
    "Cdm",
    "Concept",
    "ConceptSet",
    "Dataset",
    "GenokitError",
    "Image",
    "Job",
    "JobDefinition",
    "Manifest",
    "Pipeline",
    "Run",
    "Settings",
    "Stack",
    "Workspace",
    "__version__",
    "genomics",
    "omop",
    "record",
    "run",
    "train",
]


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names_are_these():
    assert genokit.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name):
    thing = getattr(genokit, name)
    assert name in dir(genokit)
    if name != "__version__":
        assert (inspect.getdoc(thing) or "").strip()


@pytest.mark.parametrize("package", [genokit, genomics, train], ids=lambda package: package.__name__)
def test_an_editor_completes_the_names_that_a_package_has(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    code = f"import {package.__name__} as package\npackage."
    assert {*package.__all__} <= {one.name for one in jedi.Script(code).complete(2)}


def test_verbs_are_functions_whatever_was_imported_before():
    code = "import genokit.pipelines, genokit.train, genokit; print(callable(genokit.run), callable(genokit.record))"
    assert python(code) == "True True"


def test_a_star_import_brings_every_public_name():
    assert python(f"from genokit import *; print(all(name in globals() for name in {PUBLIC}))") == "True"


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="'genokit' has no attribute 'Bach'"):
        _ = genokit.Bach


def test_the_version_is_the_project_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert genokit.__version__ == project["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", genokit.__version__)


def test_coming_in_loads_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import genokit; dir(genokit); "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'genokit'}))"
    )
    assert python(code) == "[]"


@pytest.mark.parametrize("module", ["config", "errors", "display", "files", "backends", "doctor", "__main__"])
def test_leaves_switch_and_skin_load_nothing_but_the_standard_library(module):
    code = (
        f"import sys; before = set(sys.modules); import genokit.{module}; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'genokit'}))"
    )
    assert python(code) == "[]"


def test_coming_in_takes_less_than_fifteen_hundredths_of_a_second_of_the_processor():
    code = "import time; start = time.process_time(); import genokit; print(time.process_time() - start)"
    assert min(float(python(code)) for _ in range(5)) < 0.15


@pytest.mark.parametrize(
    ("owner", "old", "new"),
    [(Job, "reunited", "reused"), (ComputeEnvironment, "room", "capacity"), (Clients, "shares_folders", "backend")],
)
def test_an_attribute_that_was_renamed_still_works_and_warns_with_its_new_name(
    owner: type, old: str, new: str, account: Settings
) -> None:
    batch = genokit.Batch(settings=account)
    job = Job(batch.clients, "none", reused=True)
    one = {Job: job, ComputeEnvironment: batch.environments()[0], Clients: batch.clients}[owner]
    with pytest.warns(DeprecationWarning, match=rf"{owner.__name__}\.{old} is now {new}"):
        assert getattr(one, old)


CLASSES = (genokit.Batch, Job, JobDefinition, JobQueue, ComputeEnvironment, LogStream, Cdm, Cohort, Concept, ConceptSet,
           Characterization, genomics.Workflow, Stack, Image, Workspace, Pipeline, Run, Manifest, Dataset)  # fmt: skip
FUNCTIONS = (genokit.run, genokit.record, genomics.export, genomics.simulate, genomics.workflow, train.draw, train.fit,
             train.submit, omop.etl, omop.quality, omop.synthetic,
             omop.vocabulary, storage.read, storage.write, storage.write_if_absent, storage.files, storage.delete,
             Settings.made)  # fmt: skip
METHODS = [
    method
    for one in CLASSES
    for name, method in inspect.getmembers(one, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
    if not name.startswith("_")
]


@pytest.mark.parametrize("function", [*FUNCTIONS, *METHODS], ids=lambda function: function.__qualname__)
def test_shift_tab_explains_every_parameter_of_a_public_function(function: Callable[..., object]) -> None:
    said = inspect.getdoc(function) or ""
    assert said
    for name in inspect.signature(function).parameters:
        if name not in ("self", "cls"):
            heads = re.findall(rf"^\**(?:[\w]+, \**)*{name}\b(?:, \**\w+)*(?: : .*)?$", said, re.MULTILINE)
            assert heads, f"{name} is not in the docstring"
