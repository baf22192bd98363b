"""The command with which jobs that bring code or rows begin, under a name that queued jobs and older images know.

``python -m genokit.batch.entry --code s3://... --rows s3://... -- python fit.py Row::rate``
"""

import sys

from genokit.batch.shipping.bootstrap import main

if __name__ == "__main__":
    main(sys.argv[1:])
