"""How a command or a rank starts. What it imports is most of the way to the first training step."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import torch and transformers in here, once: the collector rests, for it would go over what stays for good.

    Measured: a sixth of the import. What was loaded is left out of later rounds too: 2 CPU seconds at a process' end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
