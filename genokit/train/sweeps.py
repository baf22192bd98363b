"""Sweeps: many trainings with different parameters, as one array job for each round."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from genokit import live, storage
from genokit.batch.job_state import ENDED
from genokit.display import Html, card, drawn, stack
from genokit.display import table as table_of
from genokit.errors import InvalidParameters, NotFound
from genokit.plots import learning_curves, parallel_coordinates
from genokit.train import checkpoint
from genokit.train.digits import check_dataset
from genokit.train.job import for_job, own_image
from genokit.train.model import History, Model, load
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genokit.batch import Batch, Job
    from genokit.data import Dataset


def sweep(
    dataset: Dataset,
    parameters: Parameters | None = None,
    *,
    trials: int | None = None,
    halving: int = 0,
    draw_seed: int = 1,
    queue: str = "highPriority",
    gpus: int = 0,
    vcpus: float = 1,
    memory_gib: float = 2,
    image: str | None = None,
    out: str | os.PathLike[str] | None = None,
    batch: Batch | None = None,
    **axes: Any,
) -> Sweep:
    """Train with many combinations of parameters, as an array job with one child a trial.

    Every trial has a folder named by a hash of its parameters and data: a trial that is finished there is not run
    again, by whatever sweep, and one that was interrupted is resumed. The sweep needs neither this kernel nor this
    machine once it is submitted; the same call finds it again.

    Parameters
    ----------
    dataset : Dataset
        The data to train on.
    parameters : Parameters, optional
        What all trials have in common. Default: ``Parameters()``, with as many threads as ``vcpus``.
    trials : int, optional
        Draw so many random combinations, of which equal ones are one trial. Default: all combinations, a grid.
    halving : int, default 0
        Successive halving (Jamieson and Talwalkar, https://arxiv.org/abs/1502.07943): with 3, all trials train for a
        fraction of their epochs, the best third of them for three times as many, and so on; each round is an array job
        that waits for the one before. 0: every trial trains to its end.
    draw_seed : int, default 1
        Seed of the random combinations.
    queue, gpus, vcpus, memory_gib, image
        As in ``submit``, for each trial. Here as many trials run at once as fit.
    out : str or path, optional
        Folder for the trials, which may be on S3. Default: ``settings.home/train/sweeps``, on AWS the stack's bucket.
    batch : Batch, optional
        Where to submit. Default: ``Batch()``.
    **axes
        The parameters that vary: a list of values, or with ``trials`` also a pair (low, high) of which numbers are
        drawn, on a logarithmic scale if low is above 0. A single value applies to all trials.

    Returns
    -------
    Sweep
        ``table()``, ``best()``, ``plot()`` and ``follow()``.

    Raises
    ------
    InvalidParameters
        There is no axis, or a parameter is invalid. ``Batch.submit`` may raise further errors.

    Examples
    --------
    ::

        found = train.sweep(digits, epochs=9, learning_rate=[0.01, 0.05, 0.1], batch_size=[64, 256], halving=3)
        found.follow().best().predict(images)
    """
    from genokit.batch import Batch

    check_dataset(dataset)
    batch = batch or Batch()
    base = parameters or Parameters()
    chosen = [for_job(p, gpus, vcpus) for p in combinations(base, axes, trials, draw_seed)]
    folder = storage.results(out, "train", "sweeps", clients=batch.clients)
    found = [{"out": f"{folder}/{_key(p, dataset.sha256)}", "parameters": p.to_dict()} for p in chosen]
    sizes = rounds(len(chosen), [p.epochs for p in chosen], halving)
    plan = {"data": dataset.ref, "trials": found, "halving": halving, "rounds": sizes}
    text = json.dumps(plan, indent=1)
    name = f"sweep-{sha256(text.encode()).hexdigest()[:12]}"
    where = storage.write(f"{folder}/{name}.json", text)
    definition = batch.define(
        "lenet-sweep-gpu" if gpus else "lenet-sweep",
        command=["python", "-m", "genokit.train", "--sweep", "Ref::plan", "Ref::round", "Ref::place"],
        image=image or own_image(chosen[0]), gpus=gpus, vcpus=vcpus, memory_gib=memory_gib, retry="interrupted",
    )  # fmt: skip
    jobs: list[Job] = []
    known, histories = batch.jobs(queue=queue), _histories(plan)
    for number, size in enumerate(sizes):
        same = known[(known["name"] == f"{name}-{number}") & (known["status"] != "FAILED")]
        places = [place for place in range(size) if number or len(histories[place]) < chosen[place].epochs]
        if len(same):
            jobs.append(batch.job(same["job_id"].iloc[0]))
        elif places:
            each, given = [{"place": place} for place in range(size)], {"plan": where, "round": str(number)}
            job = batch.submit(
                definition, queue=queue, name=f"{name}-{number}", parameters=given, each=each, only=places,
                after=jobs[-1:], again=True,
            )  # fmt: skip
            jobs.append(job)
    return Sweep(plan, jobs)


def combinations(base: Parameters, axes: Mapping[str, Any], trials: int | None, seed: int) -> list[Parameters]:
    """The grid of the axes' values, or ``trials`` random combinations, each once. Raises InvalidParameters.

    >>> [p.seed for p in combinations(Parameters(), {"seed": [1, 2], "epochs": [3]}, None, 1)]
    [1, 2]
    >>> [16 <= p.batch_size <= 64 for p in combinations(Parameters(), {"batch_size": (16, 64)}, 2, 1)]
    [True, True]
    """
    lists = {name: of if isinstance(of, Collection) and not isinstance(of, str) else [of] for name, of in axes.items()}
    if not lists or not all(len(values) for values in lists.values()):
        raise InvalidParameters("A sweep needs values to choose from: sweep(digits, learning_rate=[0.01, 0.05, 0.1]).")
    if trials is not None and (not isinstance(trials, int) or trials < 1):
        raise InvalidParameters(f"trials must be a whole number of at least 1, got {trials!r}.")
    if trials is None:
        chosen = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    else:
        dice = np.random.RandomState(seed)
        chosen = [{name: _drawn(dice, values) for name, values in lists.items()} for _ in range(trials)]
    return list(dict.fromkeys(base.replace(**each) for each in chosen))


def rounds(trials: int, epochs: Sequence[int], halving: int) -> list[int]:
    """How many trials train in each round; the last round trains to the end.

    >>> rounds(9, [9] * 9, 3), rounds(9, [9] * 9, 0), rounds(20, [4] * 20, 2)
    ([9, 3, 1], [9], [20, 10, 5])
    """
    sizes = [trials]
    while halving > 1 and sizes[-1] >= halving and min(epochs) >= halving ** len(sizes):
        sizes.append(sizes[-1] // halving)
    return sizes


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """The trials of ``train.sweep``: a table and figures that fill in while they run.

    Attributes
    ----------
    plan : dict
        The trials with their parameters and folders, and the number of them in each round.
    jobs : list of Job
        The array job of each round; none if all trials were finished before.
    """

    plan: dict[str, Any]
    jobs: list[Job]

    def table(self) -> pd.DataFrame:
        """The trials as of now.

        Returns
        -------
        pandas.DataFrame
            One row a trial: the parameters that vary, ``status`` (of its job; STOPPED if others went on instead), the
            completed ``epochs``, ``validation_accuracy``, ``validation_loss``, ``accuracy``, ``loss`` and ``seconds``
            of all of them, and ``reason`` (of a failure, or what went wrong with the training).
        """
        return self._now()[0]

    def _now(self) -> tuple[pd.DataFrame, list[History]]:
        """The table, and the histories from which it is made."""
        histories = _histories(self.plan)
        states = self._states(histories)
        table = pd.DataFrame([
            {name: trial["parameters"][name] for name in self.axes}
            | _row(trial, history, *states.get(place, ("SUCCEEDED", "")))
            for place, (trial, history) in enumerate(zip(self.plan["trials"], histories, strict=True))
        ]).rename_axis("trial")  # fmt: skip
        return table, histories

    @property
    def axes(self) -> list[str]:
        """The parameters that vary."""
        given = [trial["parameters"] for trial in self.plan["trials"]]
        return [name for name in given[0] if len({one[name] for one in given}) > 1] or ["seed"]

    def best(self) -> Model:
        """The model with the highest validation accuracy. Raises NotFound if no trial has completed an epoch."""
        known = self.table()["validation_accuracy"].dropna()
        if known.empty:
            raise NotFound("No trial of this sweep has completed an epoch. Wait with follow(), or see table().")
        return load(self.plan["trials"][known.idxmax()]["out"])

    def plot(self) -> tuple[Axes, Axes]:
        """The trials as parallel coordinates, and their learning curves, in two figures."""
        return self._plot(*self._now())

    def _plot(self, table: pd.DataFrame, histories: Sequence[History]) -> tuple[Axes, Axes]:
        curves = [history.table for history in histories]
        return parallel_coordinates(table, self.axes, "validation_accuracy", unit="%"), learning_curves(curves)

    def follow(self, *, every_s: float = 2) -> Sweep:
        """Wait until all trials have ended; in an interactive notebook, draw table and figures anew meanwhile.

        Parameters
        ----------
        every_s : float, default 2
            Seconds between two looks.
        """
        live.follow(lambda: all(job.status in ENDED for job in self.jobs), self._look, every_s)
        return self

    def _look(self) -> tuple[str, Callable[[], Html]]:
        table, histories = self._now()
        words = _words(table)
        return words, lambda: stack(_html(table), *[drawn(ax, words) for ax in self._plot(table, histories)])

    def _states(self, histories: Sequence[History]) -> dict[int, tuple[str, str]]:
        """Status and reason of the trials that the jobs run, by number."""
        found: dict[int, tuple[str, str]] = {}
        for number, job in enumerate(self.jobs):
            ranked = participants(self.plan, number, histories)
            for _, child in job.table().iterrows():
                if int(child["place"]) < len(ranked):
                    found[ranked[int(child["place"])]] = (child["status"], child["reason"])
        return found

    def __repr__(self) -> str:
        return _words(self.table())

    def _repr_html_(self) -> Html:
        return _html(self.table())


def participants(plan: Mapping[str, Any], number: int, histories: Sequence[History]) -> list[int]:
    """The trials of a round, best first: those with the highest validation accuracy in the round before."""
    if number == 0:
        return list(range(len(plan["trials"])))
    reached: dict[int, float] = {}
    for place in participants(plan, number - 1, histories):
        known, epochs = histories[place].table["validation_accuracy"], _until(plan, place, number - 1)
        if len(known) >= epochs:
            reached[place] = float(known[epochs - 1])
    return sorted(reached, key=lambda place: (-reached[place], place))[: plan["rounds"][number]]


def trial(plan: Mapping[str, Any], number: int, place: int) -> tuple[Mapping[str, Any] | None, int]:
    """The trial at a place of a round, and the epoch to train it to; None where the round before has too few."""
    ranked = participants(plan, number, _histories(plan) if number else [])
    return (plan["trials"][ranked[place]], _until(plan, ranked[place], number)) if place < len(ranked) else (None, 0)


def _until(plan: Mapping[str, Any], place: int, number: int) -> int:
    rest = len(plan["rounds"]) - 1 - number
    return int(np.ceil(plan["trials"][place]["parameters"]["epochs"] / max(1, plan["halving"]) ** rest))


def _row(one: Mapping[str, Any], history: History, status: str, reason: str) -> dict[str, Any]:
    """A trial's row of the table, without its parameters."""
    table, epochs = history.table, one["parameters"]["epochs"]
    last = table.iloc[-1].to_dict() if len(table) else {}
    if status == "SUCCEEDED" and history.finite and len(table) < epochs:
        status = "STOPPED"
    measures = ("validation_accuracy", "validation_loss", "accuracy", "loss")
    problem = reason if status == "FAILED" else history.problem or ""
    return {"status": status, "epochs": len(table), **{name: last.get(name, math.nan) for name in measures},
            "seconds": float(table["seconds"].sum()), "reason": problem}  # fmt: skip


def _words(table: pd.DataFrame) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in table["status"].value_counts().items())
    return f"<Sweep of {len(table)} trials: {counts}; best validation accuracy {_best(table)}>"


