"""One training shared by several workers: real processes, on this machine and as the nodes of a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embedded import wait_until
from small_mnist import small_mnist

from genokit import Batch, Settings, train
from genokit.errors import InvalidParameters

ENGINES = ["mxnet", pytest.param("torch", marks=pytest.mark.torch)]
SLOW_ENGINES = [pytest.param("mxnet", marks=pytest.mark.slow), pytest.param("torch", marks=pytest.mark.torch)]
PARAMETERS = train.Parameters(epochs=4, batch_size=17, threads=1)  # 64 batches, the last of an epoch of one image


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 256, 101)


def start(few, out: Path, engine: str, *options: str) -> subprocess.Popen[str]:
    """The training in two workers, as a command."""
    words = ["--data", few.ref, "--out", str(out), "--workers", "2", "--engine", engine, "--batch-size", "17"]
    command = [sys.executable, "-m", "genokit.train", *words, "--threads", "1", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(launcher: subprocess.Popen[str]) -> int:
    launcher.communicate()
    return launcher.returncode


def children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def assert_gone(found: list[int]) -> None:
    wait_until(lambda: not any(map(is_running, found)))


@pytest.mark.parametrize("engine", SLOW_ENGINES)
def test_two_workers_train_as_one_does_at_the_same_batch(few, tmp_path, engine):
    launcher = start(few, tmp_path, engine, "--epochs", "4")
    out, err = launcher.communicate()
    assert launcher.returncode == 0, err
    together = train.load(tmp_path)
    alone = train.fit(few, PARAMETERS.replace(engine=engine), progress=False)
    for name, weights in alone.model.weights.items():
        assert np.abs(weights - together.weights[name]).max() < 1e-4, name
    assert together.history.table["loss"].to_numpy() == pytest.approx(alone.table["loss"].to_numpy(), abs=1e-4)
    for measure in ("accuracy", "validation_accuracy"):
        assert together.history.table[measure].to_numpy() == pytest.approx(alone.table[measure].to_numpy(), abs=0.02)
    # Worker 0 alone tells, once, and the images of both workers are counted.
    assert out.count("Epoch[0] Train-accuracy") == out.count("Checkpoint ") == 1
    assert together.sha256 in out
    assert len(train.History.from_log(out)) == 4


@pytest.mark.parametrize("engine", SLOW_ENGINES)
def test_a_signal_stops_all_workers_after_the_same_batch_and_they_resume_as_if_there_had_been_none(
    few, tmp_path, engine
):
    assert ended(start(few, tmp_path / "whole", engine, "--epochs", "8")) == 0
    launcher = start(few, tmp_path / "stopped", engine, "--epochs", "8")
    assert next(line for line in launcher.stdout if "Epoch[0] Batch" in line)
    found = children(launcher.pid)
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate()
    assert launcher.returncode == 143, err
    assert err.count("TrainingStopped: The training was stopped in epoch") == 1
    assert_gone(found)
    stopped = train.load(tmp_path / "stopped")
    assert 0 < 16 * stopped.epoch + stopped.batch < 8 * 16
    assert ended(start(few, tmp_path / "stopped", engine, "--epochs", "8", "--resume")) == 0
    assert train.load(tmp_path / "stopped").sha256 == train.load(tmp_path / "whole").sha256


@pytest.mark.parametrize("engine", SLOW_ENGINES)
def test_the_failure_of_one_worker_ends_all(few, tmp_path, engine):
    launcher = start(few, tmp_path, engine, "--epochs", "1000")
    assert next(line for line in launcher.stdout if "Epoch[0] Batch" in line)
    found = children(launcher.pid)
    assert len(found) == (4 if engine == "mxnet" else 2)
    os.kill(found[-1], signal.SIGKILL)
    launcher.communicate()
    assert launcher.returncode == 137
    assert_gone(found)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_process_outlives_a_launcher_that_is_killed(few, tmp_path, engine):
    launcher = start(few, tmp_path, engine, "--epochs", "1000")
    count = 4 if engine == "mxnet" else 2
    wait_until(lambda: len(children(launcher.pid)) == count)
    found = children(launcher.pid)
    launcher.kill()
    launcher.communicate()
    assert_gone(found)


def test_fit_says_how_to_train_with_workers(few):
    with pytest.raises(InvalidParameters, match=r"workers=2 need a process each.*train\.submit\(\.\.\., workers=2\)"):
        train.fit(few, train.Parameters(workers=2))


@pytest.mark.slow
def test_the_workers_of_a_job_are_its_nodes(few, account: Settings):
    batch = Batch(settings=account)
    parameters = PARAMETERS.replace(workers=2, engine="mxnet")
    jobs = [train.submit(few, parameters, vcpus=0.5, batch=batch, seed=seed) for seed in (1, 2)]  # at the same time
    for seed, job in enumerate(jobs, 1):
        assert job.wait().status == "SUCCEEDED", job.log()
        assert batch.job(f"{job.id}#1").status in ("SUCCEEDED", "FAILED")  # FAILED where the main node ended first
        model, here = train.load(job.parameters["out"]), train.fit(few, PARAMETERS.replace(seed=seed), progress=False)
        for name, weights in here.model.weights.items():
            assert np.abs(weights - model.weights[name]).max() < 1e-4
        assert model.sha256 in job.log()
