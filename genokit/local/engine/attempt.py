"""An attempt's process: started, marked, its output written to its log, its limits held, its end told.

What an attempt starts may leave its group, its session and its environment, but not its mark (see ``processes``).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genokit.local import store
from genokit.local.engine import log_file, processes


@dataclass(frozen=True)
class Task:
    """An attempt to keep: its key is ``<job id>/<attempt>``."""

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
    """There is no process to keep; ``record`` says why."""

    def __init__(self, reason: str, status_reason: str, code: int | None = None) -> None:
        self.record: dict[str, Any] = {"reason": reason, "status_reason": status_reason}
        if code is not None:
            self.record["exitCode"] = code


class Attempt:
    """What is running of a task."""

    def __init__(self, task: Task, mark: int) -> None:
        if task.refusal:
            raise NotStarted(task.refusal, task.refusal)
        self.task = task
        # A container's client, killed, still sees to it that its container is removed: it is left to itself.
        self.mark = 0 if task.record else mark
        self.orphans: list[int] = []
        self.code: int | None = None  # of the first process, which has ended
        self.buffer = bytearray()
        self.unlogged = ""
        self.stopping = self.timed_out = self.reclaimed = self.out_of_memory = False
        self.broken: dict[str, Any] = {}
        self.deadline = time.monotonic() + task.timeout_s if task.timeout_s else None
        self.kill_at: float | None = None
        self.log = -1
        try:
            os.makedirs(os.path.join(task.folder, "tmp"), exist_ok=True)
            os.makedirs(os.path.dirname(task.log), exist_ok=True)
            self.log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self.process, self.output = self._spawn()
        except BaseException:
            self._clear_up()
            raise

    def _spawn(self) -> tuple[int, int]:
        command, folder = self.task.command, self.task.folder
        environment = {"HOME": folder, "TMPDIR": os.path.join(folder, "tmp"), **self.task.environment}
        program = shutil.which(command[0], path=environment.get("PATH", os.defpath))
        if program is None:
            missing = f'exec: "{command[0]}": executable file not found in $PATH'
            raise NotStarted(f"CannotStartContainerError: {missing}", "Task failed to start", 127)
        read, write = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
        ]
        defaults = [signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT]
        try:
            os.chdir(folder)  # a spawned process inherits it; this one has a single thread and uses no relative path
            with processes.marking(self.mark) if self.mark else contextlib.nullcontext():
                process = os.posix_spawn(
                    program, command, environment, file_actions=actions, setpgroup=0, setsigdef=defaults, setsigmask=[]
                )
            os.set_blocking(read, False)
        except BaseException as error:
            os.close(read)
            if not isinstance(error, OSError):
                raise
            why = f'exec: "{command[0]}": {error.strerror}'
            raise NotStarted(f"CannotStartContainerError: {why}", "Task failed to start", 126) from error
        finally:
            os.close(write)
            os.chdir("/")
        return process, read

    def attempt(self, act: Callable[[], Any]) -> Any:
        """What ``act`` returns; what it raises ends this attempt alone."""
        try:
            return act()
        except Exception as error:
            traceback.print_exc()
            reason = f"CannotInspectContainerError: {error!r}"
            self.broken = {"reason": reason, "status_reason": reason}
            processes.kill_group(self.process)

    def members(self) -> list[int]:
        """The processes of the job; the first is left out when it has ended."""
        return processes.with_descendants(self.orphans + ([self.process] if self.code is None else []))

    def signal(self, number: int) -> None:
        """Signal all processes of the job; of a container, its client alone."""
        if not self.mark:
            processes.kill_group(self.process, number)
        for one in self.members() if self.mark else ():
            if processes.mark(one) == self.mark:
                processes.kill(one, number)

    def wish(self, wish: str) -> None:
        """To be stopped, or to vanish as with its host."""
        self.stopping = True
        self.reclaimed = self.reclaimed or wish == "reclaim"

    def weigh(self) -> None:
        """Note whether the job holds more memory than it asked for."""
        if self.task.memory_mib:
            held = processes.memory_mib(self.members(), self.task.memory_mib)
            self.out_of_memory = self.out_of_memory or held > self.task.memory_mib

    def hold(self, now: float) -> list[float]:
        """Signal what has to be signalled by now; returns when to look again."""
        if self.deadline and now >= self.deadline and not self.stopping:
            self.timed_out = self.stopping = True
        if self.reclaimed or self.out_of_memory or (self.kill_at and now >= self.kill_at):
            self.signal(signal.SIGKILL)
        elif self.stopping and self.kill_at is None:
            self.kill_at = now + self.task.grace_s
            self.signal(signal.SIGTERM)
        return [at for at in (self.deadline, self.kill_at) if at and at > now]

    def copy(self) -> bool:
        """Copy to the log what there is, up to a megabyte; False at the end of the output."""
        for _ in range(16):  # a job that never pauses must not keep its keeper from the others
            try:
                data = os.read(self.output, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.buffer += data
            self.append(log_file.split(self.buffer))
        return True

    def append(self, lines: list[bytes]) -> None:
        """Write lines to the log. Where there is no room the job goes on, and its record says that lines are
        missing."""
        data = log_file.encode(lines, store.now())
        try:
            while data:
                data = data[os.write(self.log, data) :]
        except OSError as error:
            self.unlogged = f"LogIncomplete: {error.strerror}"

    def end(self) -> dict[str, Any]:
        """Read what is left, clear up, and say how it ended."""
        while self.output >= 0 and select.select([self.output], [], [], 0)[0] and self.copy():
            pass
        self.append(log_file.split(self.buffer, final=True))
        said, code = self._said(), self.code or 0
        self._clear_up()
        if self.reclaimed:
            return {"lost": True}
        record: dict[str, Any] = {"exitCode": code if code >= 0 else 128 - code} if said is None else said
        if self.unlogged:
            record["reason"] = self.unlogged
        if self.out_of_memory:
            record["reason"] = "OutOfMemoryError: Container killed due to memory usage"
        if self.timed_out:
            record["timed_out"] = True
        return record | self.broken

    def _clear_up(self) -> None:
        if self.log >= 0:
            os.close(self.log)
        remove(self.task.folder)

    def _said(self) -> dict[str, Any] | None:
        """What the process says of its end; None where it says nothing."""
        if self.task.record:
            with contextlib.suppress(OSError, ValueError), open(self.task.record) as file:
                said: dict[str, Any] = json.load(file)
                return said
        return None


def remove(folder: str | os.PathLike[str]) -> None:
    """Remove a folder, however deep: a job may leave a thousand folders in one another."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)
