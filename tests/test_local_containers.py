"""Jobs in containers: what needs no engine, and with the marker ``containers`` what only a real one can show."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded import SMALL, Box, wait_until, waits_for

from genokit import Settings
from genokit.local.engine import containers, keeper, processes

real = pytest.mark.containers

# --- without an engine


def plan(gpus: list[int] | None = None, engine: str = "/usr/bin/docker", **asked: Any) -> containers.Container:
    properties = {"image": "tools:1", "command": ["true"], "resourceRequirements": SMALL, **asked}
    variables = {pair["name"]: pair["value"] for pair in asked.get("environment", [])}
    return containers.plan(engine, "box", properties, variables, labels={}, gpus=gpus or [])


def test_without_an_engine_a_job_fails_at_once_and_says_what_to_install(
    account: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    box = Box(account)
    job = box.wait(box.submit(box.define("true", image="biocontainers/bwa:0.7.17")))
    assert job["status"] == "FAILED"
    assert "exitCode" not in job["container"]
    assert "'biocontainers/bwa:0.7.17' needs a container engine" in job["statusReason"]
    assert "apt install docker.io" in job["statusReason"]


def test_an_engine_that_does_not_answer_is_named_with_its_words(
    account: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "docker"
    stand_in.write_text("#!/bin/sh\necho Client: 1\necho Cannot connect to the daemon at $DOCKER_HOST >&2\nexit 1\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    box = Box(account)
    job = box.wait(box.submit(box.define("true", image="tools:1")))
    assert job["status"] == "FAILED"
    assert job["container"]["reason"] == "CannotPullContainerError: Cannot connect to the daemon at unix:///nowhere"


def test_a_volume_without_a_name_fails_its_job_and_no_other(
    account: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    box = Box(account)
    good = box.submit(box.define(*waits_for(tmp_path / "go")))
    box.wait(good, "RUNNING")
    bad = box.wait(box.submit(box.define("true", image="tools:1", volumes=[{"host": {"sourcePath": "/x"}}])))
    assert (bad["status"], bad["statusReason"]) == (
        "FAILED",
        "CannotStartContainerError: volumes: a volume without a name cannot be mounted",
    )
    (tmp_path / "go").touch()
    assert box.wait(good)["status"] == "SUCCEEDED"


def test_no_value_of_a_variable_is_on_the_command_line(tmp_path: Path) -> None:
    variables = {"TOKEN": "secret = 'a b' #c ", "KEY": "secret\nof two lines", "#odd": "secret", "EMPTY": ""}
    box = plan(environment=[{"name": name, "value": value} for name, value in variables.items()])
    command, environment = containers.creation(box, tmp_path / "file")
    assert not [word for word in command if "secret" in word]
    assert (tmp_path / "file").read_text() == "EMPTY=\nTOKEN=secret = 'a b' #c \n"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert {name: environment[name] for name in ("KEY", "#odd")} == {"KEY": variables["KEY"], "#odd": "secret"}


def test_an_image_is_never_read_as_an_option(tmp_path: Path) -> None:
    command, _ = containers.creation(plan(image="--privileged", command=["-v", "/:/host"]), tmp_path / "file")
    assert command[-4:] == ("--", "--privileged", "-v", "/:/host")


def test_the_job_gets_its_gpus_and_no_others() -> None:
    assert '--gpus="device=1,3"' in plan(gpus=[1, 3]).options
    assert "--device=nvidia.com/gpu=1" in plan(gpus=[1], engine="/usr/bin/podman").options
    assert not [option for option in plan().options if "gpu" in option]


def test_a_container_is_privileged_only_where_its_definition_says_so() -> None:
    assert "--privileged" in plan(privileged=True).options
    assert "--privileged" not in plan(privileged=False).options


def test_nodes_of_a_job_share_the_hosts_network() -> None:
    asked = {"image": "tools:1", "resourceRequirements": SMALL}
    box = containers.plan("docker", "box", asked, {}, labels={}, gpus=[], network="host")
    assert [one for one in box.options if "network" in one] == ["--network=host"]


HOST = {"name": "data", "host": {"sourcePath": "/data"}}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"secrets": [{"name": "KEY", "valueFrom": "arn:aws:ssm:x"}]},
            "secrets: not supported here",
        ),
        ({"mountPoints": [{"sourceVolume": "data", "containerPath": "/in"}]}, "the volume 'data' is not defined"),
        (
            {"volumes": [HOST], "mountPoints": [{"sourceVolume": "data", "containerPath": "in"}]},
            "'in' must be absolute",
        ),
        (
            {
                "volumes": [{"name": "data", "host": {"sourcePath": "data"}}],
                "mountPoints": [{"sourceVolume": "data", "containerPath": "/in"}],
            },
            "'data' must be absolute",
        ),
        (
            {
                "volumes": [{"name": "data", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}],
                "mountPoints": [{"sourceVolume": "data", "containerPath": "/in"}],
            },
            "'data' must be a path of this machine",
        ),
    ],
)
def test_what_cannot_be_had_here_is_refused_by_name(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(**asked)


def test_the_supervisor_knows_the_engine_of_its_user_and_nothing_else_of_them() -> None:
    environ = {"DOCKER_HOST": "unix:///s", "HOME": "/h", "XDG_RUNTIME_DIR": "/r", "TOKEN": "x", "AWS_PROFILE": "y"}
    assert set(containers.clients_own(environ)) == {"DOCKER_HOST", "HOME", "XDG_RUNTIME_DIR"}


# --- with a real engine: make test-containers

TOOLS = ("cat", "env", "id", "ls", "mount", "nproc", "sh", "sleep", "tail", "touch", "true")


def engine(*words: str, **given: Any) -> str:
    program = containers.find()
    assert program is not None
    return subprocess.run([program, *words], check=True, capture_output=True, **given).stdout.decode().strip()


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """An image of this machine's own static busybox, so that no registry is needed."""
    program = shutil.which("busybox")
    assert program, "these tests make their image of a static busybox (Debian, Ubuntu: apt install busybox-static)"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(os.path.realpath(program), "bin/busybox")
        for tool in TOOLS:
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    engine("import", "--change", 'CMD ["sh", "-c", "echo the image"]', "-", "genokit-test:1", input=packed.getvalue())
    yield "genokit-test:1"
    engine("rmi", "--force", "genokit-test:1")


