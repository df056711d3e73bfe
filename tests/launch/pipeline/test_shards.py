"""`ropewalk data --shard I/N` and `--merge`: the same bytes as `ropewalk data`; refusals."""

import re
from pathlib import Path

import pytest
from stores import content_of, texts

from ropewalk.data.tokens import shards
from ropewalk.launch.cli import main

RECIPE = """\
# @package _global_
defaults: [{override /rope: yarn}]
name: tiny
model:
  scratch: {vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
            num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 64}
rope: {factor: 4}
data: {seq_len: 256, heldout_share: 0.2, sources: {books: {path: ./books}, notes: {path: ./notes}}}
train: {steps: 1, optimizer: {lr: 1.0e-3}}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two sources, of three shards and of one."""
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "tiny.yaml").write_text(RECIPE)
    texts(tmp_path / "books", [1500, 900, 1900, 2500])
    texts(tmp_path / "notes", [700, 200])
    monkeypatch.setattr(shards, "SHARD_BYTES", 3000)
    monkeypatch.setattr("ropewalk.data.sources.units.UNIT_BYTES", 1)
    monkeypatch.chdir(tmp_path)
    return ["data", "recipe=tiny", "--config-dir", str(tmp_path / "conf")]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and "Traceback" not in captured.err
    return captured.err


def test_four_shard_commands_and_a_merge_equal_one_command(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main([*tiny, "cache_dir=single", "runs_dir=single_runs"])
    capsys.readouterr()
    for task in ("2/4", "0/4", "3/4"):
        main([*tiny, "cache_dir=cache", "--shard", task])
    captured = capsys.readouterr().out.splitlines()
    assert [line for line in captured if line.startswith("shard ")] == [
        "shard 2/4: books/00002",
        "shard 0/4: books/00000",
        "shard 3/4: notes/00000",
    ]
    assert not Path("runs").exists()  # so that tasks do not wait for one another
    error = refused(capsys, *tiny, "cache_dir=cache", "--merge")
    message = r"^--merge lacks shards books/00001; all must be there; make them with \S"
    assert re.search(message, error, re.M)
    main([*tiny, "cache_dir=cache", "--shard", "1/4"])
    main([*tiny, "cache_dir=cache", "--merge"])
    assert capsys.readouterr().out.splitlines()[-1] == "wrote runs/tiny/data/ledger.json"
    assert content_of(Path("cache")) == content_of(Path("single"))
    assert content_of(Path("runs/tiny/data")) == content_of(Path("single_runs/tiny/data"))


def test_a_damaged_shard_is_not_merged(capsys: pytest.CaptureFixture[str], tiny: list[str]) -> None:
    main([*tiny, "cache_dir=cache", "--shard", "0/1"])
    (file,) = Path("cache").rglob("00001/tokens.bin")
    file.write_bytes(file.read_bytes()[::-1])
    head, line = refused(capsys, *tiny, "cache_dir=cache", "--merge").splitlines()
    assert head == "data:"
    assert re.fullmatch(rf"{file} has sha256 .*; delete {file.parent} and run again", line)


def test_all_missing_shards_are_named_and_only_twenty_of_many(
    capsys: pytest.CaptureFixture[str], tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(capsys, *tiny, "cache_dir=cache", "--merge")
    assert "lacks shards books/00000, books/00001, books/00002, notes/00000; " in error
    texts(Path("more"), [10] * 25)
    monkeypatch.setattr(shards, "SHARD_BYTES", 10)
    error = refused(capsys, *tiny, "data.sources.books.path=more", "cache_dir=cache", "--merge")
    assert "books/00019 and 7 more; " in error and "00020" not in error
    assert not list(Path("cache").rglob("tokens.bin"))


def test_a_command_without_flags_makes_the_missing_shards(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main([*tiny, "cache_dir=cache", "--shard", "0/2"])
    mtimes = {p.parent.name: p.stat().st_mtime_ns for p in Path("cache").rglob("tokens.bin")}
    assert sorted(mtimes) == ["00000", "00002"]
    capsys.readouterr()
    main([*tiny, "cache_dir=cache"])
    pattern = r"^tokens of (\w+), shard (\d+) of \d: done"
    shard_names = re.findall(pattern, capsys.readouterr().out, re.M)
    assert shard_names == [("books", "00001"), ("notes", "00000")]
    (books,) = (p.parents[1] for p in Path("cache").rglob("00002/tokens.bin"))
    assert {name: (books / name / "tokens.bin").stat().st_mtime_ns for name in mtimes} == mtimes


def test_an_impossible_task_is_refused_before_a_source_is_read(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    error = refused(capsys, *tiny, "data.sources.books.path=nowhere", "--shard", "4/4")
    assert error.splitlines() == [
        "config error:",
        "--shard is 4/4; i must be below n, tasks are counted from 0; the last is 3/4",
    ]
    assert "not allowed with" in refused(capsys, *tiny, "--shard", "0/4", "--merge")


@pytest.mark.parametrize("arguments", [["--export", "out"], ["--json"], ["--show", "2"]])
def test_flags_without_effect_on_a_task_are_refused(
    capsys: pytest.CaptureFixture[str], tiny: list[str], arguments: list[str]
) -> None:
    error = refused(capsys, *tiny, "--shard", "0/4", *arguments)
    assert f"not allowed with {arguments[0]}" in error
    assert not Path("cache").exists()
