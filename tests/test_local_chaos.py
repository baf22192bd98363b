"""Whatever dies, whenever: no job is lost, none runs twice, none is stuck, and what cannot go on says why."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError
from embedded import Box, wait_until, waits_for

from genokit import GenokitError, Settings, backends
from genokit.local import store
from genokit.local.engine import processes

TINY = [{"type": "VCPU", "value": "0.05"}, {"type": "MEMORY", "value": "16"}]
ENDS = ("SUCCEEDED", "FAILED")
FORWARD = ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", *ENDS]


def supervisor(home: Path) -> int | None:
    number = backends.account(Settings(home=home)).status()["supervisor"]
    assert number is None or isinstance(number, int)
    return number


def ours(home: Path) -> list[psutil.Process]:
    """The account's own processes: the supervisor and its keepers."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(home) in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def kill(process: int | None) -> bool:
    if process:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return bool(process)


def keepers(home: Path) -> list[int]:
    return list(filter(None, map(processes.lock_holder, (home / "hosts").glob("*"))))


class Crowd:
    """Many jobs that leave a line each time they run, and what must become of them."""

    def __init__(self, box: Box, ran: Path) -> None:
        self.box, self.ran = box, ran
        self.expected: dict[str, tuple[str, int]] = {}  # id -> final status, attempts

    def add(self, script: str, status: str, attempts: int = 1, **request: Any) -> str:
        line = f'printf "%s/%s\\n" "$AWS_BATCH_JOB_ID" "$AWS_BATCH_JOB_ATTEMPT" >>{self.ran}'
        definition = self.box.define("sh", "-c", f"{line}; {script}", resourceRequirements=TINY)
        job_id = self.box.submit(definition, **request)
        size = request.get("arrayProperties", {}).get("size")
        self.expected[job_id] = (status, 0 if size else attempts)
        for index in range(size or 0):
            self.expected[f"{job_id}:{index}"] = (status, attempts)
        return job_id

    def fill(self, rng: random.Random) -> None:
        """About two hundred jobs of every kind, in any order."""
        for _ in range(5):
            kinds = [
                *[lambda: self.add(f"sleep {rng.random() / 5:.2f}", "SUCCEEDED")] * 10,
                *[lambda: self.add("exit 3", "FAILED")] * 2,
                *[lambda: self.add("test $AWS_BATCH_JOB_ATTEMPT = 2", "SUCCEEDED", 2, **tries(3))] * 4,
                *[lambda: self.add("false", "FAILED", 2, **tries(2))] * 2,
                *[lambda: self.add("sleep 2", "SUCCEEDED")] * 3,
                lambda: self.add("sleep 0.1", "SUCCEEDED", arrayProperties={"size": 6}),
                lambda: self.add("true", "SUCCEEDED", arrayProperties={"size": 3}, dependsOn=[{"type": "SEQUENTIAL"}]),
            ]
            rng.shuffle(kinds)
            for make in kinds:
                make()
            good, bad = self.add("sleep 0.3", "SUCCEEDED"), self.add("sleep 0.2; exit 1", "FAILED")
            for _ in range(3):
                self.add("true", "SUCCEEDED", dependsOn=[{"jobId": good}])
                self.add("true", "FAILED", 0, dependsOn=[{"jobId": good}, {"jobId": bad}])

    def look(self) -> dict[str, dict[str, Any]]:
        ids = list(self.expected)
        pages = [self.box.batch.describe_jobs(jobs=ids[at : at + 100])["jobs"] for at in range(0, len(ids), 100)]
        return {job["jobId"]: job for page in pages for job in page}

    def lines(self) -> Counter[str]:
        return Counter(self.ran.read_text().split()) if self.ran.exists() else Counter()

    def check(self) -> None:
        found = {job_id: (job["status"], len(job["attempts"])) for job_id, job in self.look().items()}
        assert found == self.expected
        wanted = {f"{job}/{number}": 1 for job, (_, count) in self.expected.items() for number in range(1, count + 1)}
        assert self.lines() == wanted


def tries(attempts: int) -> dict[str, Any]:
    return {"retryStrategy": {"attempts": attempts}}


