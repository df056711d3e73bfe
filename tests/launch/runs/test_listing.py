"""`ropewalk runs`: the state of runs whose files the pipeline's own writers wrote, locks that other
processes hold, and folders that are no runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.locks import lock_of, lock_path
from ropewalk.conf.artifacts.records import signed, write_json
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.check.line import Line, as_json
from ropewalk.launch.cli import main
from ropewalk.launch.environment import disks
from ropewalk.launch.runs import listing
from ropewalk.launch.runs.reading import Row
from ropewalk.train.checkpoint import storage
from ropewalk.train.launcher import failure
from ropewalk.train.results import METRICS_FILE

COMMAND = "ropewalk run recipe=demo name=first data.sources.books.path=PATH"
HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""
LOOK = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
time.sleep(0.05)
"""
CONTENT = {"train": {"steps": 40}, "inputs": {}}


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's writers sync each file, which a busy disk takes seconds for."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def begin(runs: Path, name: str = "first", command: str = COMMAND) -> Path:
    """A run after its rope stage."""
    run = runs / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: first\ndata: {sources: {books: {path: ./my books}}}\n")
    write_json(run / "rope.json", {})
    write_json(run / "manifest.json", signed({"name": name, "command": command, "stages": {}}))
    return run


def finish(run: Path, *stages: str) -> None:
    for stage in stages:
        content = _of_page(run) if stage == "report" else CONTENT
        manifest.run_stage(stage, content, run / stage, lambda _: {})


def _of_page(run: Path) -> dict[str, Any]:
    made = {name: manifest.read(run / name) for name in ("data", "train", "eval")}
    return {"inputs": {name: result.fingerprint for name, result in made.items() if result}}


def line(step: int, **more: object) -> str:
    return json.dumps({"step": step, "loss": 3 - step / 100, "step_time_s": float(step), **more})


def train_to(run: Path, steps: int, folder: str = "train.tmp") -> Path:
    """A training of 40 steps that did `steps`."""
    temporary = manifest.workspace(run / "train", CONTENT, resumable=True)
    text = "".join(f"{line(step)}\n" for step in range(1, steps + 1))
    (temporary / METRICS_FILE).write_text(text)
    return temporary


def save(temporary: Path, step: int) -> None:
    """A complete checkpoint, as rank 0 publishes it."""
    name = storage.checkpoint_name(step)
    folder = temporary / "checkpoints" / f"{name}.tmp"
    folder.mkdir(parents=True)
    write_json(
        folder / "rank-0.json",
        {"asked": [], "files": {"model_states.pt": {"bytes": 1, "sha256": ""}}},
    )
    (folder / "model_states.pt").write_text("x")
    storage.publish(
        folder.parent, name, {"step": step, "world_size": 1, "zero_stage": 0, "content": {}}
    )


def end(temporary: Path, exit_code: int, error: str) -> None:
    note = {"rank": 3, "host": "node-b", "exit_code": exit_code, "error": error}
    failure.leave_note(note, temporary)


def only(runs: Path) -> Row:
    (row,) = listing.rows(str(runs))
    return row


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder with its content and times, the locks beside runs too."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(p): (p.lstat().st_mtime_ns, p.lstat().st_ino, p.read_bytes() if p.is_file() else b"")
        for p in paths
    }


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """Lets another process hold the lock of a folder until it is killed."""
    processes = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        lock_of(folder)
        script = HOLD
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(lock_path(folder))],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()


def test_a_run_after_its_rope_stage_was_interrupted(tmp_path: Path) -> None:
    begin(tmp_path)
    row = only(tmp_path)
    assert (row["name"], row["state"], row["stage"]) == ("first", "interrupted", "data")
    assert (row["step"], row["loss"], row["checkpoint"], row["left_s"]) == (None, None, None, None)


