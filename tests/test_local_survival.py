"""Whatever is killed, no job is lost, none runs twice, and the next to look sees how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from embedded import Box, wait_until, waits_for

from genokit import Batch, GenokitError, Settings, backends
from genokit.doctor import doctor
from genokit.local import store
from genokit.local.engine import keeper, processes

SLOW = """
import os, sys, time
open(sys.argv[1], "a").write("ran ")
while not os.path.exists(sys.argv[1] + ".go"):
    time.sleep(0.05)
print("done")
"""


def supervisor(settings: Settings) -> int:
    number = backends.account(settings).status()["supervisor"]
    assert isinstance(number, int)
    return number


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
    (tmp_path / "ran.go").touch()
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
    (tmp_path / "ran.go").touch()
    assert (job.wait(30).status, job.exit_code, job.log()) == ("SUCCEEDED", 0, "done")
    assert (tmp_path / "ran").read_text() == "ran "


def test_a_job_that_ended_while_nobody_watched_is_read_from_its_record(account: Settings, tmp_path: Path) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("slow", command=["python", "-c", SLOW, str(tmp_path / "ran")], memory_gib=0.1))
    wait_until(lambda: (tmp_path / "ran").exists())
    os.kill(supervisor(account), signal.SIGKILL)
    (tmp_path / "ran.go").touch()
    wait_until(lambda: any('"exitCode"' in record.read_text() for record in account.home.glob("hosts/*")))
    ended = time.time()
    assert (job.wait(30).status, job.exit_code) == ("SUCCEEDED", 0)
    assert job.detail["stoppedAt"] <= 1000 * ended  # not when somebody looked


def test_a_job_whose_keeper_is_gone_fails_as_on_a_lost_host(account: Settings) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("sleep", command=["sleep", "55"], memory_gib=0.1))
    wait_until(lambda: job.status == "RUNNING")
    [host] = (account.home / "hosts").iterdir()
    process = next(one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "55"])
    os.kill(processes.lock_holder(host) or 0, signal.SIGKILL)
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
import json, secrets, sys
from pathlib import Path
from genokit.local.engine import keeper
folder, members = Path(sys.argv[1]), json.loads(sys.argv[2])
file = folder / f"i-{secrets.token_hex(8)}"
file.touch()
task = {"folder": f"{folder}/work", "log": f"{folder}/log", "environment": {"PATH": "/usr/bin:/bin"}, "grace_s": 0.5}
for _ in range(2):
    keeper.start(file, keeper.Task(**{**task, **members}), folder / "nobody", keeper.Spare())
print(file)
"""


def keep(folder: Path, *command: str, before: str = "", **members: Any) -> dict[str, Any]:
    """What a keeper records of an attempt; it is started twice."""
    task = json.dumps({"command": command, **members})
    started = [sys.executable, "-c", before + KEEP, folder, task]
    with (folder / "file").open("w+") as said:
        subprocess.run(started, stdout=said, check=True)
        said.seek(0)
        file = Path(said.read().strip())
    wait_until(lambda: not keeper.is_alive(file))
    assert file.read_text().count("ended") == 1
    assert not (folder / "work").exists()
    return keeper.read(file)


def keep_script(folder: Path, script: str, **members: Any) -> dict[str, Any]:
    return keep(folder, "sh", "-c", script, **members)


def test_a_keeper_ends_an_attempt_at_its_timeout_even_one_that_will_not_go(tmp_path: Path) -> None:
    ended = keep_script(tmp_path, "trap '' TERM; while :; do sleep 0.1; done", timeout_s=1)
    assert (ended["exitCode"], ended["timed_out"]) == (137, True)


def test_nothing_that_a_job_left_behind_outlives_it(tmp_path: Path) -> None:
    assert keep_script(tmp_path, "sleep 300 & echo $! > ../child; echo started")["exitCode"] == 0
    assert is_gone(int((tmp_path / "child").read_text()))
    assert (tmp_path / "log").read_text().endswith("started\n")


UNMARKED = "import resource; resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, 1 << 40))"


