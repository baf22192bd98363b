"""An attempt of a job as a keeper runs it: started, marked, its output logged, its limits enforced, its end recorded.

What a task starts may leave its group, its session and its environment, but not its mark (see ``processes``).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from genokit.local import store
from genokit.local.engine import log_file, processes


@dataclass(frozen=True)
class Task:
    """An attempt to run: its key is ``<job id>/<attempt>``."""

    key: str
    folder: str  # the working folder, made for the attempt and removed after it
    log: str
    command: tuple[str, ...]
    environment: dict[str, str]
    timeout_s: float | None = None
    memory_mib: int | None = None
    grace_s: float = 30.0  # between SIGTERM and SIGKILL, as on AWS
    refusal: str | None = None  # why it cannot be started at all
    record: str | None = None  # a file in which the process may say how it ended, in place of its exit code


class NotStarted(Exception):
    """The process could not be started; ``record`` says why."""

    def __init__(self, reason: str, status_reason: str, **code: int) -> None:
        self.record: dict[str, Any] = {"reason": reason, "status_reason": status_reason, **code}


class RunningTask:
    """The process of a task, and those that it has started: all that bear its mark."""

    def __init__(self, task: Task, mark: int) -> None:
        if task.refusal:
            raise NotStarted(task.refusal, task.refusal)
        self.task, self.mark = task, mark
        self.buffer = bytearray()
        self.stopping = self.timed_out = self.reclaimed = False
        self.reason: dict[str, str] = {}
        self.deadline = time.monotonic() + (task.timeout_s or math.inf)
        self.kill_at = math.inf
        self.log = -1
        try:
            os.makedirs(os.path.join(task.folder, "tmp"), exist_ok=True)
            os.makedirs(os.path.dirname(task.log), exist_ok=True)
            self.log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self.process = self._start()
        except BaseException:
            self._clear_up()
            raise
        assert isinstance(self.process.stdout, io.FileIO)
        self.output = self.process.stdout
        os.set_blocking(self.output.fileno(), False)

    def _start(self) -> subprocess.Popen[bytes]:
        folder, command = self.task.folder, self.task.command
        environment = {"HOME": folder, "TMPDIR": os.path.join(folder, "tmp"), **self.task.environment}
        if "" in environment:
            raise ValueError("a variable has no name")
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            with processes.marking(self.mark):
                return subprocess.Popen(
                    command, cwd=folder, env=environment, stdin=null, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0,
                    process_group=0,
                )  # fmt: skip
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "executable file not found in $PATH" if missing else error.strerror
            reason = f'CannotStartContainerError: exec: "{command[0]}": {why}'
            raise NotStarted(reason, "Task failed to start", exitCode=127 if missing else 126) from error

    def signal(self, number: int) -> None:
        """Signal all processes of the task; where none can be marked, those of its group."""
        mine = processes.marked(range(self.mark, self.mark + 1)).get(self.mark, ())
        for one in mine if self.mark else (-self.process.pid,):
            processes.kill(one, number)

    def wish(self, wish: str) -> None:
        """To be stopped, or to vanish as with its host."""
        self.stopping = True
        self.reclaimed = self.reclaimed or wish == "reclaim"

    def weigh(self, held_mib: dict[int, float]) -> None:
        """Kill the task if its processes hold more memory than it asked for. What they share counts once, as in a
        container; it is only looked for where the quick count exceeds the limit."""
        limit = self.task.memory_mib
        if limit and sum(held_mib.values()) > limit and sum(map(processes.memory_mib, held_mib)) > limit:
            self.reason = {"reason": "OutOfMemoryError: Container killed due to memory usage"}
            self.kill_at = 0.0

    def enforce(self, now: float) -> float:
        """Signal what has to be signalled by now; returns when to look again."""
        if now >= self.deadline and not self.stopping:
            self.timed_out = self.stopping = True
        if self.reclaimed or now >= self.kill_at:
            self.signal(signal.SIGKILL)
        elif self.stopping and self.kill_at == math.inf:
            self.kill_at = now + self.task.grace_s
            self.signal(signal.SIGTERM)
        return min((at for at in (self.deadline, self.kill_at) if at > now), default=math.inf)

    def copy(self) -> bool:
        """Copy to the log what there is, up to a megabyte; False at the end of the output."""
        for _ in range(16):  # a job that never pauses must not keep its keeper from the others
            data = self.output.read(1 << 16)
            if not data:
                return data is None
            self.buffer += data
            self._append(log_file.split(self.buffer))
        return True

    def _append(self, lines: list[bytes]) -> None:
        """Write lines to the log. Where there is no room the task goes on, and its record says that lines are
        missing."""
        data = log_file.encode(lines, store.now())
        try:
            while data:
                data = data[os.write(self.log, data) :]
        except OSError as error:
            self.reason = {"reason": f"LogIncomplete: {error.strerror}"} | self.reason

    def end(self) -> dict[str, Any]:
        """Read what is left, clear up, and say how it ended."""
        while not self.output.closed and select.select([self.output], [], [], 0)[0] and self.copy():
            continue
        self._append(log_file.split(self.buffer, final=True))
        code: int = self.process.returncode
        record: dict[str, Any] = {"exitCode": code if code >= 0 else 128 - code}
        if self.task.record:
            with contextlib.suppress(OSError, ValueError), open(self.task.record) as file:
                record = json.load(file)
        self._clear_up()
        if self.reclaimed:
            return {"lost": True}
        return record | self.reason | ({"timed_out": True} if self.timed_out else {})

    def _clear_up(self) -> None:
        if self.log >= 0:
            os.close(self.log)
        remove(self.task.folder)


def remove(folder: str | os.PathLike[str]) -> None:
    """Remove a folder, however deep: a job may leave a thousand folders in one another."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)