@pytest.fixture
def box(account: Settings, image: str) -> Iterator[Box]:
    """An embedded account whose containers have all gone when the test is over."""
    yield Box(account)
    left = ("ps", "--all", "--quiet", "--filter", f"label=genokit.home={account.home}")
    wait_until(lambda: not engine(*left))


def shell(box: Box, script: str, **properties: Any) -> str:
    return box.submit(box.define("sh", "-c", script, image="genokit-test:1", **properties))


def inspected(job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine("inspect", f"genokit-{job_id}-1"))[0]
    return found


@real
def test_a_container_has_the_jobs_variables_and_none_of_the_accounts(box: Box) -> None:
    own = [{"name": "PLAIN", "value": "a 'b' $HOME "}, {"name": "LINES", "value": "one\ntwo"}]
    job = box.submit(box.define("env", image="genokit-test:1", environment=own))
    assert box.wait(job)["status"] == "SUCCEEDED"
    written = box.written(job)
    assert {"PLAIN=a 'b' $HOME ", "LINES=one", "two", f"AWS_BATCH_JOB_ID={job}", "AWS_BATCH_JOB_ATTEMPT=1"} <= {
        *written
    }
    assert not [line for line in written if line.startswith(("GENOKIT_", "PYTHON", "CUDA", "DOCKER"))]


@real
def test_words_reach_the_program_as_they_are_and_its_exit_code_comes_back(box: Box) -> None:
    script = 'echo "$0|$1"; echo err >&2; exit 3'
    job = box.submit(
        box.define("sh", "-c", script, "Ref::x", "$(id); 'b' --rm", image="genokit-test:1"), parameters={"x": "a b"}
    )
    assert box.wait(job)["container"]["exitCode"] == 3
    assert sorted(box.written(job)) == ["a b|$(id); 'b' --rm", "err"]


@real
def test_without_a_command_the_images_own_runs(box: Box) -> None:
    job = box.submit(box.define(image="genokit-test:1"))
    assert box.wait(job)["status"] == "SUCCEEDED"
    assert box.written(job) == ["the image"]


