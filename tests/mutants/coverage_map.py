"""Which tests execute which lines of the core, and how long each test takes."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from faults import ROOT, SUBJECTS

PATH = ROOT / ".cache" / "mutants.json"


class Watch:
    """Pytest plugin and coverage: the lines of the core that each test executes.

    Coverage sees the lines of a module or session fixture once; they belong to the whole file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coverage = Coverage(data_file=None, source=[str(folder / s) for s in SUBJECTS])

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        test = request._pyfuncitem.nodeid
        shared = fixturedef.scope != "function"
        self.coverage.switch_context(test.split("::")[0] if shared else test)
        result = yield
        self.coverage.switch_context(test)
        return result

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self.coverage.switch_context(item.nodeid)

    def lines(self) -> dict[str, dict[str, list[int]]]:
        """Lines by file of the core and test."""
        self.coverage.stop()
        data = self.coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for file in data.measured_files():
            path = str(Path(file).relative_to(self.folder))
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in filter(None, contexts):
                    lines[path][context].append(line)
        return lines


class CoverageMap:
    """What is known of each test file; kept in `PATH`, outside git, from one run to the next."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {}

    def add(self, file: str, entry: dict[str, Any]) -> None:
        self.files = CoverageMap().files | {file: entry}
        PATH.parent.mkdir(exist_ok=True)
        temporary = PATH.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(self.files))
        temporary.replace(PATH)

    def tests(self, file: str, lines: dict[str, set[int]]) -> dict[str, float]:
        """The file's tests that execute one of the lines, and their seconds; the quickest first."""
        entry = self.files[file]
        contexts: set[str] = set()
        for path, numbers in lines.items():
            known = entry["lines"].get(path, {})
            contexts |= {context for context, seen in known.items() if numbers & {*seen}}
        seconds = sorted(entry["seconds"].items(), key=lambda item: item[1])
        return {test: s for test, s in seconds if test in contexts or file in contexts}


def fastest_file_first(files: Iterable[dict[str, float]]) -> dict[str, float]:
    ordered = sorted(files, key=lambda seconds: sum(seconds.values()))
    return {test: s for seconds in ordered for test, s in seconds.items()}
