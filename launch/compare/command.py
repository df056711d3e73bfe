"""`ropewalk compare RUN RUN ...`."""

import json
from collections.abc import Sequence
from pathlib import Path

from ropewalk.launch.compare import facts, page, sweeps, tables
from ropewalk.launch.compare.comparison import Comparison, compare
from ropewalk.launch.compare.reading import models_of

OUTPUT = "comparison"
"""The folder of the page, where none is named."""


def compare_runs(folders: Sequence[Path | str], baseline: str | None, output: Path) -> Path:
    """Compare finished runs, and write `index.html` and `comparison.json` into `output`.

    `folders`: of runs, or of a sweep. `baseline`: the name of a compared model, which is that of
    its run's folder; None: the first.
    Returns the path of the page. Raises: ConfigError for runs that cannot be compared.
    """
    comparison, listed = _compared([str(folder) for folder in folders], baseline or "")
    return _write(comparison, listed, output)


def run(words: Sequence[str], baseline: str, output: str, as_json: bool) -> None:
    """What the verb does: print the table or its rows, and write the page. Raises: ConfigError."""
    comparison, listed = _compared(words, baseline)
    path = _write(comparison, listed, Path(output or OUTPUT).expanduser())
    if as_json:
        print(json.dumps(tables.rows(comparison, listed), indent=1), flush=True)
    else:
        print(f"{tables.as_text(comparison, listed)}\nwrote {path}", flush=True)


def _compared(words: Sequence[str], baseline: str) -> tuple[Comparison, list[facts.Fact]]:
    asked = sweeps.expanded(words, baseline)
    models = models_of(asked.words)
    return compare(models, asked.baseline, asked.missing), facts.facts_of(models)


def _write(comparison: Comparison, listed: Sequence[facts.Fact], folder: Path) -> Path:
    path = page.write(folder, comparison, listed)
    text = json.dumps(tables.rows(comparison, listed), indent=1)
    page.write_text(folder / "comparison.json", f"{text}\n")
    return path
