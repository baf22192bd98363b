"""The evaluation of a submission: its command in the sandbox, its outputs through the gate, its predictions scored."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from genokit.data import Dataset
from genokit.display import Html, Log, card, table
from genokit.errors import OutputRefused
from genokit.workspaces import container, gate, sandbox
from genokit.workspaces.challenge import STEP_S, Challenge
from genokit.workspaces.gate import Passed
from genokit.workspaces.scorers import SCORERS

Score = tuple[float | None, float | None, float | None]  # and the ends of its interval
NONE: Score = (None, None, None)


@dataclass(frozen=True)
class Outcome:
    """How a submission ended.

    Attributes
    ----------
    state : str
        "SUCCEEDED"; "FAILED" if the command failed or exceeded a limit; "REFUSED" if the gate refused an output.
    reason : str
        One of a few fixed sentences; "" if it succeeded.
    seconds : int
        Its wall time, rounded up to 10 seconds.
    outputs : list of Passed
        The outputs that passed the gate.
    scores : mapping
        For "public" and "private" the score and the ends of its 95 % interval.
    log : bytes
        What it printed.
    """

    state: str
    reason: str
    seconds: int
    outputs: Sequence[Passed]
    scores: Mapping[str, Score]
    log: bytes

    def __repr__(self) -> str:
        return f"<Outcome {self.state}{': ' if self.reason else ''}{self.reason}>"

    def _repr_html_(self) -> Html:
        rows = {**({"Reason": self.reason} if self.reason else {}), "Wall time": f"at most {self.seconds} s"}
        outputs = [{"file": one.name, "type": one.type, "summary": one.summary} for one in self.outputs]
        shown = {one.name: table(one.table, most=10) for one in self.outputs if one.table is not None}
        fold = {"Outputs": table(outputs), **shown, "Log": Log(self.log.decode(errors="replace"))}
        return card("Outcome", rows, status=self.state, fold=fold)


def evaluated(
    challenge: Challenge, command: Sequence[str], code: Path | str, data: Path, truth: pd.DataFrame | None
) -> Outcome:
    """Run a command on the data and check what it wrote; without truth nothing is scored.

    ``code`` is a folder, or an image by its digest. Raises MissingDependency if this machine has no sandbox, or for
    an image no container engine.
    """
    if isinstance(code, str):
        running = container.run(code, command, {"/data": data}, limits=challenge.limits)
    else:
        running = sandbox.run(command, {"/data": data, "/code": code}, limits=challenge.limits, chdir="/code")
    with running as ended:
        reason = f"It used {ended.reason}." if ended.reason else "The command ended with an error."
        failed = reason if ended.reason or ended.exit_code else None
        return judged(challenge, ended.out, data, ended.wall_s, failed, ended.log, truth)


def judged(
    challenge: Challenge,
    out: int,
    data: Path,
    wall_s: float,
    failed: str | None,
    log: bytes,
    truth: pd.DataFrame | None,
) -> Outcome:
    """Pass what a command has written to the open folder ``out`` through the gate, unless it failed, and score it."""
    seconds = STEP_S * math.ceil(wall_s / STEP_S)
    if failed:
        return Outcome("FAILED", failed, seconds, (), {}, log)
    files = [one for one in data.rglob("*") if one.is_file()]
    size, persons = sum(one.stat().st_size for one in files), sum(map(most_persons, files))
    try:
        outputs = gate.check(out, challenge.outputs, challenge.policy, data_bytes=size, most_persons=persons)
        scores = {} if truth is None else _scores(challenge, outputs, truth)
    except OutputRefused as error:
        return Outcome("REFUSED", str(error), seconds, (), {}, log)
    return Outcome("SUCCEEDED", "", seconds, outputs, scores, log)


def most_persons(file: Path) -> float:
    """At most how many persons a CSV has: a row or a column for each; inf for other files, which are not counted."""
    if file.suffix != ".csv":
        return math.inf
    with file.open("rb") as lines:
        columns = len(re.split(rb"[,;\t]", next(lines, b"")))
        return max(columns, sum(1 for _ in lines))


def staged(data: Dataset, folder: Path) -> Path:
    """Copy a data set's files under their own names, for every user to read; returns the folder."""
    folder.mkdir(mode=0o755)
    resources = json.loads(Path(data.ref).read_text(encoding="utf-8"))["resources"]
    for one in resources:
        target = folder / one["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data.paths[one["name"]], target)
    return readable(folder)


def readable(folder: Path) -> Path:
    """Let every user read a folder; who may enter the one above decides who can."""
    for one in (folder, *folder.rglob("*")):
        if not one.is_symlink():
            one.chmod(0o755 if one.is_dir() or one.stat().st_mode & 0o100 else 0o644)
    return folder


def _scores(challenge: Challenge, outputs: Sequence[Passed], truth: pd.DataFrame) -> dict[str, Score]:
    scorer = SCORERS[challenge.metric]
    one = next(one for one in outputs if one.type == "predictions")
    assert one.table is not None  # predictions are a table
    predicted = one.table.set_index("id").iloc[:, 0]
    if len(predicted) != len(truth) or set(predicted.index) != set(truth["id"]):
        raise OutputRefused(f"'{one.name}' does not have exactly the ids of the held-out rows.")
    text = predicted.dtype == object or str(predicted.dtype).startswith("str")
    scores: dict[str, Score] = {}
    for which, rows in truth.groupby("split"):
        expected = rows["truth"].astype(str) if text else rows["truth"]
        pair = expected.to_numpy(), predicted.loc[rows["id"]].to_numpy()
        scores[str(which)] = (scorer.rounded(scorer.score(*pair)), *scorer.interval(*pair))
    return scores


def evidence(submission: str, evaluation: Outcome, challenge: Challenge, time: str) -> dict[str, Any]:
    """What was checked, as ACRO writes it for its viewer: a status for each output, and the hidden cells by number."""
    results = {}
    for number, one in enumerate(evaluation.outputs):
        status = "pass" if one.type == "aggregate" else "review"
        sdc = {"summary": {"suppressed": one.hidden > 0, "threshold": one.hidden}, "cells": {}}
        results[f"output_{number}"] = {
            "uid": f"output_{number}", "status": status, "type": "table" if one.table is not None else "custom",
            "properties": {"type": one.type, "policy": challenge.policy._asdict()},
            "files": [{"name": one.name, "sdc": sdc if one.type == "aggregate" else {}}], "outcome": {},
            "command": submission, "summary": f"{status}; {one.summary}", "timestamp": time, "comments": [],
            "exception": "",
        }  # fmt: skip
    return {"version": "1.0.2", "results": results}