def test_two_hundred_jobs_survive_a_supervisor_killed_again_and_again(account: Settings, tmp_path: Path) -> None:
    rng = random.Random(os.environ.get("CHAOS_SEED", "1"))
    crowd = Crowd(Box(account), tmp_path / "ran")
    killed, over = 0, threading.Event()

    def slayer() -> None:
        nonlocal killed
        while killed < 20 and not over.wait(rng.random() / 4):
            killed += kill(supervisor(account.home))

    thread = threading.Thread(target=slayer)
    thread.start()
    try:
        crowd.fill(rng)
        assert len(crowd.expected) >= 200
        seen: dict[str, tuple[int, int]] = {}
        deadline = time.monotonic() + 300
        while True:
            jobs = crowd.look()
            assert jobs.keys() == crowd.expected.keys()
            for job_id, job in jobs.items():
                place = (len(job["attempts"]), FORWARD.index(job["status"]))
                assert seen.get(job_id, (0, 0)) <= place, f"{job_id} went back from {seen[job_id]} to {place}"
                seen[job_id] = place
            if all(job["status"] in ENDS for job in jobs.values()):
                if killed >= 20:
                    break
                crowd.add("true", "SUCCEEDED")  # where all is done, nobody starts another supervisor to kill
            stuck = {job_id: job["status"] for job_id, job in jobs.items() if job["status"] not in ENDS}
            assert time.monotonic() < deadline, stuck
            time.sleep(0.02)
    finally:
        over.set()
        thread.join()
    crowd.check()


def test_a_job_lost_with_its_keeper_is_tried_again_as_on_a_reclaimed_host(account: Settings, tmp_path: Path) -> None:
    box = Box(account)
    crowd = Crowd(box, tmp_path / "ran")
    rules = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    spot = {"retryStrategy": {"attempts": 3, "evaluateOnExit": rules}}
    again = [crowd.add("test $AWS_BATCH_JOB_ATTEMPT = 3 || sleep 60", "SUCCEEDED", 3, **spot) for _ in range(8)]
    once = [crowd.add("sleep 60", "FAILED") for _ in range(2)]
    waiting = crowd.add("true", "SUCCEEDED", dependsOn=[{"jobId": again[0]}])
    for attempt in (1, 2):
        wanted = {f"{job_id}/{attempt}" for job_id in again} | {f"{job_id}/1" for job_id in once}
        wait_until(lambda wanted=wanted: wanted <= set(crowd.lines()) and crowd.look())
        for number in keepers(account.home):
            kill(number)
    for job_id in (*again, *once, waiting):
        box.wait(job_id)
    crowd.check()
    for job_id in again:
        reasons = [attempt["statusReason"] for attempt in box.describe(job_id)["attempts"]]
        assert [reason.startswith("Host EC2 (instance i-") for reason in reasons] == [True, True, False]
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path / "ran") in str(one.info["cmdline"])]


def test_all_dies_as_with_the_machine_and_the_account_goes_on(account: Settings, tmp_path: Path) -> None:
    box = Box(account)
    crowd = Crowd(box, tmp_path / "ran")
    running = [crowd.add("sleep 60", "FAILED") for _ in range(3)]
    after = crowd.add("true", "FAILED", 0, dependsOn=[{"jobId": running[0]}])
    wait_until(lambda: len(crowd.lines()) == 3)
    kill(supervisor(account.home))
    for number in keepers(account.home):
        kill(number)
    for file in (account.home / "hosts").iterdir():
        file.unlink()
    for job_id in (*running, after):
        assert box.wait(job_id)["status"] == "FAILED"
    assert box.describe(running[0])["statusReason"].startswith("Host EC2 (instance i-")
    crowd.add("true", "SUCCEEDED")
    box.wait(list(crowd.expected)[-1])
    crowd.check()


SUBMIT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from embedded import Box
from test_local_chaos import Crowd
from genokit import Settings
crowd = Crowd(Box(Settings(home=Path(sys.argv[1]))), Path(sys.argv[2]))
ids = [crowd.add("true", "SUCCEEDED") for _ in range(40)]
for job_id in ids:
    crowd.box.wait(job_id)
