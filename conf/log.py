"""What users see of a run while it goes:

plain lines on stdout, of rank 0 where there are several.
"""

import logging
import os

log = logging.getLogger("ropewalk")


class _Stdout(logging.Handler):
    """Writes to the stdout of the moment, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("RANK", "0") == "0":
            print(self.format(record), flush=True)


log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(_Stdout())
