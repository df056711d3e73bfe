"""Each file of a finished run and of its cache, damaged: made again, or one line and a way out.

The oracle is the undamaged run: its files' bytes, its losses. A tenth of the cases, drawn by a
fixed seed, runs in `make test`, all of them in `make damage`.
"""

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damage
import pytest

from ropewalk.conf.artifacts.digests import file_digest
from ropewalk.conf.errors import STOPPED
from ropewalk.launch.pipeline.unchanged import RECORD

SEED = 14
VARIANTS = int(os.environ.get("ROPEWALK_DAMAGE_VARIANTS", "1"))
"""How often each random way to damage a file is tried, at another place."""
EVALUATED = re.compile(r"cache/eval/")
"""Results that a finished evaluation has copied: read again by the next one alone."""
UNREAD = re.compile(r"cache/(duplicates|contamination|tokenizers|digests)/")
"""What a command does not read that has nothing to do."""
FIGURE = "rope"
"""The figure whose files are damaged; the report writes all of them alike."""
VERBS = {"export": "export", "calibration": "calibrate"}
"""The command that makes a folder of the run; `run` makes the others."""
RANDOM = ("truncate", "garbage", "flip_byte", "edit_number")
Case = tuple[str, str, int]
"""File below `runs` and `cache`, way, variant."""


class Damages:
    """Cases over the files of a folder, and what each came to."""

    def __init__(self, source: Path, expected: dict[str, Any], keeps_record: bool = False) -> None:
        self.source, self.expected, self.keeps_record = source, expected, keeps_record
        self.work = source.with_name("work")
        self.table, self.failures = Counter[str](), list[str]()

    def cases(self, pattern: str = "**/*") -> list[Case]:
        files = [path for path in sorted(self.source.glob(pattern)) if path.is_file()]
        files = [p for p in files if p.parent.name != "figures" or p.stem == FIGURE]
        if not self.keeps_record:
            files = [path for path in files if path.name != RECORD]
        return [
            (path.relative_to(self.source).as_posix(), way, variant)
            for path in files
            for way in damage.WAYS
            for variant in range(VARIANTS if way in RANDOM else 1)
        ]

    def run(self, chosen: list[Case], capsys: pytest.CaptureFixture[str]) -> None:
        """Raises: AssertionError with all cases that do not end well."""
        for case in chosen:
            try:
                word = self.outcome(case, capsys)
            except (Exception, SystemExit) as error:  # all cases are tried, and counted
                word = "FAILS"
                self.failures.append(f"{case}: {type(error).__name__}: {str(error)[-600:]}")
            self.table[f"{case[0]}: {word}"] += 1
        with capsys.disabled():
            print("\n" + "\n".join(f"{n:4} {row}" for row, n in sorted(self.table.items())))
            print(f"{sum(self.table.values())} cases, {len(self.failures)} failures")
        assert not self.failures, "\n".join(self.failures)

    def outcome(self, case: Case, capsys: pytest.CaptureFixture[str]) -> str:
        """Damage, call the command, do what a refusal says, compare. A word for the table."""
        name, way, variant = case
        damage.restore(self.source, self.keeps_record)
        if self.has_digests_of_trained(name):  # read by an evaluation that is not finished
            shutil.rmtree(self.work / "runs/small/eval")
        rng = random.Random(f"{SEED} {name} {way} {variant}")
        if not damage.WAYS[way](self.work / name, rng):
            return "nothing to damage"
        verb, word = verb_for(name), "ends well"
        code, text = damage.call(verb, self.work.parent), "".join(capsys.readouterr())
        assert "Traceback" not in text, text
        if code:
            paths = list(damage.remedies(text))
            assert code in (2, 3) and paths, f"exit code {code}: {text}"
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            code, word = damage.call(verb, self.work.parent), "refused, then well"
            text = "".join(capsys.readouterr())
        assert code == 0, text
        actual = damage.results(self.work)
        differing = [n for n in self.expected if actual.get(n) != self.expected[n]]
        if EVALUATED.match(name) or (self.keeps_record and UNREAD.match(name)):
            differing = [n for n in differing if n != name]  # seen when it is read
        values = {n: differences(self.expected[n], actual.get(n)) for n in differing}
        assert not differing, f"{text}\n{values} differ"
        return word

    def has_digests_of_trained(self, name: str) -> bool:
        """Whether the file is the record of the digests of the run's trained model."""
        model = self.source / "runs/small/train/model/config.json"
        if not name.startswith("cache/digests/") or not model.is_file():
            return False
        return file_digest(model) in (self.source / name).read_text()


