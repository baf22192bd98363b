"""The job that evaluates a submission: ``python -m genokit.workspaces ADDRESS SUBMISSION MEMBER``.

It acts for the custodian MEMBER, who set the challenge. It prints the submission's state and nothing that the
submission printed, because members can read a job's log.
"""

from __future__ import annotations

import argparse
import sys

from genokit.errors import GenokitError
from genokit.workspaces import Workspace


def main() -> int:
    """Evaluate the submission; the exit code is 0 however the submission itself ended."""
    parser = argparse.ArgumentParser("python -m genokit.workspaces", description="Evaluate a submission.")
    for name in ("address", "submission", "member"):
        parser.add_argument(name)
    given = parser.parse_args()
    try:
        entry = Workspace(given.address, given.member)._evaluate(given.submission)
    except GenokitError as error:
        print(f"genokit: {error}", file=sys.stderr)
        return 2
    print(f"Submission {given.submission}: {entry['state']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
