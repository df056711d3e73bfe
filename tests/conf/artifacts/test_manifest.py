"""The stage contract: finished or absent, skipped when equal, set aside when different."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts import manifest, records
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.manifest import fingerprint, first_difference, run_shared, run_stage
from ropewalk.conf.errors import ConfigError


def writer(text: str, calls: list[Path] | None = None) -> Any:
    def work(temporary: Path) -> dict[str, Any]:
        (temporary / "part").write_text(text)
        if calls is not None:
            calls.append(temporary)
        return {"text": text}

    return work


def test_stage_is_worked_beside_its_output_and_renamed(tmp_path: Path) -> None:
    calls: list[Path] = []
    result, message = run_stage("lay", {"a": 1}, tmp_path / "out", writer("x", calls))
    assert calls == [tmp_path / "out.tmp"] and not calls[0].exists()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "part"]
    assert message.startswith("lay: done in") and result.facts == {"text": "x"}


def test_manifest_has_stage_fingerprint_content_and_metadata(tmp_path: Path) -> None:
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (record["schema"], record["stage"], record["content"], record["facts"]) == (
        1,
        "lay",
        {"a": 1},
        {"text": "x"},
    )
    assert len(record["fingerprint"]) == 64 and record["seconds"] >= 0
    assert manifest.read(tmp_path / "out") == manifest.Manifest(**record)


@pytest.mark.parametrize(
    "text", ['{"name": "an extension", "version": "3"}', "[1]", '"x"', "{", "\xff"]
)
def test_a_foreign_manifest_is_none_and_its_folder_is_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_bytes(text.encode("latin-1"))
    assert manifest.read(tmp_path / "out") is None
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    assert (tmp_path / "out.unfinished1" / "manifest.json").read_bytes() == text.encode("latin-1")


def test_a_manifest_that_is_renamed_while_it_is_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    real = records.read_json

    def late(path: Path) -> Any:
        path.parent.rename(tmp_path / "elsewhere")
        return real(path)

    monkeypatch.setattr(records, "read_json", late)
    assert manifest.read(tmp_path / "out") is None
    monkeypatch.undo()
    assert manifest.read(tmp_path / "elsewhere" / "part") is None  # a file


def test_manifest_is_the_last_thing_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[str, str, bool]] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        moved.append(
            (Path(source).name, Path(target).name, (tmp_path / "out.tmp" / "part").exists())
        )
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    assert moved[-2:] == [("manifest.json.tmp", "manifest.json", True), ("out.tmp", "out", True)]


def test_equal_settings_skip(tmp_path: Path) -> None:
    calls: list[Path] = []
    first, _ = run_stage("lay", {"a": 1, "b": [2]}, tmp_path / "out", writer("x", calls))
    again, message = run_stage("lay", {"b": [2], "a": 1}, tmp_path / "out", writer("y", calls))
    assert len(calls) == 1 and again == first and "skipped" in message
    assert (tmp_path / "out" / "part").read_text() == "x"


def test_other_settings_set_the_former_aside_and_name_the_key(tmp_path: Path) -> None:
    old, _ = run_stage("lay", {"a": 1, "deep": {"lr": 0.1, "x": 1}}, tmp_path / "out", writer("x"))
    _, message = run_stage(
        "lay", {"a": 1, "deep": {"lr": 0.2, "x": 2}}, tmp_path / "out", writer("y")
    )
    aside = tmp_path / f"out.{old.fingerprint[:8]}"
    assert "deep.lr was 0.1, is 0.2" in message and aside.name in message
    assert (aside / "part").read_text() == "x" and (tmp_path / "out" / "part").read_text() == "y"


def test_former_settings_bring_their_result_back(tmp_path: Path) -> None:
    calls: list[Path] = []
    first, _ = run_stage("lay", {"a": 1}, tmp_path / "out", writer("x", calls))
    second, _ = run_stage("lay", {"a": 2}, tmp_path / "out", writer("y", calls))
    restored, message = run_stage("lay", {"a": 1}, tmp_path / "out", writer("z", calls))
    assert len(calls) == 2 and restored == first and "brought back" in message
    assert (tmp_path / "out" / "part").read_text() == "x"
    assert manifest.read(tmp_path / f"out.{second.fingerprint[:8]}") == second


def test_crash_leaves_nothing_finished(tmp_path: Path) -> None:
    def crash(temporary: Path) -> dict[str, Any]:
        (temporary / "part").write_text("half")
        raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        run_stage("lay", {"a": 1}, tmp_path / "out", crash)
    assert manifest.read(tmp_path / "out") is None and not (tmp_path / "out").exists()


def test_leftovers_of_a_crash_are_not_in_the_next_result(tmp_path: Path) -> None:
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "leftover").write_text("half")
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    assert not (tmp_path / "out" / "leftover").exists()


def crash_after(name: str) -> Any:
    def work(temporary: Path) -> dict[str, Any]:
        (temporary / name).write_text("half")
        raise RuntimeError("power")

    return work


@pytest.mark.parametrize(("content", "resumed"), [({"a": 1}, True), ({"a": 2}, False)])
def test_resumable_stage_finds_its_own_leftovers_only(
    tmp_path: Path, content: Any, resumed: bool
) -> None:
    with pytest.raises(RuntimeError):
        run_stage("lay", {"a": 1}, tmp_path / "out", crash_after("checkpoint"), resumable=True)
    run_stage("lay", content, tmp_path / "out", writer("x"), resumable=True)
    assert (tmp_path / "out" / "checkpoint").exists() is resumed
    assert not (tmp_path / "out" / "content.json").exists()


def test_crash_while_redoing_keeps_the_former_result(tmp_path: Path) -> None:
    old, _ = run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    with pytest.raises(RuntimeError):
        run_stage("lay", {"a": 2}, tmp_path / "out", crash_after("part"))
    assert manifest.read(tmp_path / "out") is None
    assert manifest.read(tmp_path / f"out.{old.fingerprint[:8]}") == old


def test_folder_without_a_manifest_does_not_break_the_end_of_a_stage(tmp_path: Path) -> None:
    """Somebody's own file in the place of the output: kept, and the work of hours is not lost at
    its last step."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    assert (tmp_path / "out" / "part").read_text() == "x"
    assert [p.read_text() for p in tmp_path.rglob("notes")] == ["mine"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b was 1, is 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "b was absent, is 2"),
        ({"a": 1, "b": 2}, {"a": 1}, "b was 2, is absent"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a was [1, 2], is [1, 3]"),
        ({"a": {"b": 1}}, {"a": 5}, 'a was {"b": 1}, is 5'),
    ],
)
def test_first_difference(old: Any, new: Any, message: str | None) -> None:
    assert first_difference(old, new) == message


