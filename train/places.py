"""Where in a plan a phase begins to read: what earlier phases read of the same plan is not read again before the rest."""

from pathlib import Path

from ropewalk.conf import check, phases
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataFolders


def read_before(config: Config, plan: Path, cache: Path) -> int:
    """Sequences of `plan` that the phases before this one read, in the order of the same seed."""
    folder, found = phases.before(config), 0
    while folder is not None:
        earlier = check.load(folder / "config.yaml")
        if DataFolders.of(folder, cache).plan == plan:
            found += earlier.tokens // earlier.data.seq_len
        folder = phases.before(earlier)
    return found
