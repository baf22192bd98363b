"""The executor: papermill's client on a kernel of this Python, with its own record of what each cell did.

papermill marks every cell completed after its kernel has died, so nothing is taken from its metadata. Importing
papermill takes two seconds, so this module is imported only when a notebook runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import math
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import IO, Any

import psutil  # type: ignore[import-untyped]
import zmq
from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from genokit import display
from genokit.pipelines import notebooks, recording, values
from genokit.pipelines.secret_values import Redacted, redacted
from genokit.pipelines.template import ForkedKernel, KernelTemplate

# By default the kernel drops messages when a thousand are queued. When it ends, it often waits ten seconds for a
# thread that it has already stopped.
_PREPARE = f"""(lambda t: t.schedule(lambda: t.socket.set({int(zmq.SNDHWM)}, 0)))(get_ipython().kernel.iopub_thread)
__import__("atexit").register(setattr, type(__import__("sys").stdout), "flush_timeout", 0.1)
get_ipython().genokit_run = """
AUTOSAVE_S = 5.0  # between two saves while cells run


@dataclass
class Execution:
    """Executes a notebook in a separate thread, which the calling thread watches and stops.

    The thread has its own event loop, so that a Jupyter kernel, which has one already, can run a notebook. ``path`` is
    the executed notebook, and ``files`` get what its cells print.
    """

    node: Any
    path: Path
    template: KernelTemplate | None = None
    files: Sequence[IO[str] | None] = (None, None)
    since: float | None = field(default=None, init=False)  # when the current cell started
    traceback: str = field(default="", init=False)
    log: str = field(default="", init=False)  # what the kernel printed outside its cells, once it has been stopped
    error: BaseException | None = field(default=None, init=False)
    exit_code: int | None = field(default=None, init=False)
    process: subprocess.Popen[bytes] | ForkedKernel | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.cells = notebooks.code_cells(self.node)
        # Wait for this, not the thread: before Python 3.12 a join that Ctrl-C interrupts reports the thread as ended.
        self.over = threading.Event()
        self.over.set()  # nothing to wait for until it starts
        self._next_save = 0.0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # has no name: what is secret in it is in no file
        self._client: Any = None

    def start(self, *, cwd: Path, environ: Mapping[str, str]) -> None:
        """Start executing."""
        self.over.clear()
        threading.Thread(target=self._run, args=(cwd, environ), name=f"run {cwd.name}", daemon=True).start()

    def save(self, node: Any = None) -> None:
        """Write the notebook as far as it got, unless that was just done: saving takes at most a tenth of the time."""
        if (before := time.monotonic()) >= self._next_save:
            notebooks.write(node or self.node, self.path)
            self._next_save = before + max(1.0, 11 * (time.monotonic() - before))

    def stop(self, grace_s: float = 10.0) -> None:
        """Kill the kernel if it still runs and wait for the thread, for at most ``grace_s`` seconds."""
        deadline = time.monotonic() + grace_s
        while not self.over.wait(0.05) and time.monotonic() < deadline:
            self._kill()
        with self._log:
            self._log.seek(0)
            self.log = redacted(self._log.read().decode(errors="replace"))
        self._next_save = math.inf
        if self._client:
            for index in self.cells:
                self._settle(index)

    @property
    def steps(self) -> tuple[notebooks.Cell, ...]:
        """The cells of the source notebook as they are now."""
        return tuple(cell for cell in self.cells.values() if cell.number)

    def outcome(self, why: str) -> tuple[str, str | None]:
        """The final state and a line that explains it. ``why`` is what stopped it from outside ("" if nothing did).

        It is decided from what was observed, never from what papermill wrote into the notebook.
        """
        unfinished = [index for index, cell in self.cells.items() if not cell.done]
        if not unfinished:
            return "SUCCEEDED", None
        cell = self.cells[unfinished[0]]
        where = f"code cell {cell.number} `{cell.source}`" if cell.number else "the injected parameters"
        left = f"{len(unfinished) - 1} cell{'' if len(unfinished) == 2 else 's'} after it did not run"
        if why == "interrupted":
            return "FAILED", f"interrupted in {where}"
        if why:
            return "TIMED_OUT", f"{where} was running when {why} was reached"
        if cell.state == "failed":
            if cell.error in ("SystemExit", "SystemExit: 0", "SystemExit: None"):
                return "EXITED_EARLY", f"{where} called sys.exit, {left}"
            line = _line(self.traceback, self.node.cells[unfinished[0]])
            return "FAILED", f"{f'code cell {cell.number}, {line}' if line else where}: {cell.error}"
        lines = self.log.strip().splitlines()
        last = f" (its last output: {' / '.join(lines[-3:])[-300:]})" if lines else ""
        if self.error is not None:
            return "FAILED", f"the executor stopped at {where}: {self.error!r}{last}"
        if self.exit_code == 0:
            return "EXITED_EARLY", f"{where} ended the kernel, {left}"
        return "KERNEL_DIED", f"in {where} the kernel {_death(self.exit_code)}{last}"

    def _run(self, cwd: Path, environ: Mapping[str, str]) -> None:
        try:
            # A socket's path has at most 107 characters. Private: the connection file gives control of the kernel.
            with (
                tempfile.TemporaryDirectory(prefix="gk-", dir="/tmp", ignore_cleanup_errors=True) as folder,
                asyncio.Runner(loop_factory=ensure_event_loop) as runner,
            ):
                runner.get_loop()
                self._kernel = AsyncKernelManager(
                    kernel_name="python3",
                    # With no folders to search, only this Python's kernel is found, not one from the user's home.
                    kernel_spec_manager=KernelSpecManager(kernel_dirs=[], log=notebooks.quiet),
                    transport="ipc",  # no ports that another run could take
                    connection_file=f"{folder}/k.json",
                    client_factory=_Connection,
                    log=notebooks.quiet,
                )
                spec = self._kernel.kernel_spec
                self._kernel.provisioner = _Process(kernel_id="", kernel_spec=spec, parent=self._kernel)
                self._kernel.provisioner.execution = self
                try:
                    self._client = self._new_client()
                    self._client.execute(
                        cleanup_kc=True, cwd=str(cwd), env=dict(environ), stdout=self._log, stderr=subprocess.STDOUT
                    )
                finally:
                    self._kill()
                    self.exit_code = self.process.wait() if self.process else None
                    runner.run(self._kernel._async_cleanup_resources())
        except BaseException as error:  # handed to the waiting thread
            if not str(error).startswith("Kernel died"):  # the exit code says more about that
                self.error = error
        finally:
            self.over.set()

    def _new_client(self) -> Any:
        self.node.metadata["papermill"] = {}
        manager = NotebookExecutionManager(self.node, progress_bar=False)
        manager.notebook_start()
        return _Client(
            manager,
            km=self._kernel,
            log=notebooks.quiet,
            shell_timeout_interval=1,
            timeout_func=lambda cell: 1,
            iopub_timeout=600,  # seconds in which output may still arrive after a cell has ended
            stdout_file=self.files[0] and Redacted(self.files[0]),
            stderr_file=self.files[1] and Redacted(self.files[1]),
            on_notebook_start=self._kernel_ready,
            on_cell_execute=self._cell_started,
            on_cell_executed=self._cell_ended,
        )

    def _kernel_ready(self, notebook: Any) -> None:
        self._autosave()
        # By default this end drops messages too, even the one that says that the cell has ended.
        self._client.kc.iopub_channel.socket.set(zmq.RCVHWM, 0)
        self._client.kc.execute(f"{_PREPARE}{str(self.path.parent)!r}", silent=True)

    def _autosave(self) -> None:
        """Save every few seconds, even while a cell prints nothing. Runs in the thread that changes the notebook."""
        if time.monotonic() >= self._next_save:  # copying a large notebook takes a while
            node = copy.deepcopy(self.node)
            self._client.settle(*node.cells)
            self.save(node)
        asyncio.get_running_loop().call_later(AUTOSAVE_S, self._autosave)

    def _cell_started(self, cell: Any, cell_index: int) -> None:
        self.cells[cell_index].state = "running"
        self.since = time.monotonic()

    def _cell_ended(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        self._settle(cell_index)
        done, reply = self.cells[cell_index], execute_reply["content"]
        done.duration_s = round(time.monotonic() - (self.since or 0.0), 3)
        done.state, self.since = "completed", None
        if reply["status"] == "error":
            said = ": ".join(filter(None, [reply.get("ename", "Error"), reply.get("evalue", "")]))
            # The message may quote a whole file or query; the traceback keeps all of it.
            done.error = values.shortened(redacted(display.plain(said).strip()), 600)
            if notebooks.MAY_RAISE not in notebooks.tags(cell):
                done.state = "failed"
                self.traceback = redacted(display.plain("\n".join(reply.get("traceback") or [])))
        self.save()
        # exit() and quit() end the kernel some time later, in the middle of another cell.
        exits = any(payload.get("source") == "ask_exit" for payload in reply.get("payload") or [])
        if exits and any(later.state == "pending" for later in self.cells.values()):
            done.state, done.error = "failed", "SystemExit"
            raise CellExecutionError("", "SystemExit", "")

    def _settle(self, index: int) -> None:
        self._client.settle(self.node.cells[index])
        recording.move_long(self.node.cells[index], self.cells[index].number, self.path.parent)

    def _kill(self) -> None:
        """Kill the kernel, even one that is still starting, and every process in its session."""
        if self.process is not None:
            for pid in psutil.pids():  # its process group is not enough: a shell gives each of its jobs another one
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.getsid(pid) == self.process.pid:
                        os.kill(pid, signal.SIGKILL)


class _Process(LocalProvisioner):  # type: ignore[misc]
    """Forks a kernel from the template if possible, or else starts a new process."""

    execution: Execution

    async def launch_kernel(self, cmd: list[str], **how: Any) -> Any:
        """Start the kernel."""
        template = self.execution.template
        forked = template.fork(cmd, how["cwd"], how["env"], how["stdout"].fileno()) if template else None
        if forked:
            self.process, self.pid, self.pgid = forked, forked.pid, forked.pid
        else:
            await super().launch_kernel(cmd, **how)
        self.execution.process = self.process
        return self.connection_info


class _Connection(AsyncKernelClient):  # type: ignore[misc]
    """jupyter_client's connection, but it does not wait 0.2 s after the kernel has answered."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel answers and its output arrives."""
        deadline = time.monotonic() + (timeout or math.inf)
        while await self.is_alive() and time.monotonic() < deadline:
            self.kernel_info()
            with contextlib.suppress(Empty):
                await self.get_shell_msg(timeout=1)
                await self.get_iopub_msg(timeout=0.2)
                return
        raise RuntimeError("Kernel died before it was ready")


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client in linear time: nbclient processes the whole text of a cell again for every message."""

    async def _async_handle_timeout(self, timeout: float, cell: Any = None) -> None:
        """Keep waiting: nbclient can miss the reply of a cell with an Output widget, so it looks again every second."""

    def output(self, outs: list[Any], msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Add an output to a cell; text is collected in a list until :meth:`settle`."""
        out = super().output(outs, msg, display_id, cell_index)
        if out is not None and out.output_type == "stream":
            outs.pop()
            if not outs or outs[-1].get("name") != out.name:
                outs.append(NotebookNode(output_type="stream", name=out.name, text=[]))
            outs[-1].text.append(out.text)
        return out

    def settle(self, *cells: Any) -> None:
        """Convert the cells' outputs to the form of a notebook file."""
        for out in itertools.chain.from_iterable(cell.get("outputs", ()) for cell in cells):
            if isinstance(out.get("text"), list):
                out.text = notebooks.on_screen("".join(out.text))


def _line(traceback: str, cell: notebooks.Json) -> str:
    """The line of the cell that failed; "" if the traceback does not say."""
    # The last frame may lie in a function of an earlier cell; the first is in this one.
    found = re.search(r"Cell In\[\d+\], line (\d+)", traceback)
    number = int(found[1]) if found else 0
    lines = notebooks.text(cell).splitlines()
    return f"line {number} `{lines[number - 1].strip()[:80]}`" if 0 < number <= len(lines) else ""


def _death(code: int | None) -> str:
    if code is None:
        return "did not start"
    if code > 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}{': out of memory?' if code == -9 else ''}"
