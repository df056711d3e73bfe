"""`ropewalk runs`: a table, rows as JSON, and seconds for a hundred runs."""

import json
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from run_folders import (
    begin,
    end,
    finish,
    save,
    train_to,
)

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.cli import main
from ropewalk.launch.runs import listing
from ropewalk.launch.runs.reading import Row


def test_json_is_a_list_of_rows_with_the_name_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path, "first")
    time.sleep(1.1)  # times are told in seconds
    begin(tmp_path, "second")
    main(["runs", str(tmp_path), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["second", "first"]
    assert all(list(row) == list(Row.__annotations__) and list(row)[0] == "name" for row in rows)
    written = datetime.fromisoformat(rows[0]["written"]).timestamp()
    assert written == int((tmp_path / "second").stat().st_mtime)


def test_a_terminal_gets_a_table_and_commands_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    end(train_to(run, 30), 1, "no memory")
    main(["runs", str(tmp_path)])
    head, cells, *below = capsys.readouterr().out.splitlines()
    assert head.split() == list(listing.COLUMNS)
    assert cells.split()[:6] == ["first", "failed", "train", "30/40", "2.7000", "20.50"]
    assert [text.split(":")[0].strip() for text in below] == ["reason", "next"]


def test_no_runs_and_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["runs"])
    main(["runs", "--json"])
    assert capsys.readouterr().out == "no runs in runs\n[]\n"
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        with pytest.raises(ConfigError, match=f"FOLDER is {name}; it must be a folder with runs"):
            listing.rows(name)
    with pytest.raises(SystemExit) as stopped:
        main(["runs", "one", "two"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3599, "1 h 0 min"), (11_999, "3 h 20 min")]
    + [(172_740, "47 h 59 min"), (172_800, "2 d 0 h"), (float("inf"), "-")],
)
def test_durations(seconds: float, text: str) -> None:
    assert listing.duration(seconds) == text


def test_a_hundred_runs_load_no_library(tmp_path: Path) -> None:
    """A half of the bar of 1.5 s of processor time; nothing heavy is imported."""
    run = begin(tmp_path / "runs")
    finish(run, "data", "eval")
    save(train_to(run, 40), 20)
    for number in range(99):  # copied: a run's files are synced, which a busy disk takes long for
        shutil.copytree(run, run.with_name(f"run-{number}"))
    script = (
        "import resource, sys\nfrom ropewalk.launch.cli import main\n"
        "main(['runs', sys.argv[1], '--json'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'omegaconf', 'hydra'} & set(sys.modules)\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(usage.ru_utime + usage.ru_stime, sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(done.stdout)) == 100
    seconds, heavy = done.stderr.split(maxsplit=1)
    assert heavy.strip() == "[]" and float(seconds) < 1.5
    print(f"{seconds} s of processor time for 100 runs")
