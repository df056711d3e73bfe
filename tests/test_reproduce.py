"""`ropewalk reproduce` and `pack` on a real training: run again, refused, packed."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from commands import ENV, command, corpus, ropewalk

SHORT = ["train.steps=2", "train.global_batch_tokens=1024", "data.total_tokens=20000"]
PATHS = ("data.sources.stdlib.path", "cache_dir", "runs_dir")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus and one finished training."""
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    ropewalk(folder, "train", *SHORT, "name=first")
    return folder


def call(work: Path, *words: str, code: int = 0) -> tuple[str, str]:
    """Output and errors of `ropewalk WORDS`."""

    arguments = [sys.executable, "-m", "ropewalk.launch.cli", *words]
    done = subprocess.run(arguments, env=ENV, cwd=work, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def names(work: Path) -> set[str]:
    return {path.name for path in (work / "runs").iterdir()}


def test_a_rerun_is_bit_identical_by_other_means_too(work: Path) -> None:
    output, _ = call(work, "reproduce", "runs/first", "--json")
    answer = json.loads(output)
    assert (answer["answer"], answer["first_difference"]) == ("bit-identical", None)
    assert answer["environment"] == []
    first, again = work / "runs" / "first", work / "runs" / "first-reproduced"
    assert json.loads((again / "reproduction.json").read_text()) == answer
    file = Path("train") / "model" / "model.safetensors"
    assert (first / file).read_bytes() == (again / file).read_bytes()
    assert (first / file).stat().st_ino != (again / file).stat().st_ino  # not a link
    assert list((again / "cache" / "tokens").iterdir())  # its own: nothing was read from the first


def test_another_setting_is_told_and_nothing_runs(work: Path) -> None:
    before = names(work)
    words = ["reproduce", "runs/first/manifest.json", "train.optimizer.lr=2e-3", "name=other"]
    _, error = call(work, *words, code=3)
    assert "different, first difference settings: train.optimizer.lr was 0.001, is 0.002" in error
    assert names(work) == before


def test_documents_that_changed_are_named_before_anything_runs(work: Path) -> None:
    before = names(work)
    file = work / "corpus" / "json" / "decoder.py"
    content = file.read_bytes()
    file.write_bytes(content + b"# one more line\n")
    try:
        _, error = call(work, "reproduce", "runs/first", "name=other", code=2)
    finally:
        file.write_bytes(content)
    assert "data.sources.stdlib has another content: json/decoder.py is another (sha256)" in error
    assert names(work) == before


def test_another_seed_without_a_spread_is_refused_before_anything_runs(work: Path) -> None:
    before = names(work)
    _, error = call(work, "reproduce", "runs/first", "seed=1", "--seeds", "1", code=2)
    assert "seed is 1, another than the manifest's" in error and "--seeds 2" in error
    assert names(work) == before


def test_the_run_itself_is_no_rerun(work: Path) -> None:
    _, error = call(work, "reproduce", "runs/first", "name=first", code=2)
    assert "this is the run itself" in error


@pytest.fixture(scope="module")
def pack(work: Path) -> Path:
    assert call(work, "pack", "runs/first") == ("wrote first.tar\n", "")
    return work / "first.tar"


def test_a_pack_has_the_same_bytes_each_time_and_no_path(work: Path, pack: Path) -> None:
    call(work, "pack", "runs/first", "--output", "again.tar")
    assert (work / "again.tar").read_bytes() == pack.read_bytes()
    assert str(work).encode() not in pack.read_bytes()
    with tarfile.open(pack) as archive:
        members = {member.name: member for member in archive}
    assert {"manifest.json", "rope.json", "recipe/first.yaml", "packages.txt"} <= set(members)
    assert {"data/ledger.json", "train/metrics.jsonl"} <= set(members)
    assert not [name for name in members if name.endswith(".safetensors")]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members.values()} == {(0, 0, 0, "")}


def test_a_pack_asks_for_the_folders_that_it_leaves_out(work: Path, pack: Path) -> None:
    _, error = call(work, "reproduce", "first.tar", code=2)
    key = "data.sources.stdlib.path"
    assert error.splitlines()[1:] == [
        f"{key} is not in the manifest; it leaves the user's folders out; add {key}=FOLDER"
    ]
    words = [f"{key}={work / 'corpus'}", "runs_dir=elsewhere", "--dry-run"]
    output, _ = call(work, "reproduce", "first.tar", *words)
    assert "are those of the manifest" in output and not (work / "elsewhere").exists()


def test_the_recipe_of_a_pack_composes_to_the_same_settings(work: Path, pack: Path) -> None:
    with tarfile.open(pack) as archive:
        archive.extractall(work / "unpacked", filter="data")
    places = [word for word in command(work, "run") if word.startswith(PATHS)]
    config = ["--config-dir", "unpacked", "--cfg", "job"]
    output, _ = call(work, "train", "recipe=first", *places, *config)
    own = (work / "runs" / "first" / "config.yaml").read_text()
    assert [x for x in output.splitlines() if x] == [x for x in own.splitlines() if x]


@pytest.mark.slow
def test_another_seed_is_equal_within_the_spread_of_further_seeds(work: Path) -> None:
    """Five trainings. The spread is held against the losses that the runs wrote."""
    words = ["reproduce", "runs/first", "seed=7", "--seeds", "2", "--json"]
    answer: Any = json.loads(call(work, *words)[0])
    assert answer["answer"] == "equal within the seed spread"
    (spread,) = answer["seed_spread"]
    losses = [
        last_loss(work, name)
        for name in ("first", "first-reproduced-seed1", "first-reproduced-seed2")
    ]
    assert spread["mean"] == pytest.approx(sum(losses) / 3) and spread["n"] == 3
    assert spread["value"] == pytest.approx(last_loss(work, "first-reproduced-seed7"))


def last_loss(work: Path, name: str) -> float:
    text = (work / "runs" / name / "train" / "metrics.jsonl").read_text()
    return float(json.loads(text.splitlines()[-1])["loss"])
