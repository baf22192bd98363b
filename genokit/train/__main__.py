"""``python -m genokit.train``: the training as a command, which jobs run."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence

from genokit.errors import GenokitError
from genokit.train import Parameters


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, with MXNet's progress lines on standard output; returns the exit code."""
    try:
        _train(_parsed(arguments))
    except GenokitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The checkpoint holds the last complete epoch: --resume continues from it.", file=sys.stderr)
        return 130
    return 0


def _train(given: argparse.Namespace) -> None:
    from genokit.data import Manifest
    from genokit.train.checkpoint import FILE
    from genokit.train.loop import fit, logger

    parameters = Parameters(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Parameters)})
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    dataset = Manifest(given.data).fetch(progress=False)
    target = os.path.join(given.out, FILE)  # also right on S3
    history = fit(dataset, parameters, checkpoint=target, resume=given.resume, progress=False)
    print(f"Checkpoint {target}, weights sha256 {history.model.sha256}")
    if history.sample:
        print("The data are a sample of MNIST: validation uses images held out of it, not MNIST's test set.")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m genokit.train", description="Train LeNet on digits.", allow_abbrev=False
    )
    parser.add_argument("--data", required=True, help="name or path of the data set's manifest, such as mnist")
    parser.add_argument("--out", required=True, help="folder for the checkpoint, here or s3://bucket/folder")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in OUT, if it exists")
    for field in dataclasses.fields(Parameters):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(name, type=kind, metavar=kind.__name__, default=field.default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
