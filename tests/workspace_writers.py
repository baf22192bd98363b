"""Ten processes that write to one workspace and are killed at random; run by test_workspaces_killed.

    python workspace_writers.py ADDRESS FOLDER KILLS SEED

A writer adds members and publishes data sets, and notes what was acknowledged in FOLDER/<its number>. Whenever a few
more entries are noted, one writer is killed with SIGKILL and another takes its place, until KILLS have been killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from genokit import Workspace

WRITERS = 10


def write(address: str, number: int, notes: Path) -> None:
    """Write to the workspace until killed."""
    ws = Workspace(address, "anna")
    data = notes.with_suffix(".data")
    data.mkdir()
    with notes.open("a", buffering=1) as file:
        for i in range(10_000):
            if i % 3 == 2:
                (data / "rows.csv").write_text(f"{number},{i}\n" * 1000)
                file.write(f"published {ws.publish(data, name=f'd{number}', version=f'1.{i}', terms='GRU')}\n")
            else:
                ws.grant(f"m{number}-{i}", "viewer")
                file.write(f"granted m{number}-{i}\n")


def forked(work: Callable[[], None]) -> int:
    """Start a process that does this and nothing else; returns its number."""
    if (pid := os.fork()) == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def main(address: str, folder: str, kills: str, seed: str) -> None:
    chance, notes, number = random.Random(int(seed)), Path(folder), WRITERS
    writers = [forked(lambda one=one: write(address, one, notes / str(one))) for one in range(WRITERS)]
    seen = 0
    try:
        for _ in range(int(kills)):
            seen += chance.randint(1, 12)
            while sum(one.read_bytes().count(b"\n") for one in notes.iterdir() if one.is_file()) < seen:
                assert os.waitpid(-1, os.WNOHANG) == (0, 0), "a writer ended by itself"
                time.sleep(chance.random() / 100)
            killed = writers.pop(chance.randrange(WRITERS))
            os.kill(killed, signal.SIGKILL)
            os.waitpid(killed, 0)
            writers.append(forked(lambda one=number: write(address, one, notes / str(one))))
            number += 1
    finally:
        for one in writers:
            os.kill(one, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