def _html(table: pd.DataFrame) -> Html:
    table = table.sort_values("validation_accuracy", ascending=False)
    rows = {"trials": len(table), "best validation accuracy": _best(table)}
    return stack(card("Sweep", rows), table_of(table.round(4).reset_index(), most=20))


def _best(table: pd.DataFrame) -> str:
    known = table["validation_accuracy"].dropna()
    return f"{known.max():.4f}" if len(known) else "none yet"


def _drawn(dice: np.random.RandomState, values: Collection[Any]) -> Any:
    """One of the values, or a number from low to high where a pair of numbers says so."""
    if not (isinstance(values, tuple) and len(values) == 2 and all(isinstance(one, (int, float)) for one in values)):
        return list(values)[dice.randint(len(values))]
    low, high = values
    if isinstance(low, int) and isinstance(high, int):
        return int(dice.randint(low, high + 1))
    return float(np.exp(dice.uniform(np.log(low), np.log(high))) if low > 0 else dice.uniform(low, high))


def _key(p: Parameters, data: str) -> str:
    return sha256(json.dumps([p.to_dict(), data]).encode()).hexdigest()[:16]


def _histories(plan: Mapping[str, Any]) -> list[History]:
    """Read the completed epochs of every trial."""
    return [History(checkpoint.read_record(one["out"]).get("epochs", [])) for one in plan["trials"]]
