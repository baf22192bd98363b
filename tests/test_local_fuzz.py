"""Thousands of submissions that no one would make on purpose, beside honest jobs, which notice nothing of them."""

from __future__ import annotations

import datetime
import decimal
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from embedded import Box

from genokit import Batch, GenokitError, Job, Settings, backends

SUBMISSIONS = 2000
TINY = [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}]
WORDS = (
    "true", "false", "genokit", "highPriority", "fine", "Ref::x", "PATH", "VCPU", "MEMORY", "1", "16", "1e3", "-1",
    "no-such-program", "/etc", "/dev/null", "echo", "{}", "%s", "../..", "~", "$HOME", "a=b", "RETRY", "spot", "[",
)  # fmt: skip
ALPHABETS = ((32, 126), (0, 31), (0x80, 0x24F), (0x590, 0x6FF), (0x4E00, 0x9FFF), (0xD800, 0xDFFF), (0x1F300, 0x1FAFF))


def text(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return rng.choice(WORDS)
    low, high = rng.choice((*ALPHABETS, (0, 0x10FFFF)))
    size = rng.choice((0, 1, 2, 5, 5, 15, 130, 300, 3000, 40_000))
    return "".join(chr(rng.randint(low, high)) for _ in range(min(size, 300))) * max(1, size // 300)


def nested(rng: random.Random) -> Any:
    """Lists or dicts in one another, deeper than any stack."""
    value: Any = text(rng)
    for _ in range(rng.choice((10, 900, 1100, 50_000))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def round_and_round() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


ODD: tuple[Callable[[random.Random], Any], ...] = (
    nested,
    lambda _: round_and_round(),
    lambda _: (one for one in "ab"),
    lambda rng: rng.choice([None, True, b"bytes", pd.NA, pd.NaT, object(), len, Path("x"), range(3), Exception("x")]),
    lambda rng: rng.choice([0, 3, -1, 0.5, 1e308, float("nan"), float("inf"), 3 + 4j, 10**4000, 2**63, -(2**63)]),
    lambda rng: rng.choice([decimal.Decimal("1e99"), np.int64(2), np.float32(0.5), datetime.date(2026, 1, 1)]),
    lambda rng: rng.choice([np.array([1, 2]), pd.Series(["a"]), pd.DataFrame({"a": [1]}), set("ab"), ("a", "b")]),
)


def anything(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if kind < 0.45 or depth > 3:
        return text(rng)
    if kind < 0.65:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 0.8:
        return {text(rng): anything(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(ODD)(rng)


def spoiled(rng: random.Random, value: Any, *, whole: bool = True) -> Any:
    """A good request with something else somewhere in it; with ``whole`` its top stays as it is."""
    if isinstance(value, dict) and value and (whole or rng.random() < 0.8):
        key = rng.choice(list(value))
        return {**value, key: spoiled(rng, value[key], whole=False)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], spoiled(rng, value[place]), *value[place + 1 :]]
    return anything(rng)


class Mess:
    """Submissions of every kind through the service of the kit and through the client, and what became of them."""

    def __init__(self, batch: Batch, seed: str) -> None:
        self.batch, self.client, self.rng = batch, batch.clients.batch, random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.bare: list[str] = []
        self.jobs: list[str] = []

    def make(self) -> None:
        ways = (self.service, self.request, self.definition, self.rows)
        [way] = self.rng.choices(ways, (12, 12, 12, 1))  # the child of a row is a Python, which takes its time to start
        try:
            self.jobs.append(way())
            self.outcomes["taken"] += 1
        except (GenokitError, ClientError, ParamValidationError) as error:
            self.outcomes[type(error).__name__] += 1
            if not str(error).strip() or (isinstance(error, ClientError) and "ServerException" in str(error)):
                self.bare.append(f"{way.__name__}: {error}"[:2000])
        except Exception as error:
            self.bare.append(f"{way.__name__}: {error!r}"[:2000])

    def service(self) -> str:
        good: dict[str, Any] = {
            "name": "fuzz", "command": ["true"], "image": "genokit", "vcpus": 0.05, "memory_gib": 0.02, "gpus": 0,
            "parameters": {"x": "y"}, "environment": {"A": "b"}, "timeout_min": 2, "retry": 1, "container": {},
        }  # fmt: skip
        call: dict[str, Any] = {
            "queue": "highPriority", "name": "fuzz", "parameters": {"x": "y"}, "size": 2, "after": [],
            "command": ["true"], "environment": {"A": "b"}, "vcpus": 0.05, "memory_gib": 0.02, "timeout_min": 2,
            "retry": 1, "tags": {"a": "b"}, "again": True,
        }  # fmt: skip
        asked = self.rng.sample(sorted(call), self.rng.randrange(1, 5))
        wrong = self.rng.random() < 0.5
        given = spoiled(self.rng, good) if wrong else good
        definition = self.batch.define(**given)
        request = {key: call[key] for key in asked}
        return self.batch.submit(definition, **(request if wrong else spoiled(self.rng, request))).id

    def rows(self) -> str:
        good = [{"x": "a", "y": 1}, {"x": "b", "y": 2}]
        frame = pd.DataFrame([[1], [2]], columns=pd.Index([text(self.rng)], dtype=object))
        each = self.rng.choice((spoiled(self.rng, good, whole=False), anything(self.rng), frame))
        only = self.rng.choice((None, range(1), anything(self.rng)))
        return self.batch.submit("fine", each=each, only=only).id

    def request(self) -> str:
        good: dict[str, Any] = {
            "jobName": "fuzz", "jobQueue": "highPriority", "jobDefinition": "fine", "parameters": {"x": "y"},
            "retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "*", "action": "EXIT"}]},
            "timeout": {"attemptDurationSeconds": 60}, "tags": {"a": "b"}, "propagateTags": True,
            "arrayProperties": {"size": 2}, "dependsOn": [{"jobId": self.rng.choice([*self.jobs, "none"])}],
            "containerOverrides": {
                "command": ["true"], "environment": [{"name": "A", "value": "b"}], "resourceRequirements": TINY,
            },
        }  # fmt: skip
        keys = ["jobName", "jobQueue", "jobDefinition", *self.rng.sample(sorted(good), self.rng.randrange(4))]
        return str(self.client.submit_job(**spoiled(self.rng, {key: good[key] for key in keys}))["jobId"])

    def definition(self) -> str:
        good: dict[str, Any] = {
            "jobDefinitionName": "fuzz-2", "type": "container", "parameters": {"x": "y"}, "tags": {"a": "b"},
            "retryStrategy": {"attempts": 1}, "timeout": {"attemptDurationSeconds": 60},
            "containerProperties": {
                "image": "genokit", "command": ["true"], "environment": [{"name": "A", "value": "b"}],
                "resourceRequirements": TINY, "user": "nobody", "privileged": False, "ulimits": [],
                "volumes": [{"name": "v", "host": {"sourcePath": "/tmp"}}], "linuxParameters": {"tmpfs": []},
                "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}],
            },
        }  # fmt: skip
        arn = self.client.register_job_definition(**spoiled(self.rng, good))["jobDefinitionArn"]
        return str(self.client.submit_job(jobName="fuzz", jobQueue="lowPriority", jobDefinition=arn)["jobId"])


def end(box: Box, job_id: str, deadline: float) -> dict[str, Any]:
    """How a job ends; one that can never start as it is says so, and is terminated then."""
    while (job := box.describe(job_id))["status"] not in ("SUCCEEDED", "FAILED"):
        assert time.monotonic() < deadline, f"still {job['status']}: {job}"
        if job["status"] == "RUNNABLE" and job.get("statusReason", "").startswith("MISCONFIGURATION:"):
            box.batch.terminate_job(jobId=job_id, reason=job["statusReason"])
        time.sleep(0.01)
    return job


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of what AWS would refuse later than the embedded account does
@pytest.mark.usefixtures("no_garbage")
def test_two_thousand_random_submissions_harm_none_of_twenty_honest_jobs(account: Settings, tmp_path: Path) -> None:
    batch, box = Batch(settings=account), Box(account)
    box.define("true", name="fine", resourceRequirements=TINY)
    honest: list[Job] = []
    mess = Mess(batch, os.environ.get("FUZZ_SEED", "12"))
    for number in range(SUBMISSIONS):
        if number % (SUBMISSIONS // 20) == 0:
            script = f"sleep 3; echo {number} >>{tmp_path / 'ran'}"
            command = ["sh", "-c", script]
            honest.append(batch.submit(batch.define("honest", command=command, vcpus=0.05, memory_gib=0.02)))
        mess.make()
        if number == 100:
            supervisor = backends.account(account).status()["supervisor"]
    deadline = time.monotonic() + 120
    ends = [end(box, job_id, deadline) for job_id in mess.jobs]
    assert not mess.bare
    assert mess.outcomes["taken"] > SUBMISSIONS // 20
    assert [job.wait(60).status for job in honest] == ["SUCCEEDED"] * 20
    assert sorted(map(int, (tmp_path / "ran").read_text().split())) == list(range(0, SUBMISSIONS, SUBMISSIONS // 20))
    assert not [job for job in ends if job["status"] == "FAILED" and not job.get("statusReason")]
    assert backends.account(account).status()["supervisor"] == supervisor
    assert backends.account(account).status()["problem"] is None