crowd.expected = {job_id: crowd.expected[job_id] for job_id in ids}
print(*ids)
"""


def test_kernels_that_submit_at_once_share_one_supervisor_however_often_it_dies(
    account: Settings, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SUBMIT, account.home, tmp_path / "ran", Path(__file__).parent]
    kernels = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    rng, killed = random.Random(2), 0
    while any(kernel.poll() is None for kernel in kernels):
        time.sleep(rng.random() / 5)
        if killed < 6 and (account.home / "batch.sqlite").exists():
            killed += kill(supervisor(account.home))
    said = [kernel.communicate()[0].split() for kernel in kernels]
    assert [kernel.returncode for kernel in kernels] == [0, 0]
    assert Counter((tmp_path / "ran").read_text().split()) == {f"{job_id}/1": 1 for ids in said for job_id in ids}
    assert backends.account(account).status()["jobs"] == {"SUCCEEDED": 80}
    box = Box(account)
    box.wait(box.submit(box.define("true")))  # the last of them may have been killed when all had ended
    wait_until(lambda: len(ours(account.home)) == 1 + len(keepers(account.home)))  # spare keepers wait a second


def test_the_supervisor_leaves_when_idle_and_costs_nothing_then(account: Settings, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "genokit.local.engine.supervisor", account.home, "--idle-s", "0.5"]
    box = Box(account)
    job_id = box.submit(box.define(*waits_for(tmp_path / "go")))
    kill(supervisor(account.home))
    wait_until(lambda: not supervisor(account.home))
    subprocess.run(start, check=True, stdout=subprocess.PIPE)
    first = supervisor(account.home)
    time.sleep(1)
    assert supervisor(account.home) == first is not None  # it stays as long as there is work
    (tmp_path / "go").touch()
    assert box.wait(job_id)["status"] == "SUCCEEDED"
    wait_until(lambda: not ours(account.home))
    assert box.describe(job_id)["status"] == "SUCCEEDED"
    assert not ours(account.home)  # and to look at what has ended starts nobody
    assert box.wait(box.submit(box.define("true")))["status"] == "SUCCEEDED"
    assert supervisor(account.home) not in (None, first)


def test_what_comes_while_the_supervisor_leaves_is_not_left_lying(account: Settings) -> None:
    account.home.mkdir()
    start = [sys.executable, "-m", "genokit.local.engine.supervisor", account.home, "--idle-s", "0"]
    box = Box(account)
    definition = box.define("true")
    kill(supervisor(account.home))
    events = backends.account(account)
    for number in range(10):
        subprocess.run(start, check=True, stdout=subprocess.PIPE)
        time.sleep(number / 1000)
        job_id = box.submit(definition)
        # Events are read without waking anybody.
        wait_until(lambda: events.events()[-1]["detail"]["status"] == "SUCCEEDED")
        assert events.events()[-1]["detail"]["jobId"] == job_id


# --- disks and folders


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from botocore.exceptions import ClientError
from embedded import Box
from genokit import GenokitError, Settings
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
box = Box(Settings(home=Path(sys.argv[1])))
try:
    for number in range(1000):
        print(box.submit("task"), flush=True)
except (ClientError, GenokitError) as error:
    print("refused:", error)
"""


