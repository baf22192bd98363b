"""Forked kernels: each is like a new process, knows nothing of the others, and ends with who started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from genokit import Settings
from genokit.errors import NotebookFailed
from genokit.pipelines import Run, template
from genokit.pipelines.execute import perform
from genokit.pipelines.plan import NotebookTask, checked
from genokit.pipelines.template import KernelTemplate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux")

Ran = Callable[..., Run]


@pytest.fixture(scope="module")
def forking() -> Iterator[KernelTemplate]:
    with KernelTemplate() as one:
        yield one


@pytest.fixture
def ran(tmp_path: Path, forking: KernelTemplate) -> Ran:
    """Runs code in a notebook of its own, in a forked kernel or a new process."""
    settings = Settings(home=tmp_path / "home")

    def execute(*sources: str, forked: bool = True) -> Run:
        path = tmp_path / "work" / "note.ipynb"
        path.parent.mkdir(exist_ok=True)
        cells = [nbformat.v4.new_code_cell(source) for source in ("from genokit import record", *sources)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        ready = checked(NotebookTask("note", path, path.parent), settings)
        return perform(ready, template=forking if forked else None)

    return execute


LOOK = """
import gc, os, random, sys, threading
main = sys.modules["__main__"]
record("argv", [word for word in sys.argv if not word.startswith("/tmp")])
record("command", [word for word in sys.orig_argv if not word.startswith("/tmp")])
record("main", sorted(name for name in vars(main) if not name.startswith("_i")) + [main.__name__, str(main.__spec__)])
record("path", sys.path)
record("cwd", os.getcwd())
differ = ("GENOKIT_RUN", "JPY_PARENT_PID")
record("environ", sorted(map(list, os.environ.items() - {(name, os.environ[name]) for name in differ})))
record("parent", os.environ["JPY_PARENT_PID"] == str(os.getppid()))
record("leads", os.getsid(0) == os.getpgid(0) == os.getpid())
record("input", sys.__stdin__.read())
record("streams", [(one.encoding, one.isatty(), one.line_buffering) for one in (sys.__stdout__, sys.__stderr__)])
record("signals", [str(__import__("signal").getsignal(n)) for n in (2, 15, 17)])
record("threads", threading.main_thread() is threading.current_thread())
record("heavy", [name for name in ("numpy", "pandas", "matplotlib") if name in sys.modules])
"""


def test_a_forked_kernel_is_like_a_new_process(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    ran("1")  # the template runs now, and does not know this variable:
    monkeypatch.setenv("GENOKIT_TEST", "later")
    monkeypatch.delenv("HOSTNAME", raising=False)
    forked, new = ran(LOOK), ran(LOOK, forked=False)
    assert dict(forked.outputs["environ"]).items() ^ dict(new.outputs["environ"]).items() == set()
    assert forked.outputs == new.outputs
    assert ["GENOKIT_TEST", "later"] in forked.outputs["environ"]
    assert forked.outputs["cwd"] == str(forked.source.parent)
    assert forked.outputs["heavy"] == []


def test_forked_kernels_share_no_state(ran: Ran) -> None:
    change = (
        "import os, sys, json, random, uuid, tempfile\nrecord('draw', [random.random(), uuid.uuid4().hex])\n"
        "record('name', tempfile.mktemp())\n"
        "record('seen', [getattr(json, 'mark', None), os.environ.get('MARK'), 'mark' in sys.modules])\n"
        "json.mark = 1\nos.environ['MARK'] = '1'\nsys.modules['mark'] = json\nos.chdir('/')"
    )
    first, second = ran(change), ran(change, "record('files', [os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)])")
    assert first.outputs["seen"] == second.outputs["seen"] == [None, None, False]
    assert first.outputs["draw"] != second.outputs["draw"]
    assert first.outputs["name"] != second.outputs["name"]
    files = second.outputs["files"]
    assert files[0] == "/dev/null"
    assert files[1] == files[2] != files[0]
    assert "(deleted)" in files[1]


@pytest.mark.slow
def test_processes_threads_and_figures_work_in_a_forked_kernel(ran: Ran) -> None:
    done = ran(
        "import multiprocessing as mp, subprocess, sys, math\nfrom concurrent.futures import ThreadPoolExecutor",
        "for kind in ('fork', 'spawn', 'forkserver'):\n"
        "    with mp.get_context(kind).Pool(2) as pool: record(kind, pool.map(math.factorial, range(5)))",
        "record('threads', list(ThreadPoolExecutor(2).map(abs, [-1, -2])))",
        "record('child', subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True, text=True).stdout)",
        "!exit 3\nrecord('shell', _exit_code)",
        "import asyncio\nrecord('later', await asyncio.sleep(0, 7))",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])",
    )
    factorials = [1, 1, 2, 6, 24]
    expected = {"fork": factorials, "spawn": factorials, "forkserver": factorials}
    assert done.outputs == {**expected, "threads": [1, 2], "child": "1\n", "shell": 3, "later": 7}
    assert len(done.figures) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "state", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "KERNEL_DIED", "was killed by SIGKILL: out of memory?"),
        ("import os; os.abort()", "KERNEL_DIED", "was killed by SIGABRT"),
        (
            "import os; os.write(2, b'last words'); os._exit(3)",
            "KERNEL_DIED",
            "exit code 3 (its last output: last words)",
        ),
        ("import os; os._exit(0)", "EXITED_EARLY", "ended the kernel"),
    ],
)
def test_the_death_of_a_forked_kernel_is_told(ran: Ran, code: str, state: str, said: str) -> None:
    with pytest.raises(NotebookFailed) as raised:
        ran(code)
    assert raised.value.run.state == state
    assert said in str(raised.value.run.error)


@pytest.mark.slow
def test_a_template_that_cannot_fork_makes_new_processes(
    ran: Ran, forking: KernelTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second thread in the template: to fork would not be safe.
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys, threading, time\nif {template.__name__!r} in sys.orig_argv:\n"
        "    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with KernelTemplate() as unsafe:
        assert unsafe.fork([sys.executable, "-m", "ipykernel_launcher"], "/", {}, 2) is None
        path = tmp_path / "n.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
        ready = checked(NotebookTask("n", path, tmp_path), Settings(home=tmp_path))
        assert perform(ready, template=unsafe).state == "SUCCEEDED"


OWNER = """
import sys, threading
from pathlib import Path
from genokit import Settings
from genokit.pipelines.execute import perform
from genokit.pipelines.plan import NotebookTask, checked
from genokit.pipelines.template import KernelTemplate
path = Path(sys.argv[1])
with KernelTemplate() as one:
    perform(checked(NotebookTask(path.stem, path, path.parent), Settings(home=sys.argv[2])), template=one)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["owner", "template"])
def test_kernels_end_with_their_template_and_it_with_its_owner(tmp_path: Path, victim: str) -> None:
    pids = tmp_path / "pids"
    code = f"import os, time\nopen({str(pids)!r}, 'w').write(str([os.getppid(), os.getpid()]))\ntime.sleep(600)"
    path = tmp_path / "long.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    settings = Settings(home=tmp_path / "home")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path), str(settings.home)], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: pids.is_file() and pids.read_text().endswith("]"))
    processes = [psutil.Process(pid) for pid in json.loads(pids.read_text())]
    assert template.__name__ in processes[0].cmdline()
    os.kill(owner.pid if victim == "owner" else processes[0].pid, signal.SIGKILL)
    said = owner.communicate(timeout=60)[1]
    wait_for(lambda: not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], 20)
    if victim == "template":
        assert "KERNEL_DIED: in code cell 1" in said


def wait_for(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
