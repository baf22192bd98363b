"""The embedded Batch beside a small model of AWS's rules: whatever is asked in whatever order, they never differ.

Each job notes that an attempt of it has begun and then waits at a gate, a FIFO, for its exit code. So between two steps
every state is still, and all statuses, attempts and traces can be compared. ``MODEL_EXAMPLES=200`` looks for longer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedded import Box
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from genokit import Settings
from genokit.local.engine import processes

TINY = [{"type": "VCPU", "value": "0.04"}, {"type": "MEMORY", "value": "8"}]
MOST = 20  # processes at once: they fit into one vCPU
ENDS = ("SUCCEEDED", "FAILED")
SCRIPT = """
here={folder}/$AWS_BATCH_JOB_ID.$AWS_BATCH_JOB_ATTEMPT
mkfifo $here && echo $AWS_BATCH_JOB_ID.$AWS_BATCH_JOB_ATTEMPT >>{folder}/began
read code <$here
exit $code
"""
pick = st.integers(0, 999)


@dataclass
class Modelled:
    """A job, or a child of one."""

    id: str
    tries: int
    depends: list[tuple[Modelled | None, str | None]] = field(default_factory=list)  # on what, type
    parent: Modelled | None = None
    index: int = 0
    children: list[Modelled] = field(default_factory=list)
    status: str = "PENDING"
    ended: int = 0  # attempts
    stopped: bool = False

    @property
    def live(self) -> bool:
        return self.status not in ENDS

    def fail_or_retry(self) -> None:
        self.ended += 1
        self.status = "RUNNING" if self.ended < self.tries else "FAILED"

    def verdict(self) -> str:
        """What those it waits for allow: SUCCEEDED to start it, FAILED to fail it, else PENDING."""
        top, found = self.parent or self, ["SUCCEEDED"]
        for other, kind in top.depends:
            if kind == "SEQUENTIAL":
                found += [top.children[self.index - 1].status] if self.index else []
            elif other is not None:
                found.append(other.children[self.index].status if kind == "N_TO_N" else other.status)
        return "FAILED" if "FAILED" in found else "SUCCEEDED" if set(found) == {"SUCCEEDED"} else "PENDING"


class Model:
    """AWS's rules: https://docs.aws.amazon.com/batch/latest/userguide/jobs.html and the pages below it."""

    def __init__(self) -> None:
        self.jobs: list[Modelled] = []  # in the order of their submission

    def leaves(self) -> list[Modelled]:
        return [leaf for job in self.jobs for leaf in job.children or [job]]

    def settle(self) -> None:
        """Let everything follow that follows."""
        before: list[str] = []
        while before != (now := [one.status for job in self.jobs for one in (job, *job.children)]):
            before = now
            for leaf in self.leaves():
                if leaf.status == "PENDING" and (verdict := leaf.verdict()) != "PENDING":
                    leaf.status = "RUNNING" if verdict == "SUCCEEDED" else "FAILED"
            for job in self.jobs:
                if job.children and job.live and not any(child.live for child in job.children):
                    good = not job.stopped and all(child.status == "SUCCEEDED" for child in job.children)
                    job.status = "SUCCEEDED" if good else "FAILED"

    def stop(self, job: Modelled, *, running: bool) -> None:
        """Cancel, or terminate also what is ``running``."""
        if job.children:
            job.stopped = True
        for leaf in job.children or [job]:
            if leaf.status == "RUNNING" and running:
                leaf.ended += 1
                leaf.status = "FAILED"
            elif leaf.status == "PENDING":
                leaf.status = "FAILED"

    def began(self) -> Counter[str]:
        """The attempts that have begun by now."""
        return Counter(
            f"{leaf.id}.{number}"
            for leaf in self.leaves()
            for number in range(1, leaf.ended + (leaf.status == "RUNNING") + 1)
        )


