"""The logger for users: plain lines on stdout, from rank 0 only."""

import logging
import os

log = logging.getLogger("ropewalk")


class _Stdout(logging.Handler):
    """Writes to the present `sys.stdout`, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("RANK", "0") == "0":
            print(self.format(record), flush=True)


log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(_Stdout())
