"""``python -m genokit.train``: the training as a command, which jobs run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from genokit.errors import GenokitError, TrainingStopped
from genokit.train import Parameters, engines, workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, with MXNet's progress lines on standard output; returns the exit code.

    SIGTERM (the notice of a Spot reclaim or of a timeout) and Ctrl-C save a checkpoint after the current batch and end
    with 143 or 130, as the signal itself would: ``submit`` has jobs that end with 143 tried again.
    """
    ended: list[int] = []
    stop = threading.Event()

    def end(number: int, _frame: object) -> None:
        ended.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        code = _train(sys.argv[1:] if arguments is None else arguments, stop)
    except TrainingStopped as error:
        code = 128 + signal.SIGTERM  # another worker may have got the signal
        if os.environ.get("RANK", "0") == "0":
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    except GenokitError as error:
        code = 1
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 128 + ended[0] if code and ended else code


def _train(arguments: Sequence[str], stop: threading.Event) -> int:
    from genokit import storage
    from genokit.data import Manifest
    from genokit.train.checkpoint import FILE, read_record
    from genokit.train.loop import fit, logger

    given = _parsed(arguments)
    data, out, until = given.data, given.out, None
    parameters = Parameters(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Parameters)})
    if given.sweep:
        from genokit.train.sweeps import trial

        plan = json.loads(storage.read(given.sweep[0]))
        one, until = trial(plan, int(given.sweep[1]), int(given.sweep[2]))
        if one is None:
            print("Nothing to train: the round before has fewer trials with a result.")
            return 0
        data, out, parameters = plan["data"], one["out"], Parameters.from_dict(one["parameters"])
    dataset, rank = Manifest(data).fetch(progress=False), workers.rank(parameters)
    if rank is None:
        like = read_record(f"{out}/{FILE}").get("parameters") if given.resume else None
        return workers.launch(engines.settle(parameters, like), arguments, stop)
    if rank == 0:
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.setLevel(logging.INFO)
    history = fit(
        dataset, parameters, checkpoint=f"{out}/{FILE}", until=until,
        resume=given.resume or bool(given.sweep), save_min=given.save_min, save_batches=given.save_batches, stop=stop,
        progress=False,
    )  # fmt: skip
    if rank == 0:
        print(f"Checkpoint {out}/{FILE}, weights sha256 {history.model.sha256}")
    if rank == 0 and history.sample:
        print("The data are a sample of MNIST: validation uses images held out of it, not MNIST's test set.")
    return 0


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    about = "Train LeNet on digits. The options from --epochs on are described in genokit.train.Parameters."
    parser = argparse.ArgumentParser("python -m genokit.train", description=about, allow_abbrev=False)
    needed = "--sweep" not in arguments
    parser.add_argument("--data", required=needed, help="name or path of the data set's manifest, such as mnist")
    parser.add_argument("--out", required=needed, help="folder for the checkpoint, here or s3://bucket/folder")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in OUT, if it exists")
    parser.add_argument("--sweep", nargs=3, metavar=("PLAN", "ROUND", "PLACE"), help="a trial of train.sweep instead")
    parser.add_argument(
        "--save-min", type=float, default=5, metavar="float", help="minutes between checkpoints (default: 5)"
    )
    parser.add_argument(
        "--save-batches", type=int, default=0, metavar="int", help="batches between them (default: any)"
    )
    for field in dataclasses.fields(Parameters):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(name, type=kind, metavar=kind.__name__, default=field.default, help="default: %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    workers.leave(main)
