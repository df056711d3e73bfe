"""The folder of a sweep in the stead of its runs; a run of it that is not done is said."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.compare.reading import RESULTS
from ropewalk.launch.sweep import record


@dataclass
class Asked:
    """What is to be compared."""

    words: list[str] = field(default_factory=list)
    """RUN and RUN:COLUMN."""
    baseline: str = ""
    missing: list[tuple[str, str]] = field(default_factory=list)
    """Runs of a sweep that have no results, each with the reason."""


def expanded(words: Sequence[str], baseline: str) -> Asked:
    """`words` with the runs of each sweep among them, whose baseline is taken where none is named.

    Raises: ConfigError for a record of a sweep that cannot be read.
    """
    asked = Asked(baseline=baseline)
    for word in words:
        folder = Path(word).expanduser()
        if (folder / record.FILE).is_file():
            _take(asked, folder)
        else:
            asked.words.append(word)
    return asked


def _take(asked: Asked, folder: Path) -> None:
    entry = record.read(folder)
    if entry is None:
        raise ConfigError(
            f"RUN is {folder}; the {record.FILE} of a sweep must be as ropewalk wrote it; name its "
            "runs instead"
        )
    runs_dir = folder.absolute().parent.parent
    for job in entry.runs:
        run, done = runs_dir / job.run, job.state == record.FINISHED
        if done and (run / "eval" / RESULTS).is_file():
            asked.words.append(str(run))
            continue
        reason = "it has no evaluation" if done else record.in_words(job)
        failed = job.state == record.FAILED and job.reason
        asked.missing.append((job.run, f"{reason}: {job.reason}" if failed else reason))
    measured = {Path(word).name for word in asked.words}
    asked.baseline = asked.baseline or (entry.baseline if entry.baseline in measured else "") or ""
