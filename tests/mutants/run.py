"""Random faults in the pure core, and whether the tests notice them: `make mutants`.

Each mutant changes one comparison, operator, constant or condition of one file. The tests that
execute the changed line run on it, the quickest first, in a process forked from one that has
collected all tests; so nothing is imported again. A mutant outside functions changes what an import
makes, and runs in a process that imports everything anew.

A mutant is killed when a test fails that passes without the fault, or runs out of a time that is
three times enough without it. Survivors are printed with their line, and are either killed by a new
test with an outside value or judged equivalent in equivalent.txt beside this file.
"""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from coverage_map import CoverageMap, Watch, fastest_file_first
from faults import SUBJECTS, Mutant, drawn
from forks import OPTIONS, OUT_OF_TIME, copy_of_checkout, in_fork, preload, write_bytecode
from live import LiveFunctions
from nearest import Nearest, full_name, imported_once, lines_to_execute

# These start ranks, servers or whole runs, which execute the core in other processes.
OTHER_PROCESSES = re.compile(
    r"tests/test_(?!house)|tests/train/(zero|launcher|loop)/|_(gpu|engines|servers|parity)\b"
)
BUDGET_S = 25.0  # of tests for one mutant
NEAREST = 3  # so many of the nearest files are watched for a mutant
PATIENCE = 4  # times both for those that survive
SLOW_TEST_S = 20.0  # a test that takes longer is left out
UNWATCHED_S = 10.0  # guessed for a file of tests whose seconds are not known
SHORTEST_S = 30.0
FINAL = ("killed", "equivalent")


