"""Submissions that are images: without an engine a reason; with a real one scored, and attempts to break out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from embedded import wait_until
from test_workspaces_challenges import OUTPUTS

from genokit import Settings, Workspace, backends
from genokit.errors import InvalidParameters, InvalidRequest, MissingDependency
from genokit.workspaces import container, gate, sandbox, syscall_filter
from genokit.workspaces.sandbox import Limits

real = pytest.mark.containers
DIGEST = "lab.example/predict@sha256:" + "a" * 64
SECRET = "row 17: ANNA, 1950-02-03, C50.9"
PREDICT = """
awk -F, 'BEGIN {print "id,risk"} NR > 1 && $4 == "" {print $1 "," $3}' /data/wards.csv > /out/predictions.csv
awk -F, 'BEGIN {print "ward,n"} NR > 1 {n[$2]++} END {for (w in n) print w "," n[w]}' /data/wards.csv > /out/by_ward.csv
echo read $(wc -l < /data/wards.csv)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def ws(folder: Path) -> Iterator[Workspace]:
    """A workspace with a challenge, whose custodian is anna and whose modeller is cleo."""
    ws = Workspace.create(folder / "lab", "anna", settings=Settings(home=folder / "anna"))
    ws.grant("cleo", "modeller")
    doses = [(i * 37 % 61) / 10 for i in range(90)]
    held = range(60, 90)
    rows = pd.DataFrame({"id": [f"p{i}" for i in range(90)], "ward": ["a", "b", "c"] * 30, "dose": doses})
    rows["sick"] = pd.Series([int(dose > 3) if i not in held else None for i, dose in enumerate(doses)], dtype="Int64")
    truth = pd.DataFrame({"id": [f"p{i}" for i in held], "sick": [int(doses[i] > 3) for i in held]})
    (folder / "wards").mkdir()
    rows.to_csv(folder / "wards" / "wards.csv", index=False)
    ws.publish(
        folder / "wards", name="wards", licence="CC0-1.0", terms="GRU", practice=rows.assign(id="q" + rows["id"])
    )
    given = {"outputs": OUTPUTS, "metric": "roc_auc", "truth": truth, "private_fraction": 0.2, "quota_per_day": 50}
    ws.challenge("risk", "wards", limits=Limits(wall_s=60, cpu_s=60, memory_mib=64), **given)
    yield ws
    for member in ("anna", "cleo"):
        backends.account(Settings(home=folder / member)).stop()


@pytest.fixture(scope="module")
def cleo(ws: Workspace, folder: Path) -> Workspace:
    return Workspace(ws.address, "cleo", settings=Settings(home=folder / "cleo"))


# --- without an engine


def test_without_an_engine_an_image_is_refused_and_the_reason_told(
    ws: Workspace, cleo: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="neither docker nor podman answers on this machine"):
        cleo.rehearse("risk", image=DIGEST, command=["predict"])
    with pytest.raises(MissingDependency, match="needs a container engine"):
        cleo.submit("risk", image="predict:1", command=["predict"])  # nobody can say the digest of this tag
    one = cleo.submit("risk", image=DIGEST, command=["predict"], start=False)
    assert (one.entry["image"], one.entry["code"]) == (DIGEST, None)
    assert DIGEST in one._repr_html_()
    assert cleo.submissions("risk")["code"].tolist() == [DIGEST]
    with pytest.raises(MissingDependency, match="needs a container engine"):
        ws._evaluate(one.id)
    assert ws.submission(one.id).state == "SUBMITTED"
    with pytest.raises(InvalidRequest, match=r"is an image. On AWS only folders of code are run"):
        ws.evaluate(one.id, stack="genokit-challenge")


def test_a_submission_is_either_a_folder_or_an_image(cleo: Workspace, tmp_path: Path) -> None:
    for given in ({}, {"code": tmp_path, "image": DIGEST}):
        with pytest.raises(InvalidParameters, match="a folder of code or an image"):
            cleo.submit("risk", command=["predict"], **given)


def test_an_engine_that_does_not_answer_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="neither docker nor podman answers"):
        container.engine()