@real
def test_children_of_an_array_and_later_attempts_have_containers_of_their_own(box: Box) -> None:
    script = 'echo "$AWS_BATCH_JOB_ARRAY_INDEX $AWS_BATCH_JOB_ATTEMPT"; exit 1'
    definition = box.define("sh", "-c", script, image="genokit-test:1")
    job = box.submit(definition, arrayProperties={"size": 2}, retryStrategy={"attempts": 2})
    assert box.wait(job)["status"] == "FAILED"
    assert [box.written(f"{job}:{number}") for number in range(2)] == [["0 2"], ["1 2"]]


@real
def test_volumes_user_and_read_only_root_are_as_the_definition_says(box: Box, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "reads").write_text("ACGT\n")
    script = (
        "cat /in/reads; id -u; for place in /in /out /new /empty / /run; do "
        'touch $place/x 2>/dev/null && echo "$place yes" || echo "$place no"; done; ls -l /dev/mine; mount'
    )
    job = shell(
        box,
        script,
        user="1000:1000",
        readonlyRootFilesystem=True,
        volumes=[
            {"name": "in", "host": {"sourcePath": str(tmp_path / "in")}},
            {"name": "out", "host": {"sourcePath": str(tmp_path / "in")}},
            {"name": "new", "host": {"sourcePath": str(tmp_path / "new")}},
            {"name": "empty"},
        ],
        mountPoints=[
            {"sourceVolume": "in", "containerPath": "/in", "readOnly": True},
            {"sourceVolume": "out", "containerPath": "/out"},
            {"sourceVolume": "new", "containerPath": "/new", "readOnly": True},
            {"sourceVolume": "empty", "containerPath": "/empty", "readOnly": True},
        ],
        linuxParameters={
            "sharedMemorySize": 16,
            "tmpfs": [{"containerPath": "/run", "size": 4, "mountOptions": ["mode=1777"]}],
            "devices": [{"hostPath": "/dev/null", "containerPath": "/dev/mine", "permissions": ["READ"]}],
        },
    )
    (tmp_path / "in").chmod(0o777)
    assert box.wait(job)["status"] == "SUCCEEDED", box.written(job)
    written = box.written(job)
    assert written[:8] == ["ACGT", "1000", "/in no", "/out yes", "/new no", "/empty no", "/ no", "/run yes"]
    assert written[8].startswith("crw")
    assert [line for line in written if " /dev/shm " in line and "size=16384k" in line]
    assert (tmp_path / "new").is_dir()


@real
def test_the_engine_holds_the_limits(box: Box) -> None:
    needs = [{"type": "VCPU", "value": "0.5"}, {"type": "MEMORY", "value": "32"}]
    job = shell(
        box,
        "sleep 60",
        resourceRequirements=needs,
        ulimits=[{"name": "nofile", "softLimit": 100, "hardLimit": 200}],
        linuxParameters={"initProcessEnabled": True, "maxSwap": 8},
    )
    wait_until(lambda: box.describe(job)["status"] == "RUNNING")
    wait_until(lambda: engine("ps", "--quiet", "--filter", f"label=genokit.job={job}"))
    asked = inspected(job)["HostConfig"]
    assert (asked["NanoCpus"], asked["Memory"], asked["MemorySwap"]) == (500_000_000, 32 << 20, 40 << 20)
    assert asked["Init"] is True
    assert [(one["Soft"], one["Hard"]) for one in asked["Ulimits"]] == [(100, 200)]
    box.batch.terminate_job(jobId=job, reason="seen")
    assert box.wait(job)["statusReason"] == "seen"


@real
def test_more_memory_than_asked_for_gives_137_and_its_reason(box: Box) -> None:
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "32"}]
    job = shell(box, "echo starts; tail -c 200000000 /dev/zero", resourceRequirements=needs)
    ended = box.wait(job)
    assert (ended["status"], ended["container"]["exitCode"]) == ("FAILED", 137)
    assert ended["container"]["reason"] == "OutOfMemoryError: Container killed due to memory usage"
    assert "starts" in box.written(job)


@real
def test_an_image_that_cannot_be_had_fails_the_job_with_the_engines_words(box: Box) -> None:
    ended = box.wait(box.submit(box.define("true", image="localhost:1/nobody/has-this:1")))
    assert (ended["status"], ended["statusReason"]) == ("FAILED", "Task failed to start")
    assert ended["container"]["reason"].startswith("CannotPullContainerError: ")
    assert "localhost:1" in ended["container"]["reason"]


