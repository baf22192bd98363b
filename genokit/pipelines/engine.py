"""The executor: papermill on a kernel of this Python, with a record of its own of what each cell did.

papermill calls every cell completed after its kernel has died, so nothing here is taken from its metadata.
This module imports papermill (two seconds); it is imported when a notebook runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import remove_error_markers

from genokit.pipelines import notebook as notebooks

ENGINE = "genokit"


@dataclass
class Step:
    """What one cell did: its state, when it started (monotonic seconds), how long it took, and its error."""

    state: str = "running"
    started: float = 0.0
    duration_s: float | None = None
    error: str = ""
    error_name: str = ""
    traceback: str = ""


@dataclass
class Watch:
    """One execution, seen from outside: the executing thread writes it, the watching thread reads it."""

    save: Callable[[Any], None]
    node: Any
    steps: dict[int, Step] = field(default_factory=dict)
    running: int | None = None
    process: subprocess.Popen[bytes] | None = None
    exit_code: int | None = None
    error: BaseException | None = None
    kernel: Any = None
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.over.set()  # until it starts, there is nothing to wait for

    def started(self, cell: Any, cell_index: int) -> None:
        self.steps[cell_index] = Step(started=time.monotonic())
        self.running = cell_index

    def ended(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        step, reply = self.steps[cell_index], execute_reply["content"]
        step.duration_s = time.monotonic() - step.started
        step.state = "completed"
        self.running = None
        if reply["status"] == "error":
            step.error_name, step.error = reply.get("ename", "Error"), reply.get("evalue", "")
            step.traceback = "\n".join(reply.get("traceback") or [])
            step.state = "completed" if notebooks.MAY_RAISE in notebooks.tags(cell) else "failed"
        self.save(self.node)
        # exit() and quit() let the kernel end some time later, in the middle of another cell.
        asked = any(payload.get("source") == "ask_exit" for payload in reply.get("payload") or [])
        if asked and any(notebooks.is_code(later) for later in self.node.cells[cell_index + 1 :]):
            step.state, step.error_name = "failed", "SystemExit"
            raise CellExecutionError("", "SystemExit", "")

    def kill(self) -> None:
        """Kill the kernel, even one that is only starting, and every process of it that has not left its session."""
        provisioner = getattr(self.kernel, "provisioner", None)
        self.process = self.process or getattr(provisioner, "process", None)
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


class WatchedEngine(Engine):  # type: ignore[misc]
    """papermill's hook for an engine; everything that happens goes to the ``watch``."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, watch: Watch, kernel: Any, start_with: dict[str, Any], **_: object
    ) -> None:
        """Run the cells; ``start_with`` is what the kernel's process starts with."""

        def process_started(notebook: Any) -> None:
            watch.process = kernel.provisioner.process

        watch.node = nb_man.nb
        watch.node.metadata.papermill["input_path"] = None  # papermill put the whole notebook there
        client = PapermillNotebookClient(
            nb_man,
            km=kernel,
            log=notebooks.quiet,
            shell_timeout_interval=1,
            coalesce_streams=True,
            on_notebook_start=process_started,
            on_cell_execute=watch.started,
            on_cell_executed=watch.ended,
        )
        client.execute(cleanup_kc=True, **start_with)


papermill_engines.register(ENGINE, WatchedEngine)


def execute(watch: Watch, *, cwd: Path, environ: Mapping[str, str], log: Path) -> None:
    """Execute a notebook in this thread, to its end or to what stopped it; the watch has the result."""
    # Short: a socket's path may have 107 characters. Private: whoever reads the connection file drives the kernel.
    room = tempfile.mkdtemp(prefix="gk-", dir="/tmp" if os.path.isdir("/tmp") else None)
    loop = ensure_event_loop()
    kernel = AsyncKernelManager(
        kernel_name="python3",
        # No folders to search: what is left is the kernel of this very Python, not one found in a home folder.
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[], log=notebooks.quiet),
        transport="ipc" if os.name == "posix" else "tcp",
        connection_file=os.path.join(room, "k.json"),
        log=notebooks.quiet,
    )
    watch.kernel = kernel
    try:
        with log.open("wb") as output:
            start_with = {"cwd": str(cwd), "env": dict(environ), "stdout": output, "stderr": subprocess.STDOUT}
            papermill.execute_notebook(
                watch.node,
                None,
                engine_name=ENGINE,
                kernel_name="python3",
                progress_bar=False,
                request_save_on_cell_execute=False,
                watch=watch,
                kernel=kernel,
                start_with=start_with,
            )
    except PapermillExecutionError:
        # papermill raises for a cell that may raise, too, and puts marks in; the watch knows better.
        remove_error_markers(watch.node)
    except DeadKernelError:
        pass  # the exit code says more
    except BaseException as error:  # carried over to the thread that waits
        if not str(error).startswith("Kernel died"):  # while it started, that is a bare RuntimeError
            watch.error = error
    finally:
        watch.kill()
        if watch.process is not None:
            watch.exit_code = watch.process.wait()
        loop.run_until_complete(_close(kernel))
        loop.close()
        shutil.rmtree(room, ignore_errors=True)
        watch.over.set()


async def _close(kernel: Any) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await kernel._async_cleanup_resources()


def start(watch: Watch, *, cwd: Path, environ: Mapping[str, str], log: Path) -> None:
    """Execute a notebook in a thread with an event loop of its own, so that a Jupyter kernel can wait for it.

    Wait for ``watch.over``, not for the thread: before Python 3.12 a join that Ctrl-C interrupts takes it for ended.
    """
    keywords = {"cwd": cwd, "environ": environ, "log": log}
    name = f"run {log.parent.name}"
    watch.over.clear()
    threading.Thread(target=execute, args=(watch,), kwargs=keywords, name=name, daemon=True).start()
