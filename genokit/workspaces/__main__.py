"""The jobs of a submission, which act for the custodian MEMBER, who set the challenge.

``python -m genokit.workspaces evaluate ADDRESS SUBMISSION MEMBER`` runs it in the sandbox of this machine. On AWS,
``stage ... FOLDER`` and ``gate ... FOLDER JOB`` come before and after the job that runs it. They print a state and
nothing that the submission printed, because members can read a job's log.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from genokit.errors import GenokitError
from genokit.workspaces import Workspace

ACTIONS = {"evaluate": (), "stage": ("folder",), "gate": ("folder", "job")}


def main() -> int:
    """Do it; the exit code is 0 however the submission itself ended."""
    parser = argparse.ArgumentParser("python -m genokit.workspaces", description="Evaluate a submission.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, more in ACTIONS.items():
        action = actions.add_parser(name)
        for argument in ("address", "submission", "member", *more):
            action.add_argument(argument)
    given = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # a job that is ended removes its container
    ws = Workspace(given.address, given.member)
    try:
        if given.action == "stage":
            ws._stage(given.submission, Path(given.folder))
        elif given.action == "gate":
            ws._gate(given.submission, Path(given.folder), given.job)
        else:
            ws._evaluate(given.submission)
    except GenokitError as error:
        print(f"genokit: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # its message may quote data
        print(
            f"genokit: the evaluation failed with {type(error).__name__}. A custodian repeats it to see why.",
            file=sys.stderr,
        )
        return 2
    print(f"Submission {given.submission}: {ws.submission(given.submission).state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