def test_engines_get_the_same_filter_of_system_calls_as_the_sandbox() -> None:
    rules: Any = syscall_filter.profile()
    assert rules["defaultAction"] == "SCMP_ACT_ALLOW"
    assert {"io_uring_setup", "bpf", "mount", "ptrace"} <= {*rules["syscalls"][0]["names"]}
    flags = [one["args"][0]["value"] for one in rules["syscalls"] if one["names"] == ["clone"]]
    assert sum(flags) == syscall_filter.NAMESPACES
    families = [one["args"][0]["value"] for one in rules["syscalls"] if one["names"] == ["socket"]]
    assert sorted(families) == [0, 3, 4, 5, 6, 7, 8, 9, 10]  # the last is: above 10


def test_folders_too_deep_to_look_into_count_as_too_many(tmp_path: Path) -> None:
    script = "import os\nfor _ in range(3000): os.mkdir('x'); os.chdir('x')"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    with gate.opened(tmp_path) as out:
        assert container._held(out, 5000)[0] > 100
        assert container._held(out, 100)[0] == 101
    subprocess.run(["rm", "-rf", tmp_path], check=True)


# --- with a real engine: make test-containers


def engine(*words: str, **given: Any) -> str:
    return (
        subprocess.run([container.engine(), *words], check=True, capture_output=True, **given).stdout.decode().strip()
    )