def test_where_processes_cannot_be_marked_those_of_its_group_end_with_a_job(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > ../child; sleep 300"
    assert keep_script(tmp_path, script, timeout_s=1, before=UNMARKED)["timed_out"]
    wait_until(lambda: is_gone(int((tmp_path / "child").read_text())))
    assert keep_script(tmp_path, "sleep 300 & echo $! > ../child", before=UNMARKED)["exitCode"] == 0
    wait_until(lambda: is_gone(int((tmp_path / "child").read_text())))


AWAY = """
import subprocess, sys, time
away = ["sh", "-c", "sleep 300 & echo $! $$ >>$0; sleep 300", sys.argv[1]]
subprocess.Popen(away, start_new_session=True, env={"PATH": "/usr/bin:/bin"})
while len(open(sys.argv[1], "a+").read() or open(sys.argv[1]).read()) < 2:
    time.sleep(0.01)
time.sleep(float(sys.argv[2]))
"""


def away(file: Path) -> list[int]:
    """The processes that a job has sent away, in a session and an environment of their own."""
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"))
    return [int(number) for number in file.read_text().split()]


@pytest.mark.parametrize("end", ["by itself", "terminated", "reclaimed"])
def test_processes_in_sessions_of_their_own_end_with_their_job(account: Settings, tmp_path: Path, end: str) -> None:
    box, file = Box(account), tmp_path / "away"
    job = box.submit(box.define("python", "-c", AWAY, str(file), "0" if end == "by itself" else "60"))
    numbers = away(file)
    if end != "by itself":
        box.wait(job, "RUNNING")
        assert not any(is_gone(number) for number in numbers)
    if end == "terminated":
        box.batch.terminate_job(jobId=job, reason="enough")
    if end == "reclaimed":
        backends.account(account).reclaim(job)
    assert box.wait(job)["status"] == ("SUCCEEDED" if end == "by itself" else "FAILED")
    assert all(is_gone(number) for number in numbers)  # when the end is told, not some time later


def test_processes_in_sessions_of_their_own_end_at_the_timeout(tmp_path: Path) -> None:
    (tmp_path / "away.py").write_text(AWAY)
    script = f"exec {sys.executable} {tmp_path / 'away.py'} {tmp_path / 'away'} 60"
    assert keep_script(tmp_path, script, timeout_s=3)["timed_out"]
    assert all(is_gone(number) for number in away(tmp_path / "away"))


def test_processes_in_sessions_of_their_own_do_not_outlive_a_killed_keeper(account: Settings, tmp_path: Path) -> None:
    box, file = Box(account), tmp_path / "away"
    job = box.submit(box.define("python", "-c", AWAY, str(file), "60"))
    numbers = away(file)
    [host] = (account.home / "hosts").iterdir()
    os.kill(processes.lock_holder(host) or 0, signal.SIGKILL)
    assert box.wait(job)["status"] == "FAILED"
    assert all(is_gone(number) for number in numbers)


def test_a_supervisor_that_a_job_has_started_outlives_the_job(account: Settings, tmp_path: Path) -> None:
    other = Settings(home=tmp_path / "other", cache=account.cache)
    code = (
        "import sys; from genokit import Batch, Settings; batch = Batch(settings=Settings(home=sys.argv[1])); "
        "print(batch.submit(batch.define('inner', command=['sleep', '2'], memory_gib=0.1)).id)"
    )
    outer = Box(account)
    job = outer.submit(outer.define("python", "-c", code, str(other.home)))
    assert outer.wait(job)["status"] == "SUCCEEDED"
    try:
        assert Box(other).wait(outer.written(job)[0])["status"] == "SUCCEEDED"
    finally:
        backends.account(other).stop()


NEST = 'if [ "$1" -gt 0 ]; then sh "$0" $(($1 - 1)); else sleep 2; fi'


def test_names_cut_inside_a_character_and_a_thousand_nested_processes_harm_nobody(
    account: Settings, tmp_path: Path
) -> None:
    named = tmp_path / "berechnung-groß.sh"  # of which the kernel keeps 15 bytes: half of the ß
    named.write_text("#!/bin/sh\nsleep 2\n")
    named.chmod(0o755)
    (tmp_path / "nest").write_text(NEST)
    box = Box(account)
    size = [{"type": "VCPU", "value": "0.1"}, {"type": "MEMORY", "value": "2048"}]
    commands = ([str(named)], ["sh", str(tmp_path / "nest"), "1100"], ["sleep", "3"])
    jobs = [box.submit(box.define(*command, resourceRequirements=size)) for command in commands]
    assert [box.wait(job)["status"] for job in jobs] == ["SUCCEEDED"] * 3
    assert [len(box.describe(job)["attempts"]) for job in jobs] == [1, 1, 1]


def test_a_thousand_folders_in_one_another_are_removed_with_their_job(account: Settings) -> None:
    box = Box(account)
    code = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
    job = box.submit(box.define("python", "-c", code))
    assert box.wait(job)["status"] == "SUCCEEDED"
    assert not (account.home / "scratch" / job / "1").exists()


def test_starts_that_fail_leave_no_file_open_and_no_folder(account: Settings) -> None:
    box = Box(account)
    gate = box.submit(box.define("sleep", "100"))
    box.wait(gate, "RUNNING")
    files = Path(f"/proc/{supervisor(account)}/fd")
    before = len(list(files.iterdir()))
    for command in ("no-such-program", "/etc/passwd"):
        job = box.submit(box.define(command), arrayProperties={"size": 50})
        assert box.wait(job)["status"] == "FAILED"
        assert box.describe(f"{job}:49")["container"]["exitCode"] in (126, 127)
        assert not list((account.home / "scratch").glob(f"{job}*/*"))
    wait_until(lambda: len(list(files.iterdir())) <= before)  # spare keepers wait a second


def test_a_keeper_takes_one_attempt_after_another(account: Settings) -> None:
    box = Box(account)
    job = box.submit(box.define("sh", "-c", "echo $PPID"), arrayProperties={"size": 30})
    assert box.wait(job)["status"] == "SUCCEEDED"
    assert len({line for child in range(30) for line in box.written(f"{job}:{child}")}) < 30


BAD = {
    "name": {"environment": {"LD_PATH=": "/x"}},
    "nul": {"environment": {"A": "a\0b"}},
    "surrogate": {"environment": {"A": "\ud800"}},
    "argument": {"command": ["true", "a\0b"]},
    "program": {"command": ["\ud800"]},
    "nothing": {"command": []},
    "log": {"log": "/proc/nowhere/log"},
    "type": {"command": 5},
}


@pytest.mark.parametrize("members", BAD.values(), ids=BAD)
def test_whatever_the_start_of_an_attempt_raises_is_its_end(tmp_path: Path, members: dict[str, Any]) -> None:
    ended = keep(tmp_path, "true", **members)
    assert "started" not in ended
    assert ended["reason"].startswith("Cannot")


def test_a_job_that_closes_its_output_goes_on_to_its_end(tmp_path: Path) -> None:
    assert keep_script(tmp_path, "echo heard; exec >&- 2>&-; sleep 0.3; exit 4")["exitCode"] == 4


def test_an_attempt_that_has_no_place_for_its_log_fails_alone(account: Settings) -> None:
    batch = Batch(settings=account)
    good = batch.submit(batch.define("good", command=waits_for(account.home / "go"), memory_gib=0.1))
    wait_until(lambda: good.status == "RUNNING")
    (account.home / "logs" / "bad").write_text("a file where a folder should be")
    bad = batch.submit(batch.define("bad", command=["true"], memory_gib=0.1)).wait(30)
    assert bad.status == "FAILED"
    assert bad.reason.startswith("CannotCreateContainerError")
    (account.home / "go").touch()
    assert good.wait(30).status == "SUCCEEDED"


def test_a_record_that_nobody_can_read_is_the_end_of_its_job_and_of_no_other(account: Settings) -> None:
    damages = (b"\0\xff", b"[" * 10**5, b'{"ended": "noon", "exitCode": 0}', b"5", b"")
    box = Box(account)
    size = [{"type": "VCPU", "value": "0.1"}, {"type": "MEMORY", "value": "64"}]
    short, long = (
        box.define("sh", "-c", f"until [ -e {account.home / file} ]; do sleep 0.05; done", resourceRequirements=size)
        for file in ("go", "on")
    )
    jobs, other = [box.submit(short) for _ in damages], box.submit(long)
    for job in (*jobs, other):
        box.wait(job, "RUNNING")
    number = supervisor(account)
    os.kill(number, signal.SIGSTOP)  # so that nobody reads how the jobs end before that is overwritten
    (account.home / "go").touch()

    def ended() -> list[Path]:
        return [one for one in account.home.glob("hosts/*") if b'"exitCode"' in one.read_bytes()]

    wait_until(lambda: len(ended()) == len(jobs))
    for record, damage in zip(ended(), damages, strict=True):
        record.write_bytes(record.read_bytes().partition(b"\n")[0] + b"\n" + damage + b"\n")
    os.kill(number, signal.SIGCONT)
    assert [box.wait(one)["status"] for one in jobs] == ["FAILED"] * len(jobs)
    (account.home / "on").touch()
    assert box.wait(other)["status"] == "SUCCEEDED"
    assert supervisor(account) == number


@pytest.fixture
def headless(account: Settings) -> Box:
    """An account with a job that runs, whose supervisor dies whenever it is started."""
    box = Box(account)
    box.wait(box.submit(box.define("sleep", "321")), "RUNNING")
    with store.connect(account.home) as db:
        db.execute("update queues set doc = '{' where name = 'lowPriority'")
    wait_until(lambda: store.deaths(account.home))
    return box


def sleeper(account: Settings) -> int:
    found = [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "321"]]
    return next(one.pid for one in found if one.cwd().startswith(str(account.home)))


