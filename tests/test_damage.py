"""Each file of a finished run and of its cache, damaged: made again, or one line and a way out.

The oracle is the undamaged run: its files' bytes, its losses. A tenth of the cases, drawn by a
fixed seed, runs in `make test`, all of them in `make damage`.
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import damage
import pytest

SEED = 14
VARIANTS = int(os.environ.get("ROPEWALK_DAMAGE_VARIANTS", "2"))
"""How often each random way to damage a file is tried, at another place."""
VERBS = {"export": "export", "calibration": "calibrate"}
"""The command that makes a folder of the run; `run` makes the others."""
RANDOM = ("truncate", "garbage", "flip_byte", "edit_number")
Case = tuple[str, str, int]
"""File below `runs` and `cache`, way, variant."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in `work` and its copy `undamaged`."""
    folder = tmp_path_factory.mktemp("damage")
    damage.make_base(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ropewalk.train.stage.launch", damage.launch_forked)
        for verb in ("run", "export", "calibrate", "run"):
            assert damage.call(verb, folder) == 0
    shutil.copytree(folder / "work", folder / "undamaged")
    return folder


def cases(folder: Path) -> list[Case]:
    files = [p for p in sorted((folder / "undamaged").rglob("*")) if p.is_file()]
    names = [p.relative_to(folder / "undamaged").as_posix() for p in files]
    return [
        (name, way, variant)
        for name in names
        for way in damage.WAYS
        for variant in range(VARIANTS if way in RANDOM else 1)
    ]


def outcome(
    folder: Path, case: Case, expected: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> str:
    """Damage, call the command, follow the line that refuses, compare. A word for the table."""
    name, way, variant = case
    damage.restore(folder)
    rng = random.Random(f"{SEED} {name} {way} {variant}")
    if not damage.WAYS[way](folder / "work" / name, rng):
        return "nothing to damage"
    verb = VERBS.get(Path(name).parts[2] if len(Path(name).parts) > 2 else "", "run")
    code, word = damage.call(verb, folder), "made again"
    text = "".join(capsys.readouterr())
    assert "Traceback" not in text, text
    if code:
        paths = list(damage.remedies(text))
        assert code in (2, 3) and paths, f"exit code {code}: {text}"
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        code, word = damage.call(verb, folder), "refused, then well"
        text = "".join(capsys.readouterr())
        assert code == 0, text
    actual = damage.results(folder / "work")
    differing = [n for n in expected if actual.get(n) != expected[n]]
    assert not differing, f"{differing} differ: {text}"
    return word


def run_cases(
    folder: Path,
    chosen: list[Case],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ropewalk.train.stage.launch", damage.launch_forked)
    expected, table, failures = damage.results(folder / "undamaged"), Counter[str](), []
    for case in chosen:
        try:
            word = outcome(folder, case, expected, capsys)
        except (Exception, SystemExit) as error:  # all cases are tried, and counted
            word = "FAILS"
            failures.append(f"{case}: {type(error).__name__}: {str(error)[-600:]}")
        table[f"{case[0].split('/')[0]}/{'/'.join(case[0].split('/')[1:])}: {word}"] += 1
    with capsys.disabled():
        print("\n" + "\n".join(f"{count:4} {row}" for row, count in sorted(table.items())))
        print(f"{sum(table.values())} cases, {len(failures)} failures")
    assert not failures, "\n".join(failures)


def test_a_tenth_of_the_damages(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = cases(folder)
    run_cases(folder, random.Random(SEED).sample(every, len(every) // 10), capsys, monkeypatch)


@pytest.mark.slow
def test_every_damage(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cases(folder, cases(folder), capsys, monkeypatch)
