"""Whatever is killed, no job is lost, none runs twice, and the next to look sees how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from embedded import Box

from genokit import Batch, Settings, backends
from genokit.local import keeper, store

SLOW = "import sys, time; open(sys.argv[1], 'a').write('ran '); time.sleep(1.5); print('done')"


def supervisor(settings: Settings) -> int:
    number = backends.account(settings).status()["supervisor"]
    assert isinstance(number, int)
    return number


def wait_until(true: object, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(process: int) -> bool:
    """Whether a process has ended, be it that nobody has taken note of its end yet."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_job_outlives_the_kernel_and_the_terminal_that_submitted_it(account: Settings, tmp_path: Path) -> None:
    code = (
        "import sys, time; from genokit import Batch, Settings; batch = Batch(settings=Settings(home=sys.argv[1])); "
        "job = batch.submit(batch.define('slow', command=['python', '-c', sys.argv[2], sys.argv[3]], memory_gib=0.1)); "
        "print(job.id, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(account.home), SLOW, str(tmp_path / "ran")]
    terminal = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert terminal.stdout is not None
    job_id = terminal.stdout.readline().strip()
    job = Batch(settings=account).job(job_id)
    wait_until(lambda: job.status == "RUNNING")
    os.killpg(terminal.pid, signal.SIGHUP)
    os.killpg(terminal.pid, signal.SIGKILL)
    terminal.wait()
    terminal.stdout.close()
    assert job.status == "RUNNING"
    assert (job.wait(30).status, job.log()) == ("SUCCEEDED", "done")
    assert (tmp_path / "ran").read_text() == "ran "


def test_a_killed_supervisor_comes_back_and_adopts_what_still_runs(account: Settings, tmp_path: Path) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("slow", command=["python", "-c", SLOW, str(tmp_path / "ran")], memory_gib=0.1))
    wait_until(lambda: (tmp_path / "ran").exists())
    first = supervisor(account)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: is_gone(first))
    wait_until(lambda: job.status == "RUNNING")
    assert supervisor(account) != first
    assert (job.wait(30).status, job.exit_code, job.log()) == ("SUCCEEDED", 0, "done")
    assert (tmp_path / "ran").read_text() == "ran "


def test_a_job_that_ended_while_nobody_watched_is_read_from_its_record(account: Settings, tmp_path: Path) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("slow", command=["python", "-c", SLOW, str(tmp_path / "ran")], memory_gib=0.1))
    wait_until(lambda: (tmp_path / "ran").exists())
    os.kill(supervisor(account), signal.SIGKILL)
    wait_until(lambda: any('"exitCode"' in journal.read_text() for journal in account.home.glob("hosts/*/journal")))
    assert (job.wait(30).status, job.exit_code) == ("SUCCEEDED", 0)
    assert job.duration_s is not None
    assert job.duration_s < 5


def test_a_job_whose_keeper_is_gone_fails_as_on_a_lost_host(account: Settings) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("sleep", command=["sleep", "55"], memory_gib=0.1))
    wait_until(lambda: job.status == "RUNNING")
    [host] = (account.home / "hosts").iterdir()
    process = next(one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "55"])
    os.kill(int((host / "lock").read_text()), signal.SIGKILL)
    assert job.wait(30).status == "FAILED"
    assert job.reason == f"Host EC2 (instance {host.name}) terminated."
    wait_until(lambda: is_gone(process.pid))  # killed, it is there until its new parent has noticed


def test_a_store_that_is_no_database_is_named_and_kept(account: Settings) -> None:
    account.home.mkdir(parents=True)
    (account.home / "batch.sqlite").write_bytes(b"not a database, but somebody's" * 100)
    with pytest.raises(Exception, match=r"batch\.sqlite' is not a readable store"):
        Batch(settings=account).define("x", command=["true"])
    assert (account.home / "batch.sqlite").read_bytes().startswith(b"not a database")
    (account.home / "batch.sqlite").unlink()


KEEP = """
import sys
from pathlib import Path
from genokit.local import keeper
host = Path(sys.argv[1])
command, environment = ("sh", "-c", sys.argv[2]), {"PATH": "/usr/bin:/bin"}
limits = {"timeout_s": float(sys.argv[3]) or None, "grace_s": 0.5}
keeper.start(host, host / "nobody")
task = keeper.Task("job/1", str(host / "work"), str(host / "log"), command, environment, **limits)
keeper.tell(host, [task, task, {"leave": True}])
"""


def keep(host: Path, script: str, timeout_s: float = 0) -> dict[str, Any]:
    """What a keeper writes of an attempt; it is told of the attempt twice, and then to leave."""
    subprocess.run([sys.executable, "-c", KEEP, host, script, str(timeout_s)], check=True)
    wait_until(lambda: not keeper.lives(host))
    started, ended, left = keeper.journal(host, 0)[0]
    assert left == keeper.LEFT
    assert started["key"] == ended["key"] == "job/1"
    assert not (host / "work").exists()
    return ended


def test_a_keeper_ends_an_attempt_at_its_timeout_even_one_that_will_not_go(tmp_path: Path) -> None:
    ended = keep(tmp_path / "i-1", "trap '' TERM; while :; do sleep 0.1; done", timeout_s=0.3)
    assert (ended["exitCode"], ended["timed_out"]) == (137, True)


def test_nothing_that_a_job_left_behind_outlives_it(tmp_path: Path) -> None:
    assert keep(tmp_path / "i-1", "sleep 300 & echo $! > ../child; echo started")["exitCode"] == 0
    assert is_gone(int((tmp_path / "i-1" / "child").read_text()))
    assert (tmp_path / "i-1" / "log").read_text().endswith("started\n")


def test_a_job_that_closes_its_output_goes_on_to_its_end(tmp_path: Path) -> None:
    assert keep(tmp_path / "i-1", "echo heard; exec >&- 2>&-; sleep 0.3; exit 4")["exitCode"] == 4


def test_an_attempt_that_has_no_place_for_its_log_fails_alone(account: Settings) -> None:
    batch = Batch(settings=account)
    good = batch.submit(batch.define("good", command=["sleep", "0.5"], memory_gib=0.1))
    wait_until(lambda: good.status == "RUNNING")
    (account.home / "logs" / "bad").write_text("a file where a folder should be")
    bad = batch.submit(batch.define("bad", command=["true"], memory_gib=0.1)).wait(30)
    assert bad.status == "FAILED"
    assert bad.reason.startswith("CannotCreateContainerError")
    assert good.wait(30).status == "SUCCEEDED"


def test_an_account_of_the_version_before_goes_on_with_its_jobs(account: Settings) -> None:
    box = Box(account)
    job = box.submit(box.define("true"))
    box.wait(job)
    with store.connect(account.home) as db:
        for table in ("stacks", "stack_resources", "stack_events"):
            db.execute(f"drop table {table}")
        db.execute("pragma user_version = 3")
    assert box.describe(job)["status"] == "SUCCEEDED"
    assert backends.clients(account).outputs() == {}
    with store.connect(account.home) as db:
        assert db.execute("pragma user_version").fetchone()[0] == 4