def test_a_supervisor_that_dies_again_and_again_is_told_of_by_all(headless: Box, account: Settings) -> None:
    while len(store.deaths(account.home)) < 2:
        listed = headless.batch.list_jobs(jobQueue="highPriority")  # which starts another
    job = listed["jobSummaryList"][0]["jobId"]
    for call, request in (
        (headless.submit, {"definition": "task"}),
        (headless.batch.describe_jobs, {"jobs": [job]}),
        (headless.batch.describe_job_definitions, {}),
        (headless.logs.describe_log_streams, {"logGroupName": "/aws/batch/job"}),
    ):
        code, message = headless.refusal(call, **request)
        assert code == "ServerException"
        assert "record of 'lowPriority' is damaged" in message
        assert "times in a row" in message
    assert "'lowPriority'" in str(backends.account(account).status()["problem"])
    [row] = doctor(account, only=["embedded account"]).rows[1:]
    assert (row.state, "has died" in row.detail) == ("problem", True)
    with store.connect(account.home) as db:
        db.execute("update queues set doc = (select doc from queues where name = 'highPriority')")
    assert headless.wait(headless.submit("task", containerOverrides={"command": ["true"]}))["status"] == "SUCCEEDED"
    assert backends.account(account).status()["problem"] is None


def test_what_runs_is_ended_by_stop_and_clean_without_a_supervisor(headless: Box, account: Settings) -> None:
    number = sleeper(account)
    backends.account(account).stop()
    assert is_gone(number)
    assert not [host for host in (account.home / "hosts").iterdir() if keeper.is_alive(host)]
    backends.account(account).clean()
    assert not (account.home / "batch.sqlite").exists()


def test_what_runs_is_ended_before_a_store_that_nobody_can_read_is_cleared_away(account: Settings) -> None:
    box = Box(account)
    box.wait(box.submit(box.define("sleep", "321")), "RUNNING")
    number = sleeper(account)
    os.kill(supervisor(account), signal.SIGKILL)
    (account.home / "batch.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(GenokitError, match="not a readable store"):
        backends.account(account).stop()
    assert is_gone(number)
    backends.account(account).clean()
    assert box.wait(box.submit(box.define("true")))["status"] == "SUCCEEDED"


@pytest.mark.parametrize("name", ["secrets", "json", "genokit", "sitecustomize"])
def test_nothing_that_lies_in_the_home_is_run_as_part_of_the_kit(account: Settings, name: str) -> None:
    account.home.mkdir(mode=0o700)
    (account.home / f"{name}.py").write_text("open(__file__ + '.ran', 'w')")
    box = Box(account)
    assert box.wait(box.submit(box.define("true")))["status"] == "SUCCEEDED"
    assert not (account.home / f"{name}.py.ran").exists()