def test_a_disk_without_room_is_a_clear_error_and_loses_nothing(account: Settings, tmp_path: Path) -> None:
    box = Box(account)
    box.define("sh", "-c", f"echo $AWS_BATCH_JOB_ID >>{tmp_path / 'ran'}", resourceRequirements=TINY)
    kill(supervisor(account.home))
    # No file may grow beyond this: what SQLite and the supervisor then meet is what a full disk would show them.
    room = max(file.stat().st_size for file in account.home.iterdir()) + 60_000
    command = [sys.executable, "-c", LIMITED, account.home, str(room), Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    # Either the client or the supervisor is the first that finds no room.
    assert said[-1].startswith("refused: ")
    assert re.search(f"embedded account in '{account.home}' (cannot be used|has no supervisor)", said[-1])
    assert len(said) > 1
    for process in ours(account.home):
        kill(process.pid)  # they have the limit, too
    jobs = said[:-1]
    lost = [job_id for job_id in jobs if box.wait(job_id)["status"] != "SUCCEEDED"]
    assert all(box.describe(job_id)["statusReason"].startswith("Host EC2") for job_id in lost)
    ran = Counter((tmp_path / "ran").read_text().split())
    assert set(ran.values()) == {1}
    assert set(jobs) - set(lost) <= set(ran) <= set(jobs)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_home_that_cannot_be_is_a_clear_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("somebody's")
    settings = Settings(home=tmp_path / "file" / below if below else tmp_path / "file")
    for call in (
        lambda: backends.clients(settings).batch.describe_job_queues(),
        lambda: backends.clients(settings).batch.describe_jobs(jobs=["x"]),
    ):
        with pytest.raises(GenokitError, match="cannot be used"):
            call()
    assert backends.account(settings).status()["jobs"] == {}
    assert (tmp_path / "file").read_text() == "somebody's"


def test_a_home_that_no_supervisor_can_enter_is_a_clear_error(account: Settings) -> None:
    box = Box(account)
    definition = box.define("true")
    (account.home / "wake").mkdir()  # in the place of the FIFO
    with pytest.raises(ClientError, match=f"The embedded account in '{account.home}' has no supervisor") as caught:
        box.submit(definition)
    assert caught.value.response["Error"]["Code"] == "ServerException"
    assert backends.account(account).status()["jobs"] == {}
    (account.home / "wake").rmdir()
    assert box.wait(box.submit(definition))["status"] == "SUCCEEDED"


def test_a_store_cut_in_half_is_named_and_kept(account: Settings) -> None:
    box = Box(account)
    box.define("true")
    backends.account(account).stop()
    file = account.home / "batch.sqlite"
    half = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(half)
    with pytest.raises(GenokitError, match=r"batch\.sqlite"):
        box.define("true")
    assert file.read_bytes() == half
    file.unlink()


def test_a_store_with_flipped_bytes_is_named_or_read_and_never_a_bare_error(account: Settings) -> None:
    box = Box(account)
    ids = [box.submit(box.define("true"), arrayProperties={"size": 3}) for _ in range(3)]
    for job_id in ids:
        box.wait(job_id)
    backends.account(account).stop()
    file, rng, named = account.home / "batch.sqlite", random.Random(12), list[str]()
    sound = file.read_bytes()
    for _ in range(150):
        flipped = bytearray(sound)
        for _ in range(rng.choice((1, 20, 400))):
            flipped[rng.randrange(len(flipped))] ^= rng.randrange(1, 256)
        file.write_bytes(flipped)
        for call in (
            lambda: box.batch.describe_jobs(jobs=[*ids, f"{ids[0]}:1"]),
            lambda: box.batch.list_jobs(jobQueue="highPriority", jobStatus="SUCCEEDED"),
            box.batch.describe_job_definitions,
            box.batch.describe_job_queues,
            backends.account(account).events,
            backends.account(account).status,
        ):
            try:
                call()
            except GenokitError as error:
                named.append(str(error))
            except ClientError as error:
                named.append(str(error))
    assert len(named) > 100
    assert not [said for said in named if "has space" in said]
    for process in ours(account.home):
        kill(process.pid)
    file.write_bytes(sound)
    assert box.wait(box.submit(box.define("true")))["status"] == "SUCCEEDED"


@pytest.mark.parametrize("at", [-107_000_000_000_000, 10**18, 1e30, "noon"])
def test_an_event_with_an_impossible_time_names_the_damaged_store(account: Settings, at: object) -> None:
    box = Box(account)
    box.wait(box.submit(box.define("true")))
    with store.connect(account.home) as db:
        db.execute("update events set at = ?", (at,))
    with pytest.raises(GenokitError, match="not a readable store of jobs"):
        backends.account(account).events()


def test_an_empty_store_is_no_new_account(account: Settings) -> None:
    box = Box(account)
    box.define("true")
    (account.home / "batch.sqlite").write_bytes(b"")
    with pytest.raises(GenokitError, match="it is empty"):
        box.define("true")
    backends.account(account).clean()
    assert box.wait(box.submit(box.define("true")))["status"] == "SUCCEEDED"


def test_a_damaged_record_is_the_end_of_its_job_and_of_no_other(account: Settings) -> None:
    box, damaged = Box(account), set()
    wait, ran = f"until [ -e {account.home}/go ]; do sleep 0.05; done", account.home / "ran"
    good = box.submit(box.define("sh", "-c", wait, resourceRequirements=TINY))
    runner = box.define("sh", "-c", f"{wait}; touch {ran}", resourceRequirements=TINY)
    for column in ("attempts", "doc", "gpu_ids", "runtime"):
        over = box.submit(box.define("true", resourceRequirements=TINY))
        runs, waits = box.submit(runner), box.submit(runner, dependsOn=[{"jobId": good}])
        box.wait(over)
        box.wait(runs, "RUNNING")
        with store.connect(account.home) as db:
            db.execute(f"update jobs set {column} = '[{{\"a' where id in (?, ?, ?)", (over, runs, waits))
            store.mend(db)
        assert [box.wait(job)["statusReason"] for job in (runs, waits)] == [
            "The account's record of this job is damaged."
        ] * 2
        assert box.describe(over)["status"] == "SUCCEEDED"
        with store.connect(account.home) as db:
            db.execute(f"update jobs set {column} = '[{{\"a' where id = ?", (over,))
        if column in ("attempts", "doc"):
            with pytest.raises(GenokitError, match=f"record of '{over}' is damaged.* try again"):
                box.describe(over)
        assert box.describe(over)["status"] == "SUCCEEDED"
        damaged |= {runs, waits}
        failed = box.batch.list_jobs(jobQueue="highPriority", jobStatus="FAILED")["jobSummaryList"]
        assert {job["jobId"] for job in failed} == damaged
    wait_until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if f"touch {ran}" in str(p.info["cmdline"])])
    (account.home / "go").touch()
    assert box.wait(good)["status"] == "SUCCEEDED"
    assert not ran.exists()
