"""Damaged runs, foreign folders and large files are rows with a reason, and stay as they are."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    begin,
    finish,
    line,
    only,
    save,
    snapshot,
    train_to,
)

from ropewalk.conf.artifacts.records import signed, write_json
from ropewalk.launch.cli import main
from ropewalk.launch.runs import listing
from ropewalk.train.results import METRICS_FILE


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