def differences(expected: Any, actual: Any, key: str = "") -> list[str]:
    """What differs, by key in a JSON object."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = sorted({*expected, *actual})
        parts = [differences(expected.get(k), actual.get(k), f"{key}/{k}") for k in keys]
        return [line for part in parts for line in part]
    return [] if expected == actual else [f"{key}: {expected!r:.80} is {actual!r:.80}"]


def verb_for(name: str) -> str:
    """The command that makes a file again: `run`, but for what it does not make."""
    parts = Path(name).parts
    return VERBS.get(parts[2], "run") if len(parts) > 3 else "run"


@pytest.fixture(scope="module", autouse=True)
def forked_ranks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ropewalk.train.stage.launch", damage.launch_forked)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and its cache."""
    folder = tmp_path_factory.mktemp("damage")
    damage.make_base(folder)
    for verb in ("run", "export", "calibrate", "run"):
        assert damage.call(verb, folder) == 0
    shutil.copytree(folder / "work", folder / "finished")
    return folder / "finished"


@pytest.fixture(scope="module")
def interrupted(finished: Path) -> Path:
    """The same run, killed after the last checkpoint of its training."""
    damage.restore(finished, keeps_record=False)
    run = finished.with_name("work") / "runs" / "small"
    for path in run.iterdir():
        if path.name not in ("data", "rope.json", "config.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ropewalk.train.stage.launch", damage.launch_killed)
        assert damage.call("train", finished.parent) == STOPPED
    shutil.copytree(finished.with_name("work"), finished.with_name("interrupted"))
    return finished.with_name("interrupted")


def of_finished(finished: Path) -> tuple[Damages, list[Case]]:
    damages = Damages(finished, damage.results(finished))
    return damages, damages.cases()


def of_interrupted(finished: Path, interrupted: Path) -> tuple[Damages, list[Case]]:
    """Resumed, it must have the training of the finished run."""
    results = damage.results(finished).items()
    trained = {name: value for name, value in results if name.startswith("runs/small/train/")}
    damages = Damages(interrupted, trained)
    return damages, damages.cases("runs/small/train.tmp/**/*")


def test_a_tenth_of_the_damages_to_a_finished_run(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages, every = of_finished(finished)
    damages.run(random.Random(SEED).sample(every, len(every) // 10), capsys)


def test_some_damages_beside_the_record_of_unchanged_inputs(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages = Damages(finished, damage.results(finished), keeps_record=True)
    damages.run(random.Random(SEED + 1).sample(damages.cases(), 12), capsys)


def test_some_damages_to_an_interrupted_training(
    finished: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages, every = of_interrupted(finished, interrupted)
    damages.run(random.Random(SEED).sample(every, 4), capsys)


def test_damages_to_the_digests_of_the_trained_model(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages = Damages(finished, damage.results(finished))
    every = damages.cases("cache/digests/*.json")
    chosen = [case for case in every if damages.has_digests_of_trained(case[0])]
    assert chosen
    damages.run(chosen, capsys)


@pytest.mark.slow
def test_every_damage_to_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damages, every = of_finished(finished)
    damages.run(every, capsys)


@pytest.mark.slow
def test_every_damage_beside_the_record_of_unchanged_inputs(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages = Damages(finished, damage.results(finished), keeps_record=True)
    damages.run(damages.cases(), capsys)


@pytest.mark.slow
def test_every_damage_to_an_interrupted_training(
    finished: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damages, every = of_interrupted(finished, interrupted)
    damages.run(every, capsys)