def layer() -> bytes:
    """This machine's own static busybox, so that no registry is needed, and files to try."""
    program = shutil.which("busybox")
    assert program, "these tests make their image of a static busybox (Debian, Ubuntu: apt install busybox-static)"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(os.path.realpath(program), "bin/busybox")
        for tool in subprocess.run([program, "--list"], capture_output=True, check=True, text=True).stdout.split():
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if tool != "busybox":
                tar.addfile(link)
        root = tarfile.TarInfo("setuid/grep")
        root.size, root.mode = Path(program).stat().st_size, 0o6755
        tar.addfile(root, io.BytesIO(Path(program).read_bytes()))
    return packed.getvalue()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image in a registry on this machine, named by a tag; it would run as root and do something else."""
    files = layer()
    settings = {"User": "0", "Entrypoint": ["/bin/false"], "Env": ["PATH=/bin", "OF_IMAGE=1"], "WorkingDir": "/bin"}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    about = {"architecture": machine, "os": "linux", "config": settings,
             "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(files).hexdigest()}"]}}  # fmt: skip
    kind = "application/vnd.docker.{}"
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[digest] = data
        return {"mediaType": kind.format(media), "size": len(data), "digest": digest}

    config = blob(json.dumps(about).encode(), "container.image.v1+json")
    layers = [blob(gzip.compress(files), "image.rootfs.diff.tar.gzip")]
    media = "distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": kind.format(media), "config": config, "layers": layers}
    blobs["1"] = blobs[blob(json.dumps(manifest).encode(), media)["digest"]]

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = blobs.get(self.path.rpartition("/")[2], b"{}")
            self.send_response(200)
            self.send_header("Content-Type", kind.format(media) if "/manifests/" in self.path else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(data).hexdigest()}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        name = f"127.0.0.1:{server.server_port}/lab/predict:1"
        engine("pull", name)
        yield name
        server.shutdown()
        thread.join()
    engine("rmi", "--force", engine("image", "inspect", "--format={{.Id}}", name))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder that submissions may read: by its modes every user may write, so that the mount alone protects it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text(f"{SECRET}\n")
    (tmp_path / "data" / "rows.csv").chmod(0o666)
    (tmp_path / "data").chmod(0o777)
    return tmp_path / "data"


def left() -> str:
    return engine("ps", "--all", "--quiet", "--filter", "name=genokit-submission")


def told(image: str, script: str, data: Path, **limits: Any) -> tuple[str, sandbox.SandboxResult, list[str]]:
    """What a script printed in a container, how it ended, and the names of what it wrote; the container is gone."""
    given = Limits(**{"wall_s": 30, "cpu_s": 30, "memory_mib": 64, **limits})
    with container.run(container.pinned(image), ["sh", "-c", script], {"/data": data}, limits=given) as ended:
        names = sorted(os.listdir(ended.out))
    assert not left()
    return ended.log.decode(errors="replace").strip(), ended, names


@real
def test_a_submission_by_image_is_evaluated_by_a_job_and_scored(ws: Workspace, cleo: Workspace, image: str) -> None:
    command = ["sh", "-c", PREDICT]
    done = cleo.rehearse("risk", image=image, command=command)
    assert (done.state, done.log) == ("SUCCEEDED", b"read 91\n"), done.log
    one = cleo.submit("risk", image=image, command=command).wait()
    assert (one.state, one.score, one.result["outputs"]) == ("SUCCEEDED", 1.0, ["by_ward.csv"])
    assert one.entry["image"] == container.pinned(image)
    assert one.entry["image"].startswith(f"{image.rpartition(':')[0]}@sha256:")
    assert str(ws.log(one.id)) == "read 91\n"
    assert cleo.leaderboard("risk")["submission"].tolist() == [one.id]
    assert ws.reproduce(one.id).equal


@real
def test_an_image_that_is_not_here_is_pulled_by_its_digest_and_never_by_a_tag(cleo: Workspace, image: str) -> None:
    pinned = container.pinned(image)
    number = engine("image", "inspect", "--format={{.Id}}", image)
    engine("rmi", "--force", number)
    with pytest.raises(InvalidRequest, match=r"so there is no digest for its tag.*pull 127"):
        cleo.submit("risk", image=image, command=["true"])
    gone = cleo.rehearse("risk", image=number, command=["true"])
    assert (gone.state, gone.reason) == ("REFUSED", "The image cannot be pulled.")
    other = cleo.rehearse("risk", image=pinned[:-4] + "0000", command=["true"])
    assert (other.state, other.reason) == ("REFUSED", "The image cannot be pulled.")
    assert cleo.rehearse("risk", image=pinned, command=["sh", "-c", PREDICT]).state == "SUCCEEDED"
    engine("pull", image)


@real
def test_an_image_that_was_never_in_a_registry_has_the_number_that_the_engine_gave_it(data: Path, image: str) -> None:
    engine("import", "-", "genokit-test:2", input=layer())
    try:
        assert container.pinned("genokit-test:2") == engine("image", "inspect", "--format={{.Id}}", "genokit-test:2")
        assert told("genokit-test:2", "/bin/echo hello", data)[0] == "hello"
    finally:
        engine("rmi", "--force", "genokit-test:2")


REFUSED = {
    "the network": ("wget -T 2 -qO- http://169.254.169.254/ || nc -w 2 1.1.1.1 443 </dev/null", "unreachable"),
    "TCP to this machine": ("nc -w 2 127.0.0.1 {port} </dev/null", "refused"),
    "DNS": ("nslookup example.com 8.8.8.8", "unreachable"),
    "raw IP": ("ping -c 1 127.0.0.1", "permission denied"),
    "the engine's socket": ("ls /var/run/docker.sock /run/docker.sock {docker}", "No such file"),
    "the data": ("echo x >> /data/rows.csv", "Read-only"),
    "a new file beside the data": ("touch /data/new", "Read-only"),
    "the mode of the data": ("chmod 700 /data/rows.csv", "Read-only"),
    "the root folder": ("touch /new || mkdir /bin/new", "Read-only"),
    "the programs": ("cp /bin/true /bin/sh", "Read-only"),
    "mounting": ("mount -o remount,rw /data", "permi"),
    "a mount of its own": ("unshare -Urm true", "permitted"),
    "the truth by its path": ("cat {truth}", "No such file"),
    "the truth by a way up": ("cat /data/../../..{truth}", "No such file"),
    "a link to the truth": ("cd /tmp; ln -s {truth} x; cat x", "No such file"),
    "the passwords of the host": ("cat /etc/shadow", "denied|No such file|^$"),
    "a process of the host": ("cat /proc/{pid}/environ", "No such file"),
    "a signal to the host": ("kill -0 {pid}", "No such process"),
    "the disk": ("cat /dev/vda || (cd /tmp && mknod vda b 254 0)", "permitted"),
    "the memory of the kernel": ("head -c 1 /proc/kcore | grep . || cat /dev/mem", "No such file"),
    "the kernel's settings": ("echo x > /proc/sys/kernel/core_pattern", "Read-only"),
    "another user": ("setuidgid 0 true || chown 0 /tmp", "permitted"),
    "the host's name": ("hostname other", "permitted"),
    "a hard link to the data": ("ln /data/rows.csv /out/rows.csv", "Cross-device|cross-device"),
    "a device in the outputs": ("mknod /out/disk b 254 0", "permitted"),
    "too large a file": ("trap '' XFSZ; head -c 3000000 /dev/zero > /out/x", "I/O error"),
    "too large a file in /tmp": ("cd /tmp; for i in 1 2 3 4; do head -c 999999 /dev/zero > $i; done", "I/O error"),
}


@real
@pytest.mark.parametrize(("script", "said"), REFUSED.values(), ids=REFUSED)
def test_an_attempt_from_a_container_is_refused(script: str, said: str, data: Path, image: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        values = {
            "port": server.getsockname()[1], "truth": tmp_path / "truth.csv", "pid": os.getpid(),
            "docker": os.environ.get("DOCKER_HOST", "unix:///none").removeprefix("unix://"),
        }  # fmt: skip
        printed, ended, _ = told(image, script.format(**values), data, output_mib=2)
    assert re.search(said, printed), printed
    assert ended.exit_code != 0
    assert SECRET not in printed
    assert (data / "rows.csv").read_text() == f"{SECRET}\n"


@real
def test_a_container_has_no_rights_and_nothing_of_the_hosts_environment(
    data: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "GENOKIT_MEMBER"):
        monkeypatch.setenv(name, SECRET)
    printed, ended, _ = told(
        image, "id -u; pwd; cat /data/rows.csv; env; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status", data
    )
    user, place, row, *lines = printed.splitlines()
    assert (user, place, row, ended.exit_code) == (str(os.geteuid() or 65534), "/bin", SECRET, 0)
    assert SECRET not in "".join(lines)
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    assert not [name for name in values if name.startswith(("AWS", "GENOKIT", "DOCKER", "PYTHON"))]
    assert (values["OF_IMAGE"], values["HTTPS_PROXY"], values["HOME"]) == ("1", "", "/tmp")
    rights = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert {int(value, 16) for name, value in rights.items() if name.startswith("Cap")} == {0}
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")


@real
def test_a_setuid_program_of_the_image_gives_no_rights(data: Path, image: str) -> None:
    printed, _, _ = told(image, "ls -l /setuid/grep; /setuid/grep -E '^(Uid|CapEff)' /proc/self/status", data)
    assert "rws" in printed.splitlines()[0]
    assert printed.splitlines()[1].split()[1:] == [str(os.geteuid() or 65534)] * 4
    assert int(printed.splitlines()[2].split()[1], 16) == 0


@real
def test_the_next_container_finds_nothing_of_the_one_before(data: Path, image: str) -> None:
    told(image, "for one in /tmp /out /dev/shm; do touch $one/left; done", data)
    assert told(image, "ls -A /tmp /out /dev/shm", data)[0].split() == ["/dev/shm:", "/out:", "/tmp:"]


EXHAUSTING = {
    "wall time": ("sleep 60", {"wall_s": 0.5}, "more than 0.5 seconds"),
    "wall time, deaf to signals": ("trap '' TERM INT HUP; while :; do sleep 1; done", {"wall_s": 0.5}, "seconds"),
    "CPU": ("for i in 1 2 3 4; do while :; do :; done & done; wait", {"wall_s": 2, "cpu_s": 1}, "seconds"),
    "memory": ("tail -c 200000000 /dev/zero", {"memory_mib": 32}, "more than 32 MiB of memory"),
    "memory of a child": ("tail -c 200000000 /dev/zero & wait; sleep 1; exit 0", {"memory_mib": 32}, "MiB of memory"),
    "memory by files": ("head -c 60000000 /dev/zero > /dev/shm/x", {"memory_mib": 32, "output_mib": 99}, "of memory"),
    "a million empty files": ("cd /out; i=0; while :; do : > $i; i=$((i+1)); done", {}, "more than 100 files in /out"),
    "folders in folders": ("cd /out; while mkdir x && cd x; do :; done; sleep 60", {}, "files in /out"),
    "folders too deep for Python": (
        "cd /out; while mkdir x && cd x; do :; done; sleep 60",
        {"files": 10_000},
        "files in /out",
    ),
    "many large files": (
        "cd /out; i=0; while :; do head -c 900000 /dev/zero > $i; i=$((i+1)); done",
        {"output_mib": 4},
        "more than 4 MiB in /out",
    ),
    "a sparse file": ("truncate -s 3M /out/a; truncate -s 3M /out/b; sleep 60", {"output_mib": 4}, "MiB in /out"),
    "endless output": ("while :; do cat /bin/busybox; done", {"wall_s": 2}, "seconds"),
    "a fork bomb": ("b() { b | b & }; b; sleep 60", {"wall_s": 2, "processes": 20}, "seconds"),
}


@real
@pytest.mark.parametrize(("script", "limits", "what"), EXHAUSTING.values(), ids=EXHAUSTING)
def test_a_container_that_takes_too_much_is_killed(
    script: str, limits: dict[str, Any], what: str, data: Path, image: str
) -> None:
    _, ended, _ = told(image, script, data, **limits)
    assert what in ended.reason, (ended.log[-400:], ended.exit_code)
    assert ended.wall_s < 30  # none of them ends by itself before a minute
    assert len(ended.log) <= sandbox.LOG_KIB * 2**10


@real
def test_no_more_processes_are_made_than_allowed(data: Path, image: str) -> None:
    script = "for i in $(seq 100); do sleep 9 & done; echo all"
    printed, ended, _ = told(image, script, data, processes=20, wall_s=5)
    assert "can't fork" in printed
    assert ended.exit_code != 0


@real
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("ln -s /data/wards.csv /out/predictions.csv", "is a link or cannot be read"),
        ("ln -s /etc/shadow /out/predictions.csv", "is a link or cannot be read"),
        ("cp /data/wards.csv /out/x; ln /out/x /out/predictions.csv; rm /out/by_ward.csv", "not a declared output"),
        ("chmod 6755 /out/predictions.csv", "not a plain file"),
        ("rm /out/predictions.csv; mkfifo /out/predictions.csv", "not a plain file"),
        ("rm /out/predictions.csv; mkdir /out/predictions.csv", "not a plain file"),
        ("cp /data/wards.csv /out/wards.csv", "not a declared output"),
        ("rm /out/predictions.csv", "'predictions.csv' is missing"),
    ],
)
def test_what_is_no_plain_declared_file_is_refused_by_the_same_gate(
    script: str, reason: str, cleo: Workspace, image: str
) -> None:
    first = PREDICT if "ln -s" not in script else PREDICT + "rm /out/predictions.csv;"
    done = cleo.rehearse("risk", image=image, command=["sh", "-c", f"{first}\n{script}"])
    assert done.state == "REFUSED", done.log
    assert reason in done.reason
    assert not left()


@real
def test_a_program_that_the_image_lacks_fails_and_the_log_says_so(cleo: Workspace, image: str) -> None:
    done = cleo.rehearse("risk", image=image, command=["no-such-program"])
    assert (done.state, done.reason) == ("FAILED", "The command ended with an error.")
    assert b"no-such-program" in done.log
    assert not left()


ENDLESS = """
import sys
from pathlib import Path
from genokit.workspaces import container
with container.run(container.pinned(sys.argv[1]), ["sleep", "600"], {}):
    pass
"""


@real
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_container_goes_with_the_process_that_started_it(number: signal.Signals, image: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS, image], stderr=subprocess.DEVNULL) as parent:
        wait_until(lambda: bool(engine("ps", "--quiet", "--filter", "name=genokit-submission")))
        parent.send_signal(number)
        parent.wait()
        wait_until(lambda: not left())


@real
def test_a_container_goes_with_the_job_that_started_it(cleo: Workspace, image: str) -> None:
    one = cleo.submit("risk", image=image, command=["sleep", "600"])
    wait_until(lambda: bool(engine("ps", "--quiet", "--filter", "name=genokit-submission")))
    assert one.job is not None
    one.job.terminate("enough")
    wait_until(lambda: not left())
