"""Sweeps: many trainings as array jobs of the embedded Batch, with real trials on real digits."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from small_mnist import small_mnist

from genokit import Batch, train
from genokit.errors import InvalidParameters, NotFound
from genokit.train.parameters import Parameters
from genokit.train.sweeps import combinations, participants, rounds, trial


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 256, 256)


def test_a_grid_has_every_combination_and_random_trials_are_drawn_from_lists_and_ranges():
    grid = combinations(Parameters(), {"learning_rate": [0.01, 0.1], "batch_size": [32, 64, 128]}, None, 1)
    assert [(p.learning_rate, p.batch_size) for p in grid][:4] == [(0.01, 32), (0.01, 64), (0.01, 128), (0.1, 32)]
    axes = {
        "learning_rate": (0.001, 1.0),
        "batch_size": (16, 64),
        "schedule": ["linear", "cosine"],
        "momentum": (0, 0.9),
    }
    drawn = combinations(Parameters(), axes, 400, 7)
    assert drawn == combinations(Parameters(), axes, 400, 7) != combinations(Parameters(), axes, 400, 8)
    rates = np.log10([p.learning_rate for p in drawn])
    assert rates.min() > -3
    assert rates.max() < 0
    assert abs(np.median(rates) + 1.5) < 0.2  # even on the logarithmic scale
    assert {p.schedule for p in drawn} == {"linear", "cosine"}
    assert {type(p.batch_size) for p in drawn} == {int}
    assert {p.batch_size for p in drawn} == set(range(16, 65))
    with pytest.raises(InvalidParameters, match=r"'rate'"):
        combinations(Parameters(), {"rate": [1]}, None, 1)
    for trials in (0, -1, 1.5):
        with pytest.raises(InvalidParameters, match=f"trials must be a whole number of at least 1, got {trials}"):
            combinations(Parameters(), {"seed": [1, 2]}, trials, 1)


def test_equal_combinations_are_one_trial_and_values_may_come_from_pandas_or_numpy():
    for values in ([1, 2, 1], pd.Series([1, 2]), np.array([1, 2]), range(1, 3), {1, 2}):
        found = combinations(Parameters(), {"seed": values, "schedule": "cosine"}, None, 1)
        assert found == [Parameters(seed=seed, schedule="cosine") for seed in (1, 2)]
    assert len(combinations(Parameters(), {"seed": [1, 2]}, 50, 1)) == 2


def test_halving_gives_the_best_trials_of_each_round_more_epochs():
    assert rounds(27, [27] * 27, 3) == [27, 9, 3, 1]
    assert rounds(27, [4] * 27, 3) == [27, 9]
    assert rounds(2, [9] * 2, 3) == [2]


def test_a_sweep_trains_every_combination_once_and_shows_failures_beside_successes(few, account):
    batch = Batch(settings=account)
    axes = {"learning_rate": [0.02, 50.0]}
    found = train.sweep(few, batch_size=64, batch=batch, **axes).follow()
    table = found.table()
    assert list(table["learning_rate"]) == axes["learning_rate"]
    assert set(table["status"]) == {"SUCCEEDED"}
    assert list(table["epochs"]) == [1, 1]
    assert table["reason"][1].startswith("The training diverged")
    here = train.fit(few, train.Parameters(batch_size=64, learning_rate=0.02, threads=1), progress=False)
    best = found.best()
    assert best.parameters.learning_rate == 0.02
    assert best.sha256 == here.model.sha256
    assert "best validation accuracy" in repr(found)
    assert "diverged" in found._repr_html_()
    assert len(found.plot()) == 2

    # The same again finds its job; with one value more, only that one is trained.
    assert [job.id for job in train.sweep(few, batch_size=64, batch=batch, **axes).jobs] == [found.jobs[0].id]
    more = train.sweep(few, batch_size=64, batch=batch, learning_rate=[0.02, 0.03]).follow()
    assert list(more.jobs[0].table()["place"].astype(int)) == [1]
    assert list(more.table()["status"]) == ["SUCCEEDED"] * 2


@pytest.mark.slow
def test_halving_stops_the_worse_trials_and_goes_on_with_the_better(few, account, tmp_path):
    found = train.sweep(
        few, epochs=4, halving=2, batch_size=16, learning_rate=[1e-5, 0.05, 1e-4, 0.1], out=tmp_path,
        batch=Batch(settings=account),
    ).follow()  # fmt: skip
    assert [job.size or 1 for job in found.jobs] == [4, 2, 1]
    table = found.table()
    assert sorted(table["epochs"]) == [1, 1, 2, 4]
    assert list(table["epochs"].iloc[[0, 2]]) == [1, 1]
    assert sorted(table["status"]) == ["STOPPED", "STOPPED", "STOPPED", "SUCCEEDED"]
    won = table["epochs"].idxmax()
    straight = train.Parameters.from_dict(found.plan["trials"][won]["parameters"])
    assert found.best().sha256 == train.fit(few, straight, progress=False).model.sha256
    histories = [train.History(train.load(one["out"]).epochs) for one in found.plan["trials"]]
    assert participants(found.plan, 2, histories) == [won]
    assert trial(found.plan, 2, 1) == (None, 0)


@pytest.mark.slow
def test_a_failed_trial_is_shown_with_its_reason_and_run_again_alone(few, account, tmp_path):
    batch = Batch(settings=account)
    blocked = train.sweep(few, batch_size=128, seed=[1, 2], out=tmp_path / "one", batch=batch)
    blocked.follow()
    damaged = blocked.plan["trials"][1]["out"]
    with open(f"{damaged}/lenet.safetensors", "r+b") as file:
        file.truncate(1000)
    again = train.sweep(few, batch_size=128, seed=[1, 2, 3], out=tmp_path / "one", batch=batch).follow()
    table = again.table()
    assert list(table["status"]) == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert list(again.jobs[0].table()["place"].astype(int)) == [1, 2]
    os.remove(f"{damaged}/lenet.safetensors")
    mended = train.sweep(few, batch_size=128, seed=[1, 2, 3], out=tmp_path / "one", batch=batch).follow()
    assert list(mended.jobs[0].table()["place"].astype(int)) == [1]
    assert list(mended.table()["status"]) == ["SUCCEEDED"] * 3


def test_a_sweep_without_values_and_a_best_of_nothing_are_refused(few, account):
    batch = Batch(settings=account)
    with pytest.raises(InvalidParameters, match="needs values to choose from"):
        train.sweep(few, batch=batch)
    with pytest.raises(InvalidParameters, match="threads=2 need as many vCPUs, got vcpus=1"):
        train.sweep(few, threads=[1, 2], batch=batch)
    with pytest.raises(InvalidParameters, match="epochs must be a whole number"):
        train.sweep(few, epochs=[1, 0], batch=batch)
    started = train.sweep(few, epochs=[50, 51], batch=batch)
    with pytest.raises(NotFound, match="has completed an epoch"):
        started.best()
    for job in started.jobs:
        job.terminate().wait()