def test_long_values_are_cut_in_the_message() -> None:
    message = first_difference({"a": list(range(100))}, {"a": []})
    assert message is not None and len(message) < 100


def test_fingerprint_knows_values_not_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert (
        len(
            {
                fingerprint(v)
                for v in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": [1]}, {"a": None}, {})
            }
        )
        == 7
    )


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    manifest.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        manifest.write_json(tmp_path / "x.json", {"a": object()})
    assert manifest.read_json(tmp_path / "x.json") == {"a": 1}


SCRIPT = """
import sys, time
from pathlib import Path
from ropewalk.conf.artifacts.manifest import run_shared

def work(temporary):
    (temporary / "half").touch()
    time.sleep(1.0)
    assert (temporary / "half").exists(), "another run deleted it"
    return {}

print(run_shared("lay", {"a": 1}, Path(sys.argv[1]), work)[1])
"""


def test_two_runs_that_share_a_cache_make_a_part_once(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "out")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    messages = sorted(process.communicate(timeout=60)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("done in" in text for text in messages) == 1
    assert sum("skipped" in text for text in messages) == 1


def test_a_shared_part_is_made_again_after_its_maker_was_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "out")])
    while not (tmp_path / "out.tmp" / "half").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert "done in" in run_shared("lay", {"a": 1}, tmp_path / "out", writer("x"))[1]


def test_two_commands_in_one_run_are_refused(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="name is demo; another ropewalk is at work")
    with lock_or_refuse(tmp_path / "demo"), refused, lock_or_refuse(tmp_path / "demo"):
        pass
    with lock_or_refuse(tmp_path / "demo"):
        pass


def test_a_null_that_disappears_is_a_difference() -> None:
    assert first_difference({"a": 1, "b": None}, {"a": 1}) == "b was null, is absent"
    assert first_difference({"a": 1}, {"a": 1, "b": None}) == "b was absent, is null"


