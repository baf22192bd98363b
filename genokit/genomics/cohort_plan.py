"""What a cohort needs: for each sample and step the words of a command, and the key of what it works on."""

from __future__ import annotations

import contextlib
import json
import os
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genokit import storage
from genokit.backends import Clients
from genokit.errors import InvalidParameters, NotFound, did_you_mean
from genokit.genomics.sheet import read_sheet, stamp
from genokit.genomics.step import ALIGNERS, RECORD, package, versions
from genokit.storage import Address

if TYPE_CHECKING:
    import pandas as pd

    from genokit.batch import Batch, JobDefinition

# Each step's folder in the results of a sample, and the step whose outputs it reads.
STEPS = {
    "align": ("bam", ""), "call": ("vcf", "align"), "annotate": ("annotated_vcf", "call"), "stats": ("stats", "align"),
}  # fmt: skip
Sizes = Mapping[str, float] | None  # of a step's jobs, by step
Row = dict[str, str]  # the values of the words of a command
Identity = tuple[str, str]  # of a row: its "out" and "key", where the outputs go and what they are made from


class CohortPlan(NamedTuple):
    """For each sample the row of each step, and for each step the definition of its jobs.

    ``commands`` are those that override the definitions': such a job has no row, and so is no child of an array.
    """

    samples: dict[str, dict[str, Row]]
    definitions: dict[str, JobDefinition]
    commands: dict[str, list[str]]


def planned(
    sheet: pd.DataFrame | Address, reference: Address, genes: Address | None, out: Address | None, profile: str,
    aligner: str, vcpus: Sizes, memory_gib: Sizes, batch: Batch,
) -> CohortPlan:  # fmt: skip
    """Read the sheet, check all inputs, define the jobs. Raises as ``workflow``."""
    clients, here = batch.clients, batch.clients.backend.shares_folders
    profiles = tomllib.loads(Path(__file__).with_name("profiles.toml").read_text(encoding="utf-8"))
    if profile not in profiles:
        raise InvalidParameters(f"There is no profile '{profile}'. {did_you_mean(profile, profiles)}")
    pip, chosen = profile == "pip", profiles[profile]
    if not all(isinstance(sizes or {}, Mapping) for sizes in (vcpus, memory_gib)):
        raise InvalidParameters(f"Expected sizes by step, such as vcpus={{'align': 8}}; got {vcpus=}, {memory_gib=}.")
    if aligner not in (ALIGNERS if pip else ["minibwa"]):
        step = did_you_mean(aligner, ALIGNERS) if pip else "It aligns with Isaac; leave 'aligner' out."
        raise InvalidParameters(f"Profile '{profile}' has no aligner '{aligner}'. {step}")
    for name in (aligner, "pysam") if pip and here else ():
        package(name)
    if strange := {*(vcpus or {}), *(memory_gib or {})} - {*(STEPS if pip else ())}:
        known = f"has the steps {', '.join(STEPS)}" if pip else "has the sizes of the stack's job definitions"
        raise InvalidParameters(f"vcpus and memory_gib: profile '{profile}' {known}, got {', '.join(sorted(strange))}.")
    samples = read_sheet(sheet, clients)
    if not pip and (many := [name for name, lanes in samples.items() if [*map(len, lanes.values())] != [2]]):
        raise InvalidParameters(f"Profile 'posts' takes one lane of pairs a sample, unlike sample '{many[0]}'.")
    source, models = storage.absolute(reference), storage.absolute(genes) if pip and genes else os.fspath(genes or "")
    named = "cohort" if hasattr(sheet, "itertuples") else storage.absolute(sheet)
    results = storage.results(out, "genomics", digest([named, source])[:12], clients=clients)
    steps = {step: chosen[step] for step in STEPS if step != "annotate" or genes}
    definitions = {step: _defined(batch, step, one, chosen["aws"], vcpus, memory_gib) for step, one in steps.items()}
    common = [source, stamp(source, clients), versions(aligner) if here else {}]
    own = {"align": [aligner], "annotate": [models, stamp(models, clients) if pip and genes else ""]}
    plan: dict[str, dict[str, Row]] = {}
    for sample, lanes in samples.items():
        words = {
            "sample": sample, "reference": source, "references": source.rpartition("/")[0], "genes": models,
            "folder": storage.join(results, sample), "aligner": aligner,
            "lanes": json.dumps({lane: [*paths] for lane, paths in lanes.items()}),
            **{f"fastq_{number}": path for number, path in enumerate(next(iter(lanes.values())), 1)},
        }  # fmt: skip
        words |= {name: where.format(**words) for name, where in chosen["files"].items()}
        rows = plan[sample] = {}
        for step, one in steps.items():
            folder, before = STEPS[step]
            made_of = rows[before]["key"] if before else lanes
            about = [step, sample, *common, definitions[step].image, *own.get(step, []), made_of]
            words |= {"out": storage.join(words["folder"], folder), "key": digest(about)}
            used = {"sample", "out", "key", *(word.removeprefix("Ref::") for word in one["command"])}
            rows[step] = {name: words[name] for name in sorted(used & words.keys())}
    return CohortPlan(plan, definitions, {} if pip else {step: one["command"] for step, one in steps.items()})


def queue_of(step: str, high: str, low: str) -> str:
    """Which of two queues a step's jobs wait in: the one of higher priority for what other steps wait for."""
    return high if step in ("align", "call") else low


def finished(rows: Mapping[str, Row], clients: Clients) -> set[Identity]:
    """The steps of a sample whose outputs are there, made from what the plan says."""
    there = set(storage.files(rows["align"]["out"].rpartition("/")[0], clients=clients))
    found = set()
    for step, row in rows.items():
        record = storage.join(row["out"], RECORD.format(sample=row["sample"], step=step))
        with contextlib.suppress(ValueError, KeyError):  # another's file
            about = json.loads(storage.read(record, clients=clients)) if record in there else {"key": ""}
            if about["key"] == row["key"] and all(storage.join(row["out"], name) in there for name in about["outputs"]):
                found.add((row["out"], row["key"]))
    return found


def _defined(
    batch: Batch, step: str, chosen: dict[str, Any], scratch: dict[str, Any], vcpus: Sizes, memory_gib: Sizes
) -> JobDefinition:
    """The definition of a step's jobs: one of the kit's own, or the stack's for a container of the posts."""
    if "definition" not in chosen:
        count = (vcpus or {}).get(step, 1)
        return batch.define(
            f"genomics-{step}", command=chosen["command"], parameters={"threads": str(max(1, int(count)))},
            vcpus=count, memory_gib=(memory_gib or {}).get(step, 2), retry="interrupted",
            **({} if batch.clients.backend.shares_folders else scratch),
        )  # fmt: skip
    try:
        return batch.definition(chosen["definition"])
    except NotFound as error:
        raise NotFound(f"Profile 'posts' runs the posts' containers as Stack('batch') defines them. {error}") from error


def digest(about: object) -> str:
    """A name for what something is made from, of 32 hexadecimal digits."""
    return sha256(json.dumps(about).encode()).hexdigest()[:32]