def test_a_killed_training_tells_step_loss_and_checkpoint(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    temporary = train_to(run, 30)
    save(temporary, 20)
    save(temporary, 28)
    (temporary / "checkpoints" / "step-00000030.tmp").mkdir()
    row = only(tmp_path)
    assert (row["state"], row["stage"], row["step"], row["steps"]) == (
        "interrupted",
        "train",
        30,
        40,
    )
    assert row["loss"] == 3 - 30 / 100 and row["checkpoint"] == "step-00000028"
    assert row["step_time_s"] == median(range(11, 31)) and row["left_s"] is None


def test_a_run_is_running_while_a_process_holds_its_lock(tmp_path: Path, holder: Any) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    train_to(run, 10)
    process = holder(run)
    assert (only(tmp_path)["state"], only(tmp_path)["next"]) == ("running", "")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert only(tmp_path)["state"] == "interrupted"
    holder(run / "train.tmp")  # ranks that outlive their command, for a moment
    row = only(tmp_path)
    assert (row["state"], row["stage"]) == ("running", "train")
    assert row["left_s"] == 30 * median(range(1, 11))


def test_a_look_lets_a_run_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that starts while a look asks for the lock waits for a moment, and goes on."""
    from ropewalk.conf.artifacts import locks

    run = begin(tmp_path)
    lock_path(run).touch()
    script = LOOK
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(lock_path(run))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    monkeypatch.setattr(locks, "LOOK_S", 60)
    with locks.lock_or_refuse(run):
        assert locks.is_held(run)
    assert locks.is_held(run) is False
    process.wait()


def test_an_unreadable_lock_is_no_state(tmp_path: Path) -> None:
    run = begin(tmp_path)
    os.symlink("nowhere", lock_path(run))
    row = only(tmp_path)
    assert row["state"] == "unknown" and "lock cannot be read" in row["reason"]


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (75, "stopped", ""),
        (1, "failed", "rank 3 on node-b: CUDA out of memory"),
        (3, "failed", "rank 3 on node-b: CUDA out of memory"),
    ],
)
def test_the_note_of_the_rank_that_ended_first_says_how(
    tmp_path: Path, code: int, state: str, reason: str
) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    end(train_to(run, 5), code, "CUDA out\n of memory")
    assert (only(tmp_path)["state"], only(tmp_path)["reason"]) == (state, reason)


def test_a_failed_evaluation_has_its_note(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data", "train")
    (run / "eval.tmp").mkdir()
    end(run / "eval.tmp", 1, "no memory")
    row = only(tmp_path)
    assert (row["state"], row["stage"]) == ("failed", "eval")
    assert row["reason"] == "rank 3 on node-b: no memory"


def test_a_finished_run_has_its_page_and_what_follows(tmp_path: Path) -> None:
    run = begin(tmp_path, command="ropewalk run recipe=demo")
    finish(run, "data", "train", "eval", "report")
    (run / "report" / "index.html").write_text("")
    row = only(tmp_path)
    assert (row["state"], row["stage"], row["steps"]) == ("finished", "report", 40)
    assert row["report"] == str(run / "report" / "index.html")
    assert row["next"] == f"ropewalk export recipe=demo runs_dir={tmp_path}"


def test_a_page_of_a_former_evaluation_is_told_until_it_is_written_anew(tmp_path: Path) -> None:
    """By another `ropewalk eval`, which writes no page; its record is the last command's."""
    run = begin(tmp_path, command="ropewalk eval recipe=demo eval.windows=4")
    finish(run, "data", "train", "eval", "report")
    (run / "report" / "index.html").write_text("")
    assert only(tmp_path)["reason"] == ""
    manifest.run_stage("eval", CONTENT | {"eval": {"windows": 4}}, run / "eval", lambda _: {})
    row = only(tmp_path)
    assert (row["state"], row["stage"]) == ("finished", "eval")
    assert row["reason"] == "the page is of a former evaluation"
    assert row["next"] == f"ropewalk report recipe=demo eval.windows=4 runs_dir={tmp_path}"
    assert "reason: the page is of a former evaluation" in listing.as_text("", [row])
    finish(run, "report")
    assert (only(tmp_path)["reason"], only(tmp_path)["stage"]) == ("", "report")


def test_an_evaluation_of_a_former_training_belongs_on_no_page(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data", "train")
    before = {"inputs": {"train": "of a training set aside"}}
    manifest.run_stage("eval", before, run / "eval", lambda _: {})
    manifest.run_stage("report", _of_page(run) | before, run / "report", lambda _: {})
    assert only(tmp_path)["reason"] == "the page is of a former training"
    finish(run, "report")
    assert only(tmp_path)["reason"] == ""


@pytest.mark.parametrize(
    ("verb", "stages", "following"),
    [
        ("rope", [], "data"),
        ("data", ["data"], "train"),
        ("train", ["data", "train"], "eval"),
        ("eval", ["data", "train", "eval"], "report"),
    ],
)
def test_the_next_command_is_the_first_stage_that_is_not_done(
    tmp_path: Path, verb: str, stages: list[str], following: str
) -> None:
    run = begin(tmp_path, command=f"ropewalk {verb} recipe=demo 'eval.tasks=[passkey, ruler]'")
    finish(run, *stages)
    row = only(tmp_path)
    expected = f"ropewalk {following} recipe=demo 'eval.tasks=[passkey, ruler]' runs_dir={tmp_path}"
    assert (row["state"], row["next"]) == ("finished", expected)


def test_models_alone_are_measured_without_a_training(tmp_path: Path) -> None:
    run = begin(tmp_path, command="ropewalk eval recipe=demo")
    (run / "config.yaml").write_text("eval: {run_models: false}\n")
    finish(run, "data", "eval")
    row = only(tmp_path)
    assert row["state"] == "finished" and row["next"].startswith("ropewalk report recipe=demo")
    finish(run, "report")
    assert only(tmp_path)["next"] == ""


def test_folders_that_the_record_leaves_out_come_from_the_frozen_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    (row,) = listing.rows("")
    assert row["next"] == "ropewalk run recipe=demo name=first 'data.sources.books.path=./my books'"


def test_a_renamed_folder_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "runs").rename(tmp_path / "runs" / "second")
    monkeypatch.chdir(tmp_path)
    assert listing.rows("")[0]["next"].endswith(" name=second")


def test_the_first_unfinished_phase_is_shown(tmp_path: Path) -> None:
    run = begin(tmp_path)
    finish(run, "data")
    for name in ("1-short", "2"):
        (run / "phases" / name).mkdir(parents=True)
    train_to(run / "phases" / "1-short", 7)
    row = only(tmp_path)
    assert (row["phase"], row["stage"], row["step"]) == ("1/3 (short)", "train", 7)
    finish(run / "phases" / "1-short", "train")
    train_to(run / "phases" / "2", 3)
    assert (only(tmp_path)["phase"], only(tmp_path)["step"]) == ("2/3", 3)
    finish(run / "phases" / "2", "train")
    assert (only(tmp_path)["phase"], only(tmp_path)["step"]) == ("3/3", None)
    finish(run, "train", "eval", "report")
    assert (only(tmp_path)["phase"], only(tmp_path)["state"]) == ("3/3", "finished")


def test_a_stage_that_was_made_anew_and_cut_is_unfinished(tmp_path: Path) -> None:
    """The former result lies aside; the verb of the record ended long ago."""
    run = begin(tmp_path, command="ropewalk train recipe=demo")
    finish(run, "data", "train")
    (run / "eval.tmp").mkdir()
    assert (only(tmp_path)["state"], only(tmp_path)["stage"]) == ("interrupted", "eval")


def test_a_self_test_that_failed_is_the_reason(tmp_path: Path) -> None:
    """`ropewalk check` leaves it, alone or before the training that it forbids."""
    lines = [Line.judged("disk", False, "1 GiB", "2 GiB", "make room")]
    lines += [Line.judged("memory", True, "2 GiB", "1 GiB", ""), Line.skipped("GPU", "none")]
    run = begin(tmp_path)
    (run / "check").mkdir()
    write_json(run / "check" / "check.json", as_json(lines, {}))
    row = only(tmp_path)
    expected = "the self-test failed: disk (check/check.json)"
    assert (row["state"], row["reason"]) == ("interrupted", expected)
    train_to(run, 3)  # with check=off
    assert only(tmp_path)["reason"] == ""
    for name in ("config.yaml", "manifest.json", "rope.json"):
        (run / name).unlink()
    assert "no config.yaml; a self-test is in check/" in only(tmp_path)["reason"]


def test_on_a_disk_of_other_machines_their_processes_may_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:30 / {tmp_path} rw shared:1 - nfs4 filer:/home rw\n")
    monkeypatch.setattr(disks, "mounted", partial(disks.mounted, mounts=mounts))
    row = listing.rows(str(tmp_path))[0]
    assert row["state"] == "interrupted" and "network's disk" in row["reason"]


# -- hostile folders


def test_only_the_end_of_a_gigabyte_of_metrics_is_read(tmp_path: Path) -> None:
    run = begin(tmp_path)
    temporary = train_to(run, 1)
    with (temporary / METRICS_FILE).open("r+b") as file:
        file.truncate(1 << 30)  # a hole
        file.seek(0, os.SEEK_END)
        file.write(f"\n{line(38)}\n{line(39)}\n".encode())
        file.write(b'{"step": 40, "lo')
    started = time.process_time()
    row = only(tmp_path)
    assert time.process_time() - started < 0.5
    assert (row["step"], row["loss"], row["reason"]) == (39, 3 - 39 / 100, "")
    with (temporary / METRICS_FILE).open("ab") as file:
        file.write(b"\n")
    assert only(tmp_path)["reason"] == "a line at the end of metrics.jsonl is damaged"


def test_a_long_line_is_read_in_full(tmp_path: Path) -> None:
    run = begin(tmp_path)
    temporary = train_to(run, 2)
    with (temporary / METRICS_FILE).open("a") as file:
        file.write(f"{line(3, sequences=list(range(100_000)))}\n")
    row = only(tmp_path)
    assert (row["step"], row["step_time_s"]) == (3, 2.0)


def test_a_step_whose_batch_was_left_out_has_no_loss(tmp_path: Path) -> None:
    run = begin(tmp_path)
    temporary = train_to(run, 2)
    with (temporary / METRICS_FILE).open("a") as file:
        file.write(json.dumps({"step": 3, "event": "skip", "why": "loss is nan"}) + "\n")
    assert (only(tmp_path)["step"], only(tmp_path)["loss"]) == (3, 3 - 2 / 100)


def damage_manifest(run: Path) -> None:
    (run / "manifest.json").write_text('{"name": "fir')


def edit_manifest(run: Path) -> None:
    record = json.loads((run / "manifest.json").read_text())
    write_json(run / "manifest.json", record | {"command": "rm -rf ."})


def foreign_files(run: Path) -> None:
    (run / "config.yaml").unlink()
    (run / "photo.jpg").write_bytes(b"\xff\xd8")


def pipes(run: Path) -> None:
    for name in ("manifest.json", "config.yaml"):
        (run / name).unlink()
        os.mkfifo(run / name)


def other_manifest(run: Path) -> None:
    write_json(run / "manifest.json", signed({"command": ["rm"], "name": 4}))
    (run / "config.yaml").write_text(": {")


def other_content(run: Path) -> None:
    (run / "train.tmp").mkdir()
    write_json(run / "train.tmp" / "content.json", signed({"content": [1]}))


def other_note(run: Path) -> None:
    (run / "train.tmp").mkdir()
    write_json(run / "train.tmp" / "ended.json", {"rank": 0})


def other_checkpoint(run: Path) -> None:
    folder = run / "train.tmp" / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    write_json(folder / "complete.json", {"schema": 1})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_manifest, "manifest.json is not what ropewalk wrote"),
        (edit_manifest, "manifest.json is not what ropewalk wrote"),
        (foreign_files, "no run: it has no config.yaml"),
        (pipes, "no run: it has no config.yaml"),
        (other_manifest, "config.yaml is no YAML"),
        (other_content, "a file is not what ropewalk wrote"),
        (other_note, "a file is not what ropewalk wrote"),
        (other_checkpoint, "a file is not what ropewalk wrote"),
    ],
)
def test_a_broken_run_is_a_row_with_its_reason(tmp_path: Path, damage: Any, reason: str) -> None:
    begin(tmp_path, "whole")
    damage(begin(tmp_path, "broken"))
    rows = {row["name"]: row for row in listing.rows(str(tmp_path))}
    assert (rows["broken"]["state"], rows["broken"]["next"]) == ("broken", "")
    assert reason in rows["broken"]["reason"] and rows["whole"]["state"] == "interrupted"


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as a user whom no right keeps out."""
    begin(tmp_path)
    read = Path.read_text

    def refuse(path: Path, *arguments: Any, **kwargs: Any) -> str:
        if path.name == "manifest.json":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert only(tmp_path)["reason"] == "manifest.json cannot be read: Permission denied"


def test_links_and_files_among_the_runs(tmp_path: Path) -> None:
    begin(tmp_path)
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    os.symlink(tmp_path / "gone", tmp_path / "dangling")
    os.symlink(tmp_path, tmp_path / "itself")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / os.fsdecode(b"\xff\n")).mkdir()
    rows = {row["name"]: row["reason"] for row in listing.rows(str(tmp_path))}
    assert rows.pop("first") == ""
    assert [rows[name] for name in ("loop", "dangling")] == ["a link that leads nowhere"] * 2
    assert rows["itself"] == "no run: it has no config.yaml" and len(rows) == 4
    text = listing.as_text("", listing.rows(str(tmp_path)))
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_a_look_changes_nothing(tmp_path: Path, holder: Any) -> None:
    """Also no lock is made, and no time of a file moves."""
    run = begin(tmp_path)
    finish(run, "data")
    save(train_to(run, 30), 20)
    begin(tmp_path, "second")
    holder(run)
    before = snapshot(tmp_path)
    main(["runs", str(tmp_path)])
    main(["runs", str(tmp_path), "--json"])
    assert snapshot(tmp_path) == before


# -- the command


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
