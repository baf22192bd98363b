"""The workers of one training: processes that share each batch, on this machine or one on each node of a job.

A worker finds the others by environment variables: those that torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT), and those of MXNet's KVStore (DMLC_...), whose scheduler and server run beside worker 0.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from genokit import backends
from genokit.config import Settings
from genokit.errors import InvalidParameters
from genokit.train.engines import default_threads
from genokit.train.parameters import Parameters

LOOPBACK = "127.0.0.1"
STOPPED = (None, 0, 128 + signal.SIGINT, 128 + signal.SIGTERM)  # codes that are no failure
SERVE = ("-c", "from genokit.train.workers import serve; serve()")
LIBRARY = ctypes.CDLL(None)  # of C
PR_SET_PDEATHSIG = 1
Processes = list[subprocess.Popen[bytes]]


def rank(p: Parameters) -> int | None:
    """Return this worker's rank, from 0, or None if this process is not a worker."""
    if p.workers == 1:
        return 0
    return int(os.environ["RANK"]) if os.environ.get("WORLD_SIZE") == str(p.workers) else None


def launch(p: Parameters, arguments: Sequence[str], stop: threading.Event) -> int:
    """Run the workers of this machine, or of this node of a job, as ``python -m genokit.train`` with these arguments.

    When ``stop`` is set, the workers get SIGTERM. Returns 0, or the exit code of the first process that failed; no
    process is left then, and none outlives this one. Raises InvalidParameters in a job with another number of nodes.
    """
    node, nodes = os.environ.get("AWS_BATCH_JOB_NODE_INDEX"), os.environ.get("AWS_BATCH_JOB_NUM_NODES", str(p.workers))
    if nodes != str(p.workers):
        raise InvalidParameters(f"workers={p.workers}, but this job has {nodes} nodes. Use --workers {nodes}.")
    ranks = range(p.workers) if node is None else [int(node)]
    common = {**os.environ, **_meeting_point(node), "WORLD_SIZE": nodes, "DMLC_NUM_WORKER": nodes}
    common.setdefault("OMP_NUM_THREADS", str(max(1, default_threads() // len(ranks))))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(p.workers)))).split(",")
    workers: Processes = []
    servers: Processes = []
    try:
        for role in ("scheduler", "server") if p.engine == "mxnet" and 0 in ranks else ():
            servers.append(_started(SERVE, common | {"DMLC_ROLE": role}))
        for place, number in enumerate(ranks):  # each has a GPU of its own, if there are enough
            own = {
                "RANK": str(number),
                "DMLC_ROLE": "worker",
                "CUDA_VISIBLE_DEVICES": ",".join(gpus[place : place + 1]),
            }
            workers.append(_started(("-m", "genokit.train", *arguments, "--engine", p.engine), common | own))
        return _watched(workers, servers, stop)
    finally:
        for process in (*workers, *servers):
            process.kill()
            process.wait()


def _watched(workers: Processes, servers: Processes, stop: threading.Event) -> int:
    """Wait for the end of the workers, or for the first failure."""
    told, processes = False, (*workers, *servers)
    codes = [process.poll() for process in processes]
    while not [code for code in codes if code not in STOPPED]:
        if None not in codes[: len(workers)]:
            return max(code or 0 for code in codes)
        if stop.is_set() and not told:
            told = True
            for process in workers:
                process.terminate()
        time.sleep(0.05)
        codes = [process.poll() for process in processes]
    time.sleep(0.5)  # one that was killed may end after those that fail because of it
    first = min(code for process in processes if (code := process.poll()) and code not in STOPPED)
    return first if first > 0 else 128 - first  # below 0: killed


def _started(words: Sequence[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that ends when this one does, however that ends."""
    bound = partial(_bound, os.getpid()) if sys.platform == "linux" else None
    return subprocess.Popen([sys.executable, *words], env=variables, preexec_fn=bound)


def _bound(parent: int) -> None:
    LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os._exit(1)


def serve() -> None:
    """Be MXNet's scheduler or server, as DMLC_ROLE says, until the workers end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job: the workers still need this one
        signal.signal(number, signal.SIG_IGN)
    from genokit.train.mxnet import load

    load()  # does not return


def leave(main: Callable[[], int]) -> NoReturn:
    """Run a program and end its process. A worker that has failed does not wait for the others, as MXNet would."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes too late to change anything
    if code and "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _meeting_point(node: str | None) -> dict[str, str]:
    """Where the workers meet: the main node of a job, or this machine alone."""
    address = own = LOOPBACK
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    if node is not None:
        # By the job's id, so that all nodes know it and two jobs on one machine differ; below the system's own ports.
        port = 10_000 + zlib.crc32(os.environ["AWS_BATCH_JOB_ID"].partition("#")[0].encode()) % 20_000
        if not backends.Clients(Settings.load()).backend.shares_folders:
            own = _own_address()
            address = os.environ.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", own)  # the main node has none
    alone = {"DMLC_LOCAL": "1", "DMLC_INTERFACE": "lo", "GLOO_SOCKET_IFNAME": "lo"}  # sockets of this machine only
    return {"MASTER_ADDR": address, "MASTER_PORT": str(port), "DMLC_PS_ROOT_URI": address, "DMLC_NODE_HOST": own,
            "DMLC_PS_ROOT_PORT": str(port), "DMLC_NUM_SERVER": "1", **(alone if own == LOOPBACK else {})}  # fmt: skip


def _own_address() -> str:
    """This machine's address on the way to others: nothing is sent to that of RFC 5737's documentation."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.1", 9))
        return str(one.getsockname()[0])