class Outcomes:
    """Pytest plugin: the tests that ran and did not pass, and the seconds of each that did."""

    def __init__(self) -> None:
        self.not_passed: list[str] = []
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.passed:
            self.not_passed.append(report.nodeid)
        if report.failed:
            self.failed.append(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


class Faulty(ABC):
    """The copy of the checkout, with one mutant at a time in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.near, self.map = folder, Nearest(), CoverageMap()

    @contextmanager
    def fault(self, mutant: Mutant | None) -> Iterator[str]:
        """The mutant in its file. The file's time is put back: its bytecode stays good."""
        if mutant is None:
            yield ""
            return
        target = self.folder / mutant.path
        text, status = target.read_text(), target.stat()
        faulty = text[: mutant.start] + mutant.text + text[mutant.end :]
        target.write_text(faulty)
        try:
            yield faulty
        finally:
            target.write_text(text)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def files(self, mutant: Mutant) -> list[str]:
        """Test files near the mutant that run in one process, the nearest first."""
        near = self.near.test_files(mutant.path)
        return [file for file in near if not OTHER_PROCESSES.search(file)]

    @abstractmethod
    def run(self, mutant: Mutant | None, tests: list[str], seconds: float) -> tuple[int, str]:
        """Exit code of the tests, and the first that failed."""

    def ends(self, mutant: Mutant, batch: dict[str, float], patience: int) -> dict[str, Any]:
        """How the mutant ends after a batch of tests, and by which."""
        tests, limit = list(batch), patience * max(SHORTEST_S, 6 * sum(batch.values()))
        code, failed = self.run(mutant, tests, limit)
        if code == OUT_OF_TIME:
            enough = self.run(None, tests, limit / 3)[0] == 0
            end = "killed" if enough else "undecided"
            return {"end": end, "by": f"{tests[0]} (out of time)"}
        if code and self.run(None, [failed], 120.0)[0] == 0:
            return {"end": "killed", "by": failed}
        return {"end": "SURVIVED", "by": None}

    @abstractmethod
    def batches(self, mutant: Mutant, nearest: int) -> Iterator[dict[str, float]]:
        """Tests that may notice the mutant, with their seconds."""

    def judge(self, mutant: Mutant, patience: int) -> dict[str, Any]:
        """How the mutant ends over all batches, at most `BUDGET_S` of tests."""
        row: dict[str, Any] = {"end": "SURVIVED", "by": None, "tests": 0}
        spent, count = 0.0, 0
        for batch in self.batches(mutant, NEAREST * patience):
            quick = {}
            for test, seconds in batch.items():
                spent += seconds
                if spent <= BUDGET_S * patience:
                    quick[test] = seconds
            if quick:
                count += len(quick)
                row = self.ends(mutant, quick, patience) | {"tests": count}
            if row["end"] != "SURVIVED" or spent > BUDGET_S * patience:
                break
        return row


class InFunctions(Faulty):
    """Pytest plugin that judges the mutants in functions once all tests are collected."""

    def __init__(self, folder: Path, todo: "Todo", patience: int) -> None:
        super().__init__(folder)
        self.todo, self.patience = todo, patience

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.by_file: dict[str, list[str]] = defaultdict(list)
        for test in self.items:
            self.by_file[test.split("::")[0]].append(test)
        self.config, self.live = session.config, LiveFunctions(self.folder)
        sys.dont_write_bytecode = True
        self.todo.judge(self, self.patience)
        return True

    def run_items(self, tests: list[str]) -> list[str]:
        """The first that fails of the tests, in this process."""
        outcomes = Outcomes()
        self.config.pluginmanager.register(outcomes)
        items = [self.items[test] for test in tests]
        for item, following in zip(items, [*items[1:], None], strict=True):
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if outcomes.failed:
                break
        return outcomes.failed[:1]

    def run(self, mutant: Mutant | None, tests: list[str], seconds: float) -> tuple[int, str]:
        output = self.folder / "failed.txt"
        output.unlink(missing_ok=True)

        def work() -> int:
            if mutant:
                self.live.put(mutant, faulty)
            failed = self.run_items(tests)
            output.write_text("".join(failed))
            return len(failed)

        with self.fault(mutant) as faulty:
            code = in_fork(work, seconds)
        return code, output.read_text() if output.exists() else tests[0]

    def watch(self, file: str) -> None:
        """Run a test file under coverage; tests over `SLOW_TEST_S` are stopped."""
        output = self.folder / "lines.json"
        output.unlink(missing_ok=True)

        def slow(number: int, frame: Any) -> None:
            raise TimeoutError

        def work() -> int:
            watch, outcomes, seconds = Watch(self.folder), Outcomes(), {}
            self.config.pluginmanager.register(watch)
            self.config.pluginmanager.register(outcomes)
            signal.signal(signal.SIGALRM, slow)
            items = [self.items[test] for test in self.by_file[file]]
            watch.coverage.start()
            for item, following in zip(items, [*items[1:], None], strict=True):
                started = time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, SLOW_TEST_S)
                self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                signal.setitimer(signal.ITIMER_REAL, 0)
                seconds[item.nodeid] = round(time.monotonic() - started, 3)
            for test in outcomes.not_passed:
                seconds.pop(test, None)
            output.write_text(json.dumps({"seconds": seconds, "lines": watch.lines()}))
            return 0

        in_fork(work, 300.0)
        nothing: dict[str, Any] = {"seconds": {}, "lines": {}}
        self.map.add(file, json.loads(output.read_text()) if output.exists() else nothing)

    def batches(self, mutant: Mutant, nearest: int) -> Iterator[dict[str, float]]:
        files, lines = self.files(mutant), lines_to_execute(mutant)
        if not files:
            return
        if files[0] not in self.map.files:
            self.watch(files[0])
        known = [file for file in files if file in self.map.files]
        first, *others = [self.in_session(file, lines) for file in known]
        yield first | fastest_file_first(others)
        executed = bool(first or any(others))
        for file in files[:nearest]:
            if file not in known:
                self.watch(file)
                tests = self.in_session(file, lines)
                executed |= bool(tests)
                yield tests
        if not executed:  # perhaps in a rank: its processes read the mutant from the file
            yield from (self.map.files[file]["seconds"] for file in files[:2])

    def in_session(self, file: str, lines: dict[str, set[int]]) -> dict[str, float]:
        tests = self.map.tests(file, lines)
        return {test: seconds for test, seconds in tests.items() if test in self.items}