class Beside(RuleBasedStateMachine):
    """The rules by which a run is made, and the comparison after each."""

    def __init__(self, box: Box, home: Path, folder: Path, definition: str) -> None:
        super().__init__()
        self.box, self.home, self.folder, self.definition = box, home, folder, definition
        self.model = Model()
        self.unsettled = False
        self.slayers: list[threading.Timer] = []

    def room(self, size: int) -> bool:
        return sum(leaf.live for leaf in self.model.leaves()) + size <= MOST

    def submit(self, tries: int, size: int, depends: list[tuple[Modelled | None, str | None]]) -> None:
        request: dict[str, Any] = {"retryStrategy": {"attempts": tries}}
        if size:
            request["arrayProperties"] = {"size": size}
        request["dependsOn"] = [
            ({"jobId": other.id} if other else {}) | ({"type": kind} if kind else {}) for other, kind in depends
        ]
        job = Modelled(self.box.submit(self.definition, **request), tries, depends)
        job.children = [Modelled(f"{job.id}:{index}", tries, [], job, index) for index in range(size)]
        self.model.jobs.append(job)

    @rule(tries=st.integers(1, 3), size=st.sampled_from([0, 0, 2, 3, 4]), after=st.lists(pick, max_size=3))
    def submit_one(self, tries: int, size: int, after: list[int]) -> None:
        if self.room(size or 1):
            anything = [one for job in self.model.jobs for one in (job, *job.children)]
            chosen = {id(one): one for one in (anything[number % len(anything)] for number in after if anything)}
            self.submit(tries, size, [(one, None) for one in chosen.values()])

    @rule(tries=st.integers(1, 2), size=st.integers(2, 4), after=pick, kind=st.sampled_from(["N_TO_N", "SEQUENTIAL"]))
    def submit_an_array_that_waits(self, tries: int, size: int, after: int, kind: str) -> None:
        arrays = [job for job in self.model.jobs if job.children]
        if kind == "N_TO_N" and arrays:
            other = arrays[after % len(arrays)]
            if self.room(len(other.children)):
                self.submit(tries, len(other.children), [(other, kind)])
        elif kind == "SEQUENTIAL" and self.room(size):
            self.submit(tries, size, [(None, kind)])

    @precondition(lambda self: any(leaf.status == "RUNNING" for leaf in self.model.leaves()))
    @rule(which=pick, code=st.sampled_from([0, 0, 1]))
    def let_one_end(self, which: int, code: int) -> None:
        running = [leaf for leaf in self.model.leaves() if leaf.status == "RUNNING"]
        leaf = running[which % len(running)]
        self.open_gate(leaf, code)
        if code:
            leaf.fail_or_retry()
        else:
            leaf.ended, leaf.status = leaf.ended + 1, "SUCCEEDED"

    @precondition(lambda self: self.model.jobs)
    @rule(which=pick, running=st.booleans())
    def cancel_or_terminate(self, which: int, running: bool) -> None:
        anything = [one for job in self.model.jobs for one in (job, *job.children)]
        job = anything[which % len(anything)]
        stop = self.box.batch.terminate_job if running else self.box.batch.cancel_job
        stop(jobId=job.id, reason="asked")
        if job.live:
            self.model.stop(job, running=running)

    @rule(delay_ms=st.integers(0, 30))
    def kill_the_supervisor(self, delay_ms: int) -> None:
        """While something else goes on: nothing is compared before the next step."""
        timer = threading.Timer(delay_ms / 1000, self.slay)
        timer.start()
        self.slayers.append(timer)
        self.unsettled = True

    @rule()
    def lose_the_host(self) -> None:
        for host in (self.home / "hosts").glob("*"):
            while processes.kill_holder(host, signal.SIGKILL):  # of what is placed meanwhile the model does not know
                time.sleep(0.001)
        for leaf in self.model.leaves():
            if leaf.status == "RUNNING":
                leaf.fail_or_retry()

    @invariant()
    def they_do_not_differ(self) -> None:
        if self.unsettled:
            self.unsettled = False
            return
        self.compare()

    def compare(self) -> None:
        self.model.settle()
        deadline = time.monotonic() + 120
        while (found := self.found()) != (wanted := self.wanted()):
            assert time.monotonic() < deadline, differences(found, wanted)
            time.sleep(0.01)

    def wanted(self) -> tuple[dict[str, tuple[str, int]], Counter[str]]:
        everyone = [one for job in self.model.jobs for one in (job, *job.children)]
        return {one.id: (one.status, one.ended) for one in everyone}, self.model.began()

    def found(self) -> tuple[dict[str, tuple[str, int]], Counter[str]]:
        ids = [one.id for job in self.model.jobs for one in (job, *job.children)]
        pages = [self.box.batch.describe_jobs(jobs=ids[at : at + 100])["jobs"] for at in range(0, len(ids), 100)]
        jobs = {job["jobId"]: (job["status"], len(job["attempts"])) for page in pages for job in page}
        began = self.folder / "began"
        lines = began.read_text().split() if began.exists() else []
        known = set(ids)
        return jobs, Counter(line for line in lines if line.rpartition(".")[0] in known)

    def open_gate(self, leaf: Modelled, code: int) -> None:
        self.unsettled = False
        self.compare()  # its attempt may not have begun yet
        deadline = time.monotonic() + 120
        gate = None
        while gate is None:
            with contextlib.suppress(OSError):  # ENXIO: it does not read yet
                gate = os.open(self.folder / f"{leaf.id}.{leaf.ended + 1}", os.O_WRONLY | os.O_NONBLOCK)
            assert time.monotonic() < deadline
        os.write(gate, b"%d\n" % code)
        os.close(gate)

    def slay(self) -> None:
        number = self.box.account.status()["supervisor"]
        if isinstance(number, int):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def teardown(self) -> None:
        for timer in self.slayers:
            timer.join()
        for job in self.model.jobs:
            if job.live:
                self.box.batch.terminate_job(jobId=job.id, reason="over")
                self.model.stop(job, running=True)
        self.compare()


def differences(found: Any, wanted: Any) -> str:
    jobs = {key: (found[0].get(key), value) for key, value in wanted[0].items() if found[0].get(key) != value}
    return f"found, wanted: {jobs}; began, wanted: {found[1] - wanted[1]}, {wanted[1] - found[1]}"


def test_the_account_and_the_model_never_differ(account: Settings, tmp_path: Path) -> None:
    box = Box(account)
    definition = box.define("sh", "-c", SCRIPT.format(folder=tmp_path), resourceRequirements=TINY)
    run_state_machine_as_test(
        lambda: Beside(box, account.home, tmp_path, definition),
        settings=settings(
            max_examples=int(os.environ.get("MODEL_EXAMPLES", "12")),
            stateful_step_count=12,
            deadline=None,
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