@real
def test_a_program_that_the_image_lacks_fails_the_job_with_the_engines_words(box: Box) -> None:
    job = box.submit(box.define("bwa", "mem", image="genokit-test:1"))
    ended = box.wait(job)
    assert ended["statusReason"] == "Task failed to start"
    assert ended["container"]["exitCode"] in (127, 125)  # docker's, podman's
    assert ended["container"]["reason"].startswith("CannotStartContainerError: ")
    assert '"bwa": executable file not found' in box.written(job)[-1]


@real
def test_what_the_engine_refuses_to_make_is_told_in_its_words(box: Box) -> None:
    ended = box.wait(box.submit(box.define("true", image="genokit-test:1", ulimits=[LIMIT])))
    assert ended["statusReason"] == "Task failed to start"
    assert "CannotCreateContainerError: " in ended["container"]["reason"]


LIMIT = {"name": "no-such-limit", "softLimit": 1, "hardLimit": 1}


@real
def test_a_terminated_job_gets_sigterm_and_may_say_goodbye(box: Box) -> None:
    job = shell(box, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done")
    wait_until(lambda: box.describe(job)["status"] == "RUNNING" and "up" in box.written(job))
    box.batch.terminate_job(jobId=job, reason="enough")
    ended = box.wait(job)
    assert (ended["status"], ended["statusReason"], ended["container"]["exitCode"]) == ("FAILED", "enough", 7)
    assert box.written(job) == ["up", "bye"]


@real
def test_a_job_terminated_while_its_container_is_being_made_leaves_nothing(box: Box) -> None:
    jobs = [shell(box, "trap 'exit 7' TERM; while :; do sleep 0.1; done") for _ in range(4)]
    for number, job in enumerate(jobs):
        wait_until(lambda job=job: box.describe(job)["status"] != "SUBMITTED")  # type: ignore[misc]
        time.sleep(0.1 * number)
        box.batch.terminate_job(jobId=job, reason="never mind")
    # A shell that has not set its trap yet is deaf to SIGTERM, as every first process is: it goes after the grace.
    assert {box.wait(job)["statusReason"] for job in jobs} == {"never mind"}


@real
def test_a_reclaimed_host_takes_its_containers_along(box: Box) -> None:
    job = shell(box, "trap '' TERM; echo up; sleep 60")
    wait_until(lambda: box.describe(job)["status"] == "RUNNING" and "up" in box.written(job))
    box.account.reclaim(job)
    assert box.wait(job)["statusReason"].startswith("Host EC2")


@real
def test_a_container_whose_keeper_was_killed_is_removed(box: Box, account: Settings) -> None:
    job = shell(box, "trap '' TERM; echo up; sleep 60")
    wait_until(lambda: box.describe(job)["status"] == "RUNNING" and "up" in box.written(job))
    [host] = (account.home / "hosts").iterdir()
    os.kill(processes.lock_holder(host) or 0, signal.SIGKILL)
    assert box.wait(job)["statusReason"].startswith("Host EC2")


KEEP = """
import os, sys
from pathlib import Path
from genokit.local.engine import containers, keeper
file, script = Path(sys.argv[1]), sys.argv[2]
asked = {"image": "genokit-test:1", "command": ["sh", "-c", script], "vcpus": 1, "memory": 64}
box = containers.plan(containers.find(), "genokit-stubborn", asked, {}, labels={}, gpus=[])
file.touch()
limits = {"timeout_s": 1.5, "grace_s": 0.5, "container": box}
task = keeper.Task(f"{file}.work", f"{file}.log", (), containers.clients_own(os.environ), **limits)
keeper.start(file, task, file.with_name("nobody"), keeper.Spare())
"""


@real
def test_a_container_that_will_not_go_is_killed_and_removed_after_the_grace(image: str, tmp_path: Path) -> None:
    host = tmp_path / "i-5afe"
    subprocess.run([sys.executable, "-c", KEEP, host, "trap '' TERM; echo up; while :; do sleep 1; done"], check=True)
    wait_until(lambda: not keeper.is_alive(host))
    ended = keeper.read(host)
    assert (ended["exitCode"], ended["timed_out"]) == (137, True)
    assert (tmp_path / "i-5afe.log").read_text().endswith(" up\n")
    wait_until(lambda: not engine("ps", "--all", "--quiet", "--filter", "name=genokit-stubborn"))