class OutsideFunctions(Faulty):
    """Judges the mutants that an import executes: each in a process that imports Ropewalk anew."""

    def run(self, mutant: Mutant | None, tests: list[str], seconds: float) -> tuple[int, str]:
        output = self.folder / "failed.txt"
        output.unlink(missing_ok=True)

        def work() -> int:
            outcomes = Outcomes()
            code = pytest.main(["-x", *OPTIONS, *tests], plugins=[outcomes])
            output.write_text("".join(outcomes.failed[:1]) or tests[0])
            return int(code) if code != pytest.ExitCode.NO_TESTS_COLLECTED else 0

        with self.fault(mutant):
            code = in_fork(work, seconds)
        return code, output.read_text() if output.exists() else tests[0]

    def batches(self, mutant: Mutant, nearest: int) -> Iterator[dict[str, float]]:
        files, lines = self.files(mutant), lines_to_execute(mutant)
        known = [file for file in files if file in self.map.files]
        yield fastest_file_first(self.map.tests(file, lines) for file in known)
        room = Path("tests") / Path(mutant.path).parent
        chosen = {file for file in files if Path(file).parent == room} | {*files[:nearest]}
        seconds = {file: sum(self.map.files[file]["seconds"].values()) for file in known}
        seconds = {file: seconds.get(file, UNWATCHED_S) for file in chosen}
        yield from ({file: seconds[file]} for file in sorted(chosen, key=seconds.__getitem__))


class Todo:
    """The mutants, and the file that has the ends of those that are judged."""

    def __init__(self, mutants: list[Mutant], output: Path) -> None:
        self.mutants, self.output = mutants, output
        lines = (Path(__file__).parent / "equivalent.txt").read_text().splitlines()
        self.equivalent = {line.rsplit("  # ", 1)[0].strip() for line in lines if line.strip()}

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row of each mutant that has one, in the order drawn."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        rows = {row["key"]: row for row in map(json.loads, lines)}
        return {m.key: rows[m.key] for m in self.mutants if m.key in rows}

    def judge(self, judge: Faulty, patience: int) -> None:
        """Judge the mutants without an end, and those that less patience left alive."""
        outside = isinstance(judge, OutsideFunctions)
        for mutant in self.mutants:
            row = self.rows().get(mutant.key, {"end": None, "patience": 0})
            again = row["end"] not in FINAL and row["patience"] < patience
            if again and imported_once(mutant) == outside:
                self.note(mutant, judge, patience)

    def note(self, mutant: Mutant, judge: Faulty, patience: int) -> None:
        started = time.monotonic()
        row = judge.judge(mutant, patience)
        if row["end"] == "SURVIVED" and full_name(mutant) in self.equivalent:
            row["end"] = "equivalent"
        row |= {"key": mutant.key, "mutant": str(mutant), "patience": patience}
        row["seconds"] = round(time.monotonic() - started, 1)
        with self.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{row['seconds']:.0f} s {row['end']} {mutant} {row['by'] or full_name(mutant)}",
            file=sys.stderr,
        )

    def summary(self, bar: float) -> bool:
        """Print the survivors and the share that was killed; whether it reaches the bar."""
        rows = list(self.rows().values())
        counts = Counter(row["end"] for row in rows)
        for row in rows:
            if row["end"] in ("SURVIVED", "undecided"):
                print(row["end"], row["mutant"])
        counted = len(rows) - counts["equivalent"]
        share = counts["killed"] / max(1, counted)
        print(
            f"{dict(counts)}: killed {counts['killed']} of {counted} ({share:.1%}); bar {bar:.0%}"
        )
        return share >= bar


def judge_in_functions(folder: Path, todo: Todo, patience: int) -> None:
    """In a fork, as the mutants outside functions need a process without Ropewalk."""
    child = os.fork()
    if child == 0:
        try:
            judge = InFunctions(folder, todo, patience)
            near = {file for mutant in todo.mutants for file in judge.files(mutant)}
            sys.dont_write_bytecode = False
            pytest.main(
                [*OPTIONS, "-s", f"--basetemp={folder}/tmp", *sorted(near)], plugins=[judge]
            )
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), help="files or folders")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="of how many shares this one is judged")
    parser.add_argument("--share", type=int, default=0, help="which share, from 0")
    parser.add_argument("--bar", type=float, default=0.9, help="least share that must be killed")
    parser.add_argument("--output", type=Path, help="JSON lines; what it has is not judged again")
    options = parser.parse_args()
    mutants = drawn(options.count, options.seed, options.subjects)
    preload()
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name) / "tree", options.output or Path(name) / "rows.jsonl"
        todo = Todo(mutants[options.share :: options.jobs], output.absolute())
        copy_of_checkout(folder)
        write_bytecode(folder)
        for patience in (1, PATIENCE):
            judge_in_functions(folder, todo, patience)
            todo.judge(OutsideFunctions(folder), patience)
        good = todo.summary(options.bar)
    sys.exit(not good)


if __name__ == "__main__":
    main()