def test_a_stage_is_finished_with_its_own_content_only(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert not manifest.is_finished("lay", {"a": 1}, output)
    run_stage("lay", {"a": 1}, output, writer("x"))
    assert manifest.is_finished("lay", {"a": 1}, output)
    assert not manifest.is_finished("lay", {"a": 2}, output)
    run_stage("lay", {"a": 2}, output, writer("y"))
    assert manifest.is_finished("lay", {"a": 1}, output)  # set aside


def test_a_manifest_lists_the_digest_of_each_file_and_is_signed(tmp_path: Path) -> None:
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert record["files"] == {"part": hashlib.sha256(b"x").hexdigest()}
    digest = record.pop("digest")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "edit", "aside"),
    [
        ("part", lambda text: "y", "out.damaged1"),
        ("part", lambda text: "", "out.damaged1"),
        ("manifest.json", lambda text: text.replace('"a": 1', '"a": 2'), "out.unfinished1"),
        ("manifest.json", lambda text: text[:-9], "out.unfinished1"),
    ],
)
def test_a_damaged_result_is_kept_aside_told_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, edit: Any, aside: str
) -> None:
    output = tmp_path / "out"
    run_stage("lay", {"a": 1}, output, writer("x"))
    damaged = edit((output / name).read_text())
    (output / name).write_text(damaged)
    assert manifest.finished(output) is None
    assert not manifest.is_finished("lay", {"a": 1}, output)
    assert "done in" in run_stage("lay", {"a": 1}, output, writer("x"))[1]
    assert (output / "part").read_text() == "x" and manifest.finished(output) is not None
    assert (tmp_path / aside / name).read_text() == damaged
    assert re.fullmatch(rf"lay: {output} .*; moved to {aside}\n", capsys.readouterr().out)
    assert "skipped" in run_stage("lay", {"a": 1}, output, writer("x"))[1]


def test_a_damaged_result_that_was_set_aside_is_not_brought_back(tmp_path: Path) -> None:
    output = tmp_path / "out"
    old, _ = run_stage("lay", {"a": 1}, output, writer("x"))
    run_stage("lay", {"a": 2}, output, writer("y"))
    (tmp_path / f"out.{old.fingerprint[:8]}" / "part").write_text("z")
    assert "done in" in run_stage("lay", {"a": 1}, output, writer("x"))[1]
    assert (output / "part").read_text() == "x"


def test_parts_that_verify_themselves_are_taken_from_a_damaged_result(tmp_path: Path) -> None:
    """From the result, and from a workspace whose own record is damaged."""
    output, content = tmp_path / "out", {"a": 1}

    def reuse(damaged: Path, temporary: Path) -> None:
        (damaged / "checkpoint").rename(temporary / "checkpoint")

    def work(temporary: Path) -> dict[str, Any]:
        checkpoint = temporary / "checkpoint"
        checkpoint.write_text(checkpoint.read_text() + "+" if checkpoint.exists() else "0")
        (temporary / "part").write_text("x")
        return {}

    kwargs: dict[str, Any] = {"resumable": True, "reuse": reuse, "names": ["part"]}
    run_stage("lay", content, output, work, **kwargs)
    (output / "part").write_text("y")
    run_stage("lay", content, output, work, **kwargs)
    assert (output / "checkpoint").read_text() == "0+"
    with pytest.raises(RuntimeError):
        run_stage("lay", {"a": 3}, output, crash_after("checkpoint"), resumable=True)
    (tmp_path / "out.tmp" / "content.json").write_text("{}")
    run_stage("lay", {"a": 3}, output, work, **kwargs)
    assert (output / "checkpoint").read_text().endswith("+")
    assert (tmp_path / "out.tmp.damaged1").is_dir()


def test_names_outside_the_manifest_may_change(tmp_path: Path) -> None:
    run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"), names=["other"])
    (tmp_path / "out" / "part").write_text("y")
    assert "skipped" in run_stage("lay", {"a": 1}, tmp_path / "out", writer("x"))[1]


def test_the_seconds_are_those_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(manifest.time, "monotonic", lambda: now[0])

    def work(folder: Path) -> dict[str, Any]:
        now[0] += 2.5
        return {}

    result, message = run_stage("lay", {"a": 1}, tmp_path / "out", work)
    assert result.seconds == 2.5 and message == "lay: done in 2.5 s"
